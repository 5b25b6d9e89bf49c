//! Hands grants to callers. A grant that may have ended is confirmed first. A grant without a required fence, or
//! without a caller, is released.

use super::ShardMachine;
use super::acquire::{Acquire, Again};
use super::answers::UnclaimedGrant;
use super::effect::{AcquireOutcome, Turn};
use super::ids::{LaneId, WaitKey};
use super::registry::{GrantTimes, granted_ttl};
use super::request::{Pending, Wait};
use crate::clock::Moment;
use crate::ending::shut_down;
use crate::error::{Error, ErrorKind};
use crate::lease::schedule::Schedule;
use crate::protocol::{Response, Status};
use crate::types::{Grant, Ttl};

impl ShardMachine {
    /// Gives a grant to the first caller of its key, with the TTL that this caller asked for. Releases the grant if
    /// there is no caller.
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

    /// Notes the server's default TTL, if the request asked for no TTL.
    pub(super) fn note_default_ttl(&mut self, asked: Option<Ttl>, grant: &Grant) {
        if asked.is_none() {
            self.default_ttl = Some(grant.ttl);
        }
    }

    /// Handles the grant of a caller's own request. If half of its TTL may have passed, the grant is confirmed before
    /// the caller gets it.
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

    /// Gives a caller its grant. `is_sure` says that two things are certain: the grant has this TTL, and the server
    /// made it after `sent_at`.
    pub(super) fn hand_over_grant(
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
            self.confirm(acquire, grant, owner, turn);
        }
    }

    pub(super) fn confirm_answered(
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
                // Less than a second of the lease is left.
                None => {
                    self.give_back_orphan(&acquire, grant, owner, turn);
                    let error = Status::LeaseExpired.to_error(acquire.key.as_str());
                    let error = self.at_endpoint(error);
                    return turn.tell(acquire.ask, Err(error));
                }
            }
        }
        match response {
            // A shard that is closing hands out no grants.
            Response::Renewed(_) if self.is_closing() => {
                self.give_back_orphan(&acquire, grant, owner, turn);
                turn.tell(acquire.ask, Err(shut_down()));
            }
            Response::Renewed(_) if Schedule::is_fresh(self.leases.seen(sent_at), grant.ttl, turn.now) => {
                self.hand_out(acquire, grant, sent_at, owner, turn);
            }
            // The answer took so long that the grant must be confirmed again.
            Response::Renewed(_) => self.confirm(acquire, grant, owner, turn),
            Response::Refused(Status::Error | Status::LeaseExpired) => {
                self.connections.disown(owner, turn);
                self.grant_has_ended(acquire, turn);
            }
            other => {
                self.give_back_orphan(&acquire, grant, owner, turn);
                let error = self.refused(acquire.target, &acquire.key, &other);
                turn.tell(acquire.ask, Err(error));
            }
        }
    }

    /// Handles a grant that ended before its caller got it. This happens, for example, when a leader shuts down and its
    /// connections end together with its last grants. In a cluster the acquire is repeated, at most `max_redirects`
    /// times.
    fn grant_has_ended(&mut self, mut acquire: Box<Acquire>, turn: &mut Turn<'_>) {
        let goes_on = self.serving.is_cluster() && !self.is_closing() && self.count_redirect(&mut acquire.redirects);
        // The grant has ended, so a repeated request could not find it under the session's name.
        acquire.session = None;
        match acquire.again {
            Again::Tries if goes_on => self.submit(Pending::Try(acquire), turn),
            Again::Waits(until) if goes_on && until > turn.now => self.wait(Wait::Caller(acquire, until), turn),
            _ => {
                let error = Status::LeaseExpired.to_error(acquire.key.as_str());
                let error = self.at_endpoint(error);
                turn.tell(acquire.ask, Err(error));
            }
        }
    }

    /// Handles the loss of the connection that owned a grant while the grant was being confirmed. The grant was lost
    /// with the connection. The shard releases it, because the server may not have noticed the loss yet.
    pub(super) fn lost_while_confirmed(
        &mut self,
        acquire: Box<Acquire>,
        grant: Grant,
        owner: LaneId,
        turn: &mut Turn<'_>,
    ) {
        let message = format!(
            "the connection that owned the grant of {:?} was lost before the grant was confirmed",
            acquire.key
        );
        let error = self.at_endpoint(Error::new(ErrorKind::Disconnected, message));
        self.give_back_orphan(&acquire, grant, owner, turn);
        turn.tell(acquire.ask, Err(error));
    }

    /// Registers the lease and gives it to its caller. If the caller is gone, the lease is dropped with the answer and
    /// comes back as a release.
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
        self.check_if_doubted(grant.token, turn);
    }

    /// Releases a grant that lacks the fence which the client requires.
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
            "released a grant without the required fence"
        );
        self.release_grant(acquire.target, acquire.key, grant, owner, turn);
        turn.tell(acquire.ask, Err(refusal));
    }

    /// Renews the grant before the caller gets it.
    fn confirm(&mut self, acquire: Box<Acquire>, grant: Grant, owner: LaneId, turn: &mut Turn<'_>) {
        let grant = self.confirming.begin(grant);
        self.submit(Pending::Confirm { acquire, grant, owner }, turn);
    }
}
