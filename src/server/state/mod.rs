//! The behaviour of a server, without sockets and clocks: who holds what, who waits for what, and until when.

mod ending;
mod entry;
mod leases;
mod membership;
mod orphans;
mod report;
mod signals;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;

use tokio::sync::oneshot;
use tokio::time::Instant;

use self::entry::{Absence, Client, Entry, Ticket, Waiter};
use self::membership::Membership;
use self::orphans::Sessions;
use self::report::About;
use crate::clock::after;
use crate::protocol::{Request, Response, Status};
use crate::server::event::{Event, EventKind};
use crate::server::ids::{Connection, LeaseId, Place, Subject};
use crate::server::options::Options;
use crate::server::random::Random;
use crate::server::signals::{Inbox, Signals};
use crate::types::{Grant, Key, Kind, Limit, Target, Ttl, WaitSecs};

/// The answer to a request.
pub(in crate::server) enum Answer {
    /// This.
    Now(Response),
    /// It comes when it comes. If it has not by then, the connection gives the place up.
    Later {
        subject: Subject,
        until: Instant,
        granted: oneshot::Receiver<Response>,
    },
    /// `ok`, and from now on signals arrive here.
    Listening(Inbox),
}

/// All that a server knows.
pub(in crate::server) struct State {
    options: Options,
    random: Random,
    entries: HashMap<Subject, Entry>,
    clients: HashMap<Connection, Client>,
    /// All leases, the first to end first.
    ends: BTreeSet<(Instant, LeaseId, Subject)>,
    last_connection: Connection,
    last_lease: LeaseId,
    last_place: Place,
    draining: bool,
    killed: bool,
    events: Vec<Event>,
    /// `None` where signals are not known.
    signals: Option<Signals>,
    /// Empty where connections do not say which session they carry on.
    sessions: Sessions,
    /// `None` for a server of its own.
    membership: Option<Membership>,
}

impl State {
    pub(in crate::server) fn new(options: Options, random: Random) -> Self {
        let signals = options
            .release
            .knows_signals()
            .then(|| Signals::new(options.signal_buffer, options.max_subscriptions));
        Self {
            options,
            random,
            entries: HashMap::new(),
            clients: HashMap::new(),
            ends: BTreeSet::new(),
            last_connection: 0,
            last_lease: 0,
            last_place: 0,
            draining: false,
            killed: false,
            events: Vec::new(),
            signals,
            sessions: Sessions::default(),
            membership: None,
        }
    }

    /// The state that the members of a cluster share. The first of them leads.
    pub(in crate::server) fn of_cluster(options: Options, random: Random, addresses: Vec<SocketAddr>) -> Self {
        Self {
            membership: Some(Membership::new(addresses)),
            ..Self::new(options, random)
        }
    }

    /// A new connection, to one of the members where there are several, if there is room for it.
    pub(in crate::server) fn connect(&mut self, member: usize) -> Option<Connection> {
        let cap = self.options.max_connections;
        if self.killed || cap > 0 && self.connections_to(member) >= cap {
            return None;
        }
        self.last_connection += 1;
        let client = Client {
            member,
            ..Client::default()
        };
        self.clients.insert(self.last_connection, client);
        Some(self.last_connection)
    }

    /// A connection has ended: its subscriptions and waits are given up, and what it holds too, unless that is switched
    /// off. Or they are kept for the next connection of its session.
    pub(in crate::server) fn disconnect(&mut self, connection: Connection, now: Instant) {
        if let Some(signals) = &mut self.signals {
            signals.disconnect(connection);
        }
        if !self.orphan(connection, Absence::Ended, now) {
            self.give_up_all(connection, now);
        }
    }

    /// A client will not come back.
    fn give_up_all(&mut self, connection: Connection, now: Instant) {
        let Some(client) = self.remove_client(connection) else {
            return;
        };
        for (subject, place) in client.places() {
            self.leave(connection, &subject, place, now);
        }
        if self.options.auto_release_on_disconnect && client.absent != Some(Absence::LeftBehind) {
            for (subject, lease) in client.holds {
                self.end_lease(&subject, lease, EventKind::Disconnected, now);
            }
        }
    }

