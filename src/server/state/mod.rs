//! The behaviour of a server, without sockets and clocks: the holders and waiters of each key, and their deadlines.

mod ending;
mod entry;
mod faults;
mod keys;
mod leases;
mod membership;
mod observed;
mod orphans;
mod partition;
mod replicated;
mod report;
mod session_claim;
mod sessions;
mod signals;
mod tickets;
mod trouble;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tokio::sync::oneshot;
use tokio::time::Instant;

use self::entry::{Blocked, Peer, Waiter};
use self::faults::Faults;
pub(in crate::server) use self::faults::RefusedRequest;
use self::keys::KeyTable;
use self::membership::{MemberTable, only_leader_answers};
pub use self::observed::ObservedLease;
use self::orphans::Orphans;
use self::report::About;
use self::session_claim::SessionClaim;
use crate::clock::after;
use crate::protocol::{RawRequest, Response, StableRef, Status};
use crate::server::event::{Event, EventKind};
use crate::server::ids::{ConnectionId, GrantId, KeyId, Place, QualifiedKey};
use crate::server::name::Name;
use crate::server::options::ServerOptions;
use crate::server::random::Random;
use crate::server::signals::{Inbox, SignalHub};
use crate::types::{Grant, Kind, Ttl, WaitSecs};

/// The answer to a request.
pub(in crate::server) enum ServerAnswer {
    /// An immediate answer.
    Now(Response),
    /// The answer comes later. If it has not come by `until`, the connection ends the request: see [`State::give_up`].
    Later {
        subject: KeyId,
        until: Instant,
        granted: oneshot::Receiver<Response>,
    },
    /// The request hangs: its answer is `error` when its time is over, or an earlier refusal if the member learns that
    /// it does not lead.
    Hangs {
        until: Instant,
        reply: oneshot::Receiver<Response>,
    },
    /// `ok`, and from now on signals arrive in this queue.
    Listening(Inbox),
}

/// The whole state of a server.
pub(in crate::server) struct State {
    options: ServerOptions,
    random: Random,
    entries: KeyTable,
    clients: BTreeMap<ConnectionId, Peer>,
    /// All leases, ordered by their end.
    ends: BTreeMap<(Instant, GrantId), KeyId>,
    last_connection: ConnectionId,
    last_lease: GrantId,
    /// All fences are greater than this number.
    last_fence_before: u64,
    last_place: Place,
    draining: bool,
    killed: bool,
    faults: Faults,
    events: Vec<Event>,
    /// `None` in releases without signals.
    signals: Option<SignalHub>,
    /// Empty outside of clusters.
    orphans: Orphans,
    /// `None` for a server that stands alone.
    membership: Option<MemberTable>,
}

impl State {
    pub(in crate::server) fn new(options: ServerOptions, random: Random) -> Self {
        let signals = options
            .release
            .knows_signals()
            .then(|| SignalHub::new(options.signal_buffer, options.max_subscriptions));
        Self {
            options,
            random,
            entries: KeyTable::default(),
            clients: BTreeMap::new(),
            ends: BTreeMap::new(),
            last_connection: 0,
            last_lease: 0,
            last_fence_before: 0,
            last_place: 0,
            draining: false,
            killed: false,
            faults: Faults::default(),
            events: Vec::new(),
            signals,
            orphans: Orphans::default(),
            membership: None,
        }
    }

    /// Creates the state that the members of a cluster share. The first member leads.
    pub(in crate::server) fn of_cluster(options: ServerOptions, random: Random, addresses: Vec<SocketAddr>) -> Self {
        Self {
            membership: Some(MemberTable::new(addresses)),
            ..Self::new(options, random)
        }
    }

    /// Makes fences above this number. Real servers start with the time in nanoseconds, so that the fences of a
    /// restarted server are greater than before.
    pub(in crate::server) fn fences_above(mut self, fence: u64) -> Self {
        self.last_fence_before = fence;
        self
    }

    /// Adds a connection to a member, if the cap on connections allows it.
    pub(in crate::server) fn connect(&mut self, member: usize) -> Option<ConnectionId> {
        let cap = self.options.max_connections;
        if self.killed || cap > 0 && self.connections_to(member) >= cap {
            return None;
        }
        self.last_connection += 1;
        let process = self.membership.as_ref().map_or(0, |members| members.process(member));
        let client = Peer {
            member,
            claim: SessionClaim {
                process,
                ..SessionClaim::default()
            },
            ..Peer::default()
        };
        self.clients.insert(self.last_connection, client);
        Some(self.last_connection)
    }

