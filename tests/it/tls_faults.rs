//! TLS over a network that fails: a connection is cut at any byte, a connection stalls, bytes arrive one by one, or a
//! proxy changes bytes.

use std::time::Duration;

use crate::support::pki::{Authority, HERE, serve, trusting};
use crate::support::proxy::Proxy;
use crate::support::until;
use dflockd_client::server::Server;
use dflockd_client::{Client, ClientBuilder, Error, ErrorKind, LostReason, OnUnavailable, ReconnectPolicy, Tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(10);

fn client(address: &str, tls: Tls) -> ClientBuilder {
    Client::builder()
        .servers([address])
        .tls(tls)
        .reconnect(ReconnectPolicy::exponential(
            Duration::from_millis(5),
            Duration::from_millis(50),
        ))
}

fn refused<T>(result: Result<T, Error>, kind: ErrorKind, says: &[&str]) -> Error {
    let error = result.err().expect("it is refused");
    assert_eq!(error.kind(), kind, "{error:?}");
    for part in says {
        assert!(error.to_string().contains(part), "{error} does not say {part:?}");
    }
    error
}

/// The proxy cuts the connection when 1, 12, 23 bytes and so on have passed in one direction.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_anywhere_leaks_nothing_and_is_replaced() {
    let authority = Authority::new("ours");
    let server = serve(Server::builder(), &authority.issue(HERE)).await;
    let address = server.local_addr().to_string();
    let (mut failed_handshakes, mut failed_requests) = (0, 0);
    for reset in [false, true] {
        for up in [true, false] {
            // The steps of 11 bytes are small enough to reach every message of the handshake and every request.
            for cut in (1..1_900).step_by(11) {
                let proxy = Proxy::start(&address).await;
                proxy.change(|treatment| {
                    treatment.reset = reset;
                    match up {
                        true => treatment.cut_up_after = Some(cut),
                        false => treatment.cut_down_after = Some(cut),
                    }
                });
                let client = client(&proxy.address, trusting(&authority))
                    .on_unavailable(OnUnavailable::FailFast)
                    .build()
                    .unwrap();
                let lock = client.lock("k").unwrap();
                match lock.acquire().await {
                    Ok(guard) => drop(guard),
                    Err(error) if error.kind() == ErrorKind::Unavailable => failed_handshakes += 1,
                    Err(error) => {
                        assert!(error.is_retryable(), "{cut}: {error}");
                        failed_requests += 1;
                    }
                }
                proxy.pass_everything();
                until("the client is connected", || client.health()[0].is_connected()).await;
                let guard = loop {
                    match lock.acquire().await {
                        Ok(guard) => break guard,
                        // The server may not yet have noticed the end of the previous connection.
                        Err(error) => assert!(error.is_retryable(), "{cut}: {error}"),
                    }
                };
                guard.release().await.unwrap();
                assert!(client.shutdown(SOON).await.unreleased.is_empty());
            }
        }
    }
    assert!(
        failed_handshakes > 150 && failed_requests > 8,
        "{failed_handshakes} {failed_requests}"
    );
    until("no caller holds or waits", || server.stats().locks.is_empty()).await;
}

#[tokio::test]
async fn a_stalled_handshake_costs_the_connect_timeout() {
    let authority = Authority::new("ours");
    let server = serve(Server::builder(), &authority.issue(HERE)).await;
    let proxy = Proxy::start(&server.local_addr().to_string()).await;
    let builder = client(&proxy.address, trusting(&authority)).connect_timeout(Duration::from_millis(300));
    for stall_up in [true, false] {
        proxy.change(|treatment| {
            treatment.stall_up = stall_up;
            treatment.stall_down = !stall_up;
        });
        let started = Instant::now();
        let error = refused(
            builder.clone().connect().await,
            ErrorKind::Connect,
            &["300ms", "serves TLS"],
        );
        assert!(
            started.elapsed() < Duration::from_secs(5) && error.is_retryable(),
            "{error}"
        );
        // The cut discards the bytes that the proxy has held back.
        proxy.cut();
        proxy.pass_everything();
    }
    builder.connect().await.unwrap();
}

#[tokio::test]
async fn records_may_arrive_byte_by_byte() {
    let authority = Authority::new("ours");
    let server = serve(Server::builder(), &authority.issue(HERE)).await;
    let proxy = Proxy::start(&server.local_addr().to_string()).await;
    proxy.change(|treatment| treatment.trickle = true);
    let client = client(&proxy.address, trusting(&authority)).connect().await.unwrap();
    let mut running = tokio::task::JoinSet::new();
    for number in 0..20 {
        let lock = client.lock(format!("k{number}")).unwrap();
        running.spawn(async move { lock.acquire().await.unwrap().release().await.unwrap() });
    }
    running.join_all().await;
    assert!(client.stats().await.unwrap().connections > 0);
}

#[tokio::test]
async fn changed_bytes_are_never_accepted() {
    let authority = Authority::new("ours");
    let server = serve(Server::builder(), &authority.issue(HERE)).await;
    let meddler = Meddler::start(server.local_addr().to_string()).await;
    let client = client(&meddler.address, trusting(&authority))
        .request_timeout(Duration::from_millis(500))
        .connect()
        .await
        .unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    meddler.meddle(true);
    let error = refused(client.stats().await, ErrorKind::Connect, &["TLS handshake failed"]);
    assert!(error.is_retryable(), "{error}");
    // The meddler changes a bit of the answer to this release, and of each later handshake.
    refused(guard.release().await, ErrorKind::Unavailable, &["TLS handshake failed"]);
    meddler.meddle(false);
    until("the client is connected", || client.health()[0].is_connected()).await;
    client
        .lock("l")
        .unwrap()
        .acquire()
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
}

/// A proxy. While `meddles` is true, the proxy changes one bit in each block of bytes that it reads from the server.
struct Meddler {
    address: String,
    meddles: tokio::sync::watch::Sender<bool>,
}

impl Meddler {
    async fn start(server: String) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (meddles, watched) = tokio::sync::watch::channel(false);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, watched) = (server.clone(), watched.clone());
                tokio::spawn(async move {
                    let server = TcpStream::connect(server).await.unwrap();
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = server.into_split();
                    let up = tokio::io::copy(&mut from_client, &mut to_server);
                    let down = async {
                        let mut buffer = [0; 4096];
                        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
                            if *watched.borrow() {
                                buffer[count - 1] ^= 1;
                            }
                            if to_client.write_all(&buffer[..count]).await.is_err() {
                                return;
                            }
                        }
                    };
                    tokio::select! {
                        _ = up => {}
                        () = down => {}
                    }
                });
            }
        });
        Self { address, meddles }
    }

    fn meddle(&self, meddles: bool) {
        self.meddles.send_replace(meddles);
    }
}

#[tokio::test]
async fn a_lease_whose_tls_connection_is_cut_is_lost_at_once_and_can_be_acquired_again() {
    let authority = Authority::new("ours");
    let server = serve(Server::builder(), &authority.issue(HERE)).await;
    let proxy = Proxy::start(&server.local_addr().to_string()).await;
    let client = client(&proxy.address, trusting(&authority)).connect().await.unwrap();
    let lock = client.lock("k").unwrap();
    let guard = lock.acquire().await.unwrap();
    let cut = Instant::now();
    proxy.cut();
    assert_eq!(guard.lost().await, LostReason::Disconnected);
    assert!(
        cut.elapsed() < Duration::from_secs(5),
        "the loss was reported before the end of its TTL"
    );
    lock.acquire().await.unwrap().release().await.unwrap();
}
