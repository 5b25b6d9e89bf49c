//! A server for the model of the shard. It performs the work of `listener` and `connection` on a state, step by step.
//! It has no sockets and no tasks, and the caller provides the clock and the seed, so the same steps have the same
//! outcome.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::event::Event;
use super::ids::KeyId;
use super::options::ServerOptions;
use super::random::Random;
use super::release::Release;
use super::state::{ServerAnswer, State};
use crate::clock::after;
use crate::protocol::{RawRequest, RequestDecoder, Response, Status};
use crate::types::Ttl;

/// The options of a server that a model chooses.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) release: Release,
    pub(crate) auto_release_on_disconnect: bool,
    pub(crate) read_timeout: Duration,
    pub(crate) max_connections: usize,
    pub(crate) max_locks: usize,
    pub(crate) max_waiters: usize,
    pub(crate) default_lease_ttl: Ttl,
    pub(crate) lease_sweep_interval: Duration,
    pub(crate) gc_max_idle: Duration,
    /// `None` for a server that stands alone.
    pub(crate) cluster: Option<ClusterTerms>,
}

/// The options of a cluster that a model chooses.
#[derive(Clone, Debug)]
pub(crate) struct ClusterTerms {
    pub(crate) members: Vec<SocketAddr>,
    /// How long leases and queue positions of a connection that has ended are kept.
    pub(crate) orphan_ttl: Duration,
}

/// A running server, or the members of a cluster.
pub(crate) struct ModelServer {
    state: State,
    terms: Terms,
    connections: BTreeMap<u64, ModelConnection>,
    /// The connections whose request is answered later.
    blocked: BTreeSet<u64>,
    sweep_at: Instant,
}

struct ModelConnection {
    /// The member at the other end of the connection. A server that stands alone is member 0.
    member: usize,
    decoder: RequestDecoder,
    out: BytesMut,
    blocked: Option<Blocked>,
    /// The end of the read timeout.
    read_until: Instant,
    /// Whether the read timeout starts again when the connection next waits for input: something was read, a blocked
    /// request was answered, or the connection was idle in a build that allows that.
    has_read: bool,
    /// Whether the client has closed its sending half.
    ended: bool,
}

struct Blocked {
    /// `None` if the request hangs, that is, cannot be granted.
    subject: Option<KeyId>,
    until: Instant,
    granted: oneshot::Receiver<Response>,
    /// The outcome, once it is known.
    outcome: Option<Outcome>,
}

enum Outcome {
    Answered(Response),
    /// The request is never answered, because its server was killed.
    Never,
    /// The queue position is gone. The request is answered only when its time is over.
    Forgotten,
}

/// The result of one turn of a connection.
#[derive(Debug)]
pub(crate) struct ModelTurn {
    /// The bytes to write.
    pub(crate) out: BytesMut,
    /// Whether this side closes the connection after writing `out`.
    pub(crate) is_over: bool,
    /// When the connection needs its next turn, if nothing happens before.
    pub(crate) wake_at: Option<Instant>,
}

impl ModelServer {
    /// Starts a server. The random halves of its tokens come from `seed`.
    pub(crate) fn new(terms: Terms, seed: u64, now: Instant) -> Self {
        let options = ServerOptions {
            release: terms.release,
            auto_release_on_disconnect: terms.auto_release_on_disconnect,
            read_timeout: terms.read_timeout,
            max_connections: terms.max_connections,
            max_locks: terms.max_locks,
            max_waiters: terms.max_waiters,
            default_lease_ttl: terms.default_lease_ttl,
            gc_max_idle: terms.gc_max_idle,
            orphan_ttl: terms
                .cluster
                .as_ref()
                .map_or(Duration::ZERO, |cluster| cluster.orphan_ttl),
            record_events: true,
            ..ServerOptions::default()
        };
        let random = Random::seeded(seed);
        Self {
            state: match &terms.cluster {
                Some(cluster) => State::of_cluster(options, random, cluster.members.clone()),
                None => State::new(options, random),
            },
            connections: BTreeMap::new(),
            blocked: BTreeSet::new(),
            sweep_at: now + terms.lease_sweep_interval,
            terms,
        }
    }

