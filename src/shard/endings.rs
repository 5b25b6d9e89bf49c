//! Handles connections that end, and their unanswered requests.
//! [`RequestKind::rules`](super::rules::RequestKind::rules) says what happens to each kind of request; this module does
//! it.

use super::ShardMachine;
use super::connections::Work;
use super::effect::{Role, Turn};
use super::ids::{Arrival, LaneId, WaitKey};
use super::registry::Survival;
use super::request::{Pending, PendingRelease, Wait};
use super::rules::Fate;
use super::waits::Occupant;
use crate::clock::{Moment, after};
use crate::ending::shut_down;
use crate::error::{Error, ErrorKind};
use crate::lease::lost_keys::LostKeys;
use crate::lease::state::LostReason;
use crate::net::lane::LaneEnd;
use crate::protocol::StableRef;

/// A cluster keeps the leases of a lost connection for its orphan TTL. The client gives them up earlier, by the orphan
/// TTL divided by this number, because clocks do not run equally fast.
const ORPHAN_MARGIN: u32 = 20;

/// A connection that ended, while the shard handles its unanswered requests.
struct Ended {
    /// Whether it was a pipelined connection with a slot.
    served: bool,
    /// Whether it was closed to give up its wait.
    was_cut: bool,
    session: Option<StableRef>,
    name: Option<StableRef>,
    /// The key of the wait that it carried; `None` once the shard has handled that wait.
    waited_for: Option<WaitKey>,
    /// The arrival of its unanswered request about a ticket; `None` once the shard has handled that request.
    asked: Option<Arrival>,
}

impl ShardMachine {
    pub(super) fn lane_ended(&mut self, id: LaneId, end: LaneEnd<Pending>, turn: &mut Turn<'_>) {
        let served = self.connections.has_slot(id);
        let Some(connection) = self.connections.remove(id) else {
            return;
        };
        let LaneEnd {
            cause,
            leftovers,
            was_silent,
            heard,
        } = end;
        if cause.is_some()
            && connection.role == Role::Exclusive
            && !connection.has_answered()
            && !connection.is_retired()
        {
            // A server that accepts connections and then does not answer must not be tried repeatedly without a pause.
            self.wait_pace.failed(turn.now);
        }
        let cause = cause
            .unwrap_or_else(|| Error::new(ErrorKind::Disconnected, "the connection was closed"))
            .at(self.endpoint_at(connection.endpoint).shared_text());
        if self.serving.is_cluster() {
            // The server may have executed these renewals. In that case it attributes the leases to this connection.
            for pending in &leftovers.unknown {
                if let Pending::Renew(renewal) = pending {
                    self.renewed_over(renewal.id, id, turn);
                }
            }
        }
        // Holders come first: their leases end with the connection.
        self.owner_gone(id, connection.draining, heard, &cause, turn);
        if served && self.serving.is_cluster() && !self.connections.is_serving() {
            // Another member may lead. The leases of connections that are still open are renewed there before anything
            // else.
            self.leases.suspect_all(Survival::WholeTtl);
        }
        let up_since = connection.up_since();
        let mut ended = Ended {
            served,
            was_cut: connection.cut,
            session: connection.session,
            name: connection.name,
            waited_for: None,
            asked: None,
        };
        match connection.work {
            Work::Opening(Some(bound)) => self.put_back(*bound, turn.now),
            Work::Waiting(key) => {
                self.waits.ended(&key, Occupant::Wait, turn.now);
                ended.waited_for = Some(key);
            }
            Work::Asking(key, arrival) => {
                self.waits.ended(&key, Occupant::Ticket, turn.now);
                ended.asked = Some(arrival);
            }
            Work::Ticket(key, arrival, ticket) => {
                self.waits.ended(&key, Occupant::Ticket, turn.now);
                if let Some(wait) = self.ticket_lost(ticket, ended.session.clone(), &cause, turn) {
                    self.queue(wait, Some(arrival), turn.now);
                }
            }
            Work::Repeating => self.repeats.detach_lane(id),
            Work::Opening(None) | Work::Idle(_) | Work::Ending => {}
        }
        for pending in leftovers.unwritten {
            let fate = pending.rules().unwritten;
            self.settle(pending, fate, &mut ended, &cause, turn);
        }
        for pending in leftovers.unknown {
            let fate = pending.rules().unknown;
            self.settle(pending, fate, &mut ended, &cause, turn);
        }
        // If this is still set, the wait was not among the returned requests: it was dropped together with the
        // connection's task.
        if let Some(key) = ended.waited_for {
            self.tell_uncovered(&key, cause.clone(), turn);
            if let Some(session) = ended.session {
                let give_up = self.giving_up(key.0, key.1, session, turn.now);
                self.queue(give_up, None, turn.now);
            }
        }
        if was_silent && served && !self.connections.is_serving() {
            self.close_blocked_at(connection.endpoint, turn);
        }
        if served {
            self.serving_lost(cause, up_since, was_silent, turn);
        }
        if self.connections.is_serving() {
            self.renew_overdue(turn);
            self.send_pending_releases(turn);
        }
    }

