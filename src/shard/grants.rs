//! What the server has granted: which caller gets it, confirmed first where it may be over, and with a fence; or it is given back.

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
    pub(super) fn note_default_ttl(&mut self, asked: Option<Ttl>, grant: &Grant) {
        if asked.is_none() {
            self.default_ttl = Some(grant.ttl);
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
            Response::Renewed(_) => self.confirm(acquire, grant, owner, turn),
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
    pub(super) fn lost_while_confirmed(
        &mut self,
        acquire: Box<Acquire>,
        grant: Grant,
        owner: LaneId,
        turn: &mut Turn<'_>,
    ) {
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

    /// Asks for a renewal before the caller gets the grant.
    fn confirm(&mut self, acquire: Box<Acquire>, grant: Grant, owner: LaneId, turn: &mut Turn<'_>) {
        let grant = self.confirming.begin(grant);
        self.submit(Pending::Confirm { acquire, grant, owner }, turn);
    }
}
