//! The auth token: where a client reads it, what happens when a server refuses it or changes it, and that no output
//! contains it. The tests call this token the secret.

use std::time::Duration;

use crate::support::fake::FakeServer;
use crate::support::pki::Folder;
use crate::support::process::is_alone_with;
use crate::support::proxy::Proxy;
use crate::support::spans::Spans;
use crate::support::until;
use dflockd_client::server::Server;
use dflockd_client::{Client, ClientBuilder, ConnectionState, Error, ErrorKind, ReconnectPolicy};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);

async fn serve(secret: &str) -> Server {
    let builder = Server::builder().port(0).auth_token(secret);
    builder.start().await.unwrap()
}

#[tokio::test]
async fn a_server_whose_secret_cannot_be_sent_does_not_start() {
    let builder = Server::builder().port(0).auth_token("two\nlines");
    let error = builder.clone().start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(!error.to_string().contains("lines\""), "{error}");
    assert!(
        builder.auth_token("one line").start().await.is_ok(),
        "the last setter counts"
    );
}

/// Retries without a noticeable pause.
fn eager(address: &str) -> ClientBuilder {
    let milli = Duration::from_millis(1);
    Client::builder()
        .servers([address])
        .reconnect(ReconnectPolicy::exponential(milli, milli))
}

fn refused<T>(result: Result<T, Error>, kind: ErrorKind, says: &[&str]) -> Error {
    let error = result.err().expect("it is refused");
    assert_eq!(error.kind(), kind, "{error:?}");
    for part in says {
        assert!(error.to_string().contains(part), "{error} does not say {part:?}");
    }
    error
}

/// Returns the number of attempts to connect that have failed in a row.
fn failed_attempts(client: &Client) -> u32 {
    match &client.health()[0].state {
        ConnectionState::Reconnecting { attempt, .. } => *attempt,
        _ => 0,
    }
}

/// Acquires and releases a lock. Repeats an acquire that failed because its connection was lost.
async fn acquire_and_release(client: &Client) {
    let lock = client.lock("k").unwrap();
    let guard = loop {
        match lock.acquire().await {
            Ok(guard) => break guard,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Disconnected, "{error}"),
        }
    };
    guard.release().await.unwrap();
}

#[tokio::test]
async fn a_secret_comes_from_a_setter_or_from_a_file() {
    let server = serve("s3cret word").await;
    let address = server.local_addr().to_string();
    acquire_and_release(&eager(&address).auth_token("s3cret word").connect().await.unwrap()).await;
    let folder = Folder::new();
    let file = folder.write("token", "\n  s3cret word \r\n");
    acquire_and_release(&eager(&address).auth_token_file(file).connect().await.unwrap()).await;
}

#[test]
fn a_secret_comes_from_the_environment() {
    let variables = [
        ("TEST_SECRET", "s3cret"),
        ("TEST_EMPTY", ""),
        ("TEST_LINES", "s3c\nret"),
    ];
    if !is_alone_with("auth::a_secret_comes_from_the_environment", &variables) {
        return;
    }
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let server = serve("s3cret").await;
        let address = server.local_addr().to_string();
        acquire_and_release(&eager(&address).auth_token_env("TEST_SECRET").connect().await.unwrap()).await;
        for (variable, says) in [
            ("TEST_MISSING", "TEST_MISSING is not set"),
            ("TEST_EMPTY", "1 to 65536 bytes"),
            ("TEST_LINES", "without line breaks"),
        ] {
            let result = eager(&address).auth_token_env(variable).connect().await;
            let error = refused(result, ErrorKind::Auth, &[variable, says, &address]);
            assert!(!error.to_string().contains("s3c"), "{error}");
        }
    });
}

#[tokio::test]
async fn a_refused_secret_fails_acquires_at_once_and_is_not_presented_again_for_a_while() {
    let server = serve("right").await;
    let proxy = Proxy::start(&server.local_addr().to_string()).await;
    for wrong in [Some("wrong"), None] {
        let before = proxy.accepted();
        let mut builder = eager(&proxy.address).acquire_timeout(Duration::from_secs(600));
        if let Some(token) = wrong {
            builder = builder.auth_token(token);
        }
        let client = builder.build().unwrap();
        let lock = client.lock("k").unwrap();
        let acquired = timeout(SOON, lock.acquire())
            .await
            .expect("the refusal ends the acquire at once");
        let error = refused(acquired, ErrorKind::Auth, &["token", &proxy.address]);
        assert!(error.is_fatal() && !error.is_retryable(), "{error}");
        until("many attempts have failed", || failed_attempts(&client) > 100).await;
        assert_eq!(proxy.accepted() - before, 1, "the client opened one connection only");
        refused(lock.try_acquire().await, ErrorKind::Auth, &["token"]);
    }
}

#[tokio::test]
async fn a_refused_secret_is_presented_again_after_the_auth_retry_interval() {
    let wrong = serve("other").await;
    let address = wrong.local_addr();
    let client = eager(&address.to_string())
        .auth_token("s3cret")
        .auth_retry_interval(Duration::from_millis(200))
        .build()
        .unwrap();
    until("the server has refused the secret", || failed_attempts(&client) > 0).await;
    drop(wrong);
    let _right = restarted(address.port(), "s3cret").await;
    until("the client is connected", || client.health()[0].is_connected()).await;
    acquire_and_release(&client).await;
}

