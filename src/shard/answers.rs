//! What the answers of a server mean: what callers are told, and what is held from then on.

use tokio::time::Instant;

use super::ShardMachine;
use super::acquire::{Acquire, Again};
use super::effect::{AcquireOutcome, Turn};
use super::ids::{LaneId, TicketId, WaitKey};
use super::metrics::Tried;
use super::places::TakenPlace;
use super::progress::Refusal;
use super::registry::{GrantTimes, granted_ttl};
use super::request::{Pending, Probe, ServerWait, Wait};
use crate::clock::Moment;
use crate::ending::shut_down;
use crate::error::{Error, ErrorKind};
use crate::lease::schedule::Schedule;
use crate::net::pipeline::Reply;
use crate::protocol::{Namespaces, Response, Status, limit_mismatch};
use crate::types::{Grant, Key, Kind, Target, Ttl};

impl ShardMachine {
    /// An answer came over the connection `from`.
    pub(super) fn reply(&mut self, from: LaneId, reply: Reply<Pending>, turn: &mut Turn<'_>) {
        let Reply { tag, response, sent_at } = reply;
        match &response {
            Response::Refused(Status::Draining) => {
                if let Some(mut connection) = self.connections.get_mut(from) {
                    connection.draining = true;
                }
                // It was not carried out, and another member leads before long.
                if self.serving.is_cluster() {
                    return self.not_led_here(from, tag, Status::Draining.to_error(""), turn);
                }
            }
            Response::Refused(Status::NotLeader(leader)) => {
                self.metrics.redirected();
                if self.serving.is_cluster() {
                    return self.not_led_here(from, tag, not_leader(leader.as_deref()), turn);
                }
            }
            // Its member led, did not for a while, and does so again: it knows the place by the session only.
            Response::Refused(Status::NotEnqueued)
                if matches!(tag, Pending::Collect(..)) && self.is_in_a_session(from) =>
            {
                let error = self.at_lane(from, Status::NotEnqueued.to_error(""));
                return self.retry_wait(from, tag, error, turn);
            }
            // A leader that shuts down ends what is blocked with a bare `error`: it goes on at the next.
            Response::Refused(Status::Error)
                if matches!(tag, Pending::Wait(_) | Pending::Collect(..)) && self.goes_on_in_its_session(from) =>
            {
                self.wait_pace.failed(turn.now);
                let error = self.at_lane(from, wait_ended_by_server(self.key_of(&tag).as_ref()));
                return self.retry_wait(from, tag, error, turn);
            }
            _ => {}
        }
        if self.connections.has_slot(from) {
            self.led_at = turn.now;
        }
        match tag {
            Pending::Try(acquire) => match response {
                Response::TimedOut => self.answer_busy(acquire, turn),
                Response::Granted(grant) if self.stable_ref.is_some() => {
                    self.stable_try_granted(Pending::Try(acquire), grant, sent_at, from, turn);
                }
                other => self.acquire_answered(acquire, other, sent_at, from, turn),
            },
            Pending::Probe(probe) => match response {
                Response::Granted(grant) if self.stable_ref.is_some() => {
                    self.stable_try_granted(Pending::Probe(probe), grant, sent_at, from, turn);
                }
                response => self.probe_answered(*probe, response, sent_at, from, turn),
            },
            Pending::Repeat(repeat) => self.repeat_answered(*repeat, response, sent_at, from, turn),
            Pending::Wait(wait) => self.wait_answered(*wait, response, sent_at, from, turn),
            Pending::Enqueue(acquire) => self.enqueue_answered(acquire, response, sent_at, from, turn),
            Pending::Collect(ticket, _) => self.collect_answered(ticket, response, from, turn),
            Pending::Rejoin(ticket, _) => self.rejoin_answered(ticket, &response, from, turn),
            Pending::GiveUp(target, key, times) => {
                self.wait_ended(from, turn);
                match response {
                    Response::Granted(grant) if self.is_accounted_for(from, target.kind(), &key, &grant.token) => {
                        self.end_place_again(from, target, key, times, turn);
                    }
                    Response::Granted(grant) => {
                        self.connections.own(from);
                        self.give_back_grant(target, key, grant, from, turn);
                    }
                    Response::TimedOut => self.end_place_again(from, target, key, times, turn),
                    _ => {}
                }
            }
            Pending::Settle(..) => self.wait_ended(from, turn),
            Pending::Confirm { acquire, grant, owner } if self.is_stale_connection(from) => {
                self.reject_stale_grant(acquire, *grant, owner, from, turn);
            }
            Pending::Confirm { acquire, grant, owner } => match self.owned_by_now(owner, from, &response, turn) {
                Some(owner) => self.confirm_answered(acquire, *grant, owner, response, sent_at, turn),
                None => self.lost_while_confirmed(acquire, *grant, owner, turn),
            },
            Pending::Renew(renewal) => self.renewal_answered(&renewal, &response, sent_at, from, turn),
            Pending::Release(release) => self.release_answered(release, &response, turn),
            Pending::Look => self.looked(response, from, turn),
            Pending::Ask(question) => {
                let at = self.endpoint_of(from).as_text().clone();
                turn.push(super::effect::Effect::Answer(super::effect::Answer::Question(
                    question,
                    Ok(response),
                    at,
                )));
            }
        }
    }

