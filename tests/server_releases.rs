//! What tells the releases that the embedded server plays apart, seen from its sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::Duration;

use dflockd_client::server::{Release, Server, ServerBuilder};
use dflockd_client::{ErrorKind, LockStats, SemaphoreStats};
use serde_json::Value;
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

/// One client says something and hears something.
struct Exchange {
    says: &'static [u8],
    /// With `$` for a token.
    hears: &'static str,
}

/// What single servers of all releases answer in the same way. It is what a strict server would refuse, and what the real ones take.
const TAKEN: &[Exchange] = &[
    Exchange {
        says: b"l\nk\n 0  5 \n",
        hears: "ok $ 5",
    },
    Exchange {
        says: b"l\nk\n\t+0\x0b\x0c7\t\n",
        hears: "ok $ 7",
    },
    Exchange {
        says: b"l\nk\n-0 007\n",
        hears: "ok $ 7",
    },
    Exchange {
        says: b"l\nk\n0\xc2\xa05\xe3\x80\x80\n",
        hears: "ok $ 5",
    },
    Exchange {
        says: b"l\r\nk\r\r\r\n0 5\r\r\n",
        hears: "ok $ 5",
    },
    Exchange {
        says: b"e\nk\n \t\n",
        hears: "acquired $ 33",
    },
    Exchange {
        says: b"e\nk\n +9\n",
        hears: "acquired $ 9",
    },
    Exchange {
        says: b"se\nk\n 2\t9 \n",
        hears: "acquired $ 9",
    },
    Exchange {
        says: b"l\na\x0b\x0c\x00b\n0 5\n",
        hears: "ok $ 5",
    },
    Exchange {
        says: b"l\nno\xc2\xa0blank\n0 5\n",
        hears: "ok $ 5",
    },
    Exchange {
        says: b"l\n\xff\xfe\n0 5\n",
        hears: "ok $ 5",
    },
    // What is no token holds nothing.
    Exchange {
        says: b"r\nk\n\xff\n",
        hears: "error",
    },
    Exchange {
        says: b"n\nk\n\xff 5\n",
        hears: "error",
    },
    // The connection goes on after what no server takes.
    Exchange {
        says: b"\xff\n\xff\n\xff\n",
        hears: "error",
    },
    Exchange {
        says: b"l\nk\n0x1\n",
        hears: "error",
    },
    Exchange {
        says: b"l\nk\n1_0\n",
        hears: "error",
    },
    Exchange {
        says: b"l\nk\n+ 5\n",
        hears: "error",
    },
    Exchange {
        says: b"l\nk\n-1\n",
        hears: "error",
    },
    Exchange {
        says: b"l\nk\n0 -5\n",
        hears: "error",
    },
    Exchange {
        says: b"l\nk\n0 5 5\n",
        hears: "error",
    },
    Exchange {
        says: b"l\na\tb\n0\n",
        hears: "error",
    },
    Exchange {
        says: b"l\n\r\n0\n",
        hears: "error",
    },
    Exchange {
        says: b" l\nk\n0\n",
        hears: "error",
    },
    Exchange {
        says: b"sl\nk\n0 0\n",
        hears: "error",
    },
    Exchange {
        says: b"sl\nk\n0 9223372036854775808\n",
        hears: "error",
    },
];

fn is_like(heard: &Heard, expected: &str) -> bool {
    let Heard::Line(heard) = heard else { return false };
    let (heard, expected): (Vec<&str>, Vec<&str>) = (heard.split(' ').collect(), expected.split(' ').collect());
    heard.len() == expected.len()
        && heard.iter().zip(expected).all(|(heard, expected)| match expected {
            "$" => heard.len() == 32,
            expected => *heard == expected,
        })
}

#[tokio::test]
async fn what_the_real_servers_take_is_taken() {
    for release in Release::ALL {
        for Exchange { says, hears } in TAKEN {
            let (_server, address) = play(release).await;
            let mut connection = RawConnection::open(&address).await;
            connection.send_bytes(says).await;
            let heard = connection.hear(SOON).await;
            assert!(
                is_like(&heard, hears),
                "{release}: {} brought {heard:?}",
                says.escape_ascii()
            );
            // It is in step, and open.
            assert!(
                connection.request("stats", "_", "_").await.starts_with("ok {"),
                "{release}"
            );
        }
    }
}

