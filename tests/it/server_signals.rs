//! Signals of the embedded server: which listeners get a signal, in which order they get signals, and what happens to a
//! listener that does not read.

use std::time::{Duration, Instant};

use crate::support::raw::{Heard, RawConnection};
use crate::support::until;
use dflockd_client::Client;
use dflockd_client::server::{Server, ServerBuilder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const SOON: Duration = Duration::from_secs(10);

/// How long a test waits to see that no line comes.
const A_WHILE: Duration = Duration::from_millis(150);

async fn start(builder: ServerBuilder) -> (Server, String) {
    let server = builder.release("1.16").port(0).start().await.unwrap();
    let address = server.local_addr().to_string();
    (server, address)
}

async fn listening(address: &str, pattern: &str) -> RawConnection {
    let mut connection = RawConnection::open(address).await;
    assert_eq!(connection.request("listen", pattern, "").await, "ok");
    connection
}

fn line(text: &str) -> Heard {
    Heard::Line(text.to_owned())
}

#[tokio::test]
async fn the_longest_payload_passes_and_a_longer_one_is_refused() {
    let (_server, address) = start(Server::builder()).await;
    let mut subscriber = listening(&address, "big").await;
    let mut publisher = RawConnection::open(&address).await;
    let most = 64 * 1024 - "sig big ".len();
    for payload in ["x".repeat(most), "ü".repeat(most / 2)] {
        assert_eq!(publisher.request("signal", "big", &payload).await, "ok 1");
        assert_eq!(subscriber.hear(SOON).await, line(&format!("sig big {payload}")));
        // Here the listener itself emits. It gets the answer before the signal.
        assert_eq!(subscriber.request("signal", "big", &payload).await, "ok 1");
        assert_eq!(subscriber.hear(SOON).await, line(&format!("sig big {payload}")));
    }
    assert_eq!(
        publisher.request("signal", "big", &"x".repeat(most + 1)).await,
        "error",
        "the channel and the payload do not fit into a line"
    );
    assert_eq!(publisher.request("signal", "big", "short").await, "ok 1");
    assert_eq!(subscriber.hear(SOON).await, line("sig big short"));
    publisher
        .send(&format!("signal\nbig\n{}\n", "x".repeat(64 * 1024 + 1)))
        .await;
    assert_eq!(publisher.hear(SOON).await, line("error"));
    assert_eq!(publisher.hear(SOON).await, Heard::Closed, "the line is too long");
}

#[tokio::test]
async fn channels_groups_and_payloads_may_be_any_text() {
    let (server, address) = start(Server::builder()).await;
    let mut subscriber = RawConnection::open(&address).await;
    assert_eq!(subscriber.request("listen", "größe.*", "bücher").await, "ok");
    let mut publisher = RawConnection::open(&address).await;
    assert_eq!(publisher.request("signal", "größe.漢字", " 🔒 é\tü ").await, "ok 1");
    assert_eq!(subscriber.hear(SOON).await, line("sig größe.漢字  🔒 é\tü "));
    let told = &server.stats().signal_channels[0];
    assert_eq!(
        (told.pattern.as_str(), told.group.as_deref()),
        ("größe.*", Some("bücher"))
    );
}

#[tokio::test]
async fn signals_and_answers_come_in_the_order_of_their_events() {
    let (_server, address) = start(Server::builder()).await;
    let mut connection = listening(&address, "a").await;
    connection
        .send("signal\na\n1\nping\n_\n_\nsignal\na\n2\nunlisten\na\n\nsignal\na\n3\n")
        .await;
    for expected in ["ok 1", "sig a 1", "ok", "ok 1", "sig a 2", "ok", "ok 0"] {
        assert_eq!(connection.hear(SOON).await, line(expected));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_comes_after_the_answer_to_an_unlisten() {
    // The buffer is large, so that the listener loses no signal if the machine is busy.
    let (_server, address) = start(Server::builder().signal_buffer(100_000)).await;
    let mut subscriber = RawConnection::open(&address).await;
    let mut publisher = RawConnection::open(&address).await;
    let flood = tokio::spawn(async move {
        loop {
            publisher.request("signal", "a", "x").await;
        }
    });
    for round in 0..50 {
        assert_eq!(subscriber.request("listen", "a", "").await, "ok");
        assert_eq!(subscriber.hear(SOON).await, line("sig a x"), "round {round}");
        subscriber.send("unlisten\na\n\nping\n_\n_\n").await;
        let mut answers = 0;
        while answers < 2 {
            match subscriber.hear(SOON).await {
                Heard::Line(answer) if answer == "ok" => answers += 1,
                Heard::Line(signal) => assert!(signal == "sig a x" && answers == 0, "round {round}: {signal}"),
                other => panic!("{other:?}"),
            }
        }
    }
    flood.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_come_between_answers_and_never_inside_one() {
    let (_server, address) = start(Server::builder().signal_buffer(100_000)).await;
    let mut stuffing = RawConnection::open(&address).await;
    for n in 0..300 {
        stuffing
            .request("l", &format!("some-key-with-a-long-name-{n}"), "0 300")
            .await;
    }
    let mut subscriber = listening(&address, "n").await;
    let mut publisher = RawConnection::open(&address).await;
    let flood = tokio::spawn(async move {
        for n in 0..2000 {
            assert_eq!(publisher.request("signal", "n", &n.to_string()).await, "ok 1");
        }
    });
    let (mut asked, mut answers, mut signals) = (0, 0, 0);
    while signals < 2000 || answers < asked {
        // Three requests are in flight, so that signals arrive while the server writes an answer.
        while signals < 2000 && asked < answers + 3 {
            subscriber.send("stats\n_\n_\n").await;
            asked += 1;
        }
        let Heard::Line(heard) = subscriber.hear(SOON).await else {
            panic!("{signals} signals and {answers} answers came, and then none");
        };
        if let Some(json) = heard.strip_prefix("ok ") {
            serde_json::from_str::<serde_json::Value>(json).unwrap();
            answers += 1;
        } else {
            assert_eq!(heard, format!("sig n {signals}"));
            signals += 1;
        }
    }
    assert!(answers > 10, "{answers} answers only");
    flood.await.unwrap();
}

#[tokio::test]
async fn a_waiter_for_a_lock_receives_signals_meanwhile() {
    let (_server, address) = start(Server::builder()).await;
    let mut holder = RawConnection::open(&address).await;
    let held = holder.request("l", "k", "0 30").await;
    let token = held.split(' ').nth(1).unwrap().to_owned();
    let mut waiter = listening(&address, "news.>").await;
    waiter.send("l\nk\n30 30\nsignal\nnews.own\nlate\n").await;
    for n in 0..3 {
        assert_eq!(holder.request("signal", "news.n", &n.to_string()).await, "ok 1");
        assert_eq!(waiter.hear(SOON).await, line(&format!("sig news.n {n}")));
    }
    assert_eq!(holder.request("r", "k", &token).await, "ok");
    assert!(matches!(waiter.hear(SOON).await, Heard::Line(granted) if granted.starts_with("ok ")));
    assert_eq!(waiter.hear(SOON).await, line("ok 1"), "the request behind the wait");
    assert_eq!(waiter.hear(SOON).await, line("sig news.own late"));
    // A connection also receives signals during a wait that times out.
    waiter.send("l\ntaken\n1 30\n").await;
    assert!(matches!(waiter.hear(SOON).await, Heard::Line(granted) if granted.starts_with("ok ")));
    let mut late = listening(&address, "news.>").await;
    late.send("l\ntaken\n1 30\n").await;
    assert_eq!(holder.request("signal", "news.n", "x").await, "ok 2");
    assert_eq!(late.hear(SOON).await, line("sig news.n x"));
    assert_eq!(late.hear(SOON).await, line("timeout"));
}

#[tokio::test]
async fn a_burst_disconnects_no_listener_that_reads() {
    let (server, address) = start(Server::builder()).await;
    let mut subscribers = [listening(&address, "n").await, listening(&address, "*").await];
    let mut publisher = TcpStream::connect(&address).await.unwrap();
    let burst: String = (0..1000).map(|n| format!("signal\nn\n{n}\n")).collect();
    publisher.write_all(burst.as_bytes()).await.unwrap();
    for subscriber in &mut subscribers {
        for n in 0..1000 {
            assert_eq!(subscriber.hear(SOON).await, line(&format!("sig n {n}")));
        }
    }
    let mut answers = vec![0; "ok 2\n".len() * 1000];
    publisher.read_exact(&mut answers).await.unwrap();
    assert_eq!(answers, "ok 2\n".repeat(1000).into_bytes());
    assert_eq!(server.stats().signal_channels.len(), 2);
}

/// Opens a connection with a small receive buffer. The buffer is soon full if the test does not read.
async fn deaf(address: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(address.parse().unwrap()).await.unwrap()
}

async fn is_told(stream: &mut TcpStream, expected: &str) {
    let mut told = vec![0; expected.len()];
    stream.read_exact(&mut told).await.unwrap();
    assert_eq!(String::from_utf8(told).unwrap(), expected);
}

async fn slow_subscriber_is_cut(blocked: bool) {
    // The write timeout is long, so that it cannot end the connection of the slow subscriber.
    let (server, address) = start(Server::builder().write_timeout(Duration::from_secs(300))).await;
    let mut publisher = RawConnection::open(&address).await;
    publisher.request("l", "taken", "0 300").await;
    let mut deaf = deaf(&address).await;
    deaf.write_all(b"listen\nflood.*\n\n").await.unwrap();
    is_told(&mut deaf, "ok\n").await;
    if blocked {
        deaf.write_all(b"l\ntaken\n300 30\n").await.unwrap();
    } else {
        deaf.write_all(b"l\nheld-by-the-deaf\n0 300\n").await.unwrap();
        deaf.read_exact(&mut [0; "ok 0123456789abcdef0123456789abcdef 300\n".len()])
            .await
            .unwrap();
    }
    let lock = |server: &Server| {
        let locks = server.stats().locks;
        if blocked {
            locks.iter().any(|lock| lock.waiters == 1)
        } else {
            locks.iter().any(|lock| lock.key == "held-by-the-deaf")
        }
    };
    until("the listener is queued, or holds its lock", || lock(&server)).await;

    let mut healthy = listening(&address, "flood.n").await;
    let padding = "x".repeat(60_000);
    let mut published = 0;
    loop {
        let payload = format!("{published} {padding}");
        let answer = publisher.request("signal", "flood.n", &payload).await;
        assert_eq!(healthy.hear(SOON).await, line(&format!("sig flood.n {payload}")));
        published += 1;
        match answer.as_str() {
            "ok 2" => assert!(
                published < 5000,
                "the server accepted more signals than any buffer holds"
            ),
            "ok 1" => break,
            other => panic!("{other}"),
        }
    }
    assert!(published > 64, "a buffer of 64 was full after {published}");
    until("the server has closed it and freed its lock and subscriptions", || {
        !lock(&server) && server.stats().connections == 2 && server.stats().signal_channels.len() == 1
    })
    .await;

    // The listener received the first signals and then the end of the connection.
    let mut got = Vec::new();
    drop(deaf.read_to_end(&mut got).await);
    let got = String::from_utf8(got).unwrap();
    let whole: Vec<&str> = got.split_inclusive('\n').filter(|line| line.ends_with('\n')).collect();
    assert!(whole.len() < published);
    for (n, line) in whole.iter().enumerate() {
        assert!(line.starts_with(&format!("sig flood.n {n} x")), "{}", &line[..20]);
    }
    assert_eq!(publisher.request("signal", "flood.n", "after").await, "ok 1");
    assert_eq!(healthy.hear(SOON).await, line("sig flood.n after"));
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_is_disconnected_and_the_others_are_not() {
    slow_subscriber_is_cut(false).await;
}

#[tokio::test]
async fn a_subscriber_that_waits_for_a_lock_and_does_not_read_is_disconnected_too() {
    slow_subscriber_is_cut(true).await;
}

#[tokio::test]
async fn one_subscription_too_many_is_refused() {
    let (_server, address) = start(Server::builder().max_subscriptions(2)).await;
    let mut connection = listening(&address, "a").await;
    assert_eq!(connection.request("listen", "a", "g").await, "ok");
    assert_eq!(connection.request("listen", "b", "").await, "error");
    assert_eq!(
        connection.request("listen", "a", "g").await,
        "ok",
        "this subscription exists already"
    );
    assert_eq!(connection.request("unlisten", "a", "").await, "ok");
    assert_eq!(connection.request("listen", "b", "").await, "ok", "there is room again");
    assert_eq!(listening(&address, "c").await.request("listen", "d", "").await, "ok");
}

#[tokio::test]
async fn the_subscriptions_of_a_connection_end_with_it() {
    let (server, address) = start(Server::builder()).await;
    let mut stays = listening(&address, "a.b").await;
    let mut goes = listening(&address, "a.b").await;
    assert_eq!(goes.request("listen", "a.*", "g").await, "ok");
    assert_eq!(stays.request("signal", "a.b", "1").await, "ok 3");
    drop(goes);
    until("only the subscription of the other connection is left", || {
        let channels = server.stats().signal_channels;
        channels.len() == 1 && channels[0].listeners == 1
    })
    .await;
    assert_eq!(stays.hear(SOON).await, line("sig a.b 1"));
    assert_eq!(stays.request("signal", "a.b", "2").await, "ok 1");
}

#[tokio::test]
async fn signals_continue_while_a_server_before_1_16_drains() {
    let builder = Server::builder().shutdown_timeout(Duration::from_secs(60));
    let server = builder.release("1.15").port(0).start().await.unwrap();
    let address = server.local_addr().to_string();
    let mut subscriber = listening(&address, "a").await;
    let mut publisher = RawConnection::open(&address).await;
    assert_eq!(publisher.request("signal", "a", "before").await, "ok 1");
    let shutdown = tokio::spawn(server.shutdown());
    until("the server accepts no new connection", || {
        std::net::TcpStream::connect(&address).is_err()
    })
    .await;
    assert_eq!(publisher.request("signal", "a", "meanwhile").await, "ok 1");
    assert_eq!(publisher.request("listen", "a", "").await, "ok");
    assert_eq!(subscriber.request("signal", "a", "to both").await, "sig a before");
    for expected in ["sig a meanwhile", "ok 2", "sig a to both"] {
        assert_eq!(subscriber.hear(SOON).await, line(expected));
    }
    assert_eq!(publisher.hear(SOON).await, line("sig a to both"));
    drop((subscriber, publisher));
    tokio::time::timeout(SOON, shutdown)
        .await
        .expect("all connections are closed")
        .unwrap();
}

#[tokio::test]
async fn a_subscriber_is_closed_with_the_server() {
    let (server, address) = start(Server::builder().shutdown_timeout(Duration::from_millis(50))).await;
    let mut subscriber = listening(&address, "a").await;
    server.shutdown().await;
    assert_eq!(subscriber.hear(SOON).await, Heard::Closed);
}

#[tokio::test]
async fn outgoing_signals_do_not_extend_the_read_timeout() {
    let (_server, address) = start(Server::builder().read_timeout(Duration::from_millis(300))).await;
    let mut silent = listening(&address, "a").await;
    let mut publisher = RawConnection::open(&address).await;
    let begun = Instant::now();
    let mut heard = 0;
    loop {
        assert!(
            begun.elapsed() < SOON,
            "the connection is still open after {heard} signals"
        );
        publisher.request("signal", "a", "x").await;
        match silent.hear(SOON).await {
            Heard::Line(signal) if signal == "sig a x" => heard += 1,
            Heard::Line(last) => break assert_eq!(last, "error"),
            other => panic!("{other:?} after {heard} signals"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(heard > 0);
    assert_eq!(silent.hear(SOON).await, Heard::Closed);
}

#[tokio::test]
async fn a_server_without_signals_refuses_them_and_keeps_the_connection() {
    let server = Server::builder().port(0).start().await.unwrap();
    let address = server.local_addr().to_string();
    let mut connection = RawConnection::open(&address).await;
    assert_eq!(connection.request("listen", "a", "").await, "error");
    assert_eq!(connection.request("signal", "a", "x").await, "error");
    assert_eq!(connection.request("unlisten", "a", "").await, "error");
    let stats = connection.request("stats", "_", "_").await;
    assert!(
        stats.starts_with("ok {") && !stats.contains("signal_channels"),
        "{stats}"
    );
    assert_eq!(server.stats().signal_channels, []);
}

#[tokio::test]
async fn stats_list_the_subscriptions() {
    let (_server, address) = start(Server::builder()).await;
    let mut connection = listening(&address, "a.>").await;
    assert_eq!(connection.request("listen", "jobs", "g").await, "ok");
    let _other = listening(&address, "a.>").await;
    let stats = connection.request("stats", "_", "_").await;
    let json: serde_json::Value = serde_json::from_str(stats.strip_prefix("ok ").unwrap()).unwrap();
    let mut told: Vec<String> = json["signal_channels"]
        .as_array()
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    told.sort();
    assert_eq!(
        told,
        [
            r#"{"group":"g","listeners":1,"pattern":"jobs"}"#,
            r#"{"listeners":2,"pattern":"a.>"}"#
        ]
    );
    let client = Client::builder().servers([&address]).connect().await.unwrap();
    let mut channels = client.stats().await.unwrap().signal_channels;
    channels.sort_by(|a, b| a.pattern.cmp(&b.pattern));
    assert_eq!(
        (channels[0].pattern.as_str(), channels[0].listeners),
        ("a.>", 2),
        "the client parses these stats"
    );
}

#[tokio::test]
async fn an_invalid_subscription_changes_nothing() {
    let (server, address) = start(Server::builder()).await;
    let mut connection = RawConnection::open(&address).await;
    for (pattern, group) in [("a.>.b", ""), ("a*", ""), ("", ""), ("a b", ""), ("a\tb", "")] {
        assert_eq!(
            connection.request("listen", pattern, group).await,
            "error",
            "{pattern:?} {group:?}"
        );
        assert_eq!(
            connection.request("unlisten", pattern, group).await,
            "error",
            "{pattern:?} {group:?}"
        );
    }
    assert_eq!(server.stats().signal_channels, []);
    assert_eq!(connection.request("signal", "a", "x").await, "ok 0");
    assert_eq!(connection.hear(A_WHILE).await, Heard::Nothing);
}
