//! Signals through the client: subscriptions that survive reconnects, reports of gaps, and callers that read slowly.

use std::time::Duration;

use crate::support::fake::FakeServer;
use crate::support::proxy::Proxy;
use crate::support::raw::RawConnection;
use crate::support::recorder::Recorded;
use crate::support::until;
use dflockd_client::server::{Server, ServerBuilder};
use dflockd_client::{
    Client, ClientBuilder, ErrorKind, Group, LostReason, Overflow, Pattern, ReconnectPolicy, SignalConn, SignalEvent,
    SignalOptions, SubscribeRequest,
};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

struct Scene {
    server: Server,
    address: String,
    proxy: Proxy,
}

impl Scene {
    async fn set() -> Self {
        Self::set_with(Server::builder()).await
    }

    async fn set_with(builder: ServerBuilder) -> Self {
        // These tests are about the client. The server's buffer is large, so that the server disconnects no listener.
        let builder = builder.release("1.16");
        let server = builder.port(0).signal_buffer(100_000).start().await.unwrap();
        let address = server.local_addr().to_string();
        let proxy = Proxy::start(&address).await;
        Self { server, address, proxy }
    }

    fn builder(&self) -> ClientBuilder {
        let pauses = ReconnectPolicy::exponential(Duration::from_millis(2), Duration::from_millis(10));
        Client::builder().servers([&self.proxy.address]).reconnect(pauses)
    }

    async fn conn(&self) -> SignalConn {
        self.conn_with(SignalOptions::default()).await
    }

    async fn conn_with(&self, options: SignalOptions) -> SignalConn {
        SignalConn::open(self.builder(), options).await.unwrap()
    }

    /// Opens a connection to the server without the proxy.
    async fn publisher(&self) -> SignalConn {
        SignalConn::connect(&self.address).await.unwrap()
    }

    fn subscriptions(&self) -> Vec<(String, Option<String>, u64)> {
        let channels = self.server.stats().signal_channels.into_iter();
        let mut all: Vec<_> = channels
            .map(|entry| (entry.pattern, entry.group, entry.listeners))
            .collect();
        all.sort();
        all
    }
}

async fn event(conn: &mut SignalConn) -> SignalEvent {
    let event = timeout(SOON, conn.next_event()).await.expect("something comes");
    event.expect("the stream is open")
}

async fn payload(conn: &mut SignalConn) -> String {
    let signal = timeout(SOON, conn.next_signal()).await.expect("a signal comes");
    signal.expect("the stream is open").payload().to_owned()
}

#[tokio::test]
async fn signals_that_match_arrive_in_order_and_others_do_not() {
    let scene = Scene::set().await;
    let mut conn = scene.conn().await;
    let publisher = scene.publisher().await;
    conn.listen("orders.*", None).await.unwrap();
    conn.listen("orders.*", None).await.unwrap();
    conn.listen("a.b", "").await.unwrap();
    assert_eq!(
        scene.subscriptions(),
        [("a.b".into(), None, 1), ("orders.*".into(), None, 1)]
    );
    for number in 0..100 {
        assert_eq!(publisher.emit("orders.42", number.to_string()).await.unwrap(), 1);
        assert_eq!(publisher.emit("orders", "unheard").await.unwrap(), 0);
    }
    for number in 0..100 {
        assert_eq!(payload(&mut conn).await, number.to_string());
    }
    assert_eq!(conn.emit("a.b", " its own, blanks and all ").await.unwrap(), 1);
    assert_eq!(payload(&mut conn).await, " its own, blanks and all ");
    conn.unlisten("a.b", None).await.unwrap();
    conn.unlisten("never.asked.for", None).await.unwrap();
    assert_eq!(publisher.emit("a.b", "too late").await.unwrap(), 0);
    assert_eq!((conn.waiting(), conn.dropped()), (0, 0));
}

