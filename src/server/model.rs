//! A server for the model of the shard: what `listener` and `connection` do around a state, step by step. No sockets, no tasks, no
//! clock but the caller's, and no randomness but the caller's: the same steps have the same outcome.

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

/// What a model chooses of a server.
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

/// What a model chooses of a cluster.
#[derive(Clone, Debug)]
pub(crate) struct ClusterTerms {
    pub(crate) members: Vec<SocketAddr>,
    /// How long what a connection leaves behind is kept.
    pub(crate) orphan_ttl: Duration,
}

/// A server, as long as it is up; or the members of a cluster.
pub(crate) struct ModelServer {
    state: State,
    terms: Terms,
    connections: BTreeMap<u64, ModelConnection>,
    /// Those whose request is answered later.
    blocked: BTreeSet<u64>,
    sweep_at: Instant,
}

struct ModelConnection {
    /// The member that it leads to. A server that stands alone is member 0.
    member: usize,
    decoder: RequestDecoder,
    out: BytesMut,
    blocked: Option<Blocked>,
    /// When it has been silent for too long.
    read_until: Instant,
    /// Something was read since it last waited for more.
    has_read: bool,
    /// The client sends no more.
    ended: bool,
}

struct Blocked {
    /// `None` if it waits for nothing that will come.
    subject: Option<KeyId>,
    until: Instant,
    granted: oneshot::Receiver<Response>,
    /// What came of it, once that is known.
    outcome: Option<Outcome>,
}

enum Outcome {
    Answered(Response),
    /// It will never be answered: its server is gone.
    Never,
    /// Its place is gone, and nothing is said of it before its time is over.
    Forgotten,
}

/// What one turn of a connection has brought.
#[derive(Debug)]
pub(crate) struct ModelTurn {
    /// To be written.
    pub(crate) out: BytesMut,
    /// The connection has ended on this side, once that is written.
    pub(crate) is_over: bool,
    /// When something is due, if nothing comes before.
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

    /// Admits a connection to a member, and returns its number; `None` if there is no room for it.
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

    /// Bytes have come over a connection.
    pub(crate) fn receive(&mut self, number: u64, bytes: &[u8]) {
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.decoder.read_space().extend_from_slice(bytes);
            connection.has_read = true;
        }
    }

    /// The client of a connection sends no more.
    pub(crate) fn end_of_input(&mut self, number: u64) {
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.ended = true;
        }
    }

    /// Serves a connection as far as that goes. `None` if there is none of that number.
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
                        ServerAnswer::Hangs { until, told } => {
                            connection.blocked = Some(Blocked {
                                subject: None,
                                until,
                                granted: told,
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

    /// Ends a connection: what it has is given up.
    pub(crate) fn hang_up(&mut self, number: u64, now: Instant) {
        if self.connections.remove(&number).is_some() {
            self.blocked.remove(&number);
            self.state.disconnect(number, now);
        }
    }

    /// The blocked connections whose answer has come: each has a turn to make. Named once.
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

    /// When leases are next looked through.
    pub(crate) fn sweep_at(&self) -> Instant {
        self.sweep_at
    }

    /// Lets leases expire, and forgets keys that are not used.
    pub(crate) fn sweep(&mut self, now: Instant) {
        self.sweep_at = now + self.terms.lease_sweep_interval;
        self.state.expire(now);
        self.state.collect(now);
    }

    /// A member begins to shut down: waits are refused.
    pub(crate) fn drain(&mut self, member: usize, now: Instant) {
        self.state.drain(member, now);
    }

    /// Ends at once. What was held ends with it.
    pub(crate) fn kill(&mut self, now: Instant) {
        self.state.kill(now);
        self.connections.clear();
        self.blocked.clear();
    }

    // Clusters.

    /// Which member leads.
    pub(crate) fn leader(&self) -> Option<usize> {
        self.state.leader()
    }

    /// From now on this member leads, or none does.
    pub(crate) fn lead(&mut self, to: Option<usize>, now: Instant) {
        match to {
            Some(to) => self.state.lead(to, now),
            None => self.state.depose(),
        }
    }

    /// A member ends at once, and its connections with it.
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

    /// A member that had ended starts again.
    pub(crate) fn begin(&mut self, member: usize) {
        self.state.rejoin(member);
        if let Some(members) = self.state.membership() {
            members.begin_process(member);
        }
    }

    /// Leadership is lost while the next request of the leader's is under way.
    pub(crate) fn fall_in_flight(&mut self) {
        if let Some(members) = self.state.membership() {
            members.trouble.fall_in_flight(None);
        }
    }

    /// A member loses sight of the others. If it leads, it goes on believing so.
    pub(crate) fn isolate(&mut self, member: usize) {
        self.state.isolate(member);
    }

    /// A member sees the others again.
    pub(crate) fn rejoin(&mut self, member: usize) {
        self.state.rejoin(member);
    }

    /// A member names this address in place of the leader's, or the leader's again.
    pub(crate) fn redirect(&mut self, member: usize, to: Option<Box<str>>) {
        if let Some(members) = self.state.membership() {
            members.redirect(member, to);
        }
    }

    /// Takes what has happened since the last call.
    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        self.state.take_events()
    }

    /// How many connections, leases and waiters there are.
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
    /// Looks whether the answer has come. Returns whether it has.
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
