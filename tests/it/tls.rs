//! TLS: which peers the client and the server accept, what the errors say, and what happens when certificate files
//! change. `tls_faults.rs` has the tests with a network that fails.

use std::sync::Arc;
use std::time::Duration;

use crate::support::fake::FakeServer;
use crate::support::pki::{Authority, Folder, HERE, Identity, Presented, serve, trusting};
use crate::support::process::is_alone_with;
use crate::support::proxy::Proxy;
use crate::support::raw::RawConnection;
use crate::support::until;
use dflockd_client::rustls::version::{TLS12, TLS13};
use dflockd_client::rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion, crypto::ring, pki_types,
};
use dflockd_client::server::{EventKind, Server, ServerTls};
use dflockd_client::{
    Client, ClientBuilder, Error, ErrorKind, ReconnectPolicy, SignalConn, SignalOptions, Tls, blocking,
};
use pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);
const BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

fn client(address: &str, tls: Tls) -> ClientBuilder {
    Client::builder()
        .servers([address])
        .tls(tls)
        .reconnect(ReconnectPolicy::exponential(
            Duration::from_millis(5),
            Duration::from_millis(50),
        ))
}

fn config(identity: &Identity) -> Arc<ServerConfig> {
    ServerTls::pem(&*identity.certificate, &*identity.key).config().unwrap()
}

fn refused<T>(result: Result<T, Error>, kind: ErrorKind, says: &[&str]) -> Error {
    let error = result.err().expect("it is refused");
    assert_eq!(error.kind(), kind, "{error:?}");
    for part in says {
        assert!(error.to_string().contains(part), "{error} does not say {part:?}");
    }
    error
}

/// Asserts that the client cannot connect and that the reason is permanent. Callers get the error before their timeout.
async fn assert_refused_permanently(address: &str, tls: Tls, says: &[&str]) {
    let all = [says, &[address]].concat();
    let error = refused(client(address, tls.clone()).connect().await, ErrorKind::Connect, &all);
    assert!(error.is_fatal() && !error.is_retryable(), "{error}");
    let patient = client(address, tls)
        .acquire_timeout(Duration::from_secs(600))
        .build()
        .unwrap();
    let lock = patient.lock("k").unwrap();
    let acquired = timeout(SOON, lock.acquire()).await.expect("the acquire fails at once");
    refused(acquired, ErrorKind::Connect, &all);
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_waits_and_stats_work_over_either_version() {
    let authority = Authority::new("ours");
    let identity = authority.issue(HERE);
    for version in BOTH {
        let config = Arc::new(identity.server_config(&[version]));
        let server = Server::builder()
            .port(0)
            .record_events(true)
            .tls(config)
            .start()
            .await
            .unwrap();
        let address = server.local_addr().to_string();
        let client = client(&address, trusting(&authority)).connect().await.unwrap();
        let lock = client.lock("k").unwrap().lease_ttl(Duration::from_secs(1));
        let first = lock.acquire().await.unwrap();
        let waiting = tokio::spawn({
            let lock = lock.clone();
            async move { lock.acquire().await.unwrap() }
        });
        until("the caller waits on a connection of its own", || {
            server.stats().locks[0].waiters == 1
        })
        .await;
        until("the lease is renewed", || {
            server.events().iter().any(|event| event.kind == EventKind::Renewed)
        })
        .await;
        assert_eq!(client.stats().await.unwrap().locks[0].key, "k");
        first.release().await.unwrap();
        let second = waiting.await.unwrap();
        assert!(second.is_held());
        let report = client.shutdown(SOON).await;
        assert_eq!((report.released, report.unreleased.len()), (1, 0));
    }
}

#[tokio::test]
async fn signals_and_threads_use_tls_and_present_the_same_secret() {
    let authority = Authority::new("ours");
    let server = Server::builder()
        .release("1.16")
        .port(0)
        .tls(config(&authority.issue(HERE)))
        .auth_token("s3cret")
        .start()
        .await
        .unwrap();
    let address = server.local_addr().to_string();
    let folder = Folder::new();
    let secret = folder.write("secret", "s3cret");
    let options = client(&address, trusting(&authority)).auth_token_file(secret);
    let mut signals = SignalConn::open(options.clone(), SignalOptions::default())
        .await
        .unwrap();
    signals.listen("orders.>", None).await.unwrap();
    let emit = move || {
        let client = options.connect_blocking()?;
        client.lock("k")?.acquire()?.release()?;
        client.emit("orders.42", "paid")
    };
    let emitted = tokio::task::spawn_blocking(|| blocking::allow_in_runtime(emit));
    assert_eq!(emitted.await.unwrap().unwrap(), 1);
    assert_eq!(signals.next_signal().await.unwrap().payload(), "paid");
    let stranger = client(&address, trusting(&Authority::new("theirs"))).auth_token("s3cret");
    let turned_away = SignalConn::open(stranger, SignalOptions::default()).await;
    refused(turned_away, ErrorKind::Connect, &["certificate", &address]);
}

#[tokio::test]
async fn an_invalid_certificate_is_refused_with_the_reason() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    for (identity, says) in [
        (ours.expired(HERE), &["expired", "days ago"][..]),
        (ours.not_valid_yet(HERE), &["not valid yet", "clock"]),
        (
            ours.issue(&["db.example.org", "www.example.org"]),
            &[
                "not valid for \"127.0.0.1\"",
                "db.example.org",
                "www.example.org",
                "server_name",
            ],
        ),
        (theirs.issue(HERE), &["unknown issuer", "ca_file"]),
    ] {
        let server = serve(Server::builder(), &identity).await;
        assert_refused_permanently(&server.local_addr().to_string(), trusting(&ours), says).await;
        assert_eq!(server.events().len(), 0, "no request was sent");
    }
}

