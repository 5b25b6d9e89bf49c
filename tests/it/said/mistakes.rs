//! Common mistakes of users: each error says what is wrong and what to do instead.

use std::fmt::Debug;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dflockd_client::server::Server;
use dflockd_client::{
    Budget, Client, ClientBuilder, Enqueued, Error, ErrorKind, Key, LostReason, ReconnectPolicy, SignalConn,
    SignalOptions,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::support::fake::FakeServer;
use crate::support::old::OldServer;
use crate::support::pki::{Authority, serve, trusting};
use crate::support::spans::observe;
use crate::support::until;

/// A test exceeds this time only if it hangs.
const SOON: Duration = Duration::from_secs(30);

const WAIT: Duration = Duration::from_millis(200);

fn builder(server: &str) -> ClientBuilder {
    Client::builder()
        .servers([server])
        .acquire_timeout(WAIT)
        .reconnect(ReconnectPolicy::exponential(
            Duration::from_millis(1),
            Duration::from_millis(20),
        ))
}

async fn start(builder: dflockd_client::server::ServerBuilder) -> (Server, String) {
    let server = builder.port(0).start().await.unwrap();
    let address = server.local_addr().to_string();
    (server, address)
}

fn said<T: Debug>(outcome: Result<T, Error>, kind: ErrorKind, parts: &[&str]) -> String {
    let error = outcome.expect_err("a mistake");
    assert_eq!(error.kind(), kind, "{error:?}");
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
    text
}

#[test]
fn invalid_addresses_are_refused_with_a_hint() {
    let invalid = ErrorKind::InvalidInput;
    for (address, part) in [
        (
            "dflockd://h:6388",
            "\"dflockd://h:6388\" is not acceptable: write host:port alone, without a scheme",
        ),
        (
            "a:1,b:2",
            "\"a:1,b:2\" is not acceptable: give each server by itself, as an item of the list of servers",
        ),
        ("h:6388/0", "without a path"),
        ("::1:6388", "write an IPv6 address in brackets, like [::1]:6388"),
    ] {
        let text = said(Client::builder().servers([address]).build(), invalid, &[part]);
        assert_eq!(
            text.contains("IPv6 address in brackets"),
            address == "::1:6388",
            "{text}"
        );
    }
    let shard = dflockd_client::Shard::cluster(["a:1,b:2"]);
    said(
        Client::builder().shards([shard]).build(),
        invalid,
        &["each server by itself"],
    );
}

#[tokio::test]
async fn errors_name_the_fault_of_a_certificate() {
    let authority = Authority::new("ours");
    let server = serve(Server::builder(), &authority.as_a_server()).await;
    let address = server.local_addr().to_string();
    let error = builder(&address).tls(trusting(&authority)).connect().await;
    let text = said(
        error,
        ErrorKind::Connect,
        &[
            "presents the certificate of an authority (CA:TRUE) as its own",
            "basicConstraints=critical,CA:FALSE",
        ],
    );
    assert!(!text.contains("Other"), "{text}");

    let server = serve(Server::builder(), &authority.issue(&["localhost", "10.0.0.1"])).await;
    let address = server.local_addr().to_string();
    let error = builder(&address).tls(trusting(&authority)).connect().await;
    let text = said(
        error,
        ErrorKind::Connect,
        &[
            "not valid for \"127.0.0.1\", but for \"localhost\", \"10.0.0.1\":",
            "Tls::server_name",
        ],
    );
    assert!(!text.contains("DnsName") && !text.contains("IpAddress"), "{text}");
}

#[tokio::test]
async fn errors_tell_a_missing_token_from_a_wrong_one() {
    let (_server, address) = start(Server::builder().auth_token("sesame")).await;
    let missing = said(
        builder(&address).connect().await,
        ErrorKind::Auth,
        &[
            "presented no authentication token, and the server wants one",
            "ClientBuilder::auth_token",
        ],
    );
    let wrong = said(
        builder(&address).auth_token("nope").connect().await,
        ErrorKind::Auth,
        &["the server refused the authentication token"],
    );
    assert!(
        !missing.contains("refused") && !wrong.contains("wants"),
        "{missing} / {wrong}"
    );
    let signals = SignalConn::open(builder(&address), SignalOptions::default()).await;
    said(signals, ErrorKind::Auth, &["presented no authentication token"]);
    // The low-level functions return the same error.
    let stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    let mut wire = dflockd_client::protocol::functions::Wire::new(stream);
    let stats = dflockd_client::protocol::functions::stats(&mut wire).await;
    said(stats, ErrorKind::Auth, &["presented no authentication token"]);
}

/// Starts a listener without TLS. The listener does not answer a TLS handshake, because a real server takes a handshake
/// for the beginning of a line. On each connection that does not begin with a handshake, the listener answers the first
/// request with `answer`, if there is one.
async fn without_tls(answer: Option<&'static str>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                const HANDSHAKE: u8 = 0x16;
                let mut bytes = [0; 4096];
                let mut lines = 0;
                while let Ok(count @ 1..) = stream.read(&mut bytes).await {
                    if bytes[0] == HANDSHAKE && lines == 0 {
                        continue;
                    }
                    assert!(
                        bytes.starts_with(b"n\n"),
                        "the only plain request is a renewal of an unknown token"
                    );
                    lines += bytes[..count].iter().filter(|byte| **byte == b'\n').count();
                    if let (Some(answer), 3) = (answer, lines) {
                        stream.write_all(format!("{answer}\n").as_bytes()).await.unwrap();
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn tls_to_a_server_without_tls_is_an_early_error() {
    for answer in ["error", "error_auth", "error_draining", "error_not_leader"] {
        let address = without_tls(Some(answer)).await;
        let tls = trusting(&Authority::new("ours"));
        let client = builder(&address).tls(tls).connect_timeout(Duration::from_secs(600));
        let outcome = timeout(SOON, client.connect())
            .await
            .expect("long before the connect timeout");
        let fatal = outcome.as_ref().is_err_and(Error::is_fatal);
        assert!(fatal, "{answer}: {outcome:?}");
        let text = said(
            outcome,
            ErrorKind::Connect,
            &["the server answers, but it does not speak TLS: check the port, and that the server serves TLS on it"],
        );
        assert!(text.contains(&address), "{text}");
    }
}

/// If the server answers neither the handshake nor the plain request, the hint is in the error of the connect timeout.
#[tokio::test]
async fn tls_to_a_server_that_says_nothing_ends_with_a_hint() {
    let tls = trusting(&Authority::new("ours"));
    let client = builder(&without_tls(None).await)
        .tls(tls)
        .connect_timeout(Duration::from_millis(1500));
    said(
        client.connect().await,
        ErrorKind::Connect,
        &["within the connect timeout of 1.5s", "that it serves TLS on this port"],
    );
}

#[tokio::test]
async fn an_error_says_that_the_same_client_holds_the_lock() {
    let (_server, address) = start(Server::builder()).await;
    let (client, other) = (
        builder(&address).connect().await.unwrap(),
        builder(&address).connect().await.unwrap(),
    );
    let _lock = client.lock("l").unwrap().acquire().await.unwrap();
    let slots = client.semaphore("s", 3).unwrap();
    let _first = slots.acquire().await.unwrap();
    let _second = slots.acquire().await.unwrap();
    let _third = other.semaphore("s", 3).unwrap().acquire().await.unwrap();
    let own = "\"l\" was not granted within 200ms: this client itself held it, and locks are not reentrant";
    let late = ErrorKind::Timeout;
    said(client.lock("l").unwrap().acquire().await, late, &[own]);
    // The timeout of this wait is a whole second, so the server may end the wait.
    let lock = client.lock("l").unwrap().acquire_timeout(Duration::from_secs(1));
    said(lock.acquire().await, late, &["this client itself held it"]);
    said(
        other.lock("l").unwrap().acquire().await,
        late,
        &["another holder has it"],
    );
    said(
        client.lock_all(["k", "l"]).unwrap().acquire().await,
        late,
        &["this client itself held it"],
    );
    let taken = "no slot of \"s\" was granted within 200ms: all slots are taken";
    let two = format!("{taken}, 2 of the 3 by this client itself");
    let one = format!("{taken}, 1 of the 3 by this client itself");
    said(slots.acquire().await, late, &[&two]);
    said(other.semaphore("s", 3).unwrap().acquire().await, late, &[&one]);
    let Enqueued::Queued(ticket) = client.lock("l").unwrap().enqueue().await.unwrap() else {
        panic!("the lock is held");
    };
    let own = "the turn of \"l\" did not come within 200ms: this client itself held it";
    said(ticket.wait(WAIT).await, late, &[own]);
    // A lock that this client has released does not count as held by this client.
    drop((_lock, _first, _second));
    let _others = other.lock("l").unwrap().acquire_timeout(SOON).acquire().await.unwrap();
    said(
        client.lock("l").unwrap().acquire().await,
        late,
        &["another holder has it"],
    );
}

#[tokio::test]
async fn errors_explain_another_limit_and_the_single_namespace_of_old_servers() {
    let (server, address) = start(Server::builder()).await;
    let client = builder(&address).connect().await.unwrap();
    let _slot = client.semaphore("s", 3).unwrap().acquire().await.unwrap();
    let kind = ErrorKind::LimitMismatch;
    let outcome = client.semaphore("s", 5).unwrap().acquire().await;
    let text = said(outcome, kind, &["semaphore \"s\" exists with a limit other than 5"]);
    assert!(!text.contains("1.14"), "this server keeps them apart: {text}");
    said(client.semaphore("s", 7).unwrap().try_acquire().await, kind, &["than 7"]);
    said(client.semaphore("s", 9).unwrap().enqueue().await, kind, &["than 9"]);

    // A server that does not know `ping` is older than 1.14. On such a server, locks and semaphores share their keys.
    let old = OldServer::start(&server.local_addr().to_string(), &["ping"], false).await;
    let client = builder(&old.address).connect().await.unwrap();
    let outcome = client.semaphore("s", 5).unwrap().acquire().await;
    said(
        outcome,
        kind,
        &[
            "than 5",
            "or it is in use as a lock: this server is older than 1.14, where a lock is a semaphore of limit 1",
        ],
    );

    // On a server before 1.14, the key of a lock may be in use as a semaphore. First, the embedded server imitates
    // release 1.10. Then `fake` stands for a server that knows fewer commands.
    let (_server, address) = start(Server::builder().release("1.10")).await;
    let client = builder(&address).connect().await.unwrap();
    let both = ["before 1.14", "use different keys"];
    let lock = client.lock("l").unwrap().acquire().await.unwrap();
    let outcome = client.semaphore("l", 5).unwrap().acquire().await;
    said(
        outcome,
        kind,
        &["than 5", "or it is in use as a lock: this server is older than 1.14"],
    );
    let slot = client.semaphore("s", 3).unwrap().acquire().await.unwrap();
    said(client.lock("s").unwrap().acquire().await, kind, &both);
    drop((lock, slot));
    let fake = FakeServer::start(|mut connection, _| async move {
        while let Some([command, ..]) = connection.request().await {
            connection
                .say(if command == "l" {
                    "error_limit_mismatch\n"
                } else {
                    "error\n"
                })
                .await;
        }
    })
    .await;
    let client = builder(&fake.address).connect().await.unwrap();
    said(
        client.lock("s").unwrap().acquire().await,
        kind,
        &[
            "\"s\" cannot be locked: it is in use as a semaphore",
            "before 1.14",
            "use different keys",
        ],
    );
}

/// Without escapes, this key would make the text of a terminal red, ring its bell, and reverse the direction of text.
const KEY_WITH_CONTROL_CHARACTERS: &str = "k\u{1b}[31m\u{7}\u{202e}";

fn is_clean(text: &str) {
    let hidden = text.chars().find(|c| c.is_control() && *c != '\n' || *c == '\u{202e}');
    assert_eq!(hidden, None, "{text:?}");
}

#[tokio::test]
async fn keys_are_shown_escaped_in_errors_and_logs() {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone());
    let _guard = observe(subscriber.finish());

    let (server, address) = start(Server::builder()).await;
    let client = builder(&address).connect().await.unwrap();
    let key = Key::new(KEY_WITH_CONTROL_CHARACTERS).unwrap();
    assert_eq!(key.to_string(), "k\\u{1b}[31m\\u{7}\\u{202e}");
    assert_eq!(key.as_str(), KEY_WITH_CONTROL_CHARACTERS);
    let lock = client.lock(&key).unwrap().lease_ttl(Duration::from_secs(1));
    let guard = lock.acquire().await.unwrap();
    is_clean(&lock.acquire().await.unwrap_err().to_string());
    // The client logs a refused renewal, a lost lease, and the release of that lease.
    let mut thief = crate::support::raw::RawConnection::open(&address).await;
    let token = guard.token().as_str();
    thief
        .send(&format!("r\n{KEY_WITH_CONTROL_CHARACTERS}\n{token}\n"))
        .await;
    assert_eq!(guard.lost().await, LostReason::Rejected);
    is_clean(&guard.release().await.unwrap_err().to_string());
    // The client logs a grant whose caller no longer waits.
    let holder = lock.acquire().await.unwrap();
    let waiting = tokio::spawn({
        let lock = lock.clone().acquire_timeout(SOON);
        async move { lock.acquire().await.map(drop) }
    });
    until("it waits", || server.stats().locks.iter().any(|lock| lock.waiters == 1)).await;
    waiting.abort();
    holder.release().await.unwrap();
    let slots = |limit| client.semaphore(&key, limit).unwrap();
    let _slot = slots(2).acquire().await.unwrap();
    is_clean(&slots(3).acquire().await.unwrap_err().to_string());
    for error in [
        Client::builder()
            .servers([format!("{KEY_WITH_CONTROL_CHARACTERS}:1")])
            .build()
            .unwrap_err(),
        Client::builder()
            .servers([format!("unix:/{KEY_WITH_CONTROL_CHARACTERS}")])
            .build()
            .unwrap_err(),
        builder(&address)
            .auth_token_file(format!("/{KEY_WITH_CONTROL_CHARACTERS}"))
            .connect()
            .await
            .unwrap_err(),
        builder(&address)
            .auth_token_env(KEY_WITH_CONTROL_CHARACTERS)
            .connect()
            .await
            .unwrap_err(),
        Key::new(format!("{KEY_WITH_CONTROL_CHARACTERS} ")).unwrap_err(),
    ] {
        is_clean(&format!("{error} {error:?}"));
    }
    let told = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    is_clean(&told);
    assert!(told.contains("k\\u{1b}[31m"), "keys are in the logs: {told}");
}

#[tokio::test]
async fn the_rest_of_a_wait_is_rounded() {
    let (_server, address) = start(Server::builder()).await;
    let (client, other) = (
        builder(&address).connect().await.unwrap(),
        builder(&address).connect().await.unwrap(),
    );
    let _held = other.lock("b").unwrap().acquire().await.unwrap();
    let error = client.lock_all(["a", "b"]).unwrap().acquire().await.unwrap_err();
    let Some(Budget::Wait(left)) = error.budget() else {
        panic!("{error:?}");
    };
    assert!(
        left < WAIT,
        "the acquire of the first key used a part of the wait: {left:?}"
    );
    let text = error.to_string();
    let digits = text
        .split("within ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .unwrap();
    assert!(digits.chars().filter(char::is_ascii_digit).count() <= 3, "{text}");
}

#[test]
fn times_beyond_the_limits_of_sockets_and_servers_are_refused() {
    let (day, second) = (Duration::from_secs(24 * 3600), Duration::from_secs(1));
    let patient = || Client::builder().server_read_timeout(Duration::MAX);
    let invalid = ErrorKind::InvalidInput;
    let bound = "give at most 24 days for both together, the longest timeout of a socket";
    said(
        patient().keepalive(25 * day).build(),
        invalid,
        &["keepalive interval + reply timeout of 2160010s", bound],
    );
    said(patient().reply_timeout(Duration::MAX).build(), invalid, &[bound]);
    let close = Client::builder().keepalive(Duration::from_millis(12_900)).build();
    said(
        close,
        invalid,
        &["of 22.9s is not acceptable", "read timeout of 23s by 1s at least"],
    );
    // A keepalive interval of 12 s is short enough. The error is then that there is no tokio runtime.
    let enough = Client::builder().keepalive(12 * second).build();
    said(enough, invalid, &["tokio runtime"]);
}

#[tokio::test]
async fn invalid_times_of_the_embedded_server_are_refused() {
    for (builder, what) in [
        (
            Server::builder().read_timeout(Duration::ZERO),
            "read timeout of the server 0ns",
        ),
        (
            Server::builder().write_timeout(Duration::ZERO),
            "write timeout of the server 0ns",
        ),
    ] {
        let outcome = builder.port(0).start().await.map(drop);
        said(
            outcome,
            ErrorKind::InvalidInput,
            &[what, "would close every connection at once"],
        );
    }
    let each = Server::builder().read_timeout(Duration::ZERO);
    let cluster = dflockd_client::server::Cluster::builder().options(each).start().await;
    said(
        cluster.map(drop),
        ErrorKind::InvalidInput,
        &["read timeout of the server"],
    );
}

/// At SIGTERM, release 1.10 answers each wait with a bare `error`.
#[tokio::test]
async fn a_wait_that_the_server_ends_with_a_bare_error_is_retryable() {
    let server = FakeServer::start(|mut connection, _| async move {
        while let Some([command, _, argument]) = connection.request().await {
            connection
                .say(match (command.as_str(), argument.split(' ').next()) {
                    ("l" | "sl", Some("0")) => "timeout\n",
                    ("e", _) => "queued\n",
                    ("l" | "sl" | "w" | "n", _) => "error\n",
                    _ => "ok\n",
                })
                .await;
        }
    })
    .await;
    let client = builder(&server.address).acquire_timeout(SOON).connect().await.unwrap();
    let lock = client.lock("k").unwrap();
    let part = "the server ended the wait for \"k\" with a bare `error`, as servers that are shutting down do";
    for outcome in [
        lock.acquire().await.map(drop),
        client.semaphore("k", 2).unwrap().acquire().await.map(drop),
        async {
            let Enqueued::Queued(ticket) = lock.enqueue().await.unwrap() else {
                panic!("the key is held");
            };
            ticket.wait(SOON).await.map(drop)
        }
        .await,
    ] {
        assert!(outcome.as_ref().is_err_and(Error::is_retryable), "{outcome:?}");
        said(outcome, ErrorKind::Draining, &[part]);
    }
}