    /// Works on one request.
    pub(in crate::server) fn request(&mut self, connection: Connection, request: Request, now: Instant) -> Answer {
        if self.options.release.is_cluster_build() {
            if let Some(refusal) = self.refused_by_member(connection, &request) {
                return Answer::Now(refusal);
            }
        }
        Answer::Now(match request {
            Request::Acquire { target, key, wait, ttl } => {
                return self.acquire(connection, target, key, wait, ttl, now);
            }
            Request::Wait { kind, key, wait } => return self.wait(connection, self.subject(kind, key), wait, now),
            Request::Enqueue { target, key, ttl } => self.enqueue(connection, target, key, ttl, now),
            Request::Release { kind, key, token } => self.release(&self.subject(kind, key), token, now),
            Request::Renew { kind, key, token, ttl } => {
                self.renew(connection, &self.subject(kind, key), token, ttl, now)
            }
            Request::Ping if !self.options.release.knows_ping() => Response::Refused(Status::Error),
            // There is one state only: everything is visible at once.
            Request::Ping | Request::Barrier => Response::Done,
            Request::Stats => self.report(connection, now),
            Request::StableRef { reference } => self.stable_ref(connection, reference),
            Request::Listen { pattern, group } => return self.listen(connection, pattern, group),
            Request::Unlisten { pattern, group } => self.unlisten(connection, pattern, group),
            Request::Signal { channel, payload } => self.signal(channel, payload),
            // Out of place once authenticated.
            Request::Auth { .. } => Response::Refused(Status::Error),
        })
    }

    /// What a key names. Where locks and semaphores share one namespace, a lock is a semaphore of limit 1.
    fn subject(&self, kind: Kind, key: Key) -> Subject {
        match self.options.release.separates_namespaces() {
            true => (kind, key),
            false => (Kind::Semaphore, key),
        }
    }

    fn acquire(
        &mut self,
        connection: Connection,
        target: Target,
        key: Key,
        wait: WaitSecs,
        ttl: Option<Ttl>,
        now: Instant,
    ) -> Answer {
        let subject = self.subject(target.kind(), key);
        let ttl = ttl.unwrap_or(self.options.default_lease_ttl);
        match self.take_or_queue(connection, target, &subject, ttl, now, wait > WaitSecs::TRY) {
            Err(status) => Answer::Now(Response::Refused(status)),
            Ok(Taken::Granted(grant)) => Answer::Now(Response::Granted(grant)),
            Ok(Taken::Busy) => Answer::Now(Response::TimedOut),
            Ok(Taken::Queued(place)) => self.block(connection, subject, place, wait, now),
        }
    }

    fn enqueue(
        &mut self,
        connection: Connection,
        target: Target,
        key: Key,
        ttl: Option<Ttl>,
        now: Instant,
    ) -> Response {
        let subject = self.subject(target.kind(), key);
        if self
            .clients
            .get(&connection)
            .is_some_and(|client| client.tickets.contains_key(&subject))
        {
            return Response::Refused(Status::AlreadyEnqueued);
        }
        let ttl = ttl.unwrap_or(self.options.default_lease_ttl);
        let (ticket, response) = match self.take_or_queue(connection, target, &subject, ttl, now, true) {
            Err(status) => return Response::Refused(status),
            Ok(Taken::Granted(grant)) => (Ticket::Granted(grant), Response::Acquired(grant)),
            Ok(Taken::Queued(place)) => (Ticket::Queued(place), Response::Queued),
            Ok(Taken::Busy) => return Response::TimedOut,
        };
        if let Some(client) = self.clients.get_mut(&connection) {
            client.tickets.insert(subject, ticket);
        }
        response
    }

    fn wait(&mut self, connection: Connection, subject: Subject, wait: WaitSecs, now: Instant) -> Answer {
        let ticket = self
            .clients
            .get_mut(&connection)
            .and_then(|client| client.tickets.remove(&subject));
        match ticket {
            None => Answer::Now(Response::Refused(Status::NotEnqueued)),
            Some(Ticket::Granted(grant)) => {
                self.expire_entry(&subject, now);
                let held = self.holder(&subject, grant.token).is_some();
                Answer::Now(if held || !self.options.release.refuses_stale_grants() {
                    Response::Granted(grant)
                } else {
                    Response::Refused(Status::LeaseExpired)
                })
            }
            Some(Ticket::Queued(place)) if self.draining => {
                self.leave(connection, &subject, place, now);
                Answer::Now(Response::Refused(Status::Draining))
            }
            Some(Ticket::Queued(place)) if wait == WaitSecs::TRY => {
                self.leave(connection, &subject, place, now);
                Answer::Now(Response::TimedOut)
            }
            Some(Ticket::Queued(place)) => self.block(connection, subject, place, wait, now),
        }
    }

