//! Opens connections: open a socket, secure it, authenticate, and probe the server.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::abilities::Abilities;
use super::endpoint::Endpoint;
use super::fencing::{FencesShown, Fencing};
use super::lane::LaneSettings;
use super::membership::{Membership, not_a_member};
use super::metrics::LaneMetrics;
use super::reach::{Way, reach};
use super::settings::ConnectionSettings;
use super::socket::Socket;
use super::stream::Stream;
use crate::error::{Error, ErrorKind, Result};
use crate::human::human;
use crate::protocol::functions::Wire;
use crate::protocol::{AuthToken, Call, MAX_RESPONSE_LINE, Pattern, StableRef};
use crate::stats::ClusterStats;
use crate::tls::{explain_disconnect, no_tls};
use crate::types::{Key, Kind, Token, Ttl};
use crate::unwind::catch_async;

/// A pattern that no client listens to.
const SIGNALS_PROBE: &str = "dflockd-client.probe";

/// How long a TLS handshake may stay unanswered before the client checks whether the server speaks TLS at all.
const PLAIN_AFTER: Duration = Duration::from_secs(1);

/// A key that no client locks.
const PROBE_KEY: &str = "dflockd-client-probe";

/// The purpose of a connection. It decides what the client must know about the server before it uses the connection.
#[derive(Clone, Debug)]
pub(crate) enum Purpose {
    /// Requests of any kind.
    Requests,
    /// Requests over the pipelined connection of a standalone server. Where fences are required, the client first finds
    /// out whether the server makes them.
    Pipelined,
    /// Requests that only the leader of a cluster serves. A member that does not lead is refused, and so is a server
    /// that is not a member. Where the server supports sessions, the connection presents this name: the configured one,
    /// or otherwise a new one for each connection. If a name was made for one connection, a later connection presents
    /// it only in order to repeat tries that may have been granted. A server with an orphan TTL keeps the leases of a
    /// session for that time after the session's connection has ended. A client whose settings name an orphan TTL
    /// continues to use these leases by their tokens.
    Leading(StableRef),
    /// Waits in a cluster, under a name by which another member recognizes them, if the server supports sessions.
    Session(StableRef),
    /// Signals. A server that does not support them is refused before anything depends on it.
    Signals,
}

/// A connection whose server has answered, and over which nothing is held yet.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) stream: Stream,
    pub(crate) shown: Shown,
}

/// What the greeting has shown about a server.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) abilities: Abilities,
    /// What the server says of its cluster, if it was asked.
    pub(crate) cluster: Option<Box<ClusterStats>>,
    pub(crate) fences: FencesShown,
}

/// The parameters of an attempt to connect.
#[derive(Clone, Debug)]
pub(crate) struct ConnectOptions {
    pub(crate) settings: Arc<ConnectionSettings>,
    /// The index of the shard.
    pub(crate) shard: usize,
    pub(crate) endpoint: Endpoint,
    /// When the attempt is given up even if the connect timeout has not passed.
    pub(crate) give_up_at: Option<Instant>,
    pub(crate) purpose: Purpose,
}

/// The maximum number of requests in flight on a connection for waits in a cluster, which carries few requests.
const IN_FLIGHT_OF_A_SESSION: usize = 8;

impl ConnectOptions {
    /// Returns the settings of the connection after it is open.
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

    /// Connects. The server has answered at least one request when this returns, so the server is neither full nor
    /// unreachable behind a proxy. The client asks what the server supports only if that is not known yet, or if the
    /// question costs the server nothing. A cluster's pipelined connection presents its name in any case.
    ///
    /// # Errors
    ///
    /// `Connect` (with the reason of the operating system or of TLS, or with the message of a panic), `Auth`,
    /// `Protocol` if the peer is not a dflockd server, `NotLeader` if the purpose needs a leader and the server does
    /// not lead, `Unsupported` if the server lacks signals or fences that the client needs, or another refusal of the
    /// server, such as `Draining`.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future closes the connection. Nothing was acquired over it, except the slots of
    /// [`find_fences`](Self::find_fences).
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
            // A user's code panicked: a connector, or a certificate verifier.
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
            false => format!("{}, after which the client asks the next server", human(limit)),
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
            // Some servers close the connection after a command that they do not know, so a new connection is opened.
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
            Purpose::Requests | Purpose::Pipelined | Purpose::Session(_) => self.expect_answer(&mut wire).await?,
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

