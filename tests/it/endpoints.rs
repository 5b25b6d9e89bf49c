//! Addresses of servers: host names, IPv4 and IPv6 addresses, and Unix sockets. The unit tests of `src/net/reach.rs`
//! cover the resolution of host names.

use crate::support::process::free_port;
use dflockd_client::Client;
use dflockd_client::server::Server;

async fn acquire_and_release(server: &str) {
    let client = Client::builder().servers([server]).connect().await.unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    assert_eq!(client.health()[0].endpoint.as_ref(), server);
    guard.release().await.unwrap();
}

#[tokio::test]
async fn a_client_connects_to_names_and_to_addresses_of_either_family() {
    let four = Server::builder().port(0).start().await.unwrap();
    acquire_and_release(&format!("127.0.0.1:{}", four.local_addr().port())).await;
    acquire_and_release(&format!("localhost:{}", four.local_addr().port())).await;
    if let Ok(six) = Server::builder().host("::1").port(0).start().await {
        acquire_and_release(&six.local_addr().to_string()).await;
    }
}

#[tokio::test]
async fn an_error_has_the_systems_reason_for_a_failed_connect() {
    let address = format!("127.0.0.1:{}", free_port());
    let error = Client::builder().servers([&address]).connect().await.unwrap_err();
    assert!(
        error.to_string().contains("refused") && error.to_string().contains(&address),
        "{error}"
    );
}

#[cfg(unix)]
mod sockets_in_the_file_system {
    use std::path::Path;

    use dflockd_client::server::{Server, ServerTls};
    use dflockd_client::{Client, ErrorKind, Tls};
    use tokio::net::{TcpStream, UnixListener};

    use super::acquire_and_release;
    use crate::support::pki::{Authority, Folder};

    /// Forwards each connection at a Unix socket to the server, as a proxy on the same machine does.
    fn pass_on(path: &Path, server: String) {
        let listener = UnixListener::bind(path).unwrap();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let server = server.clone();
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(server).await.unwrap();
                    drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
                });
            }
        });
    }

    #[tokio::test]
    async fn a_client_connects_to_a_unix_socket() {
        let server = Server::builder().port(0).start().await.unwrap();
        let folder = Folder::new();
        let path = folder.path("dflockd.sock");
        let endpoint = format!("unix:{}", path.display());
        let error = Client::builder().servers([&endpoint]).connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
        assert!(
            error.to_string().contains("there is no such file") && error.to_string().contains(&endpoint),
            "{error}"
        );
        pass_on(&path, server.local_addr().to_string());
        acquire_and_release(&endpoint).await;
    }

    #[tokio::test]
    async fn tls_over_a_socket_in_the_file_system_needs_the_servers_name() {
        let authority = Authority::new("ours");
        let identity = authority.issue(&["locks.example.org"]);
        let tls = ServerTls::pem(identity.certificate, identity.key).config().unwrap();
        let server = Server::builder().port(0).tls(tls).start().await.unwrap();
        let folder = Folder::new();
        let path = folder.path("dflockd.sock");
        pass_on(&path, server.local_addr().to_string());
        let endpoint = format!("unix:{}", path.display());
        let trusting = Tls::new().ca_pem(authority.pem());
        let error = Client::builder()
            .servers([&endpoint])
            .tls(trusting.clone())
            .build()
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(
            error.to_string().contains("Tls::server_name") && error.to_string().contains(&endpoint),
            "{error}"
        );
        let named = trusting.server_name("locks.example.org");
        let client = Client::builder()
            .servers([&endpoint])
            .tls(named)
            .connect()
            .await
            .unwrap();
        client
            .lock("k")
            .unwrap()
            .acquire()
            .await
            .unwrap()
            .release()
            .await
            .unwrap();
    }
}
