//! The changes that the members of a cluster agree on before the leader answers: its requests, and the ends of its
//! connections.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::entry::{Blocked, Holding, QueuedTicket, TwoPhase, Uncollected};
use super::membership::Standing;
use super::session_claim::SessionClaim;
use super::{ConnectionId, GrantId, KeyId, NamedKey, ServerAnswer, State, Taken, Wanted};
use crate::clock::after;
use crate::protocol::{RawRequest, Response, Status};
use crate::server::event::EventKind;
use crate::types::{Grant, Ttl, WaitSecs};

const REFUSED: Response = Response::Refused(Status::Error);

impl State {
    /// Processes a request that can change the state or must see all changes, if this member leads.
    pub(super) fn propose(&mut self, connection: ConnectionId, request: RawRequest<'_>, now: Instant) -> ServerAnswer {
        let (Some(members), Some(client)) = (&self.membership, self.clients.get(&connection)) else {
            return ServerAnswer::Now(REFUSED);
        };
        let member = client.member;
        match members.standing(member) {
            Standing::Leads => {}
            Standing::Follows => return ServerAnswer::Now(members.refusal_of(member)),
            Standing::BelievesItLeads => return self.hang(member, &request, now),
        }
        let fails = members.trouble.fails_to_persist;
        self.give_up_orphans(now);
        self.replicate();
        let answer = match request {
            RawRequest::Acquire { .. } | RawRequest::Enqueue { .. } if fails => ServerAnswer::Now(REFUSED),
            RawRequest::Acquire {
                kind,
                key,
                limit,
                wait,
                ttl,
            } => {
                let wanted = self.wanted(kind, key, limit, ttl);
                self.acquire_in_session(connection, wanted, wait, now)
            }
            RawRequest::Enqueue { kind, key, limit, ttl } => {
                let wanted = self.wanted(kind, key, limit, ttl);
                ServerAnswer::Now(self.enqueue(connection, wanted, now))
            }
            RawRequest::Wait { kind, key, wait } => {
                let key = self.named(kind, key);
                self.wait_in_session(connection, key, wait, now)
            }
            RawRequest::Release { kind, key, token } => {
                ServerAnswer::Now(self.release(self.named(kind, key), token, now))
            }
            RawRequest::Renew { kind, key, token, ttl } => {
                ServerAnswer::Now(self.renew(connection, self.named(kind, key), token, ttl, now))
            }
            // There is only one state: everything that was agreed on before is visible.
            _ => ServerAnswer::Now(Response::Done),
        };
        self.answer_if_led(connection, answer, now)
    }

    /// Returns the answer, or a refusal if the member loses leadership while the members agree on the request. In that
    /// case the request has taken effect, but its outcome is not sent.
    fn answer_if_led(&mut self, connection: ConnectionId, answer: ServerAnswer, now: Instant) -> ServerAnswer {
        let members = self.membership.as_mut();
        let Some(next) = members.and_then(|members| members.trouble.falls_in_flight.take()) else {
            return answer;
        };
        if let Some(client) = self.clients.get_mut(&connection) {
            client.waits = None;
        }
        match next {
            Some(next) => self.lead(next, now),
            None => self.depose(),
        }
        let member = self.clients.get(&connection).map_or(0, |client| client.member);
        let members = self.membership.as_ref();
        ServerAnswer::Now(members.map_or(REFUSED, |members| members.refusal_of(member)))
    }

    /// Lets a request hang: a leader that reaches no majority waits in vain for the agreement.
    fn hang(&mut self, member: usize, request: &RawRequest<'_>, now: Instant) -> ServerAnswer {
        let (reply, answer) = oneshot::channel();
        if let Some(members) = &mut self.membership {
            members.partition.hang(member, reply);
        }
        let wait = match request {
            RawRequest::Acquire { wait, .. } | RawRequest::Wait { wait, .. } => wait.as_duration(),
            _ => Duration::ZERO,
        };
        ServerAnswer::Hangs {
            until: after(after(now, self.options.read_timeout), wait),
            reply: answer,
        }
    }