    /// Refuses a server that is not a member of a cluster, as far as that can be found out (see
    /// [`membership`](super::membership)). The server has just said that it leads, or stands alone. Every connection
    /// asks this, because another server may have taken its place. The question may cost the connection; in that case
    /// another one is opened.
    async fn is_a_member(
        &self,
        mut wire: Wire<Stream>,
        token: Option<&AuthToken>,
        abilities: Abilities,
    ) -> Result<(Wire<Stream>, Option<Box<ClusterStats>>)> {
        let no_answer = match wire.run(Call::stats()).await.map(Membership::shown_by) {
            Ok(Membership::NotAMember) => return Err(not_a_member()),
            Ok(Membership::Member(cluster)) => return Ok((wire, Some(cluster))),
            Err(error) => error,
        };
        // These errors mean that the server does not support `stats`, and may have hung up, or that its answer is too
        // long or malformed. Any other error ends the attempt.
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
            _ => return Err(not_a_member()),
        }
        if no_answer.kind() == ErrorKind::Disconnected {
            // Builds with clusters support `stats`, so the connection broke for another reason. The server may answer
            // the next time.
            let message = "the connection was lost before the server said whether it is a member of a cluster";
            return Err(Error::new(ErrorKind::Connect, message).caused_by(no_answer));
        }
        tracing::warn!(
            endpoint = %self.endpoint,
            error = %no_answer,
            "cannot find out whether this server is a member of a cluster: its stats cannot be read"
        );
        Ok((wire, None))
    }

    /// Returns whether the client sends `ping` first. It sends none to a server that is known to be too old for `ping`.
    /// On a connection for waits in a cluster, it also sends none to a server that is known to support `ping`, because
    /// such a connection sends another request anyway.
    fn asks_for_ping(&self, abilities: Abilities) -> bool {
        match abilities.ping {
            None => true,
            Some(false) => false,
            Some(true) => !matches!(self.purpose, Purpose::Session(_)),
        }
    }

    /// Returns the name to present, if there is one. On a connection for waits, a server that is known not to support
    /// sessions gets none.
    fn session(&self, abilities: Abilities) -> Option<StableRef> {
        match &self.purpose {
            Purpose::Leading(reference) => Some(reference.clone()),
            Purpose::Session(reference) if abilities.sessions != Some(false) => Some(reference.clone()),
            Purpose::Session(_) | Purpose::Requests | Purpose::Pipelined | Purpose::Signals => None,
        }
    }

    /// Sends a command that old servers do not know. Returns whether this server supports it.
    async fn knows(&self, wire: &mut Wire<Stream>, call: Call<()>) -> Result<bool> {
        match self.ask(wire, call).await {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Opens a connection and presents the token.
    async fn greet(&self, token: Option<&AuthToken>) -> Result<Wire<Stream>> {
        let stream = self.open().await?;
        let is_exposed = stream.is_exposed();
        // The greeting does not wait for longer `stats`: they are not worth the delay, because leases have to be
        // renewed over the new connection.
        let mut wire = Wire::new(stream).with_longest_line(MAX_RESPONSE_LINE);
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

    /// Completes if a dflockd server answers at this endpoint without TLS. Such a server treats the beginning of a
    /// handshake as a line that has not ended yet, and stays silent. So while a handshake is unanswered, a second
    /// connection sends a request in plain text. The request reveals nothing and changes nothing.
    async fn answers_without_tls(&self) {
        sleep(PLAIN_AFTER).await;
        if let Ok(socket) = self.reach().await {
            let mut wire = Wire::new(Stream::Plain(socket));
            let said = match renewal_of_nothing() {
                Ok(renewal) => wire.run(renewal).await.map(drop),
                Err(error) => Err(error),
            };
            let shows_no_answer = |error: &Error| matches!(error.kind(), ErrorKind::Protocol | ErrorKind::Disconnected);
            if !said.is_err_and(|error| shows_no_answer(&error)) {
                return;
            }
        }
        pending().await
    }

    /// Ends a subscription that was never made. That changes nothing on a server that supports signals, and any other
    /// server refuses it.
    async fn knows_signals(&self, wire: &mut Wire<Stream>) -> Result<()> {
        let endpoint = self.endpoint.shared_text();
        let probe = Call::unlisten(Pattern::new(SIGNALS_PROBE)?, None);
        match self.ask(wire, probe).await {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                let servers = &self.settings.servers;
                let error = without_signals(servers.abilities(endpoint));
                servers.note_signals_refusal(endpoint, error.clone());
                Err(error)
            }
            other => other,
        }
    }

    /// Renews a lease that does not exist. All releases support that. A leader, or a server without a cluster, answers
    /// that the lease is not held; a member that does not lead says so.
    async fn renew_nothing(&self, wire: &mut Wire<Stream>) -> Result<()> {
        match self.ask(wire, renewal_of_nothing()?).await {
            Err(error) if matches!(error.kind(), ErrorKind::NotHeld | ErrorKind::LeaseExpired) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Waits until the server has answered a request, whatever its role in a cluster.
    async fn expect_answer(&self, wire: &mut Wire<Stream>) -> Result<()> {
        match self.renew_nothing(wire).await {
            Err(error) if error.kind() == ErrorKind::NotLeader => Ok(()),
            other => other,
        }
    }

    /// Asks one question of the greeting. If the connection ends before the answer, that is a failure to connect.
    pub(super) async fn ask<T>(&self, wire: &mut Wire<Stream>, call: Call<T>) -> Result<T> {
        let error = match wire.run(call).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        if error.kind() != ErrorKind::Disconnected {
            return Err(error);
        }
        // A server that refuses the client in TLS may have done so before it received the question. In that case its
        // last bytes are still unread.
        let final_bytes = wire.final_bytes().await;
        let explained = explain_disconnect(&error).or_else(|| explain_disconnect(final_bytes.error.as_ref()?));
        if let Some(explained) = explained {
            return Err(explained);
        }
        if self.settings.tls.is_none() && is_tls_alert(&final_bytes.bytes) {
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
                "the server closed the connection without an answer: it may be full (its --max-connections), or draining{or_tls}"
            ),
        )
        .caused_by(error))
    }
}

/// Returns the error for a server without signals. `ping` is newer than signals. So a server without signals is too new
/// for them if it supports `ping`, and too old if it does not.
fn without_signals(abilities: Abilities) -> Error {
    let release = match abilities.ping {
        Some(true) => "the server has no signals, because it is of release 2.0 or later",
        Some(false) => "the server has no signals, because it is older than release 1.11",
        None => "the server has no signals",
    };
    Error::new(
        ErrorKind::Unsupported,
        format!("{release}: releases 1.11 to 1.16 have them"),
    )
}

fn renewal_of_nothing() -> Result<Call<Option<u64>>> {
    let key = Key::new(PROBE_KEY)?;
    Ok(Call::renew(Kind::Lock, key, Token::NEVER_ISSUED, Some(Ttl::DEFAULT)))
}

/// Returns whether bytes are the TLS alert that a server sends to a client which does not speak TLS.
fn is_tls_alert(bytes: &[u8]) -> bool {
    matches!(bytes, [0x15, 0x03, ..])
}
