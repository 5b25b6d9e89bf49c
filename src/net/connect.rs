//! From an address to a connection that may carry requests: open a socket, make it secure, authenticate, probe.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::auth::Credentials;
use super::endpoint::Endpoint;
use super::reach::{Resolver, reach};
use super::stream::Stream;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::functions::Wire;
use crate::protocol::{AuthToken, Call, Pattern, StableRef};
use crate::tls::{TlsConnector, explain_disconnect};
use crate::types::{Key, Kind, Token, Ttl};

/// A pattern that nobody listens to.
const SIGNALS_PROBE: &str = "dflockd-client.probe";

/// A key that nobody holds.
const LEADER_PROBE: &str = "dflockd-client-probe";

/// What a server can do, as far as it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Abilities {
    /// Whether it knows `ping` (release 1.14 and later).
    pub(crate) ping: bool,
    /// Whether it remembers sessions (`stable-ref`), if it was asked.
    pub(crate) sessions: Option<bool>,
}

/// What a connection is for: what has to be clear about its server before it is used.
#[derive(Clone, Debug)]
pub(crate) enum Purpose {
    /// Requests of any kind.
    Requests,
    /// Requests that only the leader of a cluster serves: one that does not lead is refused. Where the server remembers sessions it
    /// is a new one each time, of which nothing is ever asked back: what the connection owns then outlives it for a while, and
    /// goes on by its tokens.
    Leading(StableRef),
    /// Waits in a cluster, under a name by which another member knows them again, where the server remembers such.
    Session(StableRef),
    /// Signals: a server that knows none is refused before anything depends on it.
    Signals,
}

/// A connection on which nothing was asked for yet, but which the server has accepted.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) stream: Stream,
    pub(crate) abilities: Abilities,
}

/// How to connect.
#[derive(Clone, Debug)]
pub(crate) struct ConnectOptions {
    pub(crate) endpoint: Endpoint,
    pub(crate) resolver: Resolver,
    pub(crate) tls: Option<TlsConnector>,
    pub(crate) credentials: Arc<Credentials>,
    /// For everything from reading the auth token to the last answer of the handshake.
    pub(crate) connect_timeout: Duration,
    /// What the kernel may take to see that nobody is there any more.
    pub(crate) dead_peer_timeout: Duration,
    pub(crate) purpose: Purpose,
}

impl ConnectOptions {
    /// Connects. What the server can do is asked unless it is `known`.
    ///
    /// # Errors
    ///
    /// `Connect` (with the operating system's reason, or that of TLS), `Auth`, or `Protocol` if somebody else than a dflockd
    /// server answers.
    ///
    /// # Cancel safety
    ///
    /// Safe: a connection that is not returned is closed, and nothing was acquired over it.
    pub(crate) async fn connect(&self, known: Option<Abilities>) -> Result<Connected> {
        let connected = match timeout(self.connect_timeout, self.authenticated(known)).await {
            Ok(result) => result,
            Err(_) => Err(self.timed_out()),
        };
        connected.map_err(|error| error.at(self.endpoint.as_text()))
    }

    fn timed_out(&self) -> Error {
        let (peer, tls) = match self.tls {
            Some(_) => ("dflockd server that speaks TLS", ", that it serves TLS on this port"),
            None => ("dflockd server", ""),
        };
        Error::new(
            ErrorKind::Connect,
            format!(
                "no {peer} answered within the connect timeout of {:?}: \
                 check the address, and that the server is up{tls} and no proxy swallows the connection",
                self.connect_timeout
            ),
        )
    }

    async fn authenticated(&self, known: Option<Abilities>) -> Result<Connected> {
        let endpoint = self.endpoint.as_text();
        let token = self.credentials.to_present(endpoint).await?;
        let outcome = self.attempt(known, token.as_ref()).await;
        self.credentials.presented(endpoint, token, &outcome);
        outcome
    }