    fn acquire_in_session(
        &mut self,
        connection: ConnectionId,
        wanted: Wanted<'_>,
        wait: WaitSecs,
        now: Instant,
    ) -> ServerAnswer {
        let is_try = wait == WaitSecs::TRY;
        let falls = self.membership.as_ref();
        let falls = falls.is_some_and(|members| members.trouble.falls_in_flight.is_some());
        // In a real cluster, a try takes a queue position and gives it up again. That has the same effect as taking
        // none, so here it takes none. It keeps a position only in earlier builds, or if leadership is lost in between.
        let queue = !is_try || falls || self.options.earlier_builds;
        let (subject, place, gives_up) = match self.take_or_queue(connection, &wanted, queue, now) {
            Err(status) => return ServerAnswer::Now(Response::Refused(status)),
            Ok(Taken::Granted(grant)) => return ServerAnswer::Now(Response::Granted(grant)),
            Ok(Taken::Busy) => {
                self.replicate();
                return ServerAnswer::Now(Response::TimedOut);
            }
            Ok(Taken::Queued(subject, place)) => (subject, place, !self.options.earlier_builds),
            Ok(Taken::Resumed(subject, place)) => (subject, place, false),
        };
        if is_try {
            self.replicate();
            return ServerAnswer::Now(Response::TimedOut);
        }
        self.block(connection, subject, (place, gives_up), wait, now)
    }

    /// Answers a `w`. If the session has a lease on the key, returns its grant, each time. Otherwise blocks at the
    /// session's queue position.
    fn wait_in_session(
        &mut self,
        connection: ConnectionId,
        key: NamedKey<'_>,
        wait: WaitSecs,
        now: Instant,
    ) -> ServerAnswer {
        if let Some(subject) = key.known {
            self.expire_entry(subject, now);
            self.attach(connection, subject, now);
        }
        let client = self.clients.get_mut(&connection);
        let ticket = client.and_then(|client| client.tickets.get_mut(&key.qualified()));
        let queued = match ticket {
            None => return ServerAnswer::Now(Response::Refused(Status::NotEnqueued)),
            Some(TwoPhase::Granted(uncollected)) => {
                let token = uncollected.grant.token;
                let holder = key.known.and_then(|subject| self.holder(subject, token));
                return ServerAnswer::Now(match holder {
                    Some(holder) => Response::Granted(self.remaining(holder, now)),
                    None => Response::Refused(Status::NotEnqueued),
                });
            }
            // If an `e` has reclaimed the queue position, only the first `w` after it leaves the position in place.
            Some(TwoPhase::Queued(queued)) => QueuedTicket {
                place: queued.place,
                outlives_wait: std::mem::replace(&mut queued.outlives_wait, false),
            },
        };
        // The server knows every key that has a queue.
        let Some(subject) = key.known else {
            return ServerAnswer::Now(Response::Refused(Status::NotEnqueued));
        };
        let place = (queued.place, !queued.outlives_wait && !self.options.earlier_builds);
        let blocks = self.block(connection, subject, place, wait, now);
        if wait > WaitSecs::TRY {
            return blocks;
        }
        self.give_up(connection, subject, now);
        ServerAnswer::Now(Response::TimedOut)
    }

    /// Returns an earlier grant with the seconds that are left, or with the default TTL if none are left.
    fn remaining(&self, holder: &Holding, now: Instant) -> Grant {
        let left = holder.ends.saturating_duration_since(now).as_secs();
        let ttl = Ttl::from_secs(left).unwrap_or(self.options.default_lease_ttl);
        Grant { ttl, ..holder.grant }
    }

