//! From an address to a connection that may carry requests: open a socket, make it secure, authenticate, probe.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::abilities::Abilities;
use super::endpoint::Endpoint;
use super::fencing::{FencesShown, Fencing};
use super::lane::LaneSettings;
use super::membership::{Membership, no_member};
use super::metrics::LaneMetrics;
use super::reach::{Way, reach};
use super::settings::ConnectionSettings;
use super::socket::Socket;
use super::stream::Stream;
use crate::error::{Error, ErrorKind, Result};
use crate::human::human;
use crate::protocol::functions::Wire;
use crate::protocol::{AuthToken, Call, Pattern, StableRef};
use crate::stats::ClusterStats;
use crate::tls::{explain_disconnect, no_tls};
use crate::types::{Key, Kind, Token, Ttl};
use crate::unwind::catch_async;

/// A pattern that nobody listens to.
const SIGNALS_PROBE: &str = "dflockd-client.probe";

/// How long a TLS handshake may go unanswered before it is looked whether the server speaks TLS at all.
const PLAIN_AFTER: Duration = Duration::from_secs(1);

/// A key that nobody holds.
const NOBODYS_KEY: &str = "dflockd-client-probe";

/// What a connection is for: what has to be clear about its server before it is used.
#[derive(Clone, Debug)]
pub(crate) enum Purpose {
    /// Requests of any kind.
    Requests,
    /// The same over the pipelined connection of a server that stands alone: whether it makes fences is found out first, where they are
    /// required.
    Pipelined,
    /// Requests that only the leader of a cluster serves: a member that does not lead is refused, and so is a server that is no
    /// member. Where the server remembers sessions the connection names a new one each time, which is never resumed: what the
    /// connection owns then outlives it for a while, and goes on by its tokens.
    Leading(StableRef),
    /// Waits in a cluster, under a name by which another member knows them again, where the server remembers such.
    Session(StableRef),
    /// Signals: a server that knows none is refused before anything depends on it.
    Signals,
}

/// A connection over which nothing was acquired yet, and whose server has answered.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) stream: Stream,
    pub(crate) shown: Shown,
}

/// What the greeting has shown of a server.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) abilities: Abilities,
    /// What it says of its cluster, if it was asked.
    pub(crate) cluster: Option<Box<ClusterStats>>,
    pub(crate) fences: FencesShown,
}

/// How to connect.
#[derive(Clone, Debug)]
pub(crate) struct ConnectOptions {
    pub(crate) settings: Arc<ConnectionSettings>,
    /// The index of the shard that is connected.
    pub(crate) shard: usize,
    pub(crate) endpoint: Endpoint,
    /// When it is given up even if the connect timeout is not over.
    pub(crate) give_up_at: Option<Instant>,
    pub(crate) purpose: Purpose,
}

/// A connection for waits carries few requests.
const IN_FLIGHT_OF_A_SESSION: usize = 8;

impl ConnectOptions {
    /// How the connection behaves once it is established.
    pub(crate) fn lane_settings(&self, abilities: Abilities, metrics: LaneMetrics) -> LaneSettings {
        LaneSettings {
            keepalive: self.settings.keepalive,
            reply_timeout: self.settings.reply_timeout,
            max_in_flight: match self.purpose {
                Purpose::Session(_) => IN_FLIGHT_OF_A_SESSION.min(self.settings.max_in_flight),
                _ => self.settings.max_in_flight,
            },
            hears_signals: matches!(self.purpose, Purpose::Signals),
            abilities,
            metrics,
        }
    }