    /// The key that a wait is for.
    fn key_of(&self, wait: &Pending) -> Option<Key> {
        match wait {
            Pending::Wait(wait) => Some(wait.key.clone()),
            Pending::Collect(ticket, _) => self.places.wait_key(*ticket).map(|(_, key)| key),
            _ => None,
        }
    }

    /// A key was tried whose callers have no server wait.
    fn probe_answered(&mut self, probe: Probe, response: Response, sent_at: Moment, from: LaneId, turn: &mut Turn<'_>) {
        let Probe { key, ttl } = probe;
        self.waits.tried(&key, turn.now);
        match response {
            Response::TimedOut => {
                self.metrics.tried(Tried::Busy);
                self.waits.refused(&key, turn.now);
            }
            Response::Granted(grant) => {
                self.metrics.tried(Tried::Granted);
                self.note_default_ttl(ttl, &grant);
                let granted = UnclaimedGrant {
                    asked: ttl,
                    is_sure: true,
                    sent_at,
                };
                self.deliver(&key, grant, granted, from, turn);
            }
            other => {
                self.metrics.tried(Tried::Refused);
                if let Some(Wait::Caller(acquire, _) | Wait::Ticket(acquire)) = self.waits.claim(&key, turn.now) {
                    let error = self.refused(acquire.target, &acquire.key, &other);
                    turn.tell(acquire.ask, Err(error));
                }
            }
        }
    }

    /// A try was not sent, or not answered.
    pub(super) fn probe_unanswered(&mut self, key: &WaitKey, now: Instant) {
        self.metrics.tried(Tried::Unanswered);
        self.waits.tried(key, now);
    }

    /// A wait on the server is over.
    fn wait_answered(
        &mut self,
        wait: ServerWait,
        response: Response,
        sent_at: Moment,
        from: LaneId,
        turn: &mut Turn<'_>,
    ) {
        let key = wait.wait_key();
        let was_cut = self.connections.get(from).is_some_and(|connection| connection.cut);
        self.wait_ended(from, turn);
        match response {
            // It crossed with the end of its connection, and so ends with that.
            Response::Granted(grant) if was_cut => {
                self.connections.own(from);
                self.give_back_grant(wait.target, wait.key, grant, from, turn);
            }
            Response::Granted(grant) => {
                self.note_default_ttl(wait.ttl, &grant);
                let granted = UnclaimedGrant {
                    asked: wait.ttl,
                    // In a session it may have been granted long before it was asked for this time.
                    is_sure: wait.session.is_none(),
                    sent_at,
                };
                self.deliver(&key, grant, granted, from, turn);
            }
            Response::TimedOut => {
                if !was_cut || wait.session.is_some() {
                    self.end_place(from, wait.target, wait.key, turn);
                }
                self.tell_overdue(&key, turn);
            }
            _ if was_cut => {}
            Response::Refused(Status::Error) => {
                let error = self.at_lane(from, wait_ended_by_server(Some(&wait.key)));
                self.tell_uncovered(&key, error, turn);
            }
            other => {
                let error = self.refused(wait.target, &wait.key, &other);
                self.tell_uncovered(&key, error, turn);
            }
        }
    }