    /// Admits a connection to a member and returns its number; `None` if the cap on connections is reached.
    pub(crate) fn connect(&mut self, member: usize, now: Instant) -> Option<u64> {
        let number = self.state.connect(member)?;
        let connection = ModelConnection {
            member,
            decoder: RequestDecoder::default(),
            out: BytesMut::new(),
            blocked: None,
            read_until: after(now, self.terms.read_timeout),
            has_read: false,
            ended: false,
        };
        self.connections.insert(number, connection);
        Some(number)
    }

    /// Takes bytes that have arrived on a connection.
    pub(crate) fn receive(&mut self, number: u64, bytes: &[u8]) {
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.decoder.read_space().extend_from_slice(bytes);
            connection.has_read = true;
        }
    }

    /// Notes that the client of a connection has closed its sending half.
    pub(crate) fn end_of_input(&mut self, number: u64) {
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.ended = true;
        }
    }

    /// Serves a connection until it has to wait. `None` if no connection has this number.
    pub(crate) fn turn(&mut self, number: u64, now: Instant) -> Option<ModelTurn> {
        let connection = self.connections.get_mut(&number)?;
        let watches = self.terms.release.watches_blocked_connections();
        let read_timeout = self.terms.read_timeout;
        let may_be_idle = !self.terms.release.closes_idle_connections();
        let is_cluster = self.terms.cluster.is_some();
        let (is_over, wake_at) = loop {
            if let Some(blocked) = &mut connection.blocked {
                blocked.look(is_cluster);
                match &blocked.outcome {
                    Some(Outcome::Never) => break (true, None),
                    Some(Outcome::Answered(response)) => {
                        let response = response.clone();
                        connection.unblock(&response);
                    }
                    None | Some(Outcome::Forgotten) if blocked.until <= now => {
                        let gave_up = |subject| self.state.give_up(number, subject, now);
                        let response = match blocked.subject.map(gave_up) {
                            None => refused(),
                            Some(gave_up) => match blocked.granted.try_recv() {
                                Ok(granted) if !gave_up => granted,
                                _ => Response::TimedOut,
                            },
                        };
                        connection.unblock(&response);
                    }
                    None | Some(Outcome::Forgotten) if connection.ended && watches => break (true, None),
                    None | Some(Outcome::Forgotten) => break (false, Some(blocked.until)),
                }
                self.blocked.remove(&number);
                connection.has_read = true;
                continue;
            }
            match connection.decoder.next_lines() {
                Ok(Some(lines)) => {
                    let Some(request) = RawRequest::read(lines) else {
                        refused().encode(&mut connection.out);
                        continue;
                    };
                    if self.state.turns_requests_away(number) {
                        Response::Refused(Status::Draining).encode(&mut connection.out);
                        break (true, None);
                    }
                    match self.state.request(number, request, now) {
                        ServerAnswer::Now(response) => response.encode(&mut connection.out),
                        ServerAnswer::Later {
                            subject,
                            until,
                            granted,
                        } => {
                            connection.blocked = Some(Blocked {
                                subject: Some(subject),
                                until,
                                granted,
                                outcome: None,
                            });
                            self.blocked.insert(number);
                        }
                        ServerAnswer::Hangs { until, reply } => {
                            connection.blocked = Some(Blocked {
                                subject: None,
                                until,
                                granted: reply,
                                outcome: None,
                            });
                            self.blocked.insert(number);
                        }
                        // No client of the model listens.
                        ServerAnswer::Listening(_) => Response::Done.encode(&mut connection.out),
                    }
                }
                Err(_) => {
                    refused().encode(&mut connection.out);
                    break (true, None);
                }
                Ok(None) if connection.ended => break (true, None),
                Ok(None) => {
                    if may_be_idle && connection.decoder.pending() == 0 {
                        connection.has_read = true;
                        break (false, None);
                    }
                    if std::mem::take(&mut connection.has_read) {
                        connection.read_until = after(now, read_timeout);
                    }
                    if connection.read_until <= now {
                        refused().encode(&mut connection.out);
                        break (true, None);
                    }
                    break (false, Some(connection.read_until));
                }
            }
        };
        let out = connection.out.split();
        if is_over {
            self.hang_up(number, now);
        }
        Some(ModelTurn { out, is_over, wake_at })
    }

    /// Ends a connection, as [`State::disconnect`] does.
    pub(crate) fn hang_up(&mut self, number: u64, now: Instant) {
        if self.connections.remove(&number).is_some() {
            self.blocked.remove(&number);
            self.state.disconnect(number, now);
        }
    }

    /// Returns the blocked connections whose answer has come; each needs a turn. A connection is returned only once.
    pub(crate) fn answered(&mut self) -> Vec<u64> {
        let is_cluster = self.terms.cluster.is_some();
        let connections = &mut self.connections;
        let mut is_answered = |number: &u64| {
            let blocked = connections
                .get_mut(number)
                .and_then(|connection| connection.blocked.as_mut());
            blocked.is_some_and(|blocked| blocked.outcome.is_none() && blocked.look(is_cluster))
        };
        self.blocked
            .iter()
            .copied()
            .filter(|number| is_answered(number))
            .collect()
    }

    /// Returns when leases are swept next.
    pub(crate) fn sweep_at(&self) -> Instant {
        self.sweep_at
    }

    /// Expires leases and collects unused keys.
    pub(crate) fn sweep(&mut self, now: Instant) {
        self.sweep_at = now + self.terms.lease_sweep_interval;
        self.state.expire(now);
        self.state.collect(now);
    }

    /// Begins to shut a member down: waits are refused.
    pub(crate) fn drain(&mut self, member: usize, now: Instant) {
        self.state.drain(member, now);
    }

    /// Ends the server at once, with all leases.
    pub(crate) fn kill(&mut self, now: Instant) {
        self.state.kill(now);
        self.connections.clear();
        self.blocked.clear();
    }

    // Clusters.

    /// Returns the number of the leader.
    pub(crate) fn leader(&self) -> Option<usize> {
        self.state.leader()
    }

    /// Makes a member the leader, or leaves the cluster without one.
    pub(crate) fn lead(&mut self, to: Option<usize>, now: Instant) {
        match to {
            Some(to) => self.state.lead(to, now),
            None => self.state.depose(),
        }
    }

    /// Ends a member at once, and its connections with it.
    pub(crate) fn crash(&mut self, member: usize, now: Instant) {
        self.state.crash(member);
        let all = self.connections.iter();
        let own: Vec<u64> = all
            .filter(|(_, connection)| connection.member == member)
            .map(|(number, _)| *number)
            .collect();
        for number in own {
            self.hang_up(number, now);
        }
    }

    /// Starts a member again.
    pub(crate) fn begin(&mut self, member: usize) {
        self.state.rejoin(member);
        if let Some(members) = self.state.membership() {
            members.begin_process(member);
        }
    }

    /// Makes the leader lose leadership while its next request is under way.
    pub(crate) fn fall_in_flight(&mut self) {
        if let Some(members) = self.state.membership() {
            members.trouble.fall_in_flight(None);
        }
    }

    /// Cuts a member off from the others. If it leads, it continues to believe that it leads.
    pub(crate) fn isolate(&mut self, member: usize) {
        self.state.isolate(member);
    }

    /// Reconnects a member to the others.
    pub(crate) fn rejoin(&mut self, member: usize) {
        self.state.rejoin(member);
    }

    /// Lets a member name this address instead of the leader's; `None` restores the leader's address.
    pub(crate) fn redirect(&mut self, member: usize, to: Option<Box<str>>) {
        if let Some(members) = self.state.membership() {
            members.redirect(member, to);
        }
    }

    /// Takes the events since the last call.
    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        self.state.take_events()
    }

    /// Returns the numbers of connections, leases and waiters.
    pub(crate) fn population(&self) -> (usize, usize, usize) {
        let (leases, waiters) = self.state.leases_and_waiters();
        (self.connections.len(), leases, waiters)
    }
}

impl ModelConnection {
    fn unblock(&mut self, response: &Response) {
        response.encode(&mut self.out);
        self.blocked = None;
    }
}

impl Blocked {
    /// Checks for the answer. Returns whether the connection has something to do: write the answer, or end.
    fn look(&mut self, is_cluster: bool) -> bool {
        if self.outcome.is_none() {
            self.outcome = match self.granted.try_recv() {
                Ok(response) => Some(Outcome::Answered(response)),
                Err(oneshot::error::TryRecvError::Closed) if is_cluster => Some(Outcome::Forgotten),
                Err(oneshot::error::TryRecvError::Closed) => Some(Outcome::Never),
                Err(oneshot::error::TryRecvError::Empty) => None,
            };
        }
        matches!(self.outcome, Some(Outcome::Answered(_) | Outcome::Never))
    }
}

fn refused() -> Response {
    Response::Refused(Status::Error)
}