    /// Connects. The server has answered at least one request when the connection is returned, so it is neither full nor
    /// unreachable behind a proxy. What it can do is asked only if that is not known yet, or costs it nothing.
    ///
    /// # Errors
    ///
    /// `Connect` (with the operating system's reason, or that of TLS, or what a panic said), `Auth`, or `Protocol` if the peer is
    /// no dflockd server.
    ///
    /// # Cancel safety
    ///
    /// Safe: a connection that is not returned is closed, and nothing was acquired over it.
    pub(crate) async fn connect(&self) -> Result<Connected> {
        let left = self
            .give_up_at
            .map(|when| when.saturating_duration_since(Instant::now()));
        let limit = left.map_or(self.settings.connect_timeout, |left| {
            left.min(self.settings.connect_timeout)
        });
        let connected = match catch_async(timeout(limit, self.authenticated())).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => {
                self.settings.servers.forget(self.endpoint.shared_text());
                Err(self.timed_out(limit))
            }
            // Code of the user's: a connector, or a verifier of certificates.
            Err(panic) => Err(Error::new(
                ErrorKind::Connect,
                format!("the attempt to connect panicked: {panic}"),
            )),
        };
        let endpoint = self.endpoint.shared_text();
        let connected = connected.map_err(|error| error.at(endpoint));
        self.settings.refusals.judge(self.shard, endpoint, &connected);
        connected
    }

    fn timed_out(&self, limit: Duration) -> Error {
        let (peer, tls) = match self.settings.tls {
            Some(_) => ("dflockd server that speaks TLS", ", that it serves TLS on this port"),
            None => ("dflockd server", ""),
        };
        let limit = match limit == self.settings.connect_timeout {
            true => format!("the connect timeout of {}", human(limit)),
            false => format!("{}, when the next server is asked", human(limit)),
        };
        let what = match self.settings.way {
            Way::Sockets(_) => "the address",
            Way::Connector(_) => "the address and the connector",
        };
        Error::new(
            ErrorKind::Connect,
            format!(
                "no {peer} answered within {limit}: check {what}, and that the server is up{tls} and no proxy swallows the \
                 connection"
            ),
        )
    }

    async fn authenticated(&self) -> Result<Connected> {
        let endpoint = self.endpoint.shared_text();
        if let (Purpose::Signals, Some(refusal)) = (&self.purpose, self.settings.servers.signals_refusal(endpoint)) {
            return Err(refusal);
        }
        let token = self.settings.credentials.to_present(endpoint).await?;
        let outcome = self.attempt(token.as_ref()).await;
        self.settings.credentials.presented(endpoint, token, &outcome);
        outcome
    }

    async fn attempt(&self, token: Option<&AuthToken>) -> Result<Connected> {
        let endpoint = self.endpoint.shared_text();
        let mut abilities = self.settings.servers.abilities(endpoint);
        let mut wire = self.greet(token).await?;
        let mut cluster = None;
        // Whether the server has answered on this connection.
        let mut answered = token.is_some();
        if self.asks_for_ping(abilities) {
            let knows = self.knows(&mut wire, Call::ping()).await?;
            abilities.ping = Some(knows);
            self.settings
                .servers
                .learn(endpoint, |abilities| abilities.ping = Some(knows));
            answered = knows;
            // Some servers close the connection after a command that they do not know, so take a fresh one.
            if !knows {
                wire = self.greet(token).await?;
                answered = token.is_some();
            }
        }
        if let Some(reference) = self.session(abilities) {
            let knows = self.knows(&mut wire, Call::stable_ref(reference)).await?;
            abilities.sessions = Some(knows);
            self.settings
                .servers
                .learn(endpoint, |abilities| abilities.sessions = Some(knows));
            answered = true;
            if !knows {
                wire = self.greet(token).await?;
                answered = token.is_some();
            }
        }
        match &self.purpose {
            Purpose::Requests | Purpose::Pipelined | Purpose::Session(_) if answered => {}
            Purpose::Requests | Purpose::Pipelined | Purpose::Session(_) => self.answers(&mut wire).await?,
            Purpose::Leading(_) => {
                self.renew_nothing(&mut wire).await?;
                (wire, cluster) = self.is_a_member(wire, token, abilities).await?;
            }
            Purpose::Signals => self.knows_signals(&mut wire).await?,
        }
        let fences = match &self.purpose {
            // All builds with clusters are later than the first release that makes fences.
            Purpose::Leading(_) if cluster.is_some() || abilities.sessions == Some(true) => FencesShown::Counted(None),
            Purpose::Pipelined | Purpose::Leading(_) if self.settings.fencing == Fencing::Required => {
                self.find_fences(&mut wire).await?
            }
            _ => FencesShown::Nothing,
        };
        let stream = wire.into_stream()?;
        let shown = Shown {
            abilities,
            cluster,
            fences,
        };
        Ok(Connected { stream, shown })
    }

    /// Refuses a server that is no member of a cluster, as far as that can be told (see [`membership`](super::membership)). It has
    /// just said that it leads, or stands alone. Asked on each connection, as another server may have taken its place; the question may
    /// cost the connection, then another is made.
    async fn is_a_member(
        &self,
        mut wire: Wire<Stream>,
        token: Option<&AuthToken>,
        abilities: Abilities,
    ) -> Result<(Wire<Stream>, Option<Box<ClusterStats>>)> {
        let no_answer = match wire.run(Call::stats()).await.map(Membership::shown_by) {
            Ok(Membership::None) => return Err(no_member()),
            Ok(Membership::Member(cluster)) => return Ok((wire, Some(cluster))),
            Err(error) => error,
        };
        // The server does not know the question and may have hung up on it; or the answer is too long, or is none.
        if !matches!(
            no_answer.kind(),
            ErrorKind::Unsupported | ErrorKind::Protocol | ErrorKind::Disconnected
        ) {
            return Err(no_answer);
        }
        wire = self.greet(token).await?;
        match self.session(abilities) {
            Some(reference) if abilities.sessions == Some(true) => {
                self.ask(&mut wire, Call::stable_ref(reference)).await?;
            }
            _ if self.knows(&mut wire, Call::barrier()).await? => {}
            _ => return Err(no_member()),
        }
        if no_answer.kind() == ErrorKind::Disconnected {
            // Builds that can be members know the question, so the connection broke for another reason: it may answer the next time.
            let message = "the connection was lost before the server said whether it is a member of a cluster";
            return Err(Error::new(ErrorKind::Connect, message).caused_by(no_answer));
        }
        tracing::warn!(
            endpoint = %self.endpoint,
            error = %no_answer,
            "it cannot be told whether this server is a member of a cluster: its stats cannot be read"
        );
        Ok((wire, None))
    }

    /// Whether `ping` is asked first: not of a server that is known to be too old. Nor where another question follows and nothing but
    /// a wait depends on the connection.
    fn asks_for_ping(&self, abilities: Abilities) -> bool {
        match abilities.ping {
            None => true,
            Some(false) => false,
            Some(true) => !matches!(self.purpose, Purpose::Session(_)),
        }
    }

    /// The name to present, if there is one and the server may remember it.
    fn session(&self, abilities: Abilities) -> Option<StableRef> {
        match &self.purpose {
            Purpose::Leading(reference) => Some(reference.clone()),
            Purpose::Session(reference) if abilities.sessions != Some(false) => Some(reference.clone()),
            Purpose::Session(_) | Purpose::Requests | Purpose::Pipelined | Purpose::Signals => None,
        }
    }

    /// Asks with a command that old servers do not know, and returns whether this one does.
    async fn knows(&self, wire: &mut Wire<Stream>, call: Call<()>) -> Result<bool> {
        match self.ask(wire, call).await {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Opens a connection and presents the secret.
    async fn greet(&self, token: Option<&AuthToken>) -> Result<Wire<Stream>> {
        let stream = self.open().await?;
        let is_exposed = stream.is_exposed();
        let mut wire = Wire::new(stream);
        if let Some(token) = token {
            if is_exposed {
                self.settings.credentials.warn_of_exposure(self.endpoint.shared_text());
            }
            self.ask(&mut wire, Call::auth(token.clone())).await?;
        }
        Ok(wire)
    }

    async fn open(&self) -> Result<Stream> {
        let opened = self.open_stream().await;
        if opened.is_err() {
            self.settings.servers.forget(self.endpoint.shared_text());
        }
        opened
    }

    async fn open_stream(&self) -> Result<Stream> {
        let socket = self.reach().await?;
        match &self.settings.tls {
            None => Ok(Stream::Plain(socket)),
            Some(tls) => tokio::select! {
                biased;
                stream = tls.handshake(socket, self.endpoint.host()) => stream.map(Stream::Tls),
                () = self.answers_without_tls() => Err(no_tls()),
            },
        }
    }

    async fn reach(&self) -> Result<Socket> {
        let settings = &self.settings;
        reach(&self.endpoint, &settings.way, settings.dead_peer_timeout()).await
    }

    /// Resolves if a dflockd server answers here without TLS. Such a server takes the beginning of a handshake for a line that has no end
    /// yet, and says nothing. So while a handshake is not answered, a second connection asks in plain text, with a request that says nothing
    /// and changes nothing.
    async fn answers_without_tls(&self) {
        sleep(PLAIN_AFTER).await;
        if let Ok(socket) = self.reach().await {
            let mut wire = Wire::new(Stream::Plain(socket));
            let said = match renewal_of_nothing() {
                Ok(renewal) => wire.run(renewal).await.map(drop),
                Err(error) => Err(error),
            };
            let is_none = |error: &Error| matches!(error.kind(), ErrorKind::Protocol | ErrorKind::Disconnected);
            if !said.is_err_and(|error| is_none(&error)) {
                return;
            }
        }
        pending().await
    }

    /// Takes back a subscription that was never made: that changes nothing where signals are known, and is refused where not.
    async fn knows_signals(&self, wire: &mut Wire<Stream>) -> Result<()> {
        let endpoint = self.endpoint.shared_text();
        let probe = Call::unlisten(Pattern::new(SIGNALS_PROBE)?, None);
        self.ask(wire, probe).await.inspect_err(|error| {
            if error.kind() == ErrorKind::Unsupported {
                self.settings.servers.refuses_signals(endpoint, error.clone());
            }
        })
    }

    /// Renews a lease that does not exist. All releases know that: a leader, or a server without a cluster, says that the lease is
    /// not held, and a member that does not lead says so.
    async fn renew_nothing(&self, wire: &mut Wire<Stream>) -> Result<()> {
        match self.ask(wire, renewal_of_nothing()?).await {
            Err(error) if matches!(error.kind(), ErrorKind::NotHeld | ErrorKind::LeaseExpired) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Returns once the server has answered, whatever it is in its cluster.
    async fn answers(&self, wire: &mut Wire<Stream>) -> Result<()> {
        match self.renew_nothing(wire).await {
            Err(error) if error.kind() == ErrorKind::NotLeader => Ok(()),
            other => other,
        }
    }

    /// One question of the greeting. If the connection ends before it is answered, that is a failure to connect.
    pub(super) async fn ask<T>(&self, wire: &mut Wire<Stream>, call: Call<T>) -> Result<T> {
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
        if self.settings.tls.is_none() && is_tls_alert(&last_words.bytes) {
            return Err(Error::new(
                ErrorKind::Connect,
                "the server speaks TLS: give this client TLS, with ClientBuilder::tls",
            )
            .fatal());
        }
        let or_tls = if self.settings.tls.is_none() {
            ", or want TLS"
        } else {
            ""
        };
        Err(Error::new(
            ErrorKind::Connect,
            format!(
                "the server closed the connection without a word: it may be full (its --max-connections), or draining{or_tls}"
            ),
        )
        .caused_by(error))
    }
}

fn renewal_of_nothing() -> Result<Call<Option<u64>>> {
    let key = Key::new(NOBODYS_KEY)?;
    Ok(Call::renew(Kind::Lock, key, Token::OF_NOTHING, Some(Ttl::DEFAULT)))
}

/// What a server says in TLS to somebody who does not speak it.
fn is_tls_alert(bytes: &[u8]) -> bool {
    matches!(bytes, [0x15, 0x03, ..])
}
