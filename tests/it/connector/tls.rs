//! TLS over the streams of a connector, and TLS made by a connector.

use std::sync::Arc;

use dflockd_client::rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types};
use dflockd_client::server::Server;
use dflockd_client::{Endpoint, Error, ErrorKind};
use pki_types::pem::PemObject;
use tower::service_fn;

use super::{NAME, Network, builder, served};
use crate::support::pki::{Authority, serve, trusting};

/// Starts a server whose certificate has these names, and makes a network in which the server has the name [`NAME`].
async fn secure(authority: &Authority, names: &[&str]) -> (Server, Network) {
    let server = serve(Server::builder(), &authority.issue(names)).await;
    let network = Network::default().with(NAME, server.local_addr());
    (server, network)
}

fn was_fatal(error: &Error, says: &str) {
    assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
    assert!(error.is_fatal() && error.to_string().contains(says), "{error}");
}

/// The client checks the certificate against the host of the configured address, whatever server the connector chooses.
#[tokio::test]
async fn tls_runs_over_a_connectors_stream_and_checks_the_host_of_the_endpoint() {
    let authority = Authority::new("ours");
    let (server, network) = secure(&authority, &["locks.internal"]).await;
    let client = builder()
        .tls(trusting(&authority))
        .connector(network.connector())
        .connect()
        .await
        .unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    assert_eq!(server.stats().locks.len(), 1);
    guard.release().await.unwrap();

    let (_server, network) = secure(&authority, &["127.0.0.1"]).await;
    let connect = |tls| builder().tls(tls).connector(network.connector()).connect();
    was_fatal(&connect(trusting(&authority)).await.unwrap_err(), "locks.internal");
    connect(trusting(&authority).server_name("127.0.0.1")).await.unwrap();
}

/// The server does not answer the TLS handshake, so the client opens a second stream to find out that the server has no
/// TLS. In rare cases, the random bytes of the handshake contain line ends. The server then answers these bytes as a
/// request, and the client opens no second stream.
#[tokio::test]
async fn an_error_says_that_the_server_has_no_tls() {
    let (_server, network) = served().await;
    let builder = builder().tls(trusting(&Authority::new("ours")));
    let error = builder.connector(network.connector()).connect().await.unwrap_err();
    was_fatal(&error, "TLS");
    let asked = network.asked();
    assert!(asked == [NAME, NAME] || asked == [NAME], "{asked:?}");
}

#[tokio::test]
async fn an_error_says_that_the_server_wants_tls() {
    let (_server, network) = secure(&Authority::new("ours"), &["locks.internal"]).await;
    let error = builder().connector(network.connector()).connect().await.unwrap_err();
    was_fatal(&error, "ClientBuilder::tls");
}

#[tokio::test]
async fn a_connector_may_make_tls_itself() {
    let authority = Authority::new("ours");
    let (server, network) = secure(&authority, &["inner.internal"]).await;
    let mut roots = RootCertStore::empty();
    roots
        .add(pki_types::CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap())
        .unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config));
    let connector = service_fn(move |endpoint: Endpoint| {
        let (network, tls) = (network.clone(), tls.clone());
        async move {
            let name = pki_types::ServerName::try_from("inner.internal").unwrap();
            tls.connect(name, network.pipe(&endpoint).await?).await
        }
    });
    let client = builder().connector(connector).connect().await.unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    assert_eq!(server.stats().locks.len(), 1);
    guard.release().await.unwrap();
}
