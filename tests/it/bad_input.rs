//! Invalid settings and invalid answers of servers. Each case fails with a typed error that says what is wrong, and
//! disturbs no other caller.

use std::error::Error as _;
use std::time::Duration;

use crate::support::fake::FakeServer;
use dflockd_client::server::Server;
use dflockd_client::{Client, Error, ErrorKind};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};

const TOKEN: &str = "00000000000000070123456789abcdef";

fn refused<T>(result: Result<T, Error>, kind: ErrorKind, says: &[&str]) {
    let error = result.err().expect("it is refused");
    assert_eq!(error.kind(), kind, "{error:?}");
    for part in says {
        assert!(error.to_string().contains(part), "{error} does not say {part:?}");
    }
}

async fn server() -> (Server, Client) {
    let server = Server::builder().port(0).start().await.unwrap();
    let client = Client::builder()
        .servers([server.local_addr().to_string()])
        .connect()
        .await
        .unwrap();
    (server, client)
}

fn quick(address: &str) -> dflockd_client::ClientBuilder {
    Client::builder()
        .servers([address])
        .connect_timeout(Duration::from_millis(300))
        .request_timeout(Duration::from_millis(500))
        .acquire_timeout(Duration::from_millis(500))
}

#[tokio::test]
async fn keys_limits_and_ttls_are_checked_before_anything_is_sent() {
    let (server, client) = server().await;
    let invalid = ErrorKind::InvalidInput;
    refused(client.lock(""), invalid, &["key \"\"", "at least one"]);
    refused(client.lock("a b"), invalid, &["\"a b\"", "no whitespace"]);
    refused(client.lock("a\tb"), invalid, &["\"a\\tb\""]);
    refused(client.lock("a\0b"), invalid, &["NUL"]);
    refused(client.lock("é".repeat(129)), invalid, &["258 bytes", "at most 256"]);
    refused(client.semaphore("s", 0), invalid, &["limit 0", "at least 1"]);
    refused(client.semaphore("a\nb", 1), invalid, &["\"a\\nb\""]);
    assert_eq!(
        server.stats().locks.len() + server.stats().idle_locks.len(),
        0,
        "nothing was sent"
    );
}

/// Setters accept every value. An acquire refuses invalid values before it sends anything.
#[tokio::test]
async fn settings_of_handles_are_checked_by_acquire() {
    use dflockd_client::blocking::{self, allow_in_runtime};
    use dflockd_client::{DistributedLock, RenewPolicy};

    let (server, client) = server().await;
    let invalid = ErrorKind::InvalidInput;
    let short = Duration::from_millis(999);
    let too_short = ["lease TTL 999ms", "at least 1 s"];
    let ratio = ["renew ratio 1.0", "more than 0 and less than 1"];
    let jitter = ["renew jitter 2.0", "0 or more, and less than 1"];
    let shaky = RenewPolicy::default().jitter(2.0);

    let lock = client.lock("k").unwrap();
    refused(lock.clone().lease_ttl(short).acquire().await, invalid, &too_short);
    refused(lock.clone().renew_ratio(1.0).acquire().await, invalid, &ratio);
    refused(lock.clone().renew_policy(shaky).try_acquire().await, invalid, &jitter);
    refused(lock.clone().lease_ttl(short).enqueue().await, invalid, &too_short);
    let slots = client.semaphore("k", 2).unwrap();
    refused(slots.clone().lease_ttl(short).acquire().await, invalid, &too_short);
    refused(slots.clone().renew_ratio(1.0).try_acquire().await, invalid, &ratio);
    refused(slots.renew_policy(shaky).enqueue().await, invalid, &jitter);
    let locks = client.lock_all(["a", "b"]).unwrap();
    refused(locks.clone().lease_ttl(short).acquire().await, invalid, &too_short);
    refused(locks.clone().renew_ratio(1.0).try_acquire().await, invalid, &ratio);
    refused(locks.renew_policy(shaky).acquire().await, invalid, &jitter);
    let mut object = DistributedLock::from(lock.clone().lease_ttl(short));
    refused(object.acquire().await, invalid, &too_short);
    refused(object.enqueue().await, invalid, &too_short);
    let election = dflockd_client::Election::new(lock.renew_ratio(1.0));
    refused(election.campaign().await, invalid, &ratio);
    let threads = blocking::Client::from(client);
    allow_in_runtime(|| {
        let lock = threads.lock("k").unwrap();
        refused(lock.clone().lease_ttl(short).acquire(), invalid, &too_short);
        refused(lock.renew_policy(shaky).try_acquire(), invalid, &jitter);
        let locks = threads.lock_all(["a", "b"]).unwrap();
        refused(locks.renew_ratio(1.0).acquire(), invalid, &ratio);
    });
    let stats = server.stats();
    let known = stats.locks.len() + stats.idle_locks.len() + stats.semaphores.len() + stats.idle_semaphores.len();
    assert_eq!(known, 0, "nothing was sent");
}

