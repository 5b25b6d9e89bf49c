//! The effects of commands in each release.

use std::time::Duration;

use dflockd_client::server::{Cluster, Release, Server};
use dflockd_client::{ErrorKind, LockStats, SemaphoreStats};

use super::{SOON, imitate, is_like, line, since, start, token};
use crate::support::raw::RawConnection;
use crate::support::until;

#[tokio::test]
async fn a_release_is_named_or_refused_when_the_server_starts() {
    let named = Server::builder().port(0).release("0.5").release("1.10");
    assert!(named.start().await.is_ok(), "the last setter counts");
    assert!(
        Server::builder()
            .port(0)
            .release(Release::Cluster)
            .start()
            .await
            .is_ok()
    );
    let builder = Server::builder().port(0).release("0.5");
    let of_a_cluster = Cluster::builder().options(builder.clone()).start().await.unwrap_err();
    assert_eq!(of_a_cluster.kind(), ErrorKind::InvalidInput);
    let error = builder.start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(
        error.to_string().contains("\"0.5\"") && error.to_string().contains("1.10"),
        "{error}"
    );
}

#[tokio::test]
async fn each_release_knows_its_commands() {
    for release in Release::ALL {
        let (_server, address) = imitate(release).await;
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
        let (server, address) = imitate(release).await;
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
        // The server treats a semaphore of limit 1 as a lock.
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
        let (_server, address) = imitate(release).await;
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
async fn a_restarted_server_continues_with_greater_fences() {
    let fence = async || {
        let (_server, address) = imitate(Release::NEWEST).await;
        let grant = RawConnection::open(&address).await.request("l", "k", "0 30").await;
        u64::from_str_radix(&token(&grant)[..16], 16).unwrap()
    };
    let first = fence().await;
    assert!(fence().await > first);
}

#[tokio::test]
async fn limits_beyond_32_bits_are_limits_except_in_clusters() {
    for (release, small) in since(Release::Cluster) {
        let (server, address) = imitate(release).await;
        let mut connection = RawConnection::open(&address).await;
        for (limit, in_clusters) in [
            ("1048576", true),
            ("1048577", false),
            ("4294967297", false),
            ("9223372036854775807", false),
        ] {
            let answer = connection.request("sl", limit, &format!("0 {limit}")).await;
            assert_eq!(
                answer.starts_with("ok "),
                in_clusters || !small,
                "{release} {limit}: {answer}"
            );
            // A limit is not truncated to 32 bits.
            let other = connection.request("sl", limit, "0 1").await;
            assert_eq!(
                other.starts_with("ok "),
                small && !in_clusters,
                "{release} {limit}: {other}"
            );
        }
        let most = server.stats().semaphores.iter().map(|semaphore| semaphore.limit).max();
        assert_eq!(most, Some(if small { 1 << 20 } else { i64::MAX as u64 }), "{release}");
    }
}

#[tokio::test]
async fn signals_are_checked_more_strictly_from_1_11_2_on() {
    let with_signals = Release::ALL
        .into_iter()
        .filter(|r| (Release::V1_11..=Release::V1_16).contains(r));
    for release in with_signals {
        let checks = release >= Release::V1_11_2;
        let (server, address) = imitate(release).await;
        let mut connection = RawConnection::open(&address).await;
        let only_once = if checks { "error" } else { "ok" };
        assert_eq!(
            connection.request("unlisten", "a.>.b", "").await,
            only_once,
            "{release}"
        );
        assert_eq!(connection.request("listen", "a.>.b", "").await, "error", "{release}");
        let blank = connection.request("signal", "a", " \t ").await;
        assert_eq!(blank, if checks { "error" } else { "ok 0" }, "{release}");
        assert_eq!(connection.request("signal", "a", "").await, "error", "{release}");
        // The server trims blanks around the name of a group, and keeps blanks inside the name.
        assert_eq!(
            connection.request("listen", "a", "  two words\t").await,
            "ok",
            "{release}"
        );
        assert_eq!(
            server.stats().signal_channels[0].group.as_deref(),
            Some("two words"),
            "{release}"
        );
        assert_eq!(connection.request("signal", "a", "x").await, "ok 1", "{release}");
        assert_eq!(connection.hear(SOON).await, line("sig a x"), "{release}");
        assert_eq!(
            connection.request("unlisten", "a", "two words").await,
            "ok",
            "{release}"
        );
        assert_eq!(connection.request("signal", "a", "x").await, "ok 0", "{release}");
        // Channels and groups may contain bytes that are not valid UTF-8.
        connection
            .send_bytes(b"listen\n\xff.*\n\xfe\nsignal\n\xff.\0\nx\n")
            .await;
        assert_eq!(connection.hear(SOON).await, line("ok"), "{release}");
        assert_eq!(connection.hear(SOON).await, line("ok 1"), "{release}");
    }
}

/// This test uses sockets and real time. The unit tests in `src/server/state` use their own clock.
#[tokio::test]
async fn an_expired_ticket_makes_room_for_a_new_one() {
    for release in ["1.10", "1.15", "2.1"] {
        let builder = Server::builder().release(release);
        let (server, address) = start(builder.lease_sweep_interval(Duration::from_millis(20))).await;
        let mut connection = RawConnection::open(&address).await;
        let first = connection.request("e", "k", "2").await;
        assert_eq!(
            connection.request("e", "k", "2").await,
            "error_already_enqueued",
            "{release}"
        );
        until("it expires", || server.stats().idle_locks.len() == 1).await;
        let second = connection.request("e", "k", "30").await;
        assert!(
            is_like(&line(&second), "acquired $ 30") && second != first,
            "{release}: {second}"
        );
        assert_eq!(
            connection.request("w", "k", "0").await,
            second.replace("acquired", "ok"),
            "{release}"
        );
        assert_eq!(
            connection.request("w", "k", "0").await,
            "error_not_enqueued",
            "{release}"
        );
    }
}