/// Starts a server on the port of a server that the test has dropped.
async fn restarted(port: u16, secret: &str) -> Server {
    loop {
        // The old server's task may hold the port for a moment, so the loop repeats the start until it succeeds.
        let builder = Server::builder().port(port).auth_token(secret);
        match builder.start().await {
            Ok(server) => return server,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Connect, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_replaced_secret_is_used_from_the_next_connection_on() {
    let folder = Folder::new();
    let file = folder.write("token", "first");
    let old = serve("first").await;
    let address = old.local_addr();
    let client = eager(&address.to_string())
        .auth_token_file(file)
        .connect()
        .await
        .unwrap();
    // The file changes before the server's secret changes, so the new server accepts the client.
    folder.write("token", "second");
    drop(old);
    let second = restarted(address.port(), "second").await;
    acquire_and_release(&client).await;
    // The server's secret changes first, so the server refuses the secret in the file. The client does not send a
    // refused secret again for 30 s. But it sends a changed secret at its next attempt to connect.
    drop(second);
    let third = restarted(address.port(), "third").await;
    until("the server has refused the old secret", || {
        client.health()[0]
            .last_error()
            .is_some_and(|error| error.kind() == ErrorKind::Auth)
    })
    .await;
    refused(client.lock("k").unwrap().acquire().await, ErrorKind::Auth, &["token"]);
    folder.write("token", "third");
    timeout(
        SOON,
        until("the server has accepted the new secret", || {
            client.health()[0].is_connected()
        }),
    )
    .await
    .expect("at the next attempt");
    acquire_and_release(&client).await;
    assert_eq!(third.stats().idle_locks.len(), 1);
}

#[tokio::test]
async fn errors_name_an_unreadable_file_and_the_client_reads_it_as_soon_as_it_can() {
    let server = serve("s3cret").await;
    let address = server.local_addr().to_string();
    let folder = Folder::new();
    let file = folder.path("token");
    let client = eager(&address).auth_token_file(&file).build().unwrap();
    let acquired = client.lock("k").unwrap().acquire().await;
    refused(
        acquired,
        ErrorKind::Auth,
        &["token", "No such file", file.to_str().unwrap()],
    );
    for (content, says) in [
        ("", "1 to 65536 bytes"),
        ("s3c\nret", "without line breaks"),
        (&*"s3c".repeat(30_000), "longer than"),
    ] {
        folder.write("token", content);
        until("the error says what is wrong with the file", || {
            let health = client.health();
            health[0]
                .last_error()
                .is_some_and(|error| error.to_string().contains(says))
        })
        .await;
        let error = client.lock("k").unwrap().try_acquire().await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("s3c"), "{error:?}");
    }
    assert_eq!(server.stats().connections, 0, "nothing was sent");
    folder.write("token", "s3cret");
    until("the client is connected", || client.health()[0].is_connected()).await;
    acquire_and_release(&client).await;
}

#[tokio::test]
async fn a_server_without_authentication_is_not_sent_a_secret_again_and_again() {
    let server = Server::builder().port(0).start().await.unwrap();
    let proxy = Proxy::start(&server.local_addr().to_string()).await;
    let client = eager(&proxy.address).auth_token("s3cret").build().unwrap();
    until("many attempts have failed", || failed_attempts(&client) > 100).await;
    assert_eq!(proxy.accepted(), 1);
    refused(client.stats().await, ErrorKind::Auth, &["give this client none"]);
}

/// The server behaves as after a change of its secret: it keeps the pipelined connection and refuses new connections.
#[tokio::test]
async fn a_wait_whose_connection_is_refused_fails_with_an_auth_error() {
    let server = FakeServer::start(|mut connection, number| async move {
        while let Some([command, ..]) = connection.request().await {
            connection
                .say(match (command.as_str(), number) {
                    ("auth", 0) | ("ping", _) => "ok\n",
                    ("auth", _) => "error_auth\n",
                    _ => "timeout\n",
                })
                .await;
        }
    })
    .await;
    let client = eager(&server.address).auth_token("old").connect().await.unwrap();
    let lock = client.lock("k").unwrap().acquire_timeout(Duration::from_secs(600));
    let acquired = timeout(SOON, lock.acquire())
        .await
        .expect("the refusal ends the acquire at once");
    refused(acquired, ErrorKind::Auth, &["refused the authentication token"]);
    refused(client.stats().await, ErrorKind::Auth, &[]);
    assert!(client.health()[0].is_connected());
    assert_eq!(
        server.accepted(),
        2,
        "one more connection presented the secret, and then none"
    );
}

#[tokio::test]
async fn no_output_contains_a_secret() {
    let spans = Spans::default();
    let _installed = spans.install();
    let server = serve("the right secret").await;
    let address = server.local_addr().to_string();
    let folder = Folder::new();
    let file = folder.write("token", "the wrong secret");
    let builders = [
        eager(&address).auth_token("the right secret"),
        eager(&address).auth_token("the wrong secret"),
        eager(&address).auth_token_file(file),
        eager(&address).auth_token("the unsendable\nsecret"),
    ];
    let mut told = String::new();
    for builder in builders {
        told.push_str(&format!("{builder:?}"));
        match builder.build() {
            Err(error) => told.push_str(&format!("{error} {error:?}")),
            Ok(client) => {
                let acquired = client.lock("k").unwrap().acquire().await;
                told.push_str(&format!("{client:?} {:?} {acquired:?}", client.health()));
            }
        }
    }
    told.push_str(&spans.everything());
    assert!(told.contains("not connected") && told.contains("auth token"), "{told}");
    assert!(!told.contains("secret"), "{told}");
    // The client does not warn of a connection without TLS, because this connection stays on the machine.
    assert!(!told.contains("without TLS"), "{told}");
}
