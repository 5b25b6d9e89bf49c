//! What tells the releases that the embedded server plays apart, seen from its sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::Duration;

use dflockd_client::server::{Release, Server, ServerBuilder};
use dflockd_client::{ErrorKind, LockStats, SemaphoreStats};
use support::raw::{Heard, RawConnection};
use support::until;

const SOON: Duration = Duration::from_secs(10);

/// Long enough to see that nothing comes.
const A_WHILE: Duration = Duration::from_millis(150);

async fn start(builder: ServerBuilder) -> (Server, String) {
    let server = builder.port(0).start().await.unwrap();
    let address = server.local_addr().to_string();
    (server, address)
}

async fn play(release: Release) -> (Server, String) {
    start(Server::builder().release(release).unwrap()).await
}

fn line(text: &str) -> Heard {
    Heard::Line(text.to_owned())
}

fn token(grant: &str) -> String {
    grant.split(' ').nth(1).expect(grant).to_owned()
}

fn waiters(server: &Server) -> u64 {
    server.stats().locks.iter().map(|lock| lock.waiters).sum()
}

fn since(first: Release) -> impl Iterator<Item = (Release, bool)> {
    Release::ALL.into_iter().map(move |release| (release, release >= first))
}

#[test]
fn a_release_is_named_or_refused() {
    assert!(Server::builder().release("1.10").is_ok());
    assert!(Server::builder().release(Release::Cluster).is_ok());
    let error = Server::builder().release("0.5").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(
        error.to_string().contains("\"0.5\"") && error.to_string().contains("1.10"),
        "{error}"
    );
}

#[tokio::test]
async fn each_release_knows_its_commands() {
    for release in Release::ALL {
        let (_server, address) = play(release).await;
        let mut connection = RawConnection::open(&address).await;
        let answer = |known: bool, ok: &'static str| if known { ok } else { "error" };
        let ping = connection.request("ping", "_", "_").await;
        assert_eq!(ping, answer(release >= Release::V1_14, "ok"), "{release}");
        let signals = (Release::V1_11..=Release::V1_16).contains(&release);
        for (command, argument, ok) in [("listen", "", "ok"), ("unlisten", "", "ok"), ("signal", "x", "ok 0")] {
            let said = connection.request(command, "a", argument).await;
            assert_eq!(said, answer(signals, ok), "{release} {command}");
        }
        let reference = connection.request("stable-ref", "r", "").await;
        assert_eq!(reference, answer(release == Release::Cluster, "ok"), "{release}");
    }
}

#[tokio::test]
async fn locks_and_semaphores_share_one_namespace_before_1_14() {
    for (release, separate) in since(Release::V1_14) {
        let (server, address) = play(release).await;
        let mut connection = RawConnection::open(&address).await;
        let held = token(&connection.request("l", "k", "0 30").await);
        if separate {
            assert!(
                connection.request("sl", "k", "0 3").await.starts_with("ok "),
                "{release}"
            );
            assert_eq!(connection.request("sr", "k", &held).await, "error", "{release}");
            continue;
        }
        assert_eq!(
            connection.request("sl", "k", "0 3").await,
            "error_limit_mismatch",
            "{release}"
        );
        assert_eq!(connection.request("sl", "k", "0 1").await, "timeout", "{release}");
        assert_eq!(
            connection.request("sn", "k", &format!("{held} 40")).await,
            "ok 40",
            "{release}"
        );
        assert_eq!(connection.request("sr", "k", &held).await, "ok", "{release}");
        assert!(connection.request("sl", "s", "0 2").await.starts_with("ok "));
        assert_eq!(
            connection.request("l", "s", "0").await,
            "error_limit_mismatch",
            "{release}"
        );
        // A semaphore of limit 1 is a lock.
        assert!(connection.request("se", "one", "1").await.starts_with("acquired "));
        let stats = server.stats();
        let locks: Vec<LockStats> = stats.locks.into_iter().filter(|lock| lock.key == "one").collect();
        let semaphores: Vec<SemaphoreStats> = stats.semaphores;
        assert_eq!(
            (locks.len(), semaphores.len(), semaphores[0].limit),
            (1, 1, 2),
            "{release}"
        );
        assert_eq!(stats.idle_locks.len(), 1, "{release}");
    }
}

#[tokio::test]
async fn tokens_carry_a_fence_from_2_1_on() {
    for (release, fences) in since(Release::V2_1) {
        let (_server, address) = play(release).await;
        let mut connection = RawConnection::open(&address).await;
        let mut prefixes = Vec::new();
        for number in 0..8 {
            let grant = connection.request("l", &format!("k{number}"), "0 30").await;
            assert_eq!(grant.split(' ').count(), 3, "{release}: {grant}");
            prefixes.push(u64::from_str_radix(&token(&grant)[..16], 16).unwrap());
        }
        let steps = prefixes.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1));
        assert_eq!(steps, fences, "{release}: {prefixes:?}");
    }
}

