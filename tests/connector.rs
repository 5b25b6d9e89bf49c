//! Clients whose connections a connector opens.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::io;

use dflockd_client::server::Server;
use dflockd_client::{Client, Endpoint};
use tokio::io::{DuplexStream, duplex};
use tokio::net::TcpStream;
use tower::service_fn;

/// A pipe to a server, which stands at the other end of it.
fn pipe(server: &Server) -> DuplexStream {
    let address = server.local_addr();
    let (near, mut far) = duplex(64);
    tokio::spawn(async move {
        let mut socket = TcpStream::connect(address).await.unwrap();
        drop(tokio::io::copy_bidirectional(&mut far, &mut socket).await);
    });
    near
}

async fn serve() -> std::sync::Arc<Server> {
    std::sync::Arc::new(Server::builder().port(0).start().await.unwrap())
}

#[tokio::test]
async fn a_whole_client_over_pipes() {
    let server = serve().await;
    let connector = service_fn({
        let server = server.clone();
        move |endpoint: Endpoint| {
            assert_eq!(endpoint.as_str(), "nowhere:1");
            let stream = pipe(&server);
            async { Ok::<_, io::Error>(stream) }
        }
    });
    let builder = Client::builder().servers(["nowhere:1"]).connector(connector);
    let client = builder.connect().await.unwrap();
    let lock = client.lock("k").unwrap();
    let guard = lock.acquire().await.unwrap();
    assert_eq!(server.stats().locks.len(), 1);
    let (next, released) = tokio::join!(lock.acquire(), guard.release());
    released.unwrap();
    next.unwrap().release().await.unwrap();
}