#[tokio::test]
async fn limits_beyond_32_bits_are_limits_except_in_clusters() {
    for (release, small) in since(Release::Cluster) {
        let (server, address) = play(release).await;
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
            // A limit is not cut off to one that fits.
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
async fn keys_of_any_bytes_are_keys_of_their_own() {
    let (server, address) = start(Server::builder().record_events(true)).await;
    let mut connection = RawConnection::open(&address).await;
    for key in [&b"k"[..], b"k\0", b"k\xff", b"k\xfe", b"\x0bk", "k\u{a0}".as_bytes()] {
        for answer in ["ok $ 9", "timeout"] {
            connection.send_bytes(&[b"l\n", key, b"\n0 9\n"].concat()).await;
            let heard = connection.hear(SOON).await;
            assert!(is_like(&heard, answer), "{}: {heard:?}", key.escape_ascii());
        }
    }
    // In what is told of them, a character stands for what cannot be shown.
    let stats = server.stats();
    let mut shown: Vec<&str> = stats.locks.iter().map(|lock| lock.key.as_str()).collect();
    shown.sort_unstable();
    assert_eq!(shown, ["\u{b}k", "k", "k\0", "k\u{a0}", "k\u{fffd}", "k\u{fffd}"]);
    let events = server.events();
    let keys: Vec<&str> = events.iter().map(|event| event.key.as_str()).collect();
    let invalid = "k\u{fffd}";
    assert_eq!(keys, ["k", invalid, invalid, invalid, "\u{fffd}k", invalid]);
}

#[tokio::test]
async fn a_secret_is_trimmed_before_it_is_compared() {
    for release in Release::ALL {
        for (secret, presented, right) in [
            ("s3cret", " \ts3cret\u{b} ", true),
            ("two words", "two words", true),
            ("s3cret", "s3cret s3cret", false),
            ("s3cret", "", false),
            // From 1.16 on the server trims its own, too. Before, nothing fits such a one.
            (" s3cret ", " s3cret ", release >= Release::V1_16),
            (" s3cret ", "s3cret", release >= Release::V1_16),
        ] {
            let builder = Server::builder().release(release).unwrap();
            let (_server, address) = start(builder.auth_token(secret).unwrap()).await;
            let mut connection = RawConnection::open(&address).await;
            let answer = connection.request("auth", "anything", presented).await;
            let expected = if right { "ok" } else { "error_auth" };
            assert_eq!(answer, expected, "{release}: {secret:?} {presented:?}");
        }
    }
}

/// Nothing is said before its end, the read timeout or the end of the input.
#[tokio::test]
async fn a_line_that_is_too_long_is_answered_at_its_end() {
    for release in ["1.10", "2.1"] {
        let builder = Server::builder().release(release).unwrap();
        let (_server, address) = start(builder.read_timeout(Duration::from_secs(1))).await;
        let long = "x".repeat(300);
        for end in ["\n", "", "<the end>"] {
            let mut connection = RawConnection::open(&address).await;
            connection.send(&format!("l\n{long}")).await;
            assert_eq!(connection.hear(A_WHILE).await, Heard::Nothing, "{release} {end:?}");
            match end {
                "<the end>" => connection.end_sending().await,
                end => connection.send(end).await,
            }
            assert_eq!(connection.hear(SOON).await, line("error"), "{release} {end:?}");
            assert_eq!(connection.hear(SOON).await, Heard::Closed, "{release} {end:?}");
        }
        // Half a request that is not too long ends without an answer.
        let mut connection = RawConnection::open(&address).await;
        connection.send("l\nk\n").await;
        connection.end_sending().await;
        assert_eq!(connection.hear(SOON).await, Heard::Closed, "{release}");
    }
}

#[tokio::test]
async fn the_carriage_returns_of_a_line_count() {
    for release in Release::ALL {
        let (_server, address) = play(release).await;
        for (line_end, answer) in [("\n", "ok"), ("\r\n", "error")] {
            let mut connection = RawConnection::open(&address).await;
            connection.send(&format!("l\n{}{line_end}0 5\n", "k".repeat(256))).await;
            let Heard::Line(heard) = connection.hear(SOON).await else {
                panic!("{release}: no answer");
            };
            assert_eq!(heard.split(' ').next(), Some(answer), "{release}");
            if answer == "error" {
                assert_eq!(connection.hear(SOON).await, Heard::Closed, "{release}");
            }
        }
    }
}

/// It has said all that it will, and waits for its answer.
#[tokio::test]
async fn a_half_closed_connection_gets_the_answer_to_its_wait_before_1_15() {
    for (release, watched) in since(Release::V1_15) {
        let (server, address) = play(release).await;
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
        until("it is gone", || server.stats().connections == 1).await;
        assert_eq!(waiters(&server), 0);
    }
    // The same when its time is over.
    let (server, address) = play(Release::V1_10).await;
    let mut holder = RawConnection::open(&address).await;
    holder.request("l", "k", "0 300").await;
    let mut half_closed = RawConnection::open(&address).await;
    half_closed.send("l\nk\n1 300\nl\nfree\n0 300\n").await;
    until("it waits", || waiters(&server) == 1).await;
    half_closed.end_sending().await;
    assert_eq!(half_closed.hear(SOON).await, line("timeout"));
    let heard = half_closed.hear(SOON).await;
    assert!(is_like(&heard, "ok $ 300"), "what it has sent is answered: {heard:?}");
    assert_eq!(half_closed.hear(SOON).await, Heard::Closed);
}

/// The read buffer of the real servers has 4,096 bytes. What is behind a wait must fit, from 1.15 on.
#[tokio::test]
async fn what_is_sent_behind_a_wait_must_fit_into_the_read_buffer() {
    let (server, address) = play(Release::NEWEST).await;
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
        until("it is gone", || waiters(&server) == 0).await;
    }
    // It does not matter whether it came with the wait.
    let mut waiter = RawConnection::open(&address).await;
    waiter.send(&format!("l\nk\n300 300\n{}", "x".repeat(4096))).await;
    assert_eq!(waiter.hear(SOON).await, Heard::Closed);
    assert_eq!(holder.request("r", "k", &held).await, "ok");
}

/// A byte now and then keeps no connection open: each line has its time.
#[tokio::test]
async fn the_read_timeout_does_not_begin_anew_with_each_byte() {
    let timeout = Duration::from_secs(1);
    for release in ["1.10", "2.1"] {
        let builder = Server::builder().release(release).unwrap();
        let (_server, address) = start(builder.read_timeout(timeout)).await;
        let mut slow = RawConnection::open(&address).await;
        let begun = tokio::time::Instant::now();
        let heard = loop {
            slow.send("x").await;
            match slow.hear(timeout / 10).await {
                Heard::Nothing => assert!(begun.elapsed() < 20 * timeout, "{release}: it goes on and on"),
                heard => break heard,
            }
        };
        assert_eq!(heard, line("error"), "{release}");
        assert_eq!(slow.hear(SOON).await, Heard::Closed, "{release}");
        assert!(begun.elapsed() >= timeout, "{release}");
    }
}

#[tokio::test]
async fn each_line_has_the_read_timeout_for_itself() {
    let timeout = Duration::from_secs(3);
    let (_server, address) = start(Server::builder().read_timeout(timeout)).await;
    let mut slow = RawConnection::open(&address).await;
    for piece in ["l\n", "k\n", "0 9\n"] {
        // Two of these are longer than the timeout.
        assert_eq!(slow.hear(timeout * 6 / 10).await, Heard::Nothing);
        slow.send(piece).await;
    }
    let heard = slow.hear(SOON).await;
    assert!(is_like(&heard, "ok $ 9"), "{heard:?}");
}

#[tokio::test]
async fn stats_have_fractions_and_an_order() {
    for release in Release::ALL {
        let (server, address) = start(Server::builder().release(release).unwrap()).await;
        let mut connection = RawConnection::open(&address).await;
        let mut keys: Vec<String> = (0..40).map(|number| format!("k{number}")).collect();
        for key in &keys {
            let grant = connection.request("l", key, "0 30").await;
            assert_eq!(connection.request("r", key, &token(&grant)).await, "ok");
        }
        connection.request("l", "held", "0 30").await;
        connection.request("sl", "one", "0 1 30").await;
        connection.request("sl", "two", "0 2 30").await;
        let mut read = async || -> Value {
            let stats = connection.request("stats", "_", "_").await;
            serde_json::from_str(stats.strip_prefix("ok ").unwrap()).unwrap()
        };
        let stats = read().await;
        assert_eq!(stats, {
            let mut again = read().await;
            // But for what time does to them.
            for (list, field) in [("locks", "lease_expires_in_s"), ("idle_locks", "idle_s")] {
                for (now, before) in again[list]
                    .as_array_mut()
                    .unwrap()
                    .iter_mut()
                    .zip(stats[list].as_array().unwrap())
                {
                    now[field] = before[field].clone();
                }
            }
            again
        });
        let left = stats["locks"][0]["lease_expires_in_s"].as_f64().unwrap();
        assert!(left > 0.0 && left < 30.0 && left.fract() > 0.0, "{release}: {left}");
        let idle = stats["idle_locks"].as_array().unwrap();
        assert!(
            idle.iter().all(|idle| idle["idle_s"].as_f64().unwrap().fract() > 0.0),
            "{release}"
        );
        // By the map that real servers keep a key in.
        let prefix = if release >= Release::V1_14 { "lock:" } else { "" };
        keys.sort_by_key(|key| {
            let bytes = prefix.bytes().chain(key.bytes());
            let hash = bytes.fold(2_166_136_261_u32, |hash, byte| {
                (hash ^ u32::from(byte)).wrapping_mul(16_777_619)
            });
            (hash % 64, key.clone())
        });
        let told: Vec<&str> = idle.iter().map(|idle| idle["key"].as_str().unwrap()).collect();
        assert_eq!(told, keys, "{release}");
        // A semaphore of limit 1 is among the locks.
        let semaphores = stats["semaphores"].as_array().unwrap();
        assert_eq!(semaphores.len(), 1, "{release}");
        assert_eq!(server.stats().locks.len(), 2, "{release}");
        assert!(
            server.stats().locks[0].lease_expires_in_s < 30,
            "whole seconds: {release}"
        );
    }
}

#[tokio::test]
async fn who_listens_is_told_as_each_release_does() {
    for release in Release::ALL {
        let (server, address) = play(release).await;
        let mut connection = RawConnection::open(&address).await;
        let stats = connection.request("stats", "_", "_").await;
        let stats: Value = serde_json::from_str(stats.strip_prefix("ok ").unwrap()).unwrap();
        let expected = match release {
            Release::V1_11 => Some(Value::Null),
            Release::V1_11_2 | Release::V1_12 | Release::V1_13 | Release::V1_14 | Release::V1_15 | Release::V1_16 => {
                Some(Value::Array(Vec::new()))
            }
            _ => None,
        };
        assert_eq!(stats.get("signal_channels").cloned(), expected, "{release}");
        assert_eq!(server.stats().signal_channels, []);
    }
}

#[tokio::test]
async fn signals_are_checked_better_from_1_11_2_on() {
    let with_signals = Release::ALL
        .into_iter()
        .filter(|r| (Release::V1_11..=Release::V1_16).contains(r));
    for release in with_signals {
        let checks = release >= Release::V1_11_2;
        let (server, address) = play(release).await;
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
        // Blanks around the name of a group do not count, those in it do.
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
        // Channels, groups and payloads may be any bytes.
        connection
            .send_bytes(b"listen\n\xff.*\n\xfe\nsignal\n\xff.\0\nx\n")
            .await;
        assert_eq!(connection.hear(SOON).await, line("ok"), "{release}");
        assert_eq!(connection.hear(SOON).await, line("ok 1"), "{release}");
    }
}

/// With the clock of the sockets, what the state is tested for with its own.
#[tokio::test]
async fn a_ticket_that_was_not_collected_in_time_makes_room_for_a_new_one() {
    for release in ["1.10", "1.15", "2.1"] {
        let builder = Server::builder().release(release).unwrap();
        let (server, address) = start(builder.lease_sweep_interval(Duration::from_millis(20))).await;
        let mut connection = RawConnection::open(&address).await;
        let first = connection.request("e", "k", "1").await;
        assert_eq!(
            connection.request("e", "k", "1").await,
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

#[tokio::test]
async fn without_auto_release_a_place_outlives_its_connection_before_1_15() {
    for (release, given_up) in since(Release::V1_15) {
        let builder = Server::builder()
            .release(release)
            .unwrap()
            .auto_release_on_disconnect(false);
        let (server, address) = start(builder).await;
        let mut holder = RawConnection::open(&address).await;
        let held = token(&holder.request("l", "k", "0 300").await);
        let mut gone = RawConnection::open(&address).await;
        assert_eq!(gone.request("e", "k", "300").await, "queued");
        gone.hang_up().await;
        until("it is gone", || server.stats().connections == 1).await;
        assert_eq!(waiters(&server), u64::from(!given_up), "{release}");
        assert_eq!(holder.request("r", "k", &held).await, "ok");
        let next = holder.request("l", "k", "0 300").await;
        assert_eq!(next == "timeout", !given_up, "{release}: {next}");
    }
}

#[tokio::test]
async fn a_server_that_is_started_again_goes_on_with_greater_fences() {
    let fence = async || {
        let (_server, address) = play(Release::NEWEST).await;
        let grant = RawConnection::open(&address).await.request("l", "k", "0 30").await;
        u64::from_str_radix(&token(&grant)[..16], 16).unwrap()
    };
    let first = fence().await;
    assert!(fence().await > first);
}
