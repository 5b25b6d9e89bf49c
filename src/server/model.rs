//! A server for the model of the shard: what `listener` and `connection` do around a state, step by step. No sockets, no tasks, no
//! clock but the caller's, and no randomness but the caller's: the same steps have the same outcome.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::event::Event;
use super::ids::QualifiedKey;
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
}

/// A server, as long as it is up.
pub(crate) struct ModelServer {
    state: State,
    terms: Terms,
    connections: BTreeMap<u64, ModelConnection>,
    /// Those whose request is answered later.
    blocked: BTreeSet<u64>,
    sweep_at: Instant,
}

struct ModelConnection {
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
    subject: QualifiedKey,
    until: Instant,
    granted: oneshot::Receiver<Response>,
    /// What came of it, once that is known: `None` if it will never be answered.
    outcome: Option<Option<Response>>,
}

/// What one turn of a connection has brought.
#[derive(Debug)]
pub(crate) struct ModelTurn {
    /// To be written.
    pub(crate) out: BytesMut,
    /// The connection has ended on this side, once that is written.
    pub(crate) is_over: bool,
    /// When something is due, if nothing comes before.
    pub(crate) wake_at: Instant,
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
            record_events: true,
            ..ServerOptions::default()
        };
        Self {
            state: State::new(options, Random::seeded(seed)),
            connections: BTreeMap::new(),
            blocked: BTreeSet::new(),
            sweep_at: now + terms.lease_sweep_interval,
            terms,
        }
    }

    /// Admits a connection, and returns its number; `None` if there is no room for it.
    pub(crate) fn connect(&mut self, now: Instant) -> Option<u64> {
        let number = self.state.connect(0)?;
        let connection = ModelConnection {
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
        let (is_over, wake_at) = loop {
            if let Some(blocked) = &mut connection.blocked {
                blocked.look();
                match blocked.outcome.take() {
                    Some(None) => break (true, now),
                    Some(Some(response)) => connection.unblock(&response),
                    None if blocked.until <= now => {
                        let gave_up = self.state.give_up(number, &blocked.subject, now);
                        let response = match blocked.granted.try_recv() {
                            Ok(granted) if !gave_up => granted,
                            _ => Response::TimedOut,
                        };
                        connection.unblock(&response);
                    }
                    None if connection.ended && watches => break (true, now),
                    None => break (false, blocked.until),
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
                        break (true, now);
                    }
                    match self.state.request(number, request, now) {
                        ServerAnswer::Now(response) => response.encode(&mut connection.out),
                        ServerAnswer::Later {
                            subject,
                            until,
                            granted,
                        } => {
                            connection.blocked = Some(Blocked {
                                subject,
                                until,
                                granted,
                                outcome: None,
                            });
                            self.blocked.insert(number);
                        }
                        // Only members of clusters do.
                        ServerAnswer::Hangs { .. } => refused().encode(&mut connection.out),
                        // No client of the model listens.
                        ServerAnswer::Listening(_) => Response::Done.encode(&mut connection.out),
                    }
                }
                Err(_) => {
                    refused().encode(&mut connection.out);
                    break (true, now);
                }
                Ok(None) if connection.ended => break (true, now),
                Ok(None) => {
                    if std::mem::take(&mut connection.has_read) {
                        connection.read_until = after(now, read_timeout);
                    }
                    if connection.read_until <= now {
                        refused().encode(&mut connection.out);
                        break (true, now);
                    }
                    break (false, connection.read_until);
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
        let connections = &mut self.connections;
        let mut is_answered = |number: &u64| {
            let blocked = connections
                .get_mut(number)
                .and_then(|connection| connection.blocked.as_mut());
            blocked.is_some_and(|blocked| blocked.outcome.is_none() && blocked.look())
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

    /// Begins to shut down: waits are refused.
    pub(crate) fn drain(&mut self, now: Instant) {
        self.state.drain(0, now);
    }

    /// Ends at once. What was held ends with it.
    pub(crate) fn kill(&mut self, now: Instant) {
        self.state.kill(now);
        self.connections.clear();
        self.blocked.clear();
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
    fn look(&mut self) -> bool {
        if self.outcome.is_none() {
            self.outcome = match self.granted.try_recv() {
                Ok(response) => Some(Some(response)),
                Err(oneshot::error::TryRecvError::Closed) => Some(None),
                Err(oneshot::error::TryRecvError::Empty) => None,
            };
        }
        self.outcome.is_some()
    }
}

fn refused() -> Response {
    Response::Refused(Status::Error)
}