#[tokio::test]
async fn the_certificate_is_checked_against_the_address_or_the_configured_name() {
    let authority = Authority::new("ours");
    let server = serve(Server::builder(), &authority.issue(&["localhost", "locks.example.org"])).await;
    let port = server.local_addr().port();
    let (by_name, by_address) = (format!("localhost:{port}"), format!("127.0.0.1:{port}"));
    client(&by_name, trusting(&authority)).connect().await.unwrap();
    assert_refused_permanently(&by_address, trusting(&authority), &["127.0.0.1", "localhost"]).await;
    let named = trusting(&authority).server_name("locks.example.org");
    client(&by_address, named).connect().await.unwrap();
    if let Ok(six) = Server::builder()
        .host("::1")
        .port(0)
        .tls(config(&authority.issue(&["::1"])))
        .start()
        .await
    {
        client(&six.local_addr().to_string(), trusting(&authority))
            .connect()
            .await
            .unwrap();
    }
    let misnamed = trusting(&authority).server_name("127.0.0.2");
    assert_refused_permanently(&by_name, misnamed, &["not valid for \"127.0.0.2\""]).await;
}

#[tokio::test]
async fn a_server_that_wants_client_certificates_accepts_only_its_own() {
    let (servers, clients, theirs) = (
        Authority::new("servers"),
        Authority::new("clients"),
        Authority::new("theirs"),
    );
    let identity = servers.issue(HERE);
    let friend = clients.issue(&["friend"]);
    let expired = clients.expired(&["late"]);
    let stranger = theirs.issue(&["stranger"]);
    let config = ServerTls::pem(&*identity.certificate, &*identity.key)
        .client_ca_pem(clients.pem())
        .config()
        .unwrap();
    let server = Server::builder().port(0).tls(config).start().await.unwrap();
    let address = server.local_addr().to_string();
    for version in BOTH {
        let with = |who: Option<&Identity>| Tls::config(Arc::new(client_config(&servers, who, version)));
        let let_in = client(&address, with(Some(&friend))).connect().await.unwrap();
        let_in
            .lock("k")
            .unwrap()
            .acquire()
            .await
            .unwrap()
            .release()
            .await
            .unwrap();
        assert_refused_permanently(
            &address,
            with(None),
            &["wants a client certificate", "client_certificate_files"],
        )
        .await;
        let refusal = ["refused this client's certificate", "client_certificate_files"];
        assert_refused_permanently(&address, with(Some(&stranger)), &refusal).await;
        assert_refused_permanently(
            &address,
            with(Some(&expired)),
            &["refused this client's certificate", "Expired"],
        )
        .await;
    }
    // Users give the client a certificate in files or in memory.
    let folder = Folder::new();
    let certificate = folder.write("client.crt", &friend.certificate);
    let key = folder.write("client.key", &friend.key);
    let from_files = trusting(&servers).client_certificate_files(certificate, key);
    client(&address, from_files).connect().await.unwrap();
    let from_memory = trusting(&servers).client_certificate_pem(friend.certificate, friend.key);
    client(&address, from_memory).connect().await.unwrap();
}

