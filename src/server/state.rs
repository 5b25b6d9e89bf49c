//! The behaviour of a server, without sockets and clocks: who holds what, who waits for what, and until when.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::builder::Options;
use super::event::{Event, EventKind};
use super::random::Random;
use crate::clock::after;
use crate::protocol::{Request, Response, Status};
use crate::stats::{IdleStats, LockStats, SemaphoreStats, Stats};
use crate::types::{Fence, Grant, Key, Kind, Limit, Target, Token, Ttl, WaitSecs};

/// A key in its namespace.
pub(super) type Subject = (Kind, Key);

/// Names a connection.
pub(super) type Connection = u64;

/// Names a place in a queue, in the order in which places were taken.
type Place = u64;

/// The answer to a request.
pub(super) enum Answer {
    /// This.
    Now(Response),
    /// It comes when it comes. If it has not by then, the connection gives the place up.
    Later {
        subject: Subject,
        until: Instant,
        granted: oneshot::Receiver<Response>,
    },
}

/// All that a server knows.
pub(super) struct State {
    options: Options,
    random: Random,
    entries: HashMap<Subject, Entry>,
    clients: HashMap<Connection, Client>,
    /// All leases, the first to end first.
    ends: BTreeSet<(Instant, Fence, Subject)>,
    last_fence: u64,
    last_place: Place,
    draining: bool,
    events: Vec<Event>,
}

/// A key that is used, or was lately.
struct Entry {
    limit: u32,
    holders: Vec<Holder>,
    /// In order.
    waiters: BTreeMap<Place, Waiter>,
    last_used: Instant,
}

struct Holder {
    grant: Grant,
    connection: Connection,
    ends: Instant,
}

struct Waiter {
    connection: Connection,
    ttl: Ttl,
    /// Where the grant is told, once somebody waits for it. Without, it is kept for a later `w`.
    told: Option<oneshot::Sender<Response>>,
}

/// What a connection has to do with which keys.
#[derive(Default)]
struct Client {
    /// What it acquired and did not release.
    holds: BTreeSet<(Subject, Fence)>,
    /// What it enqueued for.
    tickets: HashMap<Subject, Ticket>,
    /// Where it waits inside a blocking request.
    waits: Option<(Subject, Place)>,
}

#[derive(Clone, Copy)]
enum Ticket {
    Queued(Place),
    Granted(Grant),
}

impl State {
    pub(super) fn new(options: Options, random: Random) -> Self {
        Self {
            options,
            random,
            entries: HashMap::new(),
            clients: HashMap::new(),
            ends: BTreeSet::new(),
            last_fence: 0,
            last_place: 0,
            draining: false,
            events: Vec::new(),
        }
    }

    /// A new connection, if there is room for it.
    pub(super) fn connect(&mut self, connection: Connection) -> bool {
        let cap = self.options.max_connections;
        if cap > 0 && self.clients.len() >= cap {
            return false;
        }
        self.clients.insert(connection, Client::default());
        true
    }

    /// A connection has ended: its waits are given up, and what it holds too, unless that is switched off.
    pub(super) fn disconnect(&mut self, connection: Connection, now: Instant) {
        let Some(client) = self.clients.remove(&connection) else {
            return;
        };
        let queued = client.tickets.into_iter().filter_map(|(subject, ticket)| match ticket {
            Ticket::Queued(place) => Some((subject, place)),
            Ticket::Granted(_) => None,
        });
        for (subject, place) in queued.chain(client.waits) {
            self.leave(connection, &subject, place, now);
        }
        if self.options.auto_release_on_disconnect {
            for (subject, fence) in client.holds {
                self.end_lease(&subject, fence, EventKind::Disconnected, now);
            }
        }
    }

    /// Works on one request.
    pub(super) fn request(&mut self, connection: Connection, request: Request, now: Instant) -> Answer {
        Answer::Now(match request {
            Request::Acquire { target, key, wait, ttl } => {
                return self.acquire(connection, target, key, wait, ttl, now);
            }
            Request::Wait { kind, key, wait } => return self.wait(connection, (kind, key), wait, now),
            Request::Enqueue { target, key, ttl } => self.enqueue(connection, target, key, ttl, now),
            Request::Release { kind, key, token } => self.release(&(kind, key), token, now),
            Request::Renew { kind, key, token, ttl } => self.renew(&(kind, key), token, ttl, now),
            Request::Ping => Response::Done,
            Request::Stats => match serde_json::to_string(&self.stats(now)) {
                Ok(json) => Response::Json(json.into()),
                Err(_) => Response::Refused(Status::Error),
            },
            // Out of place once authenticated; signals are not known to this server.
            Request::Auth { .. } | Request::Signal { .. } => Response::Refused(Status::Error),
        })
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
        let subject = (target.kind(), key);
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
        let subject = (target.kind(), key);
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
                Answer::Now(if held || self.options.answers_expired_grants {
                    Response::Granted(grant)
                } else {
                    Response::Refused(Status::LeaseExpired)
                })
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
            return Ok(Taken::Granted(self.grant(connection, subject, ttl, now)));
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
        self.record(EventKind::Queued, subject, None, connection, now);
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
    pub(super) fn give_up(&mut self, connection: Connection, subject: &Subject, now: Instant) -> bool {
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
            self.record(EventKind::Left, subject, None, connection, now);
        }
        left
    }