    /// The server says that a key is held, when the time of callers may be over.
    fn tell_overdue(&mut self, key: &WaitKey, turn: &mut Turn<'_>) {
        self.waits.refused(key, turn.now);
        while let Some(Wait::Caller(_, until)) = self.waits.uncovered(key, turn.now) {
            if *until > turn.now {
                return;
            }
            if let Some(Wait::Caller(acquire, _)) = self.waits.take_uncovered(key, turn.now) {
                self.answer_busy(acquire, turn);
            }
        }
    }

    /// A server wait ended without a grant: the caller that has none any more gets the error.
    pub(super) fn tell_uncovered(&mut self, key: &WaitKey, error: Error, turn: &mut Turn<'_>) {
        if let Some(Wait::Caller(acquire, _)) = self.waits.take_uncovered(key, turn.now) {
            turn.tell(acquire.ask, Err(error));
        }
    }

    /// The answer to the `w` at the place of a ticket. If its caller has gone, a grant goes to the next caller of the key.
    fn collect_answered(&mut self, ticket: TicketId, response: Response, from: LaneId, turn: &mut Turn<'_>) {
        let was_cut = self.connections.get(from).is_some_and(|connection| connection.cut);
        self.wait_ended(from, turn);
        if let (Response::TimedOut, false, Some((target, key))) = (&response, was_cut, self.places.wait_key(ticket)) {
            self.end_place(from, target, key, turn);
        }
        let Some(place) = self.places.remove(ticket) else {
            return;
        };
        let (key, enqueued_at, asked) = (place.wait_key(), place.enqueued_at(), place.ttl());
        let acquire = place.into_acquire().filter(|acquire| !acquire.ask.is_gone());
        let response = match response {
            // The place was taken over this connection. So it was granted, and the server has dropped it with its lease.
            Response::Refused(Status::NotEnqueued) => Response::Refused(Status::LeaseExpired),
            // What a `w` names is no TTL: it may be what is left of it.
            Response::Granted(grant) => Response::Granted(Grant {
                ttl: asked.or(self.default_ttl).unwrap_or(Ttl::DEFAULT),
                ..grant
            }),
            other => other,
        };
        // The lease counts from its `e`, if it was asked for on these terms then. A cluster may have begun it anew meanwhile, or ended it.
        let is_sure = asked.is_some() && !self.serving.is_cluster();
        match (response, acquire) {
            (Response::Granted(grant), _) if was_cut => {
                self.connections.own(from);
                self.give_back_grant(key.0, key.1, grant, from, turn);
            }
            (Response::TimedOut, Some(acquire)) => self.answer_busy(acquire, turn),
            (Response::Refused(Status::Error), Some(acquire)) => {
                let error = self.at_lane(from, wait_ended_by_server(Some(&acquire.key)));
                turn.tell(acquire.ask, Err(error));
            }
            (Response::Granted(grant), Some(acquire)) => {
                self.connections.own(from);
                self.hand_over_grant(acquire, grant, enqueued_at, is_sure, from, turn);
            }
            (response, Some(acquire)) => self.acquire_answered(acquire, response, enqueued_at, from, turn),
            (Response::Granted(grant), None) => {
                let granted = UnclaimedGrant {
                    asked,
                    is_sure,
                    sent_at: enqueued_at,
                };
                self.deliver(&key, grant, granted, from, turn);
            }
            (_, None) => {}
        }
    }

    /// A grant came that belongs to no caller in particular. The first caller of the key gets it, on its own terms. If there is
    /// none, it is given back.
    pub(super) fn deliver(
        &mut self,
        key: &WaitKey,
        mut grant: Grant,
        granted: UnclaimedGrant,
        from: LaneId,
        turn: &mut Turn<'_>,
    ) {
        self.connections.own(from);
        let claimed = match self.is_closing() {
            true => None,
            false => self.waits.claim(key, turn.now),
        };
        let Some(Wait::Caller(acquire, _) | Wait::Ticket(acquire)) = claimed else {
            return self.give_back_grant(key.0, key.1.clone(), grant, from, turn);
        };
        let ttl = match acquire.ttl == granted.asked {
            true if granted.is_sure => grant.ttl,
            true => granted.asked.unwrap_or(grant.ttl),
            false => acquire.ttl.or(self.default_ttl).unwrap_or(Ttl::DEFAULT),
        };
        let is_sure = granted.is_sure && ttl == grant.ttl;
        grant.ttl = ttl;
        self.hand_over_grant(acquire, grant, granted.sent_at, is_sure, from, turn);
    }