#[tokio::test]
async fn a_group_shares_its_signals() {
    let scene = Scene::set().await;
    let (mut a, mut b) = (scene.conn().await, scene.conn().await);
    a.listen("jobs", "workers").await.unwrap();
    b.listen("jobs", "workers").await.unwrap();
    let publisher = scene.publisher().await;
    for number in 0..10 {
        assert_eq!(publisher.emit("jobs", number.to_string()).await.unwrap(), 1);
    }
    for number in (0..10).step_by(2) {
        assert_eq!(payload(&mut a).await, number.to_string());
        assert_eq!(payload(&mut b).await, (number + 1).to_string());
    }
}

/// A member unlistens and then closes its connection. It receives every signal that the server has sent to it.
#[tokio::test]
async fn a_group_loses_no_signal_to_a_member_that_unlistens_before_it_leaves() {
    const SIGNALS: usize = 300;
    let scene = Scene::set().await;
    let (mut stays, mut leaves) = (scene.conn().await, scene.conn().await);
    for member in [&stays, &leaves] {
        member.listen("jobs", "g").await.unwrap();
    }
    let publisher = scene.publisher().await;
    let publish = async {
        for n in 0..SIGNALS {
            assert_eq!(publisher.emit("jobs", n.to_string()).await.unwrap(), 1);
        }
    };
    let leave = async {
        let mut heard: Vec<String> = Vec::new();
        while heard.len() < 20 {
            heard.push(payload(&mut leaves).await);
        }
        leaves.unlisten("jobs", "g").await.unwrap();
        leaves.close().await;
        while let Some(signal) = leaves.next_signal().await {
            heard.push(signal.payload().to_owned());
        }
        heard
    };
    let ((), mut heard) = tokio::join!(publish, leave);
    while heard.len() < SIGNALS {
        heard.push(payload(&mut stays).await);
    }
    let mut numbers: Vec<usize> = heard.iter().map(|n| n.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..SIGNALS).collect::<Vec<_>>());
}

#[tokio::test]
async fn errors_name_invalid_patterns_and_payloads_before_anything_is_sent() {
    let scene = Scene::set().await;
    let conn = scene.conn().await;
    for (pattern, group, said) in [
        ("a.>.b", None, "a.>.b"),
        ("a*", None, "whole tokens"),
        ("", None, "empty"),
        ("a b", None, "whitespace"),
        ("a", Some("two words"), "group"),
    ] {
        let error = conn.listen(pattern, group).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(said), "{error}");
    }
    let long = "x".repeat(70_000);
    for (channel, payload, said) in [
        ("a.*", "x", "literal channel"),
        ("a", "", "at least one character"),
        ("a", "two\nlines", "one line"),
        ("a", long.as_str(), "70000 bytes"),
    ] {
        let error = conn.emit(channel, payload).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(said), "{error}");
    }
    assert!(scene.subscriptions().is_empty());
}

#[tokio::test]
async fn characters_of_several_bytes_arrive_whole_however_they_are_cut() {
    let scene = Scene::set().await;
    let mut conn = scene.conn().await;
    conn.listen(">", None).await.unwrap();
    scene.proxy.change(|treatment| treatment.trickle = true);
    let text = "жук 漢字 🔒🔑 é ".repeat(50);
    scene.publisher().await.emit("ünïcödé.канал", &text).await.unwrap();
    let signal = timeout(SOON, conn.next_signal()).await.unwrap().unwrap();
    assert_eq!((signal.channel(), signal.payload()), ("ünïcödé.канал", text.as_str()));
}