    async fn attempt(&self, known: Option<Abilities>, token: Option<&AuthToken>) -> Result<Connected> {
        let mut wire = self.greet(token).await?;
        let mut abilities = match known {
            Some(abilities) => abilities,
            None => match self.ask(&mut wire, Call::ping()).await {
                Ok(()) => Abilities {
                    ping: true,
                    sessions: None,
                },
                // Servers before 1.14. Some close the connection after a command that they do not know, so take a fresh one.
                Err(error) if error.kind() == ErrorKind::Unsupported => {
                    wire = self.greet(token).await?;
                    Abilities {
                        ping: false,
                        sessions: None,
                    }
                }
                Err(error) => return Err(error),
            },
        };
        if let Purpose::Session(reference) | Purpose::Leading(reference) = &self.purpose {
            if abilities.sessions != Some(false) {
                let presented = self.ask(&mut wire, Call::stable_ref(reference.clone())).await;
                abilities.sessions = Some(presented.is_ok());
                match presented {
                    Err(error) if error.kind() == ErrorKind::Unsupported => wire = self.greet(token).await?,
                    other => other?,
                }
            }
        }
        match &self.purpose {
            Purpose::Requests | Purpose::Session(_) => {}
            Purpose::Leading(_) => self.leads(&mut wire).await?,
            Purpose::Signals => {
                // Takes back what was never asked for: changes nothing where signals are known, and is refused where not.
                let probe = Call::unlisten(Pattern::new(SIGNALS_PROBE)?, None);
                self.ask(&mut wire, probe).await?;
            }
        }
        let stream = wire.into_stream()?;
        Ok(Connected { stream, abilities })
    }

    /// Opens a connection and presents the secret.
    async fn greet(&self, token: Option<&AuthToken>) -> Result<Wire<Stream>> {
        let stream = self.open().await?;
        let is_exposed = stream.is_exposed();
        let mut wire = Wire::new(stream);
        if let Some(token) = token {
            if is_exposed {
                self.credentials.is_exposed(self.endpoint.as_text());
            }
            self.ask(&mut wire, Call::auth(token.clone())).await?;
        }
        Ok(wire)
    }

    async fn open(&self) -> Result<Stream> {
        let socket = reach(&self.endpoint, &self.resolver, self.dead_peer_timeout).await?;
        match &self.tls {
            None => Ok(Stream::Plain(socket)),
            Some(tls) => tls.handshake(socket, self.endpoint.host()).await.map(Stream::Tls),
        }
    }

    /// Has it renew a lease that does not exist: a leader says that it is not held, and all others that they do not lead.
    async fn leads(&self, wire: &mut Wire<Stream>) -> Result<()> {
        let key = Key::new(LEADER_PROBE)?;
        let renew = Call::renew(Kind::Lock, key, Token::OF_NOTHING, Some(Ttl::DEFAULT));
        match self.ask(wire, renew).await {
            Err(error) if error.kind() == ErrorKind::NotHeld => Ok(()),
            other => other.map(drop),
        }
    }

    /// One question of the greeting. If the connection ends before it is answered, that is a failure to connect.
    async fn ask<T>(&self, wire: &mut Wire<Stream>, call: Call<T>) -> Result<T> {
        let error = match wire.run(call).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        if error.kind() != ErrorKind::Disconnected {
            return Err(error);
        }
        // A server that refuses in TLS may have been quicker than the question: then what it said is still to be read.
        let last_words = wire.last_words().await;
        let explained = explain_disconnect(&error).or_else(|| explain_disconnect(last_words.error.as_ref()?));
        if let Some(explained) = explained {
            return Err(explained);
        }
        if self.tls.is_none() && is_tls_alert(&last_words.bytes) {
            return Err(Error::new(
                ErrorKind::Connect,
                "the server speaks TLS: give this client TLS, with ClientBuilder::tls",
            )
            .hopeless());
        }
        let or_tls = if self.tls.is_none() { ", or want TLS" } else { "" };
        Err(Error::new(
            ErrorKind::Connect,
            format!(
                "the server closed the connection without a word: it may be full (its --max-connections), or draining{or_tls}"
            ),
        )
        .caused_by(error))
    }
}

/// What a server says in TLS to somebody who does not speak it.
fn is_tls_alert(bytes: &[u8]) -> bool {
    matches!(bytes, [0x15, 0x03, ..])
}