    /// What the server gives where no TTL is asked for.
    fn note_default_ttl(&mut self, asked: Option<Ttl>, grant: &Grant) {
        if asked.is_none() {
            self.default_ttl = Some(grant.ttl);
        }
    }

    /// The server says that a key is held.
    pub(super) fn answer_busy(&mut self, acquire: Box<Acquire>, turn: &mut Turn<'_>) {
        let refusal = self.refusal_of(acquire.target.kind(), &acquire.key, turn.now);
        self.waits.refused(&acquire.wait_key(), refusal.at);
        turn.tell(acquire.ask, Ok(AcquireOutcome::Busy(refusal)));
    }

    /// What the server has just said of a key, and what is known here.
    pub(super) fn refusal_of(&self, kind: Kind, key: &Key, now: Instant) -> Refusal {
        Refusal {
            at: now,
            own: self.leases.own(kind, key),
        }
    }

    fn acquire_answered(
        &mut self,
        acquire: Box<Acquire>,
        response: Response,
        sent_at: Moment,
        from: LaneId,
        turn: &mut Turn<'_>,
    ) {
        match response {
            Response::Granted(grant) => self.granted(acquire, grant, sent_at, from, turn),
            other => {
                let error = self.refused(acquire.target, &acquire.key, &other);
                turn.tell(acquire.ask, Err(error));
            }
        }
    }

    /// The server has granted it. Its caller gets it, unless too much of the lease may be over already.
    pub(super) fn granted(
        &mut self,
        acquire: Box<Acquire>,
        mut grant: Grant,
        sent_at: Moment,
        owner: LaneId,
        turn: &mut Turn<'_>,
    ) {
        self.connections.own(owner);
        self.note_default_ttl(acquire.ttl, &grant);
        let is_sure = acquire.session.is_none();
        if let (false, Some(asked)) = (is_sure, acquire.ttl) {
            grant.ttl = asked;
        }
        self.hand_over_grant(acquire, grant, sent_at, is_sure, owner, turn);
    }

    /// Gives a caller its grant. `is_sure`: it was granted on these terms, and not before it was asked for this time.
    fn hand_over_grant(
        &mut self,
        acquire: Box<Acquire>,
        grant: Grant,
        sent_at: Moment,
        is_sure: bool,
        owner: LaneId,
        turn: &mut Turn<'_>,
    ) {
        if acquire.ask.is_gone() || self.is_closing() {
            self.give_back_orphan(&acquire, grant, owner, turn);
            turn.tell(acquire.ask, Err(shut_down()));
        } else if self.is_stale_connection(owner) {
            self.reject_stale_grant(acquire, grant, owner, owner, turn);
        } else if is_sure && Schedule::is_fresh(self.leases.seen(sent_at), grant.ttl, turn.now) {
            self.hand_out(acquire, grant, sent_at, owner, turn);
        } else {
            self.submit(confirm(acquire, grant, owner), turn);
        }
    }