fn client_config(
    authority: &Authority,
    who: Option<&Identity>,
    version: &'static SupportedProtocolVersion,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let pem = authority.pem();
    roots
        .add(pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
        .unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    let Some(who) = who else {
        return builder.with_no_client_auth();
    };
    let chain = pki_types::CertificateDer::pem_slice_iter(who.certificate.as_bytes());
    let key = pki_types::PrivateKeyDer::from_pem_slice(who.key.as_bytes()).unwrap();
    builder
        .with_client_auth_cert(chain.collect::<Result<_, _>>().unwrap(), key)
        .unwrap()
}

#[tokio::test]
async fn errors_of_client_and_server_name_a_peer_without_tls() {
    let authority = Authority::new("ours");
    // A server without TLS reads the bytes of the handshake as lines. It answers `error` if these bytes contain a whole
    // request or a line that is too long. Otherwise it does not answer (see `tests/it/said`).
    let plain = FakeServer::start(|mut connection, _| async move {
        connection.say("error\n").await;
    })
    .await;
    assert_refused_permanently(&plain.address, trusting(&authority), &["does not speak TLS"]).await;
    let web = FakeServer::start(|mut connection, _| async move {
        connection.say("HTTP/1.1 400 Bad Request\r\n\r\n").await;
        connection.until_hung_up().await;
    })
    .await;
    assert_refused_permanently(&web.address, trusting(&authority), &["does not speak TLS"]).await;

    let secure = serve(Server::builder(), &authority.issue(HERE)).await;
    let address = secure.local_addr().to_string();
    let result = Client::builder().servers([&address]).connect().await;
    let error = refused(
        result,
        ErrorKind::Connect,
        &["speaks TLS", "ClientBuilder::tls", &address],
    );
    assert!(error.is_fatal(), "{error}");
}

#[tokio::test]
async fn errors_name_unusable_files_before_anything_is_sent() {
    let authority = Authority::new("ours");
    let (one, other) = (authority.issue(HERE), authority.issue(HERE));
    let server = FakeServer::start(|connection, _| connection.until_hung_up()).await;
    let folder = Folder::new();
    let missing = folder.path("missing.pem");
    let certificate = folder.write("client.crt", &one.certificate);
    let key = folder.write("client.key", &one.key);
    let other_key = folder.write("other.key", &other.key);
    let broken_key = folder.write("broken.key", &one.key.replace("-----END", "-----FIN"));
    let nonsense = folder.write("nonsense.pem", "this is no certificate\n");
    let no_authority = folder.write(
        "no-authority.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    let trusting = || trusting(&authority);
    for (tls, says) in [
        (Tls::new().ca_file(&missing), ["missing.pem", "No such file"]),
        (
            Tls::new().ca_file(folder.as_path()),
            ["dflockd-test", "not a regular file"],
        ),
        (Tls::new().ca_file(&nonsense), ["nonsense.pem", "no certificate"]),
        (
            Tls::new().ca_file(&no_authority),
            ["no-authority.pem", "cannot be trusted"],
        ),
        (
            trusting().client_certificate_files(&certificate, &missing),
            ["missing.pem", "No such file"],
        ),
        (
            trusting().client_certificate_files(&key, &key),
            ["client.key", "no certificate"],
        ),
        (
            trusting().client_certificate_files(&certificate, &certificate),
            ["client.crt", "no private key"],
        ),
        (
            trusting().client_certificate_files(&certificate, &broken_key),
            ["broken.key", "has no end"],
        ),
        (
            trusting().client_certificate_files(&certificate, &other_key),
            ["other.key", "client.crt"],
        ),
        (Tls::new(), ["no authority is trusted", "system_roots"]),
        (trusting().server_name("a b"), ["\"a b\"", "host name"]),
        (
            Tls::config(Arc::new(client_config(&authority, None, &TLS13))).ca_file(&certificate),
            ["configuration of your own", "server_name"],
        ),
    ] {
        let error = refused(
            client(&server.address, tls.clone()).build(),
            ErrorKind::InvalidInput,
            &says,
        );
        let told = format!("{error} {error:?} {tls:?}");
        for secret in [&one.key, &other.key] {
            let line = secret.lines().nth(1).unwrap();
            assert!(!told.contains(line), "a private key was printed: {told}");
        }
    }
    let result = Client::builder().servers(["no_such~host:1"]).tls(trusting()).build();
    refused(result, ErrorKind::InvalidInput, &["no_such~host", "Tls::server_name"]);
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn changed_files_are_used_from_the_next_connection_on() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let presented = Presented::new(&old.issue(HERE));
    let config = Arc::new(presented.forgetful_server_config(&BOTH));
    let server = Server::builder().port(0).tls(config).start().await.unwrap();
    let proxy = Proxy::start(&server.local_addr().to_string()).await;
    let folder = Folder::new();
    let authorities = folder.write("ca.pem", &old.pem());
    let client = client(&proxy.address, Tls::new().ca_file(&authorities))
        .connect()
        .await
        .unwrap();
    let lock = client.lock("k").unwrap();

    presented.change(&new.issue(HERE));
    proxy.cut();
    until("the new certificate is refused", || {
        let health = client.health();
        health[0]
            .last_error()
            .is_some_and(|error| error.to_string().contains("unknown issuer"))
    })
    .await;
    refused(lock.acquire().await, ErrorKind::Connect, &["unknown issuer"]);
    folder.write("ca.pem", "nonsense");
    until("the error names the file", || {
        let health = client.health();
        health[0].last_error().is_some_and(|error| {
            let text = error.to_string();
            text.contains("ca.pem") && text.contains("any more") && error.is_retryable()
        })
    })
    .await;
    folder.write("ca.pem", &new.pem());
    until("the client is connected", || client.health()[0].is_connected()).await;
    lock.acquire().await.unwrap().release().await.unwrap();
}

#[tokio::test]
async fn later_connections_resume_the_first_session() {
    let (authority, untrusted) = (Authority::new("ours"), Authority::new("untrusted"));
    for version in BOTH {
        let presented = Presented::new(&authority.issue(HERE));
        let config = Arc::new(presented.server_config(&[version]));
        let server = Server::builder().port(0).tls(config).start().await.unwrap();
        let proxy = Proxy::start(&server.local_addr().to_string()).await;
        let folder = Folder::new();
        // The authority is in a file, which the client reads again for each connection.
        let authorities = folder.write("ca.pem", &authority.pem());
        let client = client(&proxy.address, Tls::new().ca_file(authorities))
            .connect()
            .await
            .unwrap();
        // The client would refuse the new certificate. But it does not see this certificate, because the server
        // presents a certificate only in a full handshake, and not when a session is resumed.
        presented.change(&untrusted.issue(HERE));
        for reconnects in 1..=3 {
            proxy.cut();
            until("the client is connected again", || {
                proxy.accepted() > reconnects && client.health()[0].is_connected()
            })
            .await;
        }
    }
}

#[test]
fn the_authorities_of_the_machine_are_trusted_on_request() {
    let folder = Folder::new();
    let authority = Authority::new("of the machine");
    let bundle = folder.write("bundle.pem", &authority.pem());
    let own = authority.issue(HERE);
    let (certificate, key) = (
        folder.write("server.crt", &own.certificate),
        folder.write("server.key", &own.key),
    );
    let variables = [
        ("SSL_CERT_FILE", bundle.to_str().unwrap()),
        ("TEST_CERTIFICATE", certificate.to_str().unwrap()),
        ("TEST_KEY", key.to_str().unwrap()),
    ];
    if !is_alone_with("tls::the_authorities_of_the_machine_are_trusted_on_request", &variables) {
        return;
    }
    let file = |name: &str| std::env::var(name).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let tls = ServerTls::pem_files(file("TEST_CERTIFICATE"), file("TEST_KEY"))
            .config()
            .unwrap();
        let server = Server::builder().port(0).tls(tls).start().await.unwrap();
        let address = server.local_addr().to_string();
        client(&address, Tls::system_roots()).connect().await.unwrap();
        let others = Authority::new("another authority");
        assert_refused_permanently(&address, trusting(&others), &["unknown issuer"]).await;
        // The client trusts the roots of the system and another authority.
        let theirs = serve(Server::builder(), &others.issue(HERE)).await;
        let both = Tls::system_roots().ca_pem(others.pem());
        client(&theirs.local_addr().to_string(), both.clone())
            .connect()
            .await
            .unwrap();
        client(&address, both).connect().await.unwrap();
    });
}

