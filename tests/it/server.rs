//! The embedded server on sockets: how it treats connections.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::process::is_alone_with;
use crate::support::raw::{Heard, RawConnection};
use crate::support::until;
use dflockd_client::ErrorKind;
use dflockd_client::server::{Event, EventKind, Server, ServerBuilder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_secs(10);

async fn start(builder: ServerBuilder) -> (Server, String) {
    let server = builder.port(0).start().await.unwrap();
    let address = server.local_addr().to_string();
    (server, address)
}

fn waiters(server: &Server) -> u64 {
    server.stats().locks.iter().map(|lock| lock.waiters).sum()
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_with_one_write() {
    let (_server, address) = start(Server::builder()).await;
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let requests: String = (0..100).map(|n| format!("l\nk{n}\n0 {}\n", n + 1)).collect();
    stream.write_all(requests.as_bytes()).await.unwrap();
    let mut answers = Vec::with_capacity(64 * 1024);
    let mut reads = 0;
    while answers.iter().filter(|byte| **byte == b'\n').count() < 100 {
        reads += 1;
        assert!(stream.read_buf(&mut answers).await.unwrap() > 0);
    }
    let text = String::from_utf8(answers).unwrap();
    let ttls: Vec<&str> = text.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
    let expected: Vec<String> = (1..=100).map(|ttl: u64| ttl.to_string()).collect();
    assert_eq!(ttls, expected);
    // The server answers the requests of one read with one write. It may need up to 4 reads for these
    // requests, so this test needs up to 4 reads for the answers.
    assert!(reads <= 4, "{reads} reads for answers that were ready together");
}

#[tokio::test]
async fn requests_of_one_connection_are_processed_one_after_the_other() {
    let each = Duration::from_millis(3);
    let (_server, address) = start(Server::builder().request_time(each)).await;
    let mut connection = RawConnection::open(&address).await;
    let began = Instant::now();
    let mut asked = 0;
    for requests in [1, 20] {
        asked += requests as u32;
        connection.send(&"ping\n_\n_\n".repeat(requests)).await;
        for _ in 0..requests {
            assert_eq!(connection.hear(SOON).await, Heard::Line("ok".to_owned()));
        }
        assert!(began.elapsed() >= each * asked, "{asked}: {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn requests_behind_a_blocked_request_wait() {
    let (_server, address) = start(Server::builder()).await;
    let mut holder = RawConnection::open(&address).await;
    let held = holder.request("l", "k", "0 30").await;
    let token = held.split(' ').nth(1).unwrap().to_owned();
    let mut waiter = RawConnection::open(&address).await;
    waiter.send("l\nk\n30 30\nping\n_\n_\n").await;
    assert_eq!(waiter.hear(Duration::from_millis(150)).await, Heard::Nothing);
    assert_eq!(holder.request("r", "k", &token).await, "ok");
    assert!(matches!(waiter.hear(SOON).await, Heard::Line(line) if line.starts_with("ok ")));
    assert_eq!(waiter.hear(SOON).await, Heard::Line("ok".to_owned()));
}

#[tokio::test]
async fn an_invalid_line_behind_a_blocked_request_waits_too() {
    let (_server, address) = start(Server::builder()).await;
    let mut holder = RawConnection::open(&address).await;
    let held = holder.request("l", "k", "0 30").await;
    let token = held.split(' ').nth(1).unwrap().to_owned();
    let mut waiter = RawConnection::open(&address).await;
    waiter.send(&format!("l\nk\n30 30\nl\n{}\n0\n", "k".repeat(300))).await;
    assert_eq!(waiter.hear(Duration::from_millis(150)).await, Heard::Nothing);
    assert_eq!(holder.request("r", "k", &token).await, "ok");
    assert!(matches!(waiter.hear(SOON).await, Heard::Line(line) if line.starts_with("ok ")));
    assert_eq!(waiter.hear(SOON).await, Heard::Line("error".to_owned()));
    assert_eq!(waiter.hear(SOON).await, Heard::Closed);
}

#[tokio::test]
async fn a_waiter_that_hangs_up_is_noticed_while_it_is_blocked() {
    let (server, address) = start(Server::builder()).await;
    let mut holder = RawConnection::open(&address).await;
    holder.request("l", "k", "0 30").await;
    let mut waiter = RawConnection::open(&address).await;
    waiter.send("l\nk\n300 30\n").await;
    until("it waits", || waiters(&server) == 1).await;
    drop(waiter);
    until("the waiter has left the queue", || waiters(&server) == 0).await;
}

#[tokio::test]
async fn a_waiter_that_sends_without_end_is_dropped() {
    let (server, address) = start(Server::builder()).await;
    let mut holder = RawConnection::open(&address).await;
    holder.request("l", "k", "0 30").await;
    let mut flood = RawConnection::open(&address).await;
    flood.send("l\nk\n300 30\n").await;
    until("it waits", || waiters(&server) == 1).await;
    flood.send(&"ping\n_\n_\n".repeat(10_000)).await;
    assert_eq!(flood.hear(SOON).await, Heard::Closed);
    until("the waiter has left the queue", || waiters(&server) == 0).await;
}

#[tokio::test]
async fn a_client_that_reads_no_answers_is_disconnected() {
    let (server, address) = start(
        Server::builder()
            .write_timeout(Duration::from_millis(200))
            .max_locks(20_000),
    )
    .await;
    // The 1,000 keys make every answer to `stats` large.
    let mut stuffing = RawConnection::open(&address).await;
    for n in 0..1000 {
        stuffing
            .request("l", &format!("some-key-with-a-long-name-{n}"), "0 300")
            .await;
    }
    let mut deaf = TcpStream::connect(&address).await.unwrap();
    deaf.write_all("l\nheld-by-the-deaf\n0 300\n".as_bytes()).await.unwrap();
    deaf.write_all("stats\n_\n_\n".repeat(1000).as_bytes()).await.unwrap();
    until("the server has disconnected it and freed its lock", || {
        let stats = server.stats();
        stats.connections == 1 && stats.locks.len() == 1000
    })
    .await;
}

/// A request for `stats` has 10 bytes, and its answer has about 330 KB. The server can read 1,000 requests at once.
#[cfg(target_os = "linux")]
#[test]
fn answers_are_written_before_they_use_much_memory() {
    if !is_alone_with("server::answers_are_written_before_they_use_much_memory", &[]) {
        return;
    }
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let (_server, address) = start(Server::builder().max_locks(2_000)).await;
        let mut stuffing = RawConnection::open(&address).await;
        for n in 0..1_000 {
            stuffing.request("l", &format!("{n:0>250}"), "0 300").await;
        }
        let before = peak_memory_kib();
        let mut greedy = TcpStream::connect(&address).await.unwrap();
        greedy
            .write_all("stats\n_\n_\n".repeat(1_000).as_bytes())
            .await
            .unwrap();
        let mut some = vec![0; 1024 * 1024];
        greedy.read_exact(&mut some).await.unwrap();
        let grown = peak_memory_kib() - before;
        assert!(grown < 64 * 1024, "grown by {grown} KiB");
    });
}

#[cfg(target_os = "linux")]
fn peak_memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn the_read_timeout_ends_a_silent_connection_with_an_error() {
    let (server, address) = start(Server::builder().read_timeout(Duration::from_millis(200))).await;
    let mut silent = RawConnection::open(&address).await;
    silent.request("l", "k", "0 30").await;
    assert_eq!(silent.hear(SOON).await, Heard::Line("error".to_owned()));
    assert_eq!(silent.hear(SOON).await, Heard::Closed);
    until("its lock is free", || server.stats().locks.is_empty()).await;
}

#[tokio::test]
async fn too_long_a_line_ends_the_connection_and_invalid_utf_8_does_not() {
    let (_server, address) = start(Server::builder()).await;
    let mut long = RawConnection::open(&address).await;
    long.send(&format!("l\n{}\n0\n", "k".repeat(300))).await;
    assert_eq!(long.hear(SOON).await, Heard::Line("error".to_owned()));
    assert_eq!(long.hear(SOON).await, Heard::Closed);
    let mut binary = RawConnection::open(&address).await;
    binary.send_bytes(b"\xff\xfe\n\n\nping\n_\n_\n").await;
    assert_eq!(binary.hear(SOON).await, Heard::Line("error".to_owned()));
    assert_eq!(binary.hear(SOON).await, Heard::Line("ok".to_owned()));
}

#[tokio::test]
async fn one_connection_too_many_is_closed_without_an_answer() {
    let (_server, address) = start(Server::builder().max_connections(1)).await;
    let mut first = RawConnection::open(&address).await;
    assert_eq!(first.request("ping", "_", "_").await, "ok");
    let mut second = RawConnection::open(&address).await;
    assert_eq!(second.hear(SOON).await, Heard::Closed);
    assert_eq!(first.request("ping", "_", "_").await, "ok");
}

#[tokio::test]
async fn a_secret_is_required_first_and_once() {
    let (_server, address) = start(Server::builder().auth_token("s3cret")).await;
    for first in [
        "auth\n_\nwrong\n",
        "ping\n_\n_\n",
        "auth\n_\ns3crets\n",
        "nonsense\n_\n_\n",
    ] {
        let mut stranger = RawConnection::open(&address).await;
        stranger.send(first).await;
        assert_eq!(
            stranger.hear(SOON).await,
            Heard::Line("error_auth".to_owned()),
            "{first:?}"
        );
        assert_eq!(stranger.hear(SOON).await, Heard::Closed, "{first:?}");
    }
    let mut friend = RawConnection::open(&address).await;
    assert_eq!(friend.request("auth", "_", "s3cret").await, "ok");
    assert_eq!(friend.request("ping", "_", "_").await, "ok");
}

#[tokio::test]
async fn a_shutdown_refuses_every_request() {
    let (server, address) = start(Server::builder()).await;
    let mut holder = RawConnection::open(&address).await;
    let held = holder.request("l", "k", "0 30").await;
    let token = held.split(' ').nth(1).unwrap().to_owned();
    let mut waiter = RawConnection::open(&address).await;
    waiter.send("l\nk\n300 30\n").await;
    until("it waits", || waiters(&server) == 1).await;
    let shutdown = tokio::spawn(server.shutdown());
    assert_eq!(waiter.hear(SOON).await, Heard::Line("error".to_owned()));
    assert!(
        TcpStream::connect(&address).await.is_err(),
        "the server accepts no new connection"
    );
    assert!(!shutdown.is_finished(), "two connections are open");
    for (connection, command, argument) in [(&mut holder, "r", token.as_str()), (&mut waiter, "ping", "_")] {
        assert_eq!(
            connection.request("r", "k", "").await,
            "error",
            "an invalid request gets `error`"
        );
        assert_eq!(connection.request(command, "k", argument).await, "error_draining");
        assert_eq!(connection.hear(SOON).await, Heard::Closed);
    }
    tokio::time::timeout(SOON, shutdown)
        .await
        .expect("both connections are closed")
        .unwrap();
}

#[tokio::test]
async fn a_shutdown_before_1_16_lets_clients_finish_but_not_wait() {
    let (server, address) = start(Server::builder().release("1.15")).await;
    let mut holder = RawConnection::open(&address).await;
    let held = holder.request("l", "k", "0 30").await;
    let token = held.split(' ').nth(1).unwrap().to_owned();
    let mut waiter = RawConnection::open(&address).await;
    waiter.send("l\nk\n300 30\n").await;
    until("it waits", || waiters(&server) == 1).await;
    let shutdown = tokio::spawn(server.shutdown());
    assert_eq!(waiter.hear(SOON).await, Heard::Line("error".to_owned()));
    assert_eq!(waiter.request("l", "k", "30").await, "error");
    assert!(waiter.request("l", "free", "30").await.starts_with("ok "));
    assert_eq!(holder.request("r", "k", &token).await, "ok");
    assert!(
        TcpStream::connect(&address).await.is_err(),
        "the server accepts no new connection"
    );
    assert!(!shutdown.is_finished(), "two connections are open");
    drop((holder, waiter));
    tokio::time::timeout(SOON, shutdown)
        .await
        .expect("both connections are closed")
        .unwrap();
}

#[tokio::test]
async fn a_shutdown_ends_at_its_timeout_even_if_clients_stay() {
    let (server, address) = start(Server::builder().shutdown_timeout(Duration::from_millis(100))).await;
    let mut stays = RawConnection::open(&address).await;
    assert_eq!(stays.request("ping", "_", "_").await, "ok");
    tokio::time::timeout(SOON, server.shutdown())
        .await
        .expect("the shutdown timeout ends it");
    assert_eq!(stays.hear(SOON).await, Heard::Closed);
}

#[tokio::test]
async fn a_dropped_server_is_gone_at_once() {
    let (server, address) = start(Server::builder()).await;
    let mut client = RawConnection::open(&address).await;
    assert_eq!(client.request("ping", "_", "_").await, "ok");
    drop(server);
    assert_eq!(client.hear(SOON).await, Heard::Closed);
}

#[tokio::test]
async fn a_killed_server_sends_nothing_grants_nothing_and_returns_its_record() {
    let (server, address) = start(Server::builder().record_events(true)).await;
    let mut holder = RawConnection::open(&address).await;
    assert!(holder.request("l", "k", "0 30").await.starts_with("ok "));
    let mut waiter = RawConnection::open(&address).await;
    waiter.send("l\nk\n300 30\n").await;
    until("it waits", || waiters(&server) == 1).await;
    let events = server.kill().await;
    assert_eq!(waiter.hear(SOON).await, Heard::Closed);
    assert_eq!(holder.hear(SOON).await, Heard::Closed);
    assert!(TcpStream::connect(&address).await.is_err());
    let kinds: Vec<EventKind> = events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::Granted, EventKind::Queued, EventKind::Disconnected]);
}