    fn confirm_answered(
        &mut self,
        acquire: Box<Acquire>,
        mut grant: Grant,
        owner: LaneId,
        response: Response,
        sent_at: Moment,
        turn: &mut Turn<'_>,
    ) {
        if let Response::Renewed(left) = response {
            match granted_ttl(grant.ttl, left) {
                Some(ttl) => grant.ttl = ttl,
                // It is as good as over.
                None => {
                    self.give_back_orphan(&acquire, grant, owner, turn);
                    let error = Status::LeaseExpired.to_error(acquire.key.as_str());
                    let error = self.here(error);
                    return turn.tell(acquire.ask, Err(error));
                }
            }
        }
        match response {
            // Nothing is handed out any more.
            Response::Renewed(_) if self.is_closing() => {
                self.give_back_orphan(&acquire, grant, owner, turn);
                turn.tell(acquire.ask, Err(shut_down()));
            }
            Response::Renewed(_) if Schedule::is_fresh(self.leases.seen(sent_at), grant.ttl, turn.now) => {
                self.hand_out(acquire, grant, sent_at, owner, turn);
            }
            // The answer took so long that the same question stands again.
            Response::Renewed(_) => self.submit(confirm(acquire, grant, owner), turn),
            Response::Refused(Status::Error | Status::LeaseExpired) => {
                self.connections.disown(owner, turn);
                self.granted_in_vain(acquire, turn);
            }
            other => {
                self.give_back_orphan(&acquire, grant, owner, turn);
                let error = self.refused(acquire.target, &acquire.key, &other);
                turn.tell(acquire.ask, Err(error));
            }
        }
    }

    /// A grant is gone before its caller got it: as when a leader shuts down, with the connections of what it granted last. In a cluster it is
    /// asked for again, as often as redirects are followed.
    fn granted_in_vain(&mut self, mut acquire: Box<Acquire>, turn: &mut Turn<'_>) {
        let goes_on = self.serving.is_cluster() && !self.is_closing() && self.count_redirect(&mut acquire.redirects);
        // What was to be found under that name is gone.
        acquire.session = None;
        match acquire.again {
            Again::Tries if goes_on => self.submit(Pending::Try(acquire), turn),
            Again::Waits(until) if goes_on && until > turn.now => self.wait(Wait::Caller(acquire, until), turn),
            _ => {
                let error = Status::LeaseExpired.to_error(acquire.key.as_str());
                let error = self.here(error);
                turn.tell(acquire.ask, Err(error));
            }
        }
    }

    /// The connection that owned a grant ended while the grant was confirmed, and the grant with it. In case the server still has it,
    /// it is given back.
    fn lost_while_confirmed(&mut self, acquire: Box<Acquire>, grant: Grant, owner: LaneId, turn: &mut Turn<'_>) {
        let message = format!(
            "the connection that {:?} was granted to was lost before the grant was confirmed",
            acquire.key
        );
        let error = self.here(Error::new(ErrorKind::Disconnected, message));
        self.give_back_orphan(&acquire, grant, owner, turn);
        turn.tell(acquire.ask, Err(error));
    }

    /// Takes up the lease and gives it to its caller. If the caller has gone meanwhile, the lease is dropped with the answer,
    /// and so comes back as a release.
    fn hand_out(&mut self, acquire: Box<Acquire>, grant: Grant, sent_at: Moment, owner: LaneId, turn: &mut Turn<'_>) {
        let key = acquire.wait_key();
        let handover = self.serving.note_ttl(grant.ttl.as_duration());
        self.hand_over(handover, turn);
        let grant = match self.fences.fence(self.settings.fencing, &acquire.key, &grant) {
            Ok(fence) => Grant { fence, ..grant },
            Err(refusal) => return self.refuse_grant(acquire, grant, owner, refusal, turn),
        };
        let times = GrantTimes { sent_at, now: turn.now };
        let (id, cell) = self
            .leases
            .insert(acquire.key, acquire.target, grant, times, owner, acquire.policy);
        if !self.waits.is_empty() && self.leases.holds_all_of(&key) {
            self.waits.mark_ours(&key, turn.now);
        }
        tracing::debug!(
            shard = self.index,
            endpoint = %self.endpoint_of(owner),
            key = %cell.key,
            kind = cell.kind.as_str(),
            token = %cell.token,
            ttl = cell.ttl.as_secs(),
            "granted"
        );
        turn.tell(acquire.ask, Ok(AcquireOutcome::Lease(id, cell)));
        if self.serving.is_cluster() && !self.connections.has_slot(owner) {
            self.adopt(id, turn);
        }
    }

