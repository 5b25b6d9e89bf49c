//! Opens a socket to an address: resolves the name, tries its addresses, and sets the socket up. If the user has set a
//! connector, that opens the connection instead.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use super::connector::Connector;
use super::endpoint::{Address, Endpoint};
use super::happy_eyeballs::{interleave, race};
use super::socket::Socket;
use super::unix::UnixStream;
use crate::error::{Error, ErrorKind, Result};
use crate::io_words::io_failed;

/// How an endpoint is reached.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// Over the operating system's sockets.
    Sockets(Resolver),
    /// Through the user's connector.
    Connector(Connector),
}

impl Default for Way {
    fn default() -> Self {
        Self::Sockets(Resolver::default())
    }
}

/// Resolves a name to its addresses.
#[derive(Clone)]
pub(crate) struct Resolver(Arc<dyn Fn(Arc<str>, u16) -> Resolving + Send + Sync>);

type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

impl Resolver {
    #[cfg(test)]
    pub(crate) fn of(resolve: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(move |host, port| {
            Box::pin(std::future::ready(resolve(&host, port)))
        }))
    }
}

/// The operating system's resolver.
impl Default for Resolver {
    fn default() -> Self {
        Self(Arc::new(|host, port| {
            Box::pin(async move { Ok(tokio::net::lookup_host((&*host, port)).await?.collect()) })
        }))
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

/// The maximum number of failed addresses in an error message. A name may have hundreds of addresses.
const FAILURES_TOLD: usize = 8;

/// Opens a socket to an endpoint. `dead_peer_timeout` is how long the kernel may take to notice that the peer is gone.
///
/// # Errors
///
/// `Connect`, with the operating system's reason for each address that was tried, or with the connector's error.
///
/// # Cancel safety
///
/// Safe: dropping the future closes whatever was opened.
pub(crate) async fn reach(endpoint: &Endpoint, way: &Way, dead_peer_timeout: Duration) -> Result<Socket> {
    match way {
        Way::Sockets(resolver) => reach_by_socket(endpoint, resolver, dead_peer_timeout).await,
        Way::Connector(connector) => connector.connect(endpoint).await.map(Socket::Connector),
    }
}

async fn reach_by_socket(endpoint: &Endpoint, resolver: &Resolver, dead_peer_timeout: Duration) -> Result<Socket> {
    match endpoint.address() {
        Address::Unix(path) => match UnixStream::connect(path).await {
            Ok(stream) => Ok(Socket::Unix(stream)),
            Err(error) => Err(cannot("connect", error)),
        },
        Address::Tcp { host, port } => {
            let addresses = (resolver.0)(Arc::clone(host), *port)
                .await
                .map_err(|error| cannot(&format!("resolve the host name {host:?}"), error))?;
            let stream = race(interleave(addresses), TcpStream::connect)
                .await
                .map_err(|failures| none_reached(host, failures))?;
            set_up(&stream, dead_peer_timeout).map_err(|error| cannot("set up the socket", error))?;
            Ok(Socket::Tcp(stream))
        }
    }
}

/// The maximum interval between keepalive probes on Linux.
const LONGEST_PROBE_INTERVAL: Duration = Duration::from_secs(32_767);

/// Sets a socket up: small requests are sent at once, and the kernel detects a dead peer.
fn set_up(stream: &TcpStream, dead_peer_timeout: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let probe_every = (dead_peer_timeout / 4).clamp(Duration::from_secs(1), LONGEST_PROBE_INTERVAL);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(probe_every).with_interval(probe_every))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(dead_peer_timeout))?;
    Ok(())
}

fn none_reached(host: &str, mut failures: Vec<(SocketAddr, io::Error)>) -> Error {
    let all = failures.len();
    let mut told: Vec<String> = failures
        .iter()
        .take(FAILURES_TOLD)
        .map(|(address, error)| format!("{address}: {error}"))
        .collect();
    if all > FAILURES_TOLD {
        told.push(format!("and {} more", all - FAILURES_TOLD));
    }
    match failures.pop() {
        None => Error::new(ErrorKind::Connect, format!("the host name {host:?} has no address")),
        Some((_, error)) if all == 1 => cannot("connect", error),
        Some(_) => {
            let message = format!(
                "cannot connect to any of the {all} addresses of {host:?}: {}",
                told.join("; ")
            );
            Error::new(ErrorKind::Connect, message)
        }
    }
}

fn cannot(what: &str, error: io::Error) -> Error {
    io_failed(ErrorKind::Connect, &format!("cannot {what}"), error)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::client::builder::ClientBuilder;
    use crate::net::backoff::ReconnectPolicy;
    use crate::server::Server;

    async fn serve() -> Server {
        Server::builder().port(0).start().await.unwrap()
    }

    /// Returns an address where no socket listens.
    fn dead(number: u8) -> SocketAddr {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        // It is another address of the same machine, so that a process that takes the port meanwhile is not reached.
        SocketAddr::from(([127, 0, 1, number], listener.local_addr().unwrap().port()))
    }

    fn client(resolver: Resolver) -> ClientBuilder {
        let milli = Duration::from_millis(1);
        ClientBuilder::default()
            .servers(["locks.example.org:6388"])
            .resolver(resolver)
            .reconnect(ReconnectPolicy::exponential(milli, milli))
    }

    #[tokio::test]
    async fn every_address_of_a_name_is_tried() {
        let server = serve().await;
        let good = server.local_addr();
        let resolver = Resolver::of(move |_, _| Ok(vec![dead(1), dead(2), good]));
        client(resolver).connect().await.unwrap();
    }

    #[tokio::test]
    async fn an_error_lists_the_addresses_that_failed() {
        let resolver = Resolver::of(|_, _| Ok((1..=12).map(dead).collect()));
        let error = client(resolver).connect().await.unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Connect);
        for part in [
            "12 addresses",
            "locks.example.org",
            "127.0.1.1:",
            "127.0.1.8:",
            "and 4 more",
            "refused",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let none = client(Resolver::of(|_, _| Ok(Vec::new()))).connect().await.unwrap_err();
        assert!(none.to_string().contains("has no address"), "{none}");
        let unknown = Resolver::of(|_, _| Err(io::Error::other("no such name")));
        let error = client(unknown).connect().await.unwrap_err();
        assert!(
            error
                .to_string()
                .contains("resolve the host name \"locks.example.org\": no such name"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_name_is_resolved_anew_at_each_reconnect() {
        let (first, second) = (serve().await, serve().await);
        let addresses = [first.local_addr(), second.local_addr()];
        let asked = Arc::new(AtomicUsize::new(0));
        let resolver = Resolver::of({
            let asked = Arc::clone(&asked);
            move |host, port| {
                assert_eq!((host, port), ("locks.example.org", 6388));
                Ok(vec![addresses[asked.fetch_add(1, Ordering::SeqCst).min(1)]])
            }
        });
        let client = client(resolver).connect().await.unwrap();
        assert_eq!(first.stats().connections, 1);
        drop(first);
        // Requests that were sent before the loss was noticed are lost with the connection.
        let lock = client.lock("k").unwrap();
        let guard = loop {
            match lock.acquire().await {
                Ok(guard) => break guard,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Disconnected, "{error}"),
            }
        };
        assert_eq!(
            second.stats().locks.len(),
            1,
            "the name resolves to the second server now"
        );
        guard.release().await.unwrap();
        assert!(asked.load(Ordering::SeqCst) >= 2);
    }
}