#[tokio::test]
async fn leases_expire_and_idle_keys_are_forgotten_without_requests() {
    let builder = Server::builder()
        .lease_sweep_interval(Duration::from_millis(20))
        .gc_interval(Duration::from_millis(20))
        .gc_max_idle(Duration::from_millis(200))
        .record_events(true);
    let (server, address) = start(builder).await;
    let mut holder = RawConnection::open(&address).await;
    holder.request("l", "k", "0 1").await;
    until("the lease ran out", || server.stats().idle_locks.len() == 1).await;
    until("the key is forgotten", || server.stats().idle_locks.is_empty()).await;
    let events: Vec<EventKind> = server.events().iter().map(|event| event.kind).collect();
    assert_eq!(events, [EventKind::Granted, EventKind::Expired]);
}

#[tokio::test]
async fn events_come_in_order_with_fences_and_the_ends_of_leases() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&told);
    let builder = Server::builder()
        .record_events(true)
        .on_event(move |event| sink.lock().unwrap().push(event.clone()));
    let (server, address) = start(builder).await;
    let mut holder = RawConnection::open(&address).await;
    let mut waiter = RawConnection::open(&address).await;
    let granted = holder.request("l", "k", "0 30").await;
    let token = granted.split(' ').nth(1).unwrap();
    assert_eq!(waiter.request("e", "k", "20").await, "queued");
    assert!(holder.request("n", "k", &format!("{token} 40")).await.starts_with("ok"));
    assert_eq!(holder.request("r", "k", token).await, "ok");
    assert_eq!(holder.request("n", "k", token).await, "error");
    assert!(waiter.request("w", "k", "9").await.starts_with("ok"));
    let sign_of_life = format!("{} 9", "0".repeat(32));
    assert_eq!(holder.request("n", "k", &sign_of_life).await, "error");
    let events = server.events();
    assert_eq!(*told.lock().unwrap(), events);
    let lease = |event: &Event| event.ends.map(|ends| (ends - event.at).as_secs());
    let leases: Vec<(EventKind, Option<u64>)> = events.iter().map(|event| (event.kind, lease(event))).collect();
    let expected = [
        (EventKind::Granted, Some(30)),
        (EventKind::Queued, None),
        (EventKind::Renewed, Some(40)),
        (EventKind::Released, None),
        (EventKind::Granted, Some(20)),
        (EventKind::RenewalRefused, None),
        (EventKind::Collected, Some(20)),
    ];
    assert_eq!(leases, expected);
    for event in &events {
        let granted = event.token.filter(|_| event.kind != EventKind::RenewalRefused);
        let fence = granted.map(|token| token.first_half());
        assert_eq!(event.fence.map(|fence| fence.0), fence, "{event:?}");
    }
    drop(server);
    let (server, address) = start(Server::builder().release("1.10").record_events(true)).await;
    let mut holder = RawConnection::open(&address).await;
    assert!(holder.request("l", "k", "0 30").await.starts_with("ok"));
    assert_eq!(server.events()[0].fence, None, "that release issues no fences");
}

#[tokio::test]
async fn an_error_names_an_address_that_is_taken() {
    let (_server, address) = start(Server::builder()).await;
    let port = address.rsplit(':').next().unwrap().parse().unwrap();
    let error = Server::builder().port(port).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(error.to_string().contains(&address), "{error}");
}