    /// Gives back a grant without the fence that its caller must have.
    fn refuse_grant(
        &mut self,
        acquire: Box<Acquire>,
        grant: Grant,
        owner: LaneId,
        refusal: Error,
        turn: &mut Turn<'_>,
    ) {
        let refusal = self.at_lane(owner, refusal);
        tracing::debug!(
            shard = self.index,
            endpoint = %self.endpoint_of(owner),
            key = %acquire.key,
            token = %grant.token,
            error = %refusal,
            "granted without a fence: given back"
        );
        self.release_grant(acquire.target, acquire.key, grant, owner, turn);
        turn.tell(acquire.ask, Err(refusal));
    }

    /// Whether the server has one namespace for locks and semaphores: that of a release that does not know `ping`.
    fn namespaces(&self) -> Namespaces {
        match self.knows_ping {
            Some(true) => Namespaces::Apart,
            Some(false) => Namespaces::Shared,
            None => Namespaces::Unknown,
        }
    }

    pub(super) fn refused(&self, target: Target, key: &Key, response: &Response) -> Error {
        self.here(match response {
            Response::Refused(Status::LimitMismatch) => limit_mismatch(key, target, self.namespaces()),
            Response::Refused(status) => status.to_error(key.as_str()),
            other => Error::new(ErrorKind::Protocol, format!("{other:?} is no answer to an acquire")),
        })
    }

    /// The answer to an `e` came over the connection `from`.
    fn enqueue_answered(
        &mut self,
        acquire: Box<Acquire>,
        response: Response,
        sent_at: Moment,
        from: LaneId,
        turn: &mut Turn<'_>,
    ) {
        match response {
            Response::Acquired(grant) => {
                // The server keeps the grant for a `w` and refuses another `e` for the key on this connection until then.
                // So it is collected at once; the answer is the same grant again. The caller need not wait for that.
                let settle = Pending::Settle(acquire.target.kind(), acquire.key.clone());
                self.send_on(from, settle, turn);
                self.granted(acquire, grant, sent_at, from, turn);
            }
            Response::Queued => self.give_ticket(acquire, sent_at, from, turn),
            other => {
                self.wait_ended(from, turn);
                self.acquire_answered(acquire, other, sent_at, from, turn);
            }
        }
    }

    /// The connection stays with the ticket until that is used or dropped. If its caller has gone meanwhile, the ticket is
    /// dropped with the answer, and so gives its place up.
    fn give_ticket(&mut self, acquire: Box<Acquire>, enqueued_at: Moment, from: LaneId, turn: &mut Turn<'_>) {
        let Some(mut connection) = self.connections.get_mut(from) else {
            let error = Error::new(ErrorKind::Disconnected, "the connection was closed");
            let error = self.here(error);
            return turn.tell(acquire.ask, Err(error));
        };
        let id = self.places.insert(TakenPlace::of(&acquire, Some(from), enqueued_at));
        connection.hold_ticket(id, turn.now);
        drop(connection);
        let refusal = self.refusal_of(acquire.target.kind(), &acquire.key, turn.now);
        let outcome = AcquireOutcome::Queued(id, acquire.target, acquire.key, refusal);
        turn.tell(acquire.ask, Ok(outcome));
    }
}

/// How a grant was got that belongs to no caller in particular.
pub(super) struct UnclaimedGrant {
    /// The TTL that was asked for.
    pub(super) asked: Option<Ttl>,
    /// It was granted on these terms, and not before it was asked for this time.
    pub(super) is_sure: bool,
    /// A moment before the server can have granted it.
    pub(super) sent_at: Moment,
}

/// A request that waits was well-formed: the server has refused a try of it before, or given it a place. So a bare `error` does not
/// refuse it. Servers that shut down answer their waits so.
fn wait_ended_by_server(key: Option<&Key>) -> Error {
    let wait = key.map_or_else(|| "the wait".to_owned(), |key| format!("the wait for {key:?}"));
    let message =
        format!("the server ended {wait} with a bare `error`, as servers do that are shutting down: try again");
    Error::new(ErrorKind::Draining, message)
}

/// The error of a member that does not lead.
pub(super) fn not_leader(leader: Option<&str>) -> Error {
    Status::NotLeader(leader.map(Box::from)).to_error("")
}

fn confirm(acquire: Box<Acquire>, grant: Grant, owner: LaneId) -> Pending {
    let grant = Box::new(grant);
    Pending::Confirm { acquire, grant, owner }
}