    /// Takes it if it is free and nobody waits for it; else, if asked to, a place in the queue.
    fn take_or_queue(
        &mut self,
        connection: Connection,
        target: Target,
        subject: &Subject,
        ttl: Ttl,
        now: Instant,
        queue: bool,
    ) -> Result<Taken, Status> {
        if self.draining {
            return Err(Status::Draining);
        }
        let limit = match target {
            Target::Lock => 1,
            Target::Semaphore(limit) => Limit::get(limit),
        };
        self.expire_entry(subject, now);
        if let Some(taken) = self.take_back(connection, subject, limit, ttl, queue, now) {
            return Ok(taken);
        }
        if !self.entries.contains_key(subject) && self.entries.len() >= self.options.max_locks {
            return Err(Status::MaxLocks);
        }
        let max_waiters = self.options.max_waiters;
        let entry = self.entries.entry(subject.clone()).or_insert_with(|| Entry {
            limit,
            holders: Vec::new(),
            waiters: BTreeMap::new(),
            last_used: now,
        });
        if entry.limit != limit {
            return Err(Status::LimitMismatch);
        }
        entry.last_used = now;
        if entry.has_room() && entry.waiters.is_empty() {
            return Ok(Taken::Granted(self.grant(connection, subject, None, ttl, now)));
        }
        if max_waiters > 0 && entry.waiters.len() >= max_waiters {
            return Err(Status::MaxWaiters);
        }
        if !queue {
            return Ok(Taken::Busy);
        }
        self.last_place += 1;
        let waiter = Waiter {
            connection,
            ttl,
            told: None,
        };
        entry.waiters.insert(self.last_place, waiter);
        let about = About::Place(self.last_place);
        self.record(EventKind::Queued, subject, about, connection, now);
        Ok(Taken::Queued(self.last_place))
    }

    /// From now on the connection waits at its place.
    fn block(
        &mut self,
        connection: Connection,
        subject: Subject,
        place: Place,
        wait: WaitSecs,
        now: Instant,
    ) -> Answer {
        let (told, granted) = oneshot::channel();
        let waiter = self
            .entries
            .get_mut(&subject)
            .and_then(|entry| entry.waiters.get_mut(&place));
        if let Some(waiter) = waiter {
            waiter.told = Some(told);
        }
        if let Some(client) = self.clients.get_mut(&connection) {
            client.waits = Some((subject.clone(), place));
        }
        Answer::Later {
            subject,
            until: after(now, wait.as_duration()),
            granted,
        }
    }

    /// The time of a blocking request is over. False if its grant came first.
    pub(in crate::server) fn give_up(&mut self, connection: Connection, subject: &Subject, now: Instant) -> bool {
        let waits = self.clients.get_mut(&connection).and_then(|client| client.waits.take());
        match waits {
            Some((waited, place)) if waited == *subject => self.leave(connection, subject, place, now),
            _ => false,
        }
    }

    fn leave(&mut self, connection: Connection, subject: &Subject, place: Place, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(subject) else {
            return false;
        };
        entry.last_used = now;
        let left = entry.waiters.remove(&place).is_some();
        if left {
            self.record(EventKind::Left, subject, About::Place(place), connection, now);
        }
        left
    }

    /// Forgets keys that nobody has used for long.
    pub(in crate::server) fn collect(&mut self, now: Instant) {
        let idle = self.options.gc_max_idle;
        self.entries
            .retain(|_, entry| !entry.is_idle() || now.saturating_duration_since(entry.last_used) < idle);
    }
}

/// What came of asking for something.
enum Taken {
    Granted(Grant),
    Queued(Place),
    Busy,
}

#[cfg(test)]
mod bench;
#[cfg(test)]
mod tests;