/// The last call of a setter counts. An invalid value that a later call replaced does no harm.
#[tokio::test]
async fn a_value_that_was_replaced_does_not_matter() {
    let (_server, client) = server().await;
    let lock = client.lock("k").unwrap().lease_ttl(Duration::ZERO).renew_ratio(7.0);
    let guard = lock
        .lease_ttl(Duration::from_secs(2))
        .renew_ratio(0.5)
        .acquire()
        .await
        .unwrap();
    assert_eq!(guard.ttl().as_secs(), 2);
    guard.release().await.unwrap();
}

#[tokio::test]
async fn build_checks_the_settings_of_a_client() {
    let invalid = ErrorKind::InvalidInput;
    let none: [&str; 0] = [];
    refused(
        Client::builder().servers(none).build(),
        invalid,
        &["at least one server"],
    );
    refused(
        Client::builder().servers(["localhost"]).build(),
        invalid,
        &["\"localhost\"", "host:port"],
    );
    refused(Client::builder().servers(["h:99999"]).build(), invalid, &["1 to 65535"]);
    refused(
        Client::builder().renew_ratio(1.0).build(),
        invalid,
        &["renew ratio 1.0", "less than 1"],
    );
    refused(
        Client::builder().lease_ttl(Duration::ZERO).build(),
        invalid,
        &["lease TTL 0ns"],
    );
    refused(
        Client::builder().keepalive(Duration::from_secs(20)).build(),
        invalid,
        &["30s", "server_read_timeout"],
    );
    refused(
        Client::builder().auth_token("a\nb").build(),
        invalid,
        &["auth token of length 3"],
    );
}

#[test]
fn building_a_client_without_a_runtime_is_an_error_that_names_it() {
    refused(Client::builder().build(), ErrorKind::InvalidInput, &["tokio runtime"]);
}

#[tokio::test]
async fn an_error_names_a_sharding_strategy_that_returns_an_unknown_shard() {
    let (server, _client) = server().await;
    let client = Client::builder()
        .servers([server.local_addr().to_string()])
        .sharding_strategy(|_: &str, _: usize| 7)
        .build()
        .unwrap();
    let acquired = client.lock("k").unwrap().acquire().await;
    refused(
        acquired,
        ErrorKind::InvalidInput,
        &["shard index 7", "\"k\"", "return an index below 1"],
    );
    refused(
        client.shard_stats(3).await,
        ErrorKind::InvalidInput,
        &["shard index 3", "1 shards"],
    );
}

#[tokio::test]
async fn an_address_that_does_not_resolve_is_named_with_the_resolvers_reason() {
    let result = quick("no-such-host.invalid:6388")
        .connect_timeout(Duration::from_secs(20))
        .connect()
        .await;
    refused(result, ErrorKind::Connect, &["no-such-host.invalid", "resolve"]);
}

#[tokio::test]
async fn an_error_names_an_address_without_a_listener() {
    let address = format!("127.0.0.1:{}", crate::support::process::free_port());
    refused(
        quick(&address).connect().await,
        ErrorKind::Connect,
        &["refused", &address],
    );
    // `build` does not connect. So the first acquire reports that the connection failed, with the cause.
    let client = quick(&address).build().unwrap();
    let error = client
        .lock("k")
        .unwrap()
        .acquire()
        .await
        .expect_err("no server listens");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        error.to_string().contains("refused") && error.source().is_some(),
        "{error}"
    );
}