    /// Handles a request whose connection ended before the answer.
    fn settle(&mut self, pending: Pending, fate: Fate, ended: &mut Ended, cause: &Error, turn: &mut Turn<'_>) {
        if let Pending::Wait(_) = &pending {
            ended.waited_for = None;
        }
        match (fate, pending) {
            (Fate::Retry | Fate::RetryBounded, pending) => self.send(pending, turn),
            (Fate::PutBack, Pending::Wait(wait)) => self.put_back_wait(wait, turn.now),
            (Fate::PutBack, Pending::Enqueue(acquire)) if self.is_closing() => turn.tell(acquire.ask, Err(shut_down())),
            (Fate::PutBack, Pending::Enqueue(acquire)) => {
                self.queue(Wait::Ticket(acquire), ended.asked.take(), turn.now);
            }
            (Fate::PutBack, Pending::Rejoin(ticket, session)) => {
                self.queue(Wait::Rejoin(ticket, session), ended.asked.take(), turn.now);
            }
            (Fate::PutBack, _) => {}
            // The wait was given up, and no session keeps its queue position.
            (Fate::RetryInSession, Pending::Wait(_)) if ended.was_cut && ended.session.is_none() => {}
            (Fate::RetryInSession, pending @ (Pending::Try(_) | Pending::Probe(_) | Pending::Repeat(_))) => {
                self.retry_try(pending, ended.name.clone(), cause.clone(), turn);
            }
            (Fate::RetryInSession, pending) => {
                let Some(session) = ended.session.clone() else {
                    return self.fail(pending, cause.clone(), turn);
                };
                if let Some(wait) = self.retry_or_refuse(pending, Some(session), cause.clone(), turn) {
                    self.queue(wait, ended.asked.take(), turn.now);
                }
            }
            // A repeated request could take a second grant.
            (Fate::Fail, pending) => self.fail(pending, cause.clone(), turn),
            (Fate::Repeat, Pending::Release(release)) => self.repeat_release(release, turn),
            // If the lease belongs to another connection by now, the renewal is already due there.
            (Fate::StaysDue, Pending::Renew(renewal)) if !ended.served => {
                renewal.span.record("dflockd.outcome", "unanswered");
            }
            (Fate::StaysDue, Pending::Renew(renewal)) => {
                self.tell_failed_renewal(renewal.id, || cause.clone());
                self.renewal_unanswered(&renewal);
            }
            (Fate::Forget, Pending::Probe(probe)) => self.probe_unanswered(&probe.key, turn.now),
            (Fate::Repeat | Fate::StaysDue | Fate::Forget, _) => {}
        }
    }

    /// Gives the error to the request's caller, if it has one.
    pub(super) fn fail(&mut self, pending: Pending, error: Error, turn: &mut Turn<'_>) {
        match pending {
            Pending::Try(acquire) | Pending::Enqueue(acquire) => turn.tell(acquire.ask, Err(error)),
            Pending::Probe(probe) => {
                self.probe_unanswered(&probe.key, turn.now);
                let first = self.waits.claim(&probe.key, turn.now);
                if let Some(Wait::Caller(acquire, _) | Wait::Ticket(acquire)) = first {
                    turn.tell(acquire.ask, Err(error));
                }
            }
            Pending::Repeat(repeat) => self.not_found(*repeat, error, turn),
            Pending::Wait(wait) => self.tell_uncovered(&wait.wait_key(), error, turn),
            Pending::Rejoin(ticket, _) | Pending::Collect(ticket, _) => self.ticket_refused(ticket, error, turn),
            Pending::Ask(question) => turn.answer(question, Err(error), self.endpoint()),
            Pending::GiveUp(..)
            | Pending::Settle(..)
            | Pending::Confirm { .. }
            | Pending::Renew(_)
            | Pending::Release(_)
            | Pending::Look => {}
        }
    }

    /// Returns how long leases outlive their connection. `heard` is when the latest of the answered requests was sent
    /// over the connection, or when the connection came up if no request was answered. So the server noticed the end
    /// after `heard`. A healthy leader releases the leases as soon as it notices the end, unless the orphan TTL says
    /// that it keeps them. The client does not know whether the leader is healthy or gone.
    fn survival(&self, heard: Moment) -> Survival {
        match self.orphan_ttl {
            _ if self.settings.survives_disconnect => Survival::WholeTtl,
            Some(kept) => Survival::Until(after(self.leases.seen(heard), kept - kept / ORPHAN_MARGIN)),
            None => Survival::None,
        }
    }

    /// Handles the end of a connection that owned leases.
    fn owner_gone(&mut self, id: LaneId, was_draining: bool, heard: Moment, cause: &Error, turn: &mut Turn<'_>) {
        let why = match was_draining {
            true => LostReason::ServerDraining,
            false => LostReason::Disconnected,
        };
        let lost = self.leases.owner_gone(id, self.survival(heard), why, turn.now);
        if !lost.is_empty() {
            let endpoint = cause.endpoint().unwrap_or_default();
            let keys: LostKeys = lost.iter().map(|claim| &claim.cell.key).collect();
            tracing::warn!(
                shard = self.index,
                endpoint,
                leases = lost.len(),
                %keys,
                cause = %cause.chain(),
                "leases lost"
            );
        }
        // The server may still have these leases, so the shard releases them. When their guards are dropped or released
        // later, the shard sends nothing.
        for claim in lost {
            self.begin_release(PendingRelease::of(claim, None, true, None, turn.now), turn);
        }
    }
}