#[tokio::test]
async fn a_lost_connection_is_reported_and_restored_after_all_subscriptions_are() {
    let scene = Scene::set().await;
    let mut conn = scene.conn().await;
    for number in 0..20 {
        conn.listen(format!("c{number}"), None).await.unwrap();
    }
    conn.listen("jobs", "workers").await.unwrap();
    conn.listen("gone", None).await.unwrap();
    conn.unlisten("gone", None).await.unwrap();
    let before = scene.subscriptions();
    scene.proxy.change(|treatment| treatment.refuse = true);
    scene.proxy.cut();
    let SignalEvent::Lost { shard: 0, cause, .. } = event(&mut conn).await else {
        panic!("the loss is reported first");
    };
    assert_eq!(cause.kind(), ErrorKind::Disconnected, "{cause}");
    assert!(!conn.health()[0].is_connected());
    until("the server has noticed", || scene.subscriptions().is_empty()).await;
    // A caller can also add and remove subscriptions while there is no connection.
    let handle = conn.handle();
    let late = tokio::spawn(async move { handle.listen("late", None).await });
    conn.unlisten("c0", None).await.unwrap();
    scene.proxy.pass_everything();
    assert!(matches!(event(&mut conn).await, SignalEvent::Restored { shard: 0, .. }));
    // All subscriptions exist when `Restored` is reported.
    let mut expected = before;
    expected.retain(|(pattern, ..)| pattern != "c0");
    let now: Vec<_> = scene
        .subscriptions()
        .into_iter()
        .filter(|(pattern, ..)| pattern != "late")
        .collect();
    assert_eq!(now, expected);
    late.await.unwrap().unwrap();
    assert!(conn.health()[0].is_connected());
    assert_eq!(scene.publisher().await.emit("late", "x").await.unwrap(), 1);
    assert_eq!(payload(&mut conn).await, "x");
}

/// After a reconnect, the client subscribes in the alphabetical order of the patterns. So a repeated run with the same
/// seed sends the same bytes to a server.
#[tokio::test]
async fn patterns_are_subscribed_again_in_sorted_order() {
    const PATTERNS: usize = 30;
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let server = FakeServer::start(move |mut connection, number| {
        let told = told.clone();
        async move {
            let mut patterns = 0;
            while let Some([command, pattern, _]) = connection.request().await {
                connection.say("ok\n").await;
                if command == "listen" {
                    drop(told.send((number, pattern)));
                    patterns += 1;
                }
                if number == 0 && patterns == PATTERNS {
                    return;
                }
            }
        }
    })
    .await;
    let builder = Client::builder().servers([&server.address]);
    let conn = SignalConn::open(builder, SignalOptions::default()).await.unwrap();
    let patterns: Vec<String> = (0..PATTERNS).map(|number| format!("p{number:02}")).collect();
    for pattern in patterns.iter().rev() {
        conn.listen(pattern, None).await.unwrap();
    }
    let mut again = Vec::new();
    while again.len() < PATTERNS {
        let (number, pattern) = timeout(SOON, heard.recv()).await.unwrap().unwrap();
        again.extend((number == 1).then_some(pattern));
    }
    assert_eq!(again, patterns);
}

