//! How the server reads requests: what it accepts, how long lines may be, and how long they may take.

use std::time::Duration;

use dflockd_client::server::{Release, Server};

use super::{A_WHILE, SOON, imitate, is_like, line, since, start};
use crate::support::raw::{Heard, RawConnection};

/// Requests and their answers, with `$` for a token. Servers of all releases give these answers. A strict server would
/// refuse most of the requests that are granted here, but the real servers grant them.
const ANSWERS: &[(&[u8], &str)] = &[
    (b"l\nk\n 0  5 \n", "ok $ 5"),
    (b"l\nk\n\t+0\x0b\x0c7\t\n", "ok $ 7"),
    (b"l\nk\n-0 007\n", "ok $ 7"),
    (b"l\nk\n0\xc2\xa05\xe3\x80\x80\n", "ok $ 5"),
    (b"l\r\nk\r\r\r\n0 5\r\r\n", "ok $ 5"),
    (b"e\nk\n \t\n", "acquired $ 33"),
    (b"e\nk\n +9\n", "acquired $ 9"),
    (b"se\nk\n 2\t9 \n", "acquired $ 9"),
    (b"l\na\x0b\x0c\x00b\n0 5\n", "ok $ 5"),
    (b"l\nno\xc2\xa0blank\n0 5\n", "ok $ 5"),
    (b"l\n\xff\xfe\n0 5\n", "ok $ 5"),
    // No lease has an invalid token.
    (b"r\nk\n\xff\n", "error"),
    (b"n\nk\n\xff 5\n", "error"),
    // The connection stays open after invalid requests.
    (b"\xff\n\xff\n\xff\n", "error"),
    (b"l\nk\n0x1\n", "error"),
    (b"l\nk\n1_0\n", "error"),
    (b"l\nk\n+ 5\n", "error"),
    (b"l\nk\n-1\n", "error"),
    (b"l\nk\n0 -5\n", "error"),
    (b"l\nk\n0 5 5\n", "error"),
    (b"l\na\tb\n0\n", "error"),
    (b"l\n\r\n0\n", "error"),
    (b" l\nk\n0\n", "error"),
    (b"sl\nk\n0 0\n", "error"),
    (b"sl\nk\n0 9223372036854775808\n", "error"),
];

#[tokio::test]
async fn requests_that_real_servers_accept_are_accepted() {
    for release in Release::ALL {
        for (says, hears) in ANSWERS {
            let (_server, address) = imitate(release).await;
            let mut connection = RawConnection::open(&address).await;
            connection.send_bytes(says).await;
            let heard = connection.hear(SOON).await;
            assert!(
                is_like(&heard, hears),
                "{release}: {} brought {heard:?}",
                says.escape_ascii()
            );
            // The connection is open, and the next request gets its own answer.
            assert!(
                connection.request("stats", "_", "_").await.starts_with("ok {"),
                "{release}"
            );
        }
    }
}

#[tokio::test]
async fn keys_may_have_any_bytes_and_every_byte_counts() {
    let (server, address) = start(Server::builder().record_events(true)).await;
    let mut connection = RawConnection::open(&address).await;
    for key in [&b"k"[..], b"k\0", b"k\xff", b"k\xfe", b"\x0bk", "k\u{a0}".as_bytes()] {
        for answer in ["ok $ 9", "timeout"] {
            connection.send_bytes(&[b"l\n", key, b"\n0 9\n"].concat()).await;
            let heard = connection.hear(SOON).await;
            assert!(is_like(&heard, answer), "{}: {heard:?}", key.escape_ascii());
        }
    }
    // Stats show U+FFFD for bytes that are not valid UTF-8. Events also show U+FFFD for NUL and for white space,
    // because a `Key` cannot contain these characters.
    let stats = server.stats();
    let mut shown: Vec<&str> = stats.locks.iter().map(|lock| lock.key.as_str()).collect();
    shown.sort_unstable();
    assert_eq!(shown, ["\u{b}k", "k", "k\0", "k\u{a0}", "k\u{fffd}", "k\u{fffd}"]);
    let events = server.events();
    let keys: Vec<&str> = events.iter().map(|event| event.key.as_str()).collect();
    let invalid = "k\u{fffd}";
    assert_eq!(keys, ["k", invalid, invalid, invalid, "\u{fffd}k", invalid]);
}

/// The server answers when the line ends, when the read timeout is over, or when the input ends.
#[tokio::test]
async fn too_long_a_line_is_answered_at_its_end() {
    for release in ["1.10", "2.1"] {
        let builder = Server::builder().release(release);
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
        // If the input ends after two of the three lines of a request, the server does not answer.
        let mut connection = RawConnection::open(&address).await;
        connection.send("l\nk\n").await;
        connection.end_sending().await;
        assert_eq!(connection.hear(SOON).await, Heard::Closed, "{release}");
    }
}

#[tokio::test]
async fn a_carriage_return_counts_towards_the_length_of_a_line() {
    for release in Release::ALL {
        let (_server, address) = imitate(release).await;
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

#[tokio::test]
async fn long_arguments_end_the_connection_before_1_15() {
    for (release, long) in since(Release::V1_15) {
        let secret = "s".repeat(257);
        let builder = Server::builder().release(release);
        let (_server, address) = start(builder.auth_token(secret.as_str())).await;
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
        let (_server, address) = imitate(release).await;
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

#[tokio::test]
async fn a_secret_is_trimmed_before_it_is_compared() {
    for release in Release::ALL {
        for (secret, presented, right) in [
            ("s3cret", " \ts3cret\u{b} ", true),
            ("two words", "two words", true),
            ("s3cret", "s3cret s3cret", false),
            ("s3cret", "", false),
            // From 1.16 on, the server also trims its own secret. Before 1.16, a client cannot match a secret that has
            // blanks around it.
            (" s3cret ", " s3cret ", release >= Release::V1_16),
            (" s3cret ", "s3cret", release >= Release::V1_16),
        ] {
            let builder = Server::builder().release(release);
            let (_server, address) = start(builder.auth_token(secret)).await;
            let mut connection = RawConnection::open(&address).await;
            let answer = connection.request("auth", "anything", presented).await;
            let expected = if right { "ok" } else { "error_auth" };
            assert_eq!(answer, expected, "{release}: {secret:?} {presented:?}");
        }
    }
}

#[tokio::test]
async fn a_client_without_authentication_always_gets_error_auth() {
    for release in ["1.10", "2.1"] {
        let builder = Server::builder().release(release).auth_token("s3cret");
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

/// Each line has one timeout. So a client cannot keep its connection open by sending a byte now and then.
#[tokio::test]
async fn the_read_timeout_does_not_restart_with_each_byte() {
    let timeout = Duration::from_secs(1);
    for release in ["1.10", "2.1"] {
        let builder = Server::builder().release(release);
        let (_server, address) = start(builder.read_timeout(timeout)).await;
        let mut slow = RawConnection::open(&address).await;
        let begun = tokio::time::Instant::now();
        let heard = loop {
            slow.send("x").await;
            match slow.hear(timeout / 10).await {
                Heard::Nothing => assert!(begun.elapsed() < 20 * timeout, "{release}: the timeout did not apply"),
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
        // Two of these pauses (1.8 s each) are together longer than the timeout (3 s).
        assert_eq!(slow.hear(timeout * 6 / 10).await, Heard::Nothing);
        slow.send(piece).await;
    }
    let heard = slow.hear(SOON).await;
    assert!(is_like(&heard, "ok $ 9"), "{heard:?}");
}