#[tokio::test]
async fn long_arguments_end_the_connection_before_1_15() {
    for (release, long) in since(Release::V1_15) {
        let secret = "s".repeat(257);
        let builder = Server::builder().release(release).unwrap();
        let (_server, address) = start(builder.auth_token(secret.as_str()).unwrap()).await;
        let mut connection = RawConnection::open(&address).await;
        connection.send(&format!("auth\n_\n{secret}\n")).await;
        let answer = if long { "ok" } else { "error_auth" };
        assert_eq!(connection.hear(SOON).await, line(answer), "{release}");
        if !long {
            assert_eq!(connection.hear(SOON).await, Heard::Closed, "{release}");
        }
        if !(Release::V1_11..=Release::V1_16).contains(&release) {
            continue;
        }
        let (_server, address) = play(release).await;
        let mut connection = RawConnection::open(&address).await;
        assert_eq!(
            connection.request("signal", "a", &"x".repeat(256)).await,
            "ok 0",
            "{release}"
        );
        connection.send(&format!("signal\na\n{}\n", "x".repeat(257))).await;
        let answer = if long { "ok 0" } else { "error" };
        assert_eq!(connection.hear(SOON).await, line(answer), "{release}");
        let after = if long { Heard::Nothing } else { Heard::Closed };
        assert_eq!(connection.hear(A_WHILE).await, after, "{release}");
    }
}

/// A connection that holds `own` waits for `k`, and closes.
#[tokio::test]
async fn a_client_that_hangs_up_while_it_waits_is_noticed_at_once_from_1_15_on() {
    for (release, noticed) in since(Release::V1_15) {
        let (server, address) = play(release).await;
        let mut holder = RawConnection::open(&address).await;
        let held = token(&holder.request("l", "k", "0 300").await);
        let mut gone = RawConnection::open(&address).await;
        assert!(gone.request("l", "own", "0 300").await.starts_with("ok "));
        gone.send("l\nk\n300 300\n").await;
        until("it waits", || waiters(&server) == 1).await;
        drop(gone);
        if noticed {
            until("it is noticed", || server.stats().connections == 1).await;
            assert_eq!(waiters(&server), 0, "{release}");
            assert!(holder.request("l", "own", "0").await.starts_with("ok "), "{release}");
            continue;
        }
        assert_eq!(
            holder.request("l", "own", "1").await,
            "timeout",
            "{release}: it is held still"
        );
        let stats = server.stats();
        assert_eq!((stats.connections, waiters(&server)), (2, 1), "{release}");
        // Its turn comes: only now is it missed, and gives up both.
        assert_eq!(holder.request("r", "k", &held).await, "ok", "{release}");
        until("it is missed", || server.stats().connections == 1).await;
        for key in ["k", "own"] {
            assert!(
                holder.request("l", key, "0 300").await.starts_with("ok "),
                "{release} {key}"
            );
        }
    }
}

/// The same, and its turn never comes: then it is missed when its time is over.
#[tokio::test]
async fn a_wait_of_a_client_that_is_gone_lasts_its_time_before_1_15() {
    let (server, address) = play(Release::V1_10).await;
    let mut holder = RawConnection::open(&address).await;
    holder.request("l", "k", "0 300").await;
    let mut gone = RawConnection::open(&address).await;
    gone.send("l\nk\n2 300\n").await;
    until("it waits", || waiters(&server) == 1).await;
    drop(gone);
    // A second that the server counts, on the same clock.
    assert_eq!(holder.request("l", "k", "1").await, "timeout");
    assert_eq!((server.stats().connections, waiters(&server)), (2, 1));
    until("its time is over", || server.stats().connections == 1).await;
    assert_eq!(waiters(&server), 0);
}

/// What a client sends while it waits is read when the wait is over, however much it is.
#[tokio::test]
async fn nothing_is_read_from_a_connection_that_waits_before_1_15() {
    let (server, address) = play(Release::V1_10).await;
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

/// Whatever a client does in place of presenting the secret, it is told that this is what was wanted.
#[tokio::test]
async fn a_client_that_has_not_authenticated_hears_of_it_however_it_goes_wrong() {
    for release in ["1.10", "2.1"] {
        let builder = Server::builder()
            .release(release)
            .unwrap()
            .auth_token("s3cret")
            .unwrap();
        let (_server, address) = start(builder.read_timeout(Duration::from_millis(200))).await;
        for sent in ["", "auth\n", "auth\n_\ns3cr", "auth\n_\nwrong\n", "ping\n_\n_\n"] {
            let mut silent = RawConnection::open(&address).await;
            silent.send(sent).await;
            assert_eq!(
                silent.hear(SOON).await,
                line("error_auth"),
                "{release}: silent after {sent:?}"
            );
            assert_eq!(
                silent.hear(SOON).await,
                Heard::Closed,
                "{release}: silent after {sent:?}"
            );
            let mut half_closed = RawConnection::open(&address).await;
            half_closed.send(sent).await;
            half_closed.end_sending().await;
            assert_eq!(
                half_closed.hear(SOON).await,
                line("error_auth"),
                "{release}: ended after {sent:?}"
            );
            assert_eq!(
                half_closed.hear(SOON).await,
                Heard::Closed,
                "{release}: ended after {sent:?}"
            );
        }
        let mut long = RawConnection::open(&address).await;
        long.send(&format!("{}\n", "a".repeat(300))).await;
        assert_eq!(long.hear(SOON).await, line("error_auth"), "{release}");
        assert_eq!(long.hear(SOON).await, Heard::Closed, "{release}");
    }
}