#[tokio::test]
async fn errors_tell_wrong_missing_and_unexpected_secrets_apart() {
    let locked = Server::builder().port(0).auth_token("sesame").start().await.unwrap();
    let address = locked.local_addr().to_string();
    refused(
        quick(&address).auth_token("nope").connect().await,
        ErrorKind::Auth,
        &["refused", &address],
    );
    refused(quick(&address).connect().await, ErrorKind::Auth, &["wants one"]);
    // The acquire fails at once and does not use up its timeout.
    let client = quick(&address)
        .auth_token("nope")
        .acquire_timeout(Duration::from_secs(600))
        .build()
        .unwrap();
    refused(client.lock("k").unwrap().acquire().await, ErrorKind::Auth, &[]);
    let right = quick(&address).auth_token("sesame").connect().await.unwrap();
    right
        .lock("k")
        .unwrap()
        .acquire()
        .await
        .unwrap()
        .release()
        .await
        .unwrap();

    let (open, _client) = server().await;
    let address = open.local_addr().to_string();
    let result = quick(&address).auth_token("sesame").connect().await;
    refused(
        result,
        ErrorKind::Auth,
        &["takes no authentication token", "give this client none"],
    );
    let text = format!("{:?}", Client::builder().auth_token("sesame"));
    assert!(!text.contains("sesame"), "{text}");
}