    /// Gives a connection a ticket for its session's lease or queue position of a key, if the connection has no ticket
    /// yet.
    fn attach(&mut self, connection: ConnectionId, subject: KeyId, now: Instant) {
        let (Some(client), Some(entry)) = (self.clients.get(&connection), self.entries.get(subject)) else {
            return;
        };
        if client.ticket(entry.key()).is_some() {
            return;
        }
        let key = entry.key().clone();
        let reclaims = self.reclaims();
        let own = |owner: ConnectionId, claim: &SessionClaim| {
            let of_session = claim.reference == client.claim.reference;
            let is_open = || reclaims && claim.reference.is_some() && self.is_open(claim, &client.claim);
            of_session && (owner == connection || is_open())
        };
        let holders = entry.holders.iter();
        let holder = holders.filter(|holder| own(holder.connection, &holder.claim));
        let ticket = if let Some(holder) = holder.min_by_key(|holder| holder.lease) {
            let (lease, grant) = (holder.lease, holder.grant);
            self.move_lease(subject, lease, connection);
            TwoPhase::Granted(Uncollected { grant, at_once: true })
        } else {
            let mut waiters = entry.waiters.iter();
            let Some((place, waiter)) = waiters.find(|(_, waiter)| own(waiter.connection, &waiter.claim)) else {
                return;
            };
            let (place, owner) = (*place, waiter.connection);
            if owner != connection {
                self.move_place(subject, place, connection, None, now);
            }
            TwoPhase::Queued(QueuedTicket {
                place,
                outlives_wait: false,
            })
        };
        if let Some(client) = self.clients.get_mut(&connection) {
            client.tickets.insert(key, ticket);
        }
    }

    /// Ends a request that blocked without a grant: the leader gives its queue position up, if the request owns it.
    pub(super) fn cancel(&mut self, connection: ConnectionId, blocked: &Blocked, now: Instant) -> bool {
        if !self.is_at_leader(connection) || self.options.earlier_builds {
            return false;
        }
        self.replicate();
        let Blocked { subject, place, .. } = *blocked;
        let waiter = self.entries.get(subject).and_then(|entry| entry.waiters.get(&place));
        let is_own = waiter.is_some_and(|waiter| waiter.connection == connection);
        is_own && blocked.gives_up && self.leave(connection, subject, place, now)
    }

    /// Removes a connection that has ended. If its member leads, that member releases or keeps the connection's leases
    /// and queue positions. Otherwise no member does anything: leases run until their TTL, and queue positions wait for
    /// their turn.
    pub(super) fn disconnect_from_member(&mut self, connection: ConnectionId, now: Instant) {
        let members = self.membership.as_mut();
        if members.is_some_and(|members| members.trouble.overlooks(connection)) {
            return;
        }
        let is_at_leader = self.is_at_leader(connection);
        let waits = self.clients.get_mut(&connection).and_then(|client| client.waits.take());
        if let Some(blocked) = waits.as_ref().filter(|_| is_at_leader) {
            self.cancel(connection, blocked, now);
        }
        let Some(client) = self.clients.remove(&connection).filter(|_| is_at_leader) else {
            return;
        };
        self.replicate();
        for (place, subject) in client.places {
            if !self.orphan_place(subject, place, now) {
                self.leave(connection, subject, place, now);
            }
        }
        if self.options.auto_release_on_disconnect {
            for (lease, subject) in client.holds {
                self.end_holding(subject, lease, now);
            }
        }
    }

    fn end_holding(&mut self, subject: KeyId, lease: GrantId, now: Instant) {
        if !self.orphan_lease(subject, lease, now) {
            self.end_lease(subject, lease, EventKind::Disconnected, now);
        }
    }

    /// Returns whether the member at the other end of a connection leads.
    pub(super) fn is_at_leader(&self, connection: ConnectionId) -> bool {
        let client = self.clients.get(&connection);
        client.is_some_and(|client| self.leader() == Some(client.member))
    }

    /// Adds an entry to the log that all members have.
    pub(super) fn replicate(&mut self) {
        if let Some(members) = &mut self.membership {
            members.append();
        }
    }
}