    /// Removes a connection that has ended, and its subscriptions. Gives up its queue positions and releases its
    /// leases, unless this is switched off; from release 1.15 on, the queue positions are given up in any case. A
    /// cluster has different rules.
    pub(in crate::server) fn disconnect(&mut self, connection: ConnectionId, now: Instant) {
        if let Some(signals) = &mut self.signals {
            signals.disconnect(connection);
        }
        if self.membership.is_some() {
            self.disconnect_from_member(connection, now);
            return;
        }
        let Some(client) = self.clients.remove(&connection) else {
            return;
        };
        let releases = self.options.auto_release_on_disconnect;
        if releases || self.options.release.always_gives_up_places() {
            for (place, subject) in client.places {
                self.leave(connection, subject, place, now);
            }
        }
        if releases {
            for (lease, subject) in client.holds {
                self.end_lease(subject, lease, EventKind::Disconnected, now);
            }
        }
    }

    /// Processes one request.
    pub(in crate::server) fn request(
        &mut self,
        connection: ConnectionId,
        request: RawRequest<'_>,
        now: Instant,
    ) -> ServerAnswer {
        let release = self.options.release;
        if self.membership.is_some() && only_leader_answers(&request) {
            return self.propose(connection, request, now);
        }
        ServerAnswer::Now(match request {
            RawRequest::Acquire {
                kind,
                key,
                limit,
                wait,
                ttl,
            } => {
                let wanted = self.wanted(kind, key, limit, ttl);
                return self.acquire(connection, wanted, wait, now);
            }
            RawRequest::Enqueue { kind, key, limit, ttl } => {
                let wanted = self.wanted(kind, key, limit, ttl);
                self.enqueue(connection, wanted, now)
            }
            RawRequest::Wait { kind, key, wait } => return self.wait(connection, self.named(kind, key), wait, now),
            RawRequest::Release { kind, key, token } => self.release(self.named(kind, key), token, now),
            RawRequest::Renew { kind, key, token, ttl } => {
                self.renew(connection, self.named(kind, key), token, ttl, now)
            }
            RawRequest::Stats => self.report(connection, now),
            RawRequest::Ping if release.knows_ping() => Response::Done,
            // There is only one state: everything is visible at once.
            RawRequest::Barrier if release.is_cluster_build() => Response::Done,
            RawRequest::StableRef { reference } => match std::str::from_utf8(reference).map(StableRef::new) {
                Ok(Ok(reference)) => self.stable_ref(connection, reference),
                _ => Response::Refused(Status::Error),
            },
            RawRequest::Listen { pattern, group } => return self.listen(connection, pattern, group),
            RawRequest::Unlisten { pattern, group } => self.unlisten(connection, pattern, group),
            RawRequest::Signal { channel, payload } => self.signal(channel, payload),
            // `auth` is an error once the connection is authenticated, or if the server has no secret.
            RawRequest::Ping | RawRequest::Barrier | RawRequest::Auth { .. } => Response::Refused(Status::Error),
        })
    }