#[tokio::test]
async fn a_web_server_is_no_lock_server() {
    let web = FakeServer::start(|mut connection, _| async move {
        connection.request().await;
        connection
            .say("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            .await;
    })
    .await;
    let result = quick(&web.address).connect().await;
    refused(
        result,
        ErrorKind::Protocol,
        &["not a dflockd server", "HTTP/1.1 400 Bad Request", &web.address],
    );
}

#[tokio::test]
async fn a_peer_that_never_answers_costs_the_connect_timeout() {
    let silent = FakeServer::start(|connection, _| connection.until_hung_up()).await;
    refused(
        quick(&silent.address).connect().await,
        ErrorKind::Connect,
        &["300ms", "connect timeout"],
    );
}

#[tokio::test]
async fn a_peer_that_hangs_up_at_once_may_be_full() {
    let full = FakeServer::start(|connection, _| async move { drop(connection) }).await;
    refused(
        quick(&full.address).connect().await,
        ErrorKind::Connect,
        &["--max-connections"],
    );
}

#[tokio::test]
async fn a_peer_that_sends_unasked_lines_in_the_handshake_is_a_protocol_error() {
    let talker = FakeServer::start(|mut connection, _| async move {
        connection.request().await;
        connection.say("ok\nok\n").await;
        connection.until_hung_up().await;
    })
    .await;
    refused(
        quick(&talker.address).connect().await,
        ErrorKind::Protocol,
        &["more than it was asked"],
    );
}

#[tokio::test]
async fn a_handshake_that_arrives_byte_by_byte_costs_the_connect_timeout_at_most() {
    let dripping = FakeServer::start(|mut connection, _| async move {
        connection.request().await;
        loop {
            connection.say("o").await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    refused(
        quick(&dripping.address).connect().await,
        ErrorKind::Connect,
        &["300ms", "connect timeout"],
    );
}

#[tokio::test]
async fn a_line_without_end_in_the_handshake_is_read_up_to_a_megabyte() {
    let endless = FakeServer::start(|mut connection, _| async move {
        connection.request().await;
        let megabyte = "x".repeat(1024 * 1024);
        for _ in 0..100 {
            connection.say(&megabyte).await;
        }
    })
    .await;
    let result = quick(&endless.address)
        .connect_timeout(Duration::from_secs(20))
        .connect()
        .await;
    refused(result, ErrorKind::Protocol, &["longer than 1048576 bytes"]);
}

/// A line that answers no request ends the connection, even if the line is a valid answer or a valid signal.
#[tokio::test]
async fn a_peer_that_floods_a_client_with_unasked_lines_loses_the_connection() {
    for line in ["ok\n", "sig a.b hello\n", "\n", "error\n"] {
        let flood = FakeServer::start(move |mut connection, _| async move {
            connection.handshake().await;
            let many = line.repeat(10_000);
            for _ in 0..100 {
                connection.say(&many).await;
            }
        })
        .await;
        let client = Client::builder().servers([&flood.address]).build().unwrap();
        crate::support::until("the client has left and connected again", || flood.accepted() >= 2).await;
        let error = client
            .lock("k")
            .unwrap()
            .acquire_timeout(Duration::from_millis(50))
            .acquire()
            .await;
        assert!(error.is_err(), "{line:?} is no grant");
    }
}

#[tokio::test]
async fn messages_quote_a_peer_shortened_and_escaped() {
    let leader: &'static str = format!("error_not_leader {}\n", "a".repeat(1_000_000)).leak();
    let blanks: &'static str = format!("{}\n", " ".repeat(1_000_000)).leak();
    for (says, kind) in [
        ("\u{1b}[2Jgone\n", ErrorKind::Protocol),
        ("error_not_leader \u{1b}[2Jgone\n", ErrorKind::NotLeader),
        (leader, ErrorKind::NotLeader),
        (blanks, ErrorKind::Protocol),
    ] {
        let peer = misbehaves_once(says, false).await;
        let client = Client::builder().servers([&peer.address]).connect().await.unwrap();
        let error = client.lock("k").unwrap().acquire().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        let told = format!("{error} {error:?}");
        assert!(
            !told.contains('\u{1b}') && told.len() < 2_000,
            "{} bytes: {told:.200}",
            told.len()
        );
    }
}

/// Starts a server that answers `what` to the first request after the handshake of its first connection. Over later
/// connections it answers correctly.
async fn misbehaves_once(what: &'static str, then_closes: bool) -> FakeServer {
    FakeServer::start(move |mut connection, number| async move {
        connection.handshake().await;
        if number == 0 {
            connection.request().await;
            connection.say(what).await;
            if !then_closes {
                connection.until_hung_up().await;
            }
            return;
        }
        while let Some([command, ..]) = connection.request().await {
            let answer = match command.as_str() {
                "l" => format!("ok {TOKEN} 33\n"),
                _ => "ok\n".to_owned(),
            };
            connection.say(&answer).await;
        }
    })
    .await
}

#[tokio::test]
async fn an_invalid_answer_closes_the_connection_and_the_next_connection_works() {
    let token_line = format!("ok {TOKEN} 33\n");
    let two_too_many: &'static str = format!("{token_line}{token_line}{token_line}").leak();
    let too_long: &'static str = "x".repeat(1024 * 1024 + 2).leak();
    for (what, closes, kind) in [
        ("what?\n", false, ErrorKind::Protocol),
        ("ok\n", false, ErrorKind::Protocol),
        ("ok 12 33\n", false, ErrorKind::Protocol),
        ("error_of_the_future\n", false, ErrorKind::Protocol),
        (too_long, false, ErrorKind::Protocol),
        ("ok 0000000", true, ErrorKind::Disconnected),
        ("", true, ErrorKind::Disconnected),
    ] {
        let peer = misbehaves_once(what, closes).await;
        let client = Client::builder().servers([&peer.address]).connect().await.unwrap();
        let lock = client.lock("k").unwrap();
        let error = lock.acquire().await.expect_err("that is no grant");
        assert_eq!(error.kind(), kind, "{:?}: {error}", what.get(..20));
        let guard = lock.acquire().await.expect("over the next connection");
        guard.release().await.unwrap();
        assert_eq!(peer.accepted(), 2);
    }

    // The first line grants the lease. Two lines follow that answer no request, so the client closes the connection.
    let peer = misbehaves_once(two_too_many, false).await;
    let client = Client::builder().servers([&peer.address]).connect().await.unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    assert_eq!(guard.lost().await, dflockd_client::LostReason::Disconnected);
}

#[tokio::test]
async fn a_broken_shard_does_not_disturb_callers_of_other_shards() {
    let good = Server::builder().port(0).start().await.unwrap();
    let bad = FakeServer::start(|mut connection, _| async move {
        connection.request().await;
        connection.say("HTTP/1.1 400 Bad Request\r\n\r\n").await;
    })
    .await;
    let client = Client::builder()
        .servers([good.local_addr().to_string(), bad.address.clone()])
        .sharding_strategy(|key: &str, _: usize| usize::from(key.starts_with("bad")))
        .build()
        .unwrap();
    refused(client.lock("bad").unwrap().acquire().await, ErrorKind::Protocol, &[]);
    for number in 0..100 {
        let lock = client.lock(format!("good/{number}")).unwrap();
        lock.acquire().await.unwrap().release().await.unwrap();
    }
}

/// Acquires this many keys over a connection of its own. The connection ends with this function, but the leases remain,
/// because the server is configured to keep them.
async fn fill(address: &str, keys: usize) {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut answers, mut requests) = stream.split();
    let ask = async {
        let lines: Vec<String> = (0..keys)
            .map(|number| format!("l\norders/{number:0>24}\n0 600\n"))
            .collect();
        requests.write_all(lines.concat().as_bytes()).await.unwrap();
    };
    let hear = async {
        let mut lines = tokio::io::BufReader::new(&mut answers).lines();
        for _ in 0..keys {
            let line = lines.next_line().await.unwrap().unwrap();
            assert!(line.starts_with("ok "), "{line}");
        }
    };
    tokio::join!(ask, hear);
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_of_a_hundred_thousand_keys_are_read_while_leases_are_renewed() {
    let server = Server::builder()
        .max_locks(200_000)
        .auto_release_on_disconnect(false)
        .read_timeout(Duration::from_secs(90))
        .record_events(true);
    let server = server.port(0).start().await.unwrap();
    let address = server.local_addr().to_string();
    fill(&address, 100_000).await;
    let builder = Client::builder()
        .servers([address])
        .request_timeout(Duration::from_secs(60))
        // On a busy machine, the answer may take longer than the default reply timeout of 10 s.
        // The read timeout of the server must exceed the sum of the reply timeout and the keepalive interval.
        .server_read_timeout(Duration::from_secs(90))
        .reply_timeout(Duration::from_secs(60));
    let client = builder.renew_ratio(0.01).connect().await.unwrap();
    let guard = client.lock("mine").unwrap().acquire().await.unwrap();
    let stats = client.stats().await.unwrap();
    assert_eq!(stats.locks.len(), 100_001);
    assert!(stats.locks.iter().any(|lock| lock.key == "mine"));
    assert!(guard.is_held());
    guard.release().await.unwrap();
    let stats = client.stats().await.unwrap();
    assert_eq!((stats.locks.len(), stats.idle_locks.len()), (100_000, 1));
}

/// `stats` uses a connection of its own, and the client limits the length of its answer to 64 MiB.
#[tokio::test]
async fn an_endless_answer_to_stats_costs_no_lease() {
    let server = FakeServer::start(|mut connection, _| async move {
        connection.handshake().await;
        while let Some([command, ..]) = connection.request().await {
            match command.as_str() {
                "stats" => {
                    connection.say("ok {\"connections\":1,\"nonsense\":\"").await;
                    let piece = "x".repeat(1024 * 1024);
                    // The loop ends when the client closes the connection.
                    while connection.is_said(&piece).await {}
                    return;
                }
                "l" => connection.say(&format!("ok {TOKEN} 33\n")).await,
                _ => connection.say("ok\n").await,
            }
        }
    })
    .await;
    let client = quick(&server.address)
        .request_timeout(Duration::from_secs(60))
        .connect()
        .await
        .unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    let asked = client.clone();
    let asked = tokio::spawn(async move { asked.stats().await });
    while !asked.is_finished() {
        client
            .lock("other")
            .unwrap()
            .acquire()
            .await
            .unwrap()
            .release()
            .await
            .unwrap();
    }
    let error = asked.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    assert!(error.to_string().contains("67108864 bytes"), "{error}");
    assert!(guard.is_held());
}
