//! What the members of a cluster agree on before they answer: requests of the leader, and the ends of its connections.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::claim::Claim;
use super::entry::{Blocked, Holding, QueuedTicket, TwoPhase, Uncollected};
use super::membership::Standing;
use super::{ConnectionId, GrantId, KeyId, NamedKey, ServerAnswer, State, Taken, Wanted};
use crate::clock::after;
use crate::protocol::{RawRequest, Response, Status};
use crate::server::event::EventKind;
use crate::types::{Grant, Ttl, WaitSecs};

const REFUSED: Response = Response::Refused(Status::Error);

impl State {
    /// Works on a request that may change the state, or must see all changes, as far as this member can.
    pub(super) fn propose(&mut self, connection: ConnectionId, request: RawRequest<'_>, now: Instant) -> ServerAnswer {
        let (Some(members), Some(client)) = (&self.membership, self.clients.get(&connection)) else {
            return ServerAnswer::Now(REFUSED);
        };
        let member = client.member;
        match members.standing(member) {
            Standing::Leads => {}
            Standing::Follows => return ServerAnswer::Now(members.refusal_of(member)),
            Standing::BelievesToLead => return self.hang(member, &request, now),
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
            // All that was agreed on before is visible: there is one state.
            _ => ServerAnswer::Now(Response::Done),
        };
        self.answer_if_led(connection, answer, now)
    }

    /// Leadership may be lost while a request is agreed on: then what came of it is not told.
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

    /// A leader that reaches no majority waits for one that never comes.
    fn hang(&mut self, member: usize, request: &RawRequest<'_>, now: Instant) -> ServerAnswer {
        let (told, answer) = oneshot::channel();
        if let Some(members) = &mut self.membership {
            members.partition.hang(member, told);
        }
        let wait = match request {
            RawRequest::Acquire { wait, .. } | RawRequest::Wait { wait, .. } => wait.as_duration(),
            _ => Duration::ZERO,
        };
        ServerAnswer::Hangs {
            until: after(after(now, self.options.read_timeout), wait),
            told: answer,
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
        // A try takes a place and gives it up again, unless something keeps it from that.
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

    /// `w`: finds what the session has of the key, tells a grant again and again, or blocks at a place.
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
            // Only the first `w` behind an `e` that has taken a place back leaves it there.
            Some(TwoPhase::Queued(queued)) => QueuedTicket {
                place: queued.place,
                outlives_wait: std::mem::replace(&mut queued.outlives_wait, false),
            },
        };
        // A key with places in its queue is known.
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

    /// What is told of a grant that was made before: the seconds that are left, and the default in place of none.
    fn remaining(&self, holder: &Holding, now: Instant) -> Grant {
        let left = holder.ends.saturating_duration_since(now).as_secs();
        let ttl = Ttl::from_secs(left).unwrap_or(self.options.default_lease_ttl);
        Grant { ttl, ..holder.grant }
    }

    /// Gives a connection a ticket for what its session has of a key, if it has none.
    fn attach(&mut self, connection: ConnectionId, subject: KeyId, now: Instant) {
        let (Some(client), Some(entry)) = (self.clients.get(&connection), self.entries.get(subject)) else {
            return;
        };
        if client.ticket(entry.key()).is_some() {
            return;
        }
        let key = entry.key().clone();
        let own = |owner: ConnectionId, claim: &Claim| {
            let of_session = claim.reference == client.claim.reference;
            of_session && (owner == connection || claim.reference.is_some() && claim.is_open_to(&client.claim))
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

    /// A request that blocked has ended without a grant: the leader gives its place up, if it is the request's to give up.
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

    /// A connection has ended. What it has is released or kept by the member that it led to, if that leads. Otherwise no member
    /// does anything: leases run on until their TTL, and places wait for their turn.
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

    /// Whether a connection leads to the member that leads.
    pub(super) fn is_at_leader(&self, connection: ConnectionId) -> bool {
        let client = self.clients.get(&connection);
        client.is_some_and(|client| self.leader() == Some(client.member))
    }

    /// One more entry of the log that all members have.
    pub(super) fn replicate(&mut self) {
        if let Some(members) = &mut self.membership {
            members.append();
        }
    }
}