    /// Resolves the key of a request. In releases where locks and semaphores share one namespace, a lock is a semaphore
    /// of limit 1.
    fn named<'a>(&self, kind: Kind, key: &'a [u8]) -> NamedKey<'a> {
        let namespace = match self.options.release.separates_namespaces() {
            true => kind,
            false => Kind::Semaphore,
        };
        let known = self.entries.find(namespace, key);
        NamedKey { namespace, key, known }
    }

    fn wanted<'a>(&self, kind: Kind, key: &'a [u8], limit: u64, ttl: Option<Ttl>) -> Wanted<'a> {
        Wanted {
            key: self.named(kind, key),
            limit,
            ttl: ttl.unwrap_or(self.options.default_lease_ttl),
        }
    }

    fn acquire(&mut self, connection: ConnectionId, wanted: Wanted<'_>, wait: WaitSecs, now: Instant) -> ServerAnswer {
        let waits = wait > WaitSecs::TRY && !self.draining;
        match self.take_or_queue(connection, &wanted, waits, now) {
            Err(status) => ServerAnswer::Now(Response::Refused(status)),
            Ok(Taken::Granted(grant)) => ServerAnswer::Now(Response::Granted(grant)),
            Ok(Taken::Busy) if self.draining => ServerAnswer::Now(Response::Refused(Status::Error)),
            Ok(Taken::Busy) => ServerAnswer::Now(Response::TimedOut),
            Ok(Taken::Queued(subject, place) | Taken::Resumed(subject, place)) => {
                self.block(connection, subject, (place, true), wait, now)
            }
        }
    }

    /// Acquires the key if it is free and has no waiters; otherwise takes a queue position if `queue` is set.
    fn take_or_queue(
        &mut self,
        connection: ConnectionId,
        wanted: &Wanted<'_>,
        queue: bool,
        now: Instant,
    ) -> Result<Taken, Status> {
        let Wanted { key, limit, ttl } = *wanted;
        if limit > self.options.release.greatest_limit() {
            return Err(Status::Error);
        }
        let subject = match key.known {
            Some(subject) => subject,
            None if self.entries.len() >= self.options.max_locks => return Err(Status::MaxLocks),
            None => self.entries.insert(key.qualified(), limit, now),
        };
        if self.entries.get(subject).is_some_and(|entry| entry.limit != limit) {
            return Err(Status::LimitMismatch);
        }
        self.expire_entry(subject, now);
        if let Some(taken) = self.reclaim(connection, subject, ttl, now) {
            return Ok(taken);
        }
        let max_waiters = self.options.max_waiters;
        let Some(entry) = self.entries.get_mut(subject) else {
            return Err(Status::Error);
        };
        entry.last_used = now;
        if entry.has_room() && entry.waiters.is_empty() {
            let claim = self.clients.get(&connection).map(|client| client.claim.clone());
            let owner = (connection, claim.unwrap_or_default());
            return Ok(Taken::Granted(self.grant(owner, subject, None, ttl, now)));
        }
        if max_waiters > 0 && entry.waiters.len() >= max_waiters {
            return Err(Status::MaxWaiters);
        }
        if !queue {
            return Ok(Taken::Busy);
        }
        self.last_place += 1;
        let claim = self.clients.get(&connection).map(|client| client.claim.clone());
        let waiter = Waiter {
            connection,
            claim: claim.unwrap_or_default(),
            ttl,
            replies: Vec::new(),
        };
        entry.add_waiter(self.last_place, waiter);
        if let Some(client) = self.clients.get_mut(&connection) {
            client.places.insert(self.last_place, subject);
        }
        let about = About::Place(self.last_place);
        self.record(EventKind::Queued, subject, about, connection, now);
        Ok(Taken::Queued(subject, self.last_place))
    }

    /// Lets the connection wait at its queue position.
    fn block(
        &mut self,
        connection: ConnectionId,
        subject: KeyId,
        (place, gives_up): (Place, bool),
        wait: WaitSecs,
        now: Instant,
    ) -> ServerAnswer {
        let (reply, granted) = oneshot::channel();
        let until = after(now, wait.as_duration());
        let member = self.clients.get(&connection).map_or(0, |client| client.member);
        let waiter = self
            .entries
            .get_mut(subject)
            .and_then(|entry| entry.waiters.get_mut(&place));
        if let Some(waiter) = waiter {
            waiter.replies.push((member, reply));
        }
        if let Some(client) = self.clients.get_mut(&connection) {
            client.waits = Some(Blocked {
                subject,
                place,
                until,
                gives_up,
            });
        }
        ServerAnswer::Later {
            subject,
            until,
            granted,
        }
    }

    /// Ends a blocking request whose wait time is over. Returns whether the request left its queue position: false if
    /// its grant came first, or if the position stays in the queue.
    pub(in crate::server) fn give_up(&mut self, connection: ConnectionId, subject: KeyId, now: Instant) -> bool {
        let waits = self.clients.get_mut(&connection).and_then(|client| client.waits.take());
        match waits {
            Some(blocked) if self.membership.is_some() => self.cancel(connection, &blocked, now),
            Some(blocked) if blocked.subject == subject => self.leave(connection, subject, blocked.place, now),
            _ => false,
        }
    }

    fn leave(&mut self, connection: ConnectionId, subject: KeyId, place: Place, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(subject) else {
            return false;
        };
        entry.last_used = now;
        let left = entry.remove_waiter(place).is_some();
        if left {
            if let Some(client) = self.clients.get_mut(&connection) {
                client.places.remove(&place);
                client.tickets.retain(|_, ticket| !ticket.is_for(place));
            }
            self.record(EventKind::Left, subject, About::Place(place), connection, now);
        }
        left
    }

    /// Forgets keys that have been unused for `gc_max_idle`.
    pub(in crate::server) fn collect(&mut self, now: Instant) {
        let idle = self.options.gc_max_idle;
        self.entries
            .retain(|entry| !entry.is_idle() || now.saturating_duration_since(entry.last_used) < idle);
    }
}

/// A key as a request names it.
#[derive(Clone, Copy)]
struct NamedKey<'a> {
    namespace: Kind,
    key: &'a [u8],
    /// `None` if the server does not know the key.
    known: Option<KeyId>,
}

impl NamedKey<'_> {
    fn qualified(self) -> QualifiedKey {
        (self.namespace, Name::new(self.key))
    }
}

/// The key, limit and TTL that a connection asks for.
struct Wanted<'a> {
    key: NamedKey<'a>,
    /// 1 for a lock.
    limit: u64,
    ttl: Ttl,
}

/// The result of an attempt to acquire a key.
enum Taken {
    Granted(Grant),
    Queued(KeyId, Place),
    /// A queue position that the session already had.
    Resumed(KeyId, Place),
    Busy,
}

#[cfg(test)]
mod bench;
#[cfg(any(test, fuzzing))]
#[allow(clippy::panic)]
mod books;
#[cfg(test)]
mod tests;