    fn release(&mut self, subject: &Subject, token: Token, now: Instant) -> Response {
        self.expire_entry(subject, now);
        let Some(holder) = self.holder(subject, token) else {
            return Response::Refused(Status::Error);
        };
        let (fence, connection) = (holder.grant.fence, holder.connection);
        if let Some(client) = self.clients.get_mut(&connection) {
            client.holds.remove(&(subject.clone(), fence));
            // A grant that was never collected by a `w` needs none any more.
            if matches!(client.tickets.get(subject), Some(Ticket::Granted(grant)) if grant.token == token) {
                client.tickets.remove(subject);
            }
        }
        self.end_lease(subject, fence, EventKind::Released, now);
        Response::Done
    }

    fn renew(&mut self, subject: &Subject, token: Token, ttl: Option<Ttl>, now: Instant) -> Response {
        self.expire_entry(subject, now);
        let ttl = ttl.unwrap_or(self.options.default_lease_ttl);
        let ends = after(now, ttl.as_duration());
        let Some(entry) = self.entries.get_mut(subject) else {
            return Response::Refused(Status::Error);
        };
        let Some(holder) = entry.holders.iter_mut().find(|holder| holder.grant.token == token) else {
            return Response::Refused(Status::Error);
        };
        entry.last_used = now;
        let fence = holder.grant.fence;
        let connection = holder.connection;
        let before = std::mem::replace(&mut holder.ends, ends);
        self.ends.remove(&(before, fence, subject.clone()));
        self.ends.insert((ends, fence, subject.clone()));
        self.record(EventKind::Renewed, subject, Some(token), connection, now);
        Response::Renewed(Some(ttl.as_secs()))
    }

