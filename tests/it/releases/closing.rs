//! Connections that close while a request blocks on them, or while they have queue positions.

use dflockd_client::server::{Release, Server};

use super::{A_WHILE, SOON, imitate, is_like, line, since, start, token, waiters};
use crate::support::raw::{Heard, RawConnection};
use crate::support::until;

/// A connection that holds the lock `own` waits for the lock `k`, and then closes.
#[tokio::test]
async fn a_client_that_hangs_up_while_it_waits_is_noticed_at_once_from_1_15_on() {
    for (release, noticed) in since(Release::V1_15) {
        let (server, address) = imitate(release).await;
        let mut holder = RawConnection::open(&address).await;
        let held = token(&holder.request("l", "k", "0 300").await);
        let mut gone = RawConnection::open(&address).await;
        assert!(gone.request("l", "own", "0 300").await.starts_with("ok "));
        gone.send("l\nk\n300 300\n").await;
        until("it waits", || waiters(&server) == 1).await;
        drop(gone);
        if noticed {
            until("the server has noticed the end", || server.stats().connections == 1).await;
            assert_eq!(waiters(&server), 0, "{release}");
            assert!(holder.request("l", "own", "0").await.starts_with("ok "), "{release}");
            continue;
        }
        assert_eq!(
            holder.request("l", "own", "1").await,
            "timeout",
            "{release}: the key is still held"
        );
        let stats = server.stats();
        assert_eq!((stats.connections, waiters(&server)), (2, 1), "{release}");
        // When the holder releases `k`, the server grants `k` to the closed connection. Only now does the server notice
        // the end of this connection. Then it frees both keys.
        assert_eq!(holder.request("r", "k", &held).await, "ok", "{release}");
        until("the server has noticed the end", || server.stats().connections == 1).await;
        for key in ["k", "own"] {
            assert!(
                holder.request("l", key, "0 300").await.starts_with("ok "),
                "{release} {key}"
            );
        }
    }
}

/// Without a grant, the server notices the end when the wait times out.
#[tokio::test]
async fn a_wait_outlives_its_client_until_its_timeout_before_1_15() {
    let (server, address) = imitate(Release::V1_10).await;
    let mut holder = RawConnection::open(&address).await;
    holder.request("l", "k", "0 300").await;
    let mut gone = RawConnection::open(&address).await;
    gone.send("l\nk\n2 300\n").await;
    until("it waits", || waiters(&server) == 1).await;
    drop(gone);
    // This wait (1 s) begins just after the earlier wait (2 s), so it ends first.
    assert_eq!(holder.request("l", "k", "1").await, "timeout");
    assert_eq!((server.stats().connections, waiters(&server)), (2, 1));
    until("the wait has timed out", || server.stats().connections == 1).await;
    assert_eq!(waiters(&server), 0);
}

/// Even if a client sends 90,000 bytes during its wait, the server reads them only when the wait is over.
#[tokio::test]
async fn nothing_is_read_from_a_connection_that_waits_before_1_15() {
    let (server, address) = imitate(Release::V1_10).await;
    let mut holder = RawConnection::open(&address).await;
    let held = token(&holder.request("l", "k", "0 300").await);
    let mut flood = RawConnection::open(&address).await;
    flood.send("l\nk\n300 300\n").await;
    until("it waits", || waiters(&server) == 1).await;
    flood.send(&"r\nk\nnone\n".repeat(10_000)).await;
    assert_eq!(flood.hear(A_WHILE).await, Heard::Nothing);
    assert_eq!(holder.request("r", "k", &held).await, "ok");
    assert!(matches!(flood.hear(SOON).await, Heard::Line(grant) if grant.starts_with("ok ")));
    for _ in 0..10_000 {
        assert_eq!(flood.hear(SOON).await, line("error"));
    }
}