#[test]
fn a_machine_without_authorities_is_an_error() {
    let nowhere = [("SSL_CERT_FILE", "/nowhere/bundle.pem"), ("SSL_CERT_DIR", "/nowhere")];
    if !is_alone_with("tls::a_machine_without_authorities_is_an_error", &nowhere) {
        return;
    }
    let built = Client::builder().tls(Tls::system_roots()).build();
    refused(
        built,
        ErrorKind::InvalidInput,
        &["no root certificates", "ca-certificates", "ca_file"],
    );
}

#[tokio::test]
async fn a_server_ends_a_handshake_that_takes_too_long() {
    let authority = Authority::new("ours");
    let builder = Server::builder()
        .max_connections(1)
        .read_timeout(Duration::from_millis(200));
    let server = serve(builder, &authority.issue(HERE)).await;
    let address = server.local_addr().to_string();
    let mut silent = RawConnection::open(&address).await;
    until("the connection is counted", || server.stats().connections == 1).await;
    // This is the first byte of a TLS record, and no other byte follows.
    silent.send("\u{16}").await;
    let mut full = RawConnection::open(&address).await;
    assert_eq!(
        full.hear(SOON).await,
        crate::support::raw::Heard::Closed,
        "the only connection is taken"
    );
    assert_eq!(silent.hear(SOON).await, crate::support::raw::Heard::Closed);
    until("the connection is closed", || server.stats().connections == 0).await;
    client(&address, trusting(&authority))
        .keepalive(Duration::from_millis(50))
        .connect()
        .await
        .unwrap();
}