/// The proxy cuts the connection a thousand times, between two signals or in the middle of a signal. The client
/// delivers each signal at most once, and in order. If signals are missing, it reports a gap before the next signal.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_cuts_leave_no_gap_unreported_and_no_subscription_doubled_or_lost() {
    const CUTS: usize = 1000;
    let scene = Scene::set().await;
    let mut conn = scene.conn_with(SignalOptions::default().buffer(1_000_000)).await;
    conn.listen("n", None).await.unwrap();
    conn.listen("*", None).await.unwrap();
    let publisher = scene.publisher().await;
    let stop = tokio_util::sync::CancellationToken::new();
    let publishing = tokio::spawn({
        let stop = stop.clone();
        async move {
            // Both patterns match, but the server sends each signal once to a connection.
            let mut delivered = 0;
            let mut number = 0;
            while !stop.is_cancelled() {
                delivered += publisher.emit("n", number.to_string()).await.unwrap();
                number += 1;
            }
            (number, delivered)
        }
    });
    let (mut last, mut gap, mut received, mut gaps) = (None, false, 0, 0);
    let mut take = |event: SignalEvent| match event {
        SignalEvent::Signal(signal) => {
            let number: u64 = signal.payload().parse().unwrap();
            let next = last.map_or(0, |last| last + 1);
            assert!(number >= next, "{number} came after {last:?}");
            assert!(
                number == next || gap || last.is_none(),
                "{number} came after {last:?} and no gap was reported"
            );
            (last, gap) = (Some(number), false);
            received += 1;
        }
        SignalEvent::Lost { .. } => {
            gap = true;
            gaps += 1;
        }
        SignalEvent::Restored { .. } => {}
        other => panic!("{other:?}"),
    };
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..CUTS {
        // The test cuts the connection after 0 to 29 further signals.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let mut signals = seed % 30;
        while signals > 0 {
            let event = event(&mut conn).await;
            signals -= u64::from(matches!(event, SignalEvent::Signal(_)));
            take(event);
        }
        scene.proxy.cut();
        // Waits until the connection is restored, so that the next cut ends a connection.
        loop {
            let event = event(&mut conn).await;
            let restored = matches!(event, SignalEvent::Restored { .. });
            take(event);
            if restored {
                break;
            }
        }
    }
    stop.cancel();
    let (emitted, delivered) = publishing.await.unwrap();
    let expected = [("*".to_owned(), None, 1), ("n".to_owned(), None, 1)];
    until("one connection has both subscriptions once", || {
        scene.subscriptions() == expected
    })
    .await;
    let last_one = scene.publisher().await;
    last_one.emit("n", emitted.to_string()).await.unwrap();
    loop {
        let event = event(&mut conn).await;
        let end = matches!(&event, SignalEvent::Signal(signal) if signal.payload() == emitted.to_string());
        take(event);
        if end {
            break;
        }
    }
    println!("{gaps} cuts, {emitted} emitted, {delivered} delivered by the server, {received} received");
    assert_eq!((gaps, conn.dropped()), (CUTS, 0));
    // A cut may lose signals that the server counts as delivered, but it adds none. The number `delivered` does not
    // include the signal of `last_one`.
    assert!(received <= delivered + 1, "{received} of {delivered}");
}

#[tokio::test]
async fn a_dropped_listen_is_undone() {
    let scene = Scene::set().await;
    let conn = scene.conn().await;
    scene.proxy.change(|treatment| treatment.stall_down = true);
    let handle = conn.handle();
    let listening = tokio::spawn(async move { handle.listen("k", None).await });
    until("the server has the subscription", || scene.subscriptions().len() == 1).await;
    listening.abort();
    assert!(listening.await.unwrap_err().is_cancelled());
    scene.proxy.pass_everything();
    until("the subscription is removed", || scene.subscriptions().is_empty()).await;
    // A dropped `listen` does not remove a subscription that an earlier call has made.
    conn.listen("k", None).await.unwrap();
    scene.proxy.change(|treatment| treatment.stall_down = true);
    let handle = conn.handle();
    let again = tokio::spawn(async move { handle.listen("k", None).await });
    tokio::task::yield_now().await;
    again.abort();
    scene.proxy.pass_everything();
    conn.listen("another", None).await.unwrap();
    assert_eq!(scene.subscriptions().len(), 2);
}

#[tokio::test]
async fn a_signal_whose_answer_is_lost_is_not_sent_again() {
    let scene = Scene::set().await;
    let conn = scene.conn().await;
    let mut listener = scene.publisher().await;
    listener.listen("once", None).await.unwrap();
    scene.proxy.change(|treatment| treatment.stall_down = true);
    let handle = conn.handle();
    let emitting = tokio::spawn(async move { handle.emit("once", "1").await });
    assert_eq!(payload(&mut listener).await, "1");
    scene.proxy.cut();
    let error = emitting.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected, "{error}");
    scene.proxy.pass_everything();
    assert_eq!(conn.emit("once", "2").await.unwrap(), 1);
    assert_eq!(payload(&mut listener).await, "2", "the first signal came once");
}

