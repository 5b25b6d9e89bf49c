//! From an address to a connection that may carry requests: resolve, connect, set up, authenticate, probe.

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::functions::Wire;
use crate::protocol::{AuthToken, Call, Pattern};

/// A pattern that nobody listens to.
const SIGNALS_PROBE: &str = "dflockd-client.probe";

/// What a server can do, as far as it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Abilities {
    /// Whether it knows `ping` (release 1.14 and later).
    pub(crate) ping: bool,
}

/// A connection on which nothing was asked for yet, but which the server has accepted.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) stream: TcpStream,
    pub(crate) abilities: Abilities,
}

/// How to connect.
#[derive(Clone, Debug)]
pub(crate) struct ConnectOptions {
    pub(crate) endpoint: Endpoint,
    pub(crate) auth_token: Option<AuthToken>,
    /// For everything from resolving to the last answer of the handshake.
    pub(crate) connect_timeout: Duration,
    /// What the kernel may take to see that nobody is there any more.
    pub(crate) dead_peer_timeout: Duration,
    /// Whether the connection is for signals: a server that knows none is refused before anything depends on it.
    pub(crate) for_signals: bool,
}

impl ConnectOptions {
    /// Connects. What the server can do is asked unless it is `known`.
    ///
    /// # Errors
    ///
    /// `Connect` (with the operating system's reason), `Auth`, or `Protocol` if somebody else than a dflockd server answers.
    ///
    /// # Cancel safety
    ///
    /// Safe: a connection that is not returned is closed, and nothing was acquired over it.
    pub(crate) async fn connect(&self, known: Option<Abilities>) -> Result<Connected> {
        match timeout(self.connect_timeout, self.attempt(known)).await {
            Ok(result) => result.map_err(|error| error.at(self.endpoint.as_text())),
            Err(_) => Err(Error::new(
                ErrorKind::Connect,
                format!(
                    "no dflockd server answered within the connect timeout of {:?}: \
                     check the address, and that the server is up and no proxy swallows the connection",
                    self.connect_timeout
                ),
            )
            .at(self.endpoint.as_text())),
        }
    }

    async fn attempt(&self, known: Option<Abilities>) -> Result<Connected> {
        let (mut wire, abilities) = match known {
            Some(abilities) => (self.greet(self.open().await?).await?, abilities),
            None => self.ask_what_it_can_do().await?,
        };
        if self.for_signals {
            // Takes back what was never asked for: changes nothing where signals are known, and is refused where not.
            wire.run(Call::unlisten(Pattern::new(SIGNALS_PROBE)?, None)).await?;
        }
        Ok(Connected {
            stream: wire.into_stream()?,
            abilities,
        })
    }

    async fn ask_what_it_can_do(&self) -> Result<(Wire<TcpStream>, Abilities)> {
        let mut wire = self.greet(self.open().await?).await?;
        match wire.run(Call::ping()).await {
            Ok(()) => Ok((wire, Abilities { ping: true })),
            // Servers before 1.14. Some close the connection after a command that they do not know, so take a fresh one.
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                Ok((self.greet(self.open().await?).await?, Abilities { ping: false }))
            }
            Err(error) if error.kind() == ErrorKind::Disconnected => Err(Error::new(
                ErrorKind::Connect,
                "the server closed the connection without a word: it may be full (its --max-connections), or draining",
            )
            .caused_by(error)),
            Err(error) => Err(error),
        }
    }

    async fn open(&self) -> Result<TcpStream> {
        let (host, port) = self.endpoint.host_and_port();
        let addresses = tokio::net::lookup_host((host, port))
            .await
            .map_err(|error| cannot(&format!("resolve the host name {host:?}"), error))?;
        let mut last = None;
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    self.set_up(&stream)
                        .map_err(|error| cannot("set up the socket", error))?;
                    return Ok(stream);
                }
                Err(error) => last = Some(error),
            }
        }
        Err(match last {
            Some(error) => cannot("connect", error),
            None => Error::new(ErrorKind::Connect, format!("the host name {host:?} has no address")),
        })
    }

    /// Small requests leave at once, and a peer that is gone is noticed by the kernel as well.
    fn set_up(&self, stream: &TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let socket = SockRef::from(stream);
        let probe_every = (self.dead_peer_timeout / 4).max(Duration::from_secs(1));
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(probe_every).with_interval(probe_every))?;
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(self.dead_peer_timeout))?;
        Ok(())
    }

    async fn greet(&self, stream: TcpStream) -> Result<Wire<TcpStream>> {
        let mut wire = Wire::new(stream);
        if let Some(token) = &self.auth_token {
            wire.run(Call::auth(token.clone())).await?;
        }
        Ok(wire)
    }
}

fn cannot(what: &str, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Connect, format!("cannot {what}: {error}")).caused_by(error)
}