#[tokio::test]
async fn a_server_ends_a_connection_with_close_notify() {
    let authority = Authority::new("ours");
    let server = serve(
        Server::builder().read_timeout(Duration::from_millis(100)),
        &authority.issue(HERE),
    )
    .await;
    let config = Arc::new(client_config(&authority, None, &TLS13));
    let stream = TcpStream::connect(server.local_addr()).await.unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(config)
        .connect("localhost".try_into().unwrap(), stream)
        .await
        .unwrap();
    stream.write_all(b"l\nk\n0 30\n").await.unwrap();
    let mut said = String::new();
    // The read would fail if the server closed the connection without a `close_notify`.
    stream.read_to_string(&mut said).await.unwrap();
    assert!(said.starts_with("ok ") && said.ends_with("\nerror\n"), "{said}");
}

#[tokio::test]
async fn errors_of_a_server_name_the_unusable_file() {
    let authority = Authority::new("ours");
    let (one, other) = (authority.issue(HERE), authority.issue(HERE));
    let folder = Folder::new();
    let certificate = folder.write("server.crt", &one.certificate);
    let key = folder.write("server.key", &one.key);
    let wrong = folder.write("wrong.key", &other.key);
    let missing = folder.path("missing");
    for (tls, says) in [
        (ServerTls::pem_files(&missing, &key), ["missing", "No such file"]),
        (
            ServerTls::pem_files(&certificate, &certificate),
            ["server.crt", "no private key"],
        ),
        (
            ServerTls::pem_files(&certificate, &wrong),
            ["wrong.key", "do not belong together"],
        ),
        (
            ServerTls::pem_files(&certificate, &key).client_ca_file(&key),
            ["server.key", "no certificate"],
        ),
    ] {
        refused(tls.config(), ErrorKind::InvalidInput, &says);
    }
}