#[tokio::test]
async fn a_slow_consumer_hits_its_own_policy_and_never_the_servers() {
    // The buffer of this server is small, so the server disconnects a listener that does not read.
    let builder = Server::builder().release("1.16");
    let server = builder.port(0).signal_buffer(256).start().await.unwrap();
    let address = server.local_addr().to_string();
    let publisher = SignalConn::connect(&address).await.unwrap();
    for (overflow, expected) in [
        (Overflow::DropNewest, vec!["0", "1", "2", "dropped 997"]),
        (Overflow::DropOldest, vec!["dropped 997", "997", "998", "999"]),
        (Overflow::Disconnect, vec!["0", "1", "2", "end"]),
    ] {
        let recorded = Recorded::default();
        let builder = Client::builder().servers([&address]).metrics_recorder(recorded.clone());
        let options = SignalOptions::default().buffer(3).overflow(overflow);
        let mut conn = SignalConn::open(builder, options).await.unwrap();
        conn.listen("flood", None).await.unwrap();
        for number in 0..1000 {
            publisher.emit("flood", number.to_string()).await.unwrap();
        }
        let all_came = || recorded.value("signals_received_total", &[]) == 1000.0;
        until("all signals have arrived, or the connection is closed", || {
            all_came() || conn.closed_because().is_some()
        })
        .await;
        assert_eq!(conn.waiting(), 3);
        assert_eq!(recorded.value("signals_dropped_total", &[]), conn.dropped() as f64);
        let mut got = Vec::new();
        while got.len() < expected.len() {
            got.push(match timeout(SOON, conn.next_event()).await.unwrap() {
                Some(SignalEvent::Signal(signal)) => signal.payload().to_owned(),
                Some(SignalEvent::Dropped { count, .. }) => format!("dropped {count}"),
                Some(other) => panic!("{other:?}"),
                None => "end".to_owned(),
            });
        }
        assert_eq!(got, expected, "{overflow:?}");
        match overflow {
            Overflow::Disconnect => {
                let why = conn.closed_because().unwrap();
                assert!(why.to_string().contains("too slow"), "{why}");
                let error = conn.emit("flood", "x").await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Shutdown, "{error}");
            }
            _ => {
                assert_eq!(conn.dropped(), 997);
                assert_eq!(
                    recorded.value("signal_gaps_total", &[]),
                    0.0,
                    "the client has read everything that the server sent"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_server_without_signals_is_an_error_of_its_own_and_costs_no_lease() {
    let server = Server::builder().port(0).start().await.unwrap();
    let address = server.local_addr().to_string();
    let error = SignalConn::connect(&address).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("1.11 to 1.16"), "{error}");
    let client = Client::builder().servers([&address]).connect().await.unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    for _ in 0..2 {
        let error = client.emit("a", "x").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        let error = client.subscribe("a").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
    assert!(guard.is_held());
    guard.release().await.unwrap();
}

/// The Python server closes the connection at an unknown command.
#[tokio::test]
async fn a_server_that_closes_at_an_unknown_command_is_reported_as_one_without_signals() {
    let server = FakeServer::start(|mut connection, _| async move {
        if connection.request().await.is_some() {
            connection.say("error\n").await;
        }
    })
    .await;
    let error = SignalConn::connect(&server.address).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

#[tokio::test]
async fn a_server_that_comes_back_with_fewer_subscriptions_ends_the_stream_with_the_reason() {
    let scene = Scene::set_with(Server::builder().max_subscriptions(2)).await;
    let mut conn = scene.conn().await;
    conn.listen("a", None).await.unwrap();
    conn.listen("b", None).await.unwrap();
    // The server's limit of subscriptions is reached. Only this subscription fails, and the other subscriptions stay.
    let error = conn.listen("c", None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert_eq!(scene.publisher().await.emit("b", "1").await.unwrap(), 1);
    assert_eq!(payload(&mut conn).await, "1");
    // Another server with a lower limit takes the place of this server.
    let port = scene.server.local_addr().port();
    drop(scene.server);
    let fewer = loop {
        match Server::builder()
            .release("1.16")
            .port(port)
            .max_subscriptions(1)
            .start()
            .await
        {
            Ok(server) => break server,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Connect, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!(matches!(event(&mut conn).await, SignalEvent::Lost { .. }));
    assert!(timeout(SOON, conn.next_event()).await.unwrap().is_none());
    assert_eq!(conn.closed_because().unwrap().kind(), ErrorKind::Unsupported);
    until("the client has closed its connection", || {
        fewer.stats().signal_channels.is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_silent_connection_is_kept_alive() {
    let scene = Scene::set_with(Server::builder().read_timeout(Duration::from_millis(600))).await;
    let settings = scene
        .builder()
        .server_read_timeout(Duration::from_millis(600))
        .keepalive(Duration::from_millis(100))
        .reply_timeout(Duration::from_millis(400));
    let mut conn = SignalConn::open(settings, SignalOptions::default()).await.unwrap();
    conn.listen("k", None).await.unwrap();
    // The read timeout of the server counts from the last bytes that it received. Signals to the client do not change
    // that. So the client must send keepalives even while signals arrive.
    let publisher = scene.publisher().await;
    for number in 0..15 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(publisher.emit("k", number.to_string()).await.unwrap(), 1);
        let SignalEvent::Signal(signal) = event(&mut conn).await else {
            panic!("the connection was lost");
        };
        assert_eq!(signal.payload(), number.to_string());
    }
}

#[tokio::test]
async fn closing_ends_the_stream_and_dropping_closes() {
    let scene = Scene::set().await;
    let mut conn = scene.conn().await;
    let handle = conn.handle();
    conn.listen("k", None).await.unwrap();
    conn.emit("k", "last").await.unwrap();
    until("the signal has arrived", || conn.waiting() == 1).await;
    conn.close().await;
    assert_eq!(payload(&mut conn).await, "last");
    assert!(conn.next_event().await.is_none() && conn.next_event().await.is_none());
    assert_eq!(conn.closed_because().unwrap().kind(), ErrorKind::Shutdown);
    for error in [
        handle.emit("k", "x").await.unwrap_err(),
        conn.listen("l", None).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Shutdown, "{error}");
    }
    let other = scene.conn().await;
    let handle = other.handle();
    drop(other);
    assert_eq!(handle.emit("k", "a handle keeps it open").await.unwrap(), 0);
    drop(handle);
    until("all is closed", || scene.server.stats().connections == 0).await;
}

#[tokio::test]
async fn a_client_of_several_shards_listens_at_all_and_emits_at_the_shard_of_the_channel() {
    let servers = [
        Server::builder().release("1.16").port(0).start().await.unwrap(),
        Server::builder().release("1.16").port(0).start().await.unwrap(),
    ];
    let addresses = servers.each_ref().map(|server| server.local_addr().to_string());
    let strategy = |name: &str, _: usize| usize::from(name.starts_with('b'));
    let client = Client::builder()
        .servers(&addresses)
        .sharding_strategy(strategy)
        .connect()
        .await
        .unwrap();
    let mut all = client.subscribe(">").await.unwrap();
    let share = SubscribeRequest::new(Pattern::new("*").unwrap()).group(Group::new("g").unwrap());
    let mut share = client
        .subscribe_with(share.options(SignalOptions::default().buffer(2)))
        .await
        .unwrap();
    let mut one_server = SignalConn::connect(&addresses[1]).await.unwrap();
    one_server.listen(">", None).await.unwrap();

    assert_eq!(client.emit("a", "1").await.unwrap(), 2);
    assert_eq!(client.emit("b", "2").await.unwrap(), 3);
    let mut got = [payload(&mut all).await, payload(&mut all).await];
    got.sort();
    assert_eq!(got, ["1", "2"]);
    let mut got = [payload(&mut share).await, payload(&mut share).await];
    got.sort();
    assert_eq!(
        got,
        ["1", "2"],
        "each shard serves the group by itself, and it has one member"
    );
    assert_eq!(
        payload(&mut one_server).await,
        "2",
        "a signal emitted at the other shard is not delivered here"
    );

    // One shard stops. The signals of the other shard continue.
    let [first, second] = servers;
    drop(first);
    assert!(matches!(event(&mut all).await, SignalEvent::Lost { shard: 0, .. }));
    assert_eq!(client.emit("b", "3").await.unwrap(), 3);
    assert_eq!(payload(&mut all).await, "3");
    drop(second);
}

#[tokio::test]
async fn signals_have_connections_of_their_own() {
    let scene = Scene::set().await;
    let client = scene.builder().connect().await.unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    let mut signals = client.subscribe("a").await.unwrap();
    client.emit("a", "1").await.unwrap();
    assert_eq!(payload(&mut signals).await, "1");
    assert_eq!(
        scene.server.stats().connections,
        3,
        "one connection each for leases, the subscription and emitting"
    );
    drop(signals);
    until("the connection of the subscription is closed", || {
        scene.server.stats().connections == 2
    })
    .await;
    assert!(guard.is_held());
    scene.proxy.cut();
    assert_eq!(guard.lost().await, LostReason::Disconnected);
    assert_eq!(client.emit("a", "2").await.unwrap(), 0);
    drop((guard, client));
    until("all connections are closed", || scene.server.stats().connections == 0).await;
}

#[tokio::test]
async fn a_flood_of_signals_uses_bounded_memory_and_unasked_lines_end_the_connection() {
    let server = FakeServer::start(|mut connection, number| async move {
        connection.handshake().await;
        // The client first ends a subscription that does not exist, as a probe, and then subscribes.
        for _ in 0..2 {
            connection.request().await;
            connection.say("ok\n").await;
        }
        if number == 0 {
            connection.say("surprise\n").await;
        }
        let flood = "sig a x\n".repeat(1000);
        for _ in 0..100 {
            connection.say(&flood).await;
        }
        connection.until_hung_up().await;
    })
    .await;
    let pauses = ReconnectPolicy::exponential(Duration::from_millis(2), Duration::from_millis(10));
    let recorded = Recorded::default();
    let settings = Client::builder()
        .servers([&server.address])
        .reconnect(pauses)
        .metrics_recorder(recorded.clone());
    let mut conn = SignalConn::open(settings, SignalOptions::default().buffer(10))
        .await
        .unwrap();
    conn.listen("a", None).await.unwrap();
    let SignalEvent::Lost { cause, .. } = event(&mut conn).await else {
        panic!("an unasked line ends the connection");
    };
    assert_eq!(cause.kind(), ErrorKind::Protocol, "{cause}");
    until("the flood has arrived", || {
        recorded.value("signals_received_total", &[]) >= 100_000.0
    })
    .await;
    assert_eq!(conn.waiting(), 10);
    assert_eq!(
        conn.dropped() as f64,
        recorded.value("signals_received_total", &[]) - 10.0
    );
}

/// Raw connections send and receive the lines of the protocol, so they show that the client uses the same lines.
#[tokio::test]
async fn signals_pass_between_the_client_and_raw_connections() {
    let scene = Scene::set().await;
    let mut conn = scene.conn().await;
    conn.listen("a.>", "g").await.unwrap();
    let mut raw = RawConnection::open(&scene.address).await;
    assert_eq!(raw.request("signal", "a.b", "by hand").await, "ok 1");
    assert_eq!(payload(&mut conn).await, "by hand");
    assert_eq!(raw.request("listen", "c", "").await, "ok");
    conn.emit("c", "back").await.unwrap();
    assert_eq!(
        raw.hear(SOON).await,
        crate::support::raw::Heard::Line("sig c back".to_owned())
    );
}