    /// Lets all leases expire whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((ends, fence, subject)) = self.ends.first().cloned() {
            if ends > now {
                return;
            }
            self.disown(&subject, fence);
            self.end_lease(&subject, fence, EventKind::Expired, now);
        }
    }

    /// Forgets keys that nobody has used for long.
    pub(super) fn collect(&mut self, now: Instant) {
        let idle = self.options.gc_max_idle;
        self.entries
            .retain(|_, entry| !entry.is_idle() || now.saturating_duration_since(entry.last_used) < idle);
    }

    /// Shutting down: whoever waits is told, and nobody acquires any more.
    pub(super) fn drain(&mut self, now: Instant) {
        self.draining = true;
        let waits: Vec<(Connection, Subject, Place)> = self
            .clients
            .iter_mut()
            .filter_map(|(connection, client)| {
                client
                    .waits
                    .take()
                    .map(|(subject, place)| (*connection, subject, place))
            })
            .collect();
        for (connection, subject, place) in waits {
            let waiter = self
                .entries
                .get_mut(&subject)
                .and_then(|entry| entry.waiters.remove(&place));
            if let Some(told) = waiter.and_then(|waiter| waiter.told) {
                drop(told.send(Response::Refused(Status::Draining)));
            }
            self.record(EventKind::Left, &subject, None, connection, now);
        }
    }

    /// What `stats` tells.
    pub(super) fn stats(&self, now: Instant) -> Stats {
        let mut stats = Stats {
            connections: self.clients.len() as u64,
            ..Stats::default()
        };
        for ((kind, key), entry) in &self.entries {
            let key = key.to_string();
            let waiters = entry.waiters.len() as u64;
            match (kind, entry.holders.first()) {
                (_, None) if entry.waiters.is_empty() => {
                    let idle_s = now.saturating_duration_since(entry.last_used).as_secs();
                    let idle = match kind {
                        Kind::Lock => &mut stats.idle_locks,
                        Kind::Semaphore => &mut stats.idle_semaphores,
                    };
                    idle.push(IdleStats { key, idle_s });
                }
                (Kind::Lock, holder) => stats.locks.push(LockStats {
                    key,
                    owner_conn_id: holder.map_or(0, |holder| holder.connection),
                    lease_expires_in_s: holder
                        .map_or(Duration::ZERO, |h| h.ends.saturating_duration_since(now))
                        .as_secs(),
                    waiters,
                }),
                (Kind::Semaphore, _) => stats.semaphores.push(SemaphoreStats {
                    key,
                    limit: u64::from(entry.limit),
                    holders: entry.holders.len() as u64,
                    waiters,
                }),
            }
        }
        stats
    }

    pub(super) fn events(&self) -> &[Event] {
        &self.events
    }

    fn holder(&self, subject: &Subject, token: Token) -> Option<&Holder> {
        self.entries
            .get(subject)?
            .holders
            .iter()
            .find(|holder| holder.grant.token == token)
    }

    /// Makes somebody a holder. There must be room.
    fn grant(&mut self, connection: Connection, subject: &Subject, ttl: Ttl, now: Instant) -> Grant {
        self.last_fence += 1;
        let fence = Fence(self.last_fence);
        let grant = Grant::new(Token::compose(fence, self.random.next()), ttl);
        let ends = after(now, ttl.as_duration());
        if let Some(entry) = self.entries.get_mut(subject) {
            entry.last_used = now;
            entry.holders.push(Holder {
                grant,
                connection,
                ends,
            });
        }
        self.ends.insert((ends, fence, subject.clone()));
        if let Some(client) = self.clients.get_mut(&connection) {
            client.holds.insert((subject.clone(), fence));
        }
        self.record(EventKind::Granted, subject, Some(grant.token), connection, now);
        grant
    }

    /// Ends a lease and gives what became free to those who wait.
    fn end_lease(&mut self, subject: &Subject, fence: Fence, why: EventKind, now: Instant) {
        let Some(entry) = self.entries.get_mut(subject) else {
            return;
        };
        let Some(index) = entry.holders.iter().position(|holder| holder.grant.fence == fence) else {
            return;
        };
        let holder = entry.holders.swap_remove(index);
        entry.last_used = now;
        self.ends.remove(&(holder.ends, fence, subject.clone()));
        self.record(why, subject, Some(holder.grant.token), holder.connection, now);
        self.serve_waiters(subject, now);
    }

    fn serve_waiters(&mut self, subject: &Subject, now: Instant) {
        while let Some(entry) = self.entries.get_mut(subject).filter(|entry| entry.has_room()) {
            let Some((place, waiter)) = entry.waiters.pop_first() else {
                return;
            };
            let connection = waiter.connection;
            let grant = self.grant(connection, subject, waiter.ttl, now);
            let Some(client) = self.clients.get_mut(&connection) else {
                continue;
            };
            match waiter.told {
                Some(told) => {
                    client.waits = None;
                    // A connection that has just ended is about to give this back.
                    drop(told.send(Response::Granted(grant)));
                }
                None => {
                    let queued = client.tickets.get_mut(subject);
                    if let Some(ticket @ Ticket::Queued(_)) = queued {
                        debug_assert!(matches!(ticket, Ticket::Queued(other) if *other == place));
                        *ticket = Ticket::Granted(grant);
                    }
                }
            }
        }
    }

    /// A lease that has run out counts no more when somebody asks for its key, swept or not.
    fn expire_entry(&mut self, subject: &Subject, now: Instant) {
        loop {
            let over = self
                .entries
                .get(subject)
                .and_then(|entry| entry.holders.iter().find(|holder| holder.ends <= now));
            let Some(fence) = over.map(|holder| holder.grant.fence) else {
                return;
            };
            self.disown(subject, fence);
            self.end_lease(subject, fence, EventKind::Expired, now);
        }
    }

    fn disown(&mut self, subject: &Subject, fence: Fence) {
        let holder = self
            .entries
            .get(subject)
            .and_then(|entry| entry.holders.iter().find(|holder| holder.grant.fence == fence));
        if let Some(client) = holder.and_then(|holder| self.clients.get_mut(&holder.connection)) {
            client.holds.remove(&(subject.clone(), fence));
        }
    }

    fn record(
        &mut self,
        kind: EventKind,
        subject: &Subject,
        token: Option<Token>,
        connection: Connection,
        at: Instant,
    ) {
        if self.options.record_events {
            self.events.push(Event {
                at,
                kind,
                namespace: subject.0,
                key: subject.1.clone(),
                token,
                connection,
            });
        }
    }
}

/// What came of asking for something.
enum Taken {
    Granted(Grant),
    Queued(Place),
    Busy,
}

impl Entry {
    fn has_room(&self) -> bool {
        self.holders.len() < self.limit as usize
    }

    fn is_idle(&self) -> bool {
        self.holders.is_empty() && self.waiters.is_empty()
    }
}