/// The client closes its sending direction of the connection, and waits for the answer.
#[tokio::test]
async fn a_half_closed_connection_gets_the_answer_to_its_wait_before_1_15() {
    for (release, watched) in since(Release::V1_15) {
        let (server, address) = imitate(release).await;
        let mut holder = RawConnection::open(&address).await;
        let held = token(&holder.request("l", "k", "0 300").await);
        let mut half_closed = RawConnection::open(&address).await;
        half_closed.send("l\nk\n300 300\n").await;
        until("it waits", || waiters(&server) == 1).await;
        half_closed.end_sending().await;
        if !watched {
            assert_eq!(half_closed.hear(A_WHILE).await, Heard::Nothing, "{release}");
            holder.request("r", "k", &held).await;
            let heard = half_closed.hear(SOON).await;
            assert!(is_like(&heard, "ok $ 300"), "{release}: {heard:?}");
        }
        assert_eq!(half_closed.hear(SOON).await, Heard::Closed, "{release}");
        until("the connection is closed", || server.stats().connections == 1).await;
        assert_eq!(waiters(&server), 0);
    }
    // A half-closed connection also gets the answer of a wait that times out.
    let (server, address) = imitate(Release::V1_10).await;
    let mut holder = RawConnection::open(&address).await;
    holder.request("l", "k", "0 300").await;
    let mut half_closed = RawConnection::open(&address).await;
    half_closed.send("l\nk\n1 300\nl\nfree\n0 300\n").await;
    until("it waits", || waiters(&server) == 1).await;
    half_closed.end_sending().await;
    assert_eq!(half_closed.hear(SOON).await, line("timeout"));
    let heard = half_closed.hear(SOON).await;
    assert!(
        is_like(&heard, "ok $ 300"),
        "the requests behind the wait are answered: {heard:?}"
    );
    assert_eq!(half_closed.hear(SOON).await, Heard::Closed);
}

/// The read buffer of the real servers has 4,096 bytes. From 1.15 on, these servers close a connection when 4,096 bytes
/// have arrived behind a wait.
#[tokio::test]
async fn bytes_behind_a_wait_must_fit_into_the_read_buffer() {
    let (server, address) = imitate(Release::NEWEST).await;
    let mut holder = RawConnection::open(&address).await;
    let held = token(&holder.request("l", "k", "0 300").await);
    for (behind, fits) in [(4095, true), (4096, false)] {
        let mut waiter = RawConnection::open(&address).await;
        waiter.send("l\nk\n300 300\n").await;
        until("it waits", || waiters(&server) == 1).await;
        waiter.send(&"x".repeat(behind)).await;
        let (expected, within) = match fits {
            true => (Heard::Nothing, A_WHILE),
            false => (Heard::Closed, SOON),
        };
        assert_eq!(waiter.hear(within).await, expected, "{behind}");
        drop(waiter);
        until("the connection is closed", || waiters(&server) == 0).await;
    }
    // The limit includes bytes that came together with the wait.
    let mut waiter = RawConnection::open(&address).await;
    waiter.send(&format!("l\nk\n300 300\n{}", "x".repeat(4096))).await;
    assert_eq!(waiter.hear(SOON).await, Heard::Closed);
    assert_eq!(holder.request("r", "k", &held).await, "ok");
}

#[tokio::test]
async fn without_auto_release_a_queue_position_outlives_its_connection_before_1_15() {
    for (release, given_up) in since(Release::V1_15) {
        let builder = Server::builder().release(release).auto_release_on_disconnect(false);
        let (server, address) = start(builder).await;
        let mut holder = RawConnection::open(&address).await;
        let held = token(&holder.request("l", "k", "0 300").await);
        let mut gone = RawConnection::open(&address).await;
        assert_eq!(gone.request("e", "k", "300").await, "queued");
        gone.hang_up().await;
        until("the connection is closed", || server.stats().connections == 1).await;
        assert_eq!(waiters(&server), u64::from(!given_up), "{release}");
        assert_eq!(holder.request("r", "k", &held).await, "ok");
        let next = holder.request("l", "k", "0 300").await;
        assert_eq!(next == "timeout", !given_up, "{release}: {next}");
    }
}
