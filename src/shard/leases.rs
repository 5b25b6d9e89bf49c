//! Renews held leases, moves them to the pipelined connections of a cluster, and releases them.

use std::time::Duration;

use tracing::field;

use super::ShardMachine;
use super::acquire::Acquire;
use super::effect::{Answer, Effect, Turn};
use super::ids::{LaneId, LeaseId};
use super::request::{Pending, PendingRelease, ReleaseSubject, Renewal};
use crate::clock::{Moment, after};
use crate::error::{Error, ErrorKind, Result};
use crate::events::{ClientEvent, RenewalFailed};
use crate::lease::release::ReleaseReply;
use crate::lease::state::{LeaseState, LostReason};
use crate::protocol::{Response, Status};
use crate::types::{Grant, Key, Target, Token};

/// The pause before the next renewal, after a server refused one for a temporary reason.
const RENEWAL_RETRY: Duration = Duration::from_millis(500);

impl ShardMachine {
    /// Sends the renewals of these leases in one write.
    pub(super) fn renew_all(&mut self, ids: Vec<LeaseId>, turn: &mut Turn<'_>) {
        for id in ids {
            let renewal = self.renewal(id);
            self.send(Pending::Renew(renewal), turn);
        }
    }

    /// Sends the renewals that became due while they could not be sent.
    pub(super) fn renew_overdue(&mut self, turn: &mut Turn<'_>) {
        let overdue = self.leases.take_overdue();
        self.renew_all(overdue, turn);
    }

    /// Sends a renewal of a token's lease now. The answer shows whether the server still has the lease. If this shard
    /// does not have the lease, its grant may be on the way, and is checked when it arrives.
    pub(super) fn check_lease(&mut self, token: Token, turn: &mut Turn<'_>) {
        match self.leases.find(&token) {
            Some(id) => {
                let to_ask = self.leases.check_now(id, self.connections.is_serving());
                self.renew_all(to_ask.into_iter().collect(), turn);
            }
            None => self.unknown_tokens.note(token),
        }
    }

    /// Checks the lease of a grant that has just arrived, if a check of its token was requested before.
    pub(super) fn check_if_doubted(&mut self, token: Token, turn: &mut Turn<'_>) {
        if self.unknown_tokens.take(&token) {
            self.check_lease(token, turn);
        }
    }

    /// Creates a renewal with a span that lasts until the answer.
    fn renewal(&self, id: LeaseId) -> Renewal {
        let span = match self.leases.claim(id) {
            Some(claim) if tracing::enabled!(tracing::Level::TRACE) => {
                let cell = claim.cell;
                tracing::trace_span!(
                    "dflockd.renew",
                    dflockd.shard = self.index,
                    dflockd.key = %cell.key,
                    dflockd.kind = cell.kind.as_str(),
                    dflockd.token = %cell.token,
                    dflockd.outcome = field::Empty
                )
            }
            _ => tracing::Span::none(),
        };
        Renewal { id, span }
    }

    pub(super) fn renewal_answered(
        &mut self,
        renewal: &Renewal,
        response: &Response,
        sent_at: Moment,
        from: LaneId,
        turn: &mut Turn<'_>,
    ) {
        let Renewal { id, span } = renewal;
        let outcome = match response {
            Response::Renewed(left) => {
                if self.leases.renewed(*id, from, sent_at, *left, turn.now) {
                    self.tell_renewal(*id, from);
                }
                if self.serving.is_cluster() && self.connections.has_slot(from) {
                    self.renewed_over(*id, from, turn);
                } else if self.settings.survives_disconnect {
                    self.attribute_to(*id, from);
                }
                "renewed"
            }
            Response::Refused(Status::Error | Status::LeaseExpired) => {
                if self.leases.renewal_rejected(*id, turn.now) {
                    if let Some(claim) = self.leases.claim(*id) {
                        tracing::warn!(
                            shard = self.index,
                            endpoint = %self.endpoint(),
                            key = %claim.cell.key,
                            token = %claim.cell.token,
                            "lease lost: the server says that it is not held"
                        );
                    }
                }
                "rejected"
            }
            refused => {
                self.leases.retry_renewal_at(*id, turn.now + RENEWAL_RETRY);
                self.tell_refused_renewal(*id, from, refused);
                self.tell_failed_renewal(*id, || self.refused_renewal(*id, from, refused));
                "put_off"
            }
        };
        span.record("dflockd.outcome", outcome);
    }

    fn tell_renewal(&self, id: LeaseId, from: LaneId) {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let Some(claim) = self.leases.claim(id) else { return };
        tracing::debug!(
            shard = self.index,
            endpoint = %self.endpoint_of(from),
            key = %claim.cell.key,
            kind = claim.cell.kind.as_str(),
            token = %claim.cell.token,
            "renewed"
        );
    }

    fn tell_refused_renewal(&self, id: LeaseId, from: LaneId, answer: &Response) {
        let Some(claim) = self.leases.claim(id) else { return };
        tracing::debug!(
            shard = self.index,
            endpoint = %self.endpoint_of(from),
            key = %claim.cell.key,
            kind = claim.cell.kind.as_str(),
            token = %claim.cell.token,
            ?answer,
            "renewal refused: the client tries again in a moment"
        );
    }

    /// Returns the error of a renewal that was refused for a temporary reason.
    fn refused_renewal(&self, id: LeaseId, from: LaneId, answer: &Response) -> Error {
        let key = self.leases.claim(id).map(|claim| claim.cell.key.clone());
        let error = match (answer, &key) {
            (Response::Refused(status), Some(key)) => status.to_error(key.as_str()),
            (other, _) => Error::new(
                ErrorKind::Protocol,
                format!("{other:?} is not a valid answer to a renewal"),
            ),
        };
        error.at(self.endpoint_of(from).shared_text())
    }

    /// Reports that a held lease could not be renewed this time.
    pub(super) fn tell_failed_renewal(&self, id: LeaseId, error: impl FnOnce() -> Error) {
        // Only held leases are reported, not leases that were lost with their connection or released.
        let is_wanted = self.events.is_wanted() && self.leases.is_held(id);
        let Some(claim) = self.leases.claim(id).filter(|_| is_wanted) else {
            return;
        };
        self.events.tell(|shard| {
            ClientEvent::RenewalFailed(RenewalFailed {
                shard,
                key: claim.cell.key.clone(),
                kind: claim.cell.kind,
                error: error(),
            })
        });
    }

    /// Notes a renewal that was not sent, or whose answer was lost. The renewal stays due.
    pub(super) fn renewal_unanswered(&mut self, renewal: &Renewal) {
        renewal.span.record("dflockd.outcome", "unanswered");
        self.leases.renewal_failed(renewal.id);
    }

    // In a cluster, a lease belongs to the connection that last renewed it. So the pipelined connections take over the
    // leases of other connections, and the other connections can then be closed without losing leases.

    /// Makes a pipelined connection take over a lease that was acquired over another one.
    pub(super) fn adopt(&mut self, id: LeaseId, turn: &mut Turn<'_>) {
        if self.leases.renew_now(id, self.connections.is_serving()) {
            self.renew_all(vec![id], turn);
        }
    }

    pub(super) fn renewed_over(&mut self, id: LeaseId, by: LaneId, turn: &mut Turn<'_>) {
        if let Some(before) = self.leases.change_owner(id, by) {
            self.connections.move_lease(before, by, turn);
        }
    }

    /// Returns the owner of a grant that was confirmed over the connection `by`, or `None` if the grant ended with its
    /// owner meanwhile.
    pub(super) fn owner_after_confirmation(
        &mut self,
        before: LaneId,
        by: LaneId,
        response: &Response,
        turn: &mut Turn<'_>,
    ) -> Option<LaneId> {
        if before == by || !matches!(response, Response::Renewed(_)) {
            return Some(before);
        }
        if self.serving.is_cluster() {
            self.connections.move_lease(before, by, turn);
            return Some(by);
        }
        match self.connections.get(before) {
            Some(_) => Some(before),
            None if self.settings.survives_disconnect => {
                self.connections.own(by);
                Some(by)
            }
            None => None,
        }
    }

    /// Attributes a renewed lease that has survived its owner to the connection that renewed it, so that the lease
    /// becomes suspect again when this connection ends.
    fn attribute_to(&mut self, id: LeaseId, by: LaneId) {
        let owner = self.leases.claim(id).map(|claim| claim.owner);
        let has_ended = owner.is_some_and(|owner| self.connections.get(owner).is_none());
        if has_ended && self.leases.change_owner(id, by).is_some() {
            self.connections.own(by);
        }
    }

    // Releases.

    /// Handles the release of a lease by its guard, or the drop of the guard.
    pub(super) fn release(&mut self, id: LeaseId, reply: Option<ReleaseReply>, turn: &mut Turn<'_>) {
        let Some(claim) = self.leases.claim(id) else {
            // A shutdown of the shard has released the lease already.
            return;
        };
        let LeaseState::Lost(why) = claim.cell.state_at(self.leases.moment(turn.now)) else {
            if self.leases.begin_release(id, turn.now).is_some() {
                let release = PendingRelease::of(claim, Some(id), false, reply, turn.now);
                self.begin_release(release, turn);
            }
            return;
        };
        if let Some(reply) = reply {
            let error = Error::new(
                ErrorKind::LeaseLost,
                format!(
                    "the lease of {:?} was lost before it was released: {why}",
                    claim.cell.key
                ),
            );
            turn.push(Effect::Answer(Answer::Release(reply, Err(self.at_endpoint(error)))));
        }
        // If only the deadline has passed, the server may still have the lease.
        if why == LostReason::Expired && self.leases.begin_release(id, turn.now).is_some() {
            let release = PendingRelease::of(claim, Some(id), true, None, turn.now);
            self.begin_release(release, turn);
        } else if !self.leases.is_releasing(id) {
            self.leases.remove(id, turn.now);
            self.connections.disown(claim.owner, turn);
        }
    }

    /// Sends a release at once, or as soon as a connection is up.
    pub(super) fn begin_release(&mut self, release: PendingRelease, turn: &mut Turn<'_>) {
        self.releases.begin(release.token());
        let key = (!self.waits.is_empty()).then(|| (release.target, release.key().clone()));
        self.send(Pending::Release(release), turn);
        // A try that is sent from now on reaches the server after the release.
        if let Some(key) = key.filter(|_| self.connections.is_serving()) {
            self.waits.released(&key, turn.now);
        }
    }

    /// Sends a release again that the server may have executed. From now on, "not held" counts as released.
    pub(super) fn repeat_release(&mut self, mut release: PendingRelease, turn: &mut Turn<'_>) {
        release.repeated = true;
        self.send(Pending::Release(release), turn);
    }

    pub(super) fn send_pending_releases(&mut self, turn: &mut Turn<'_>) {
        for release in self.releases.take_pending() {
            self.send(Pending::Release(release), turn);
        }
    }

    pub(super) fn release_answered(&mut self, release: PendingRelease, response: &Response, turn: &mut Turn<'_>) {
        let outcome: Result<()> = match response {
            Response::Done => Ok(()),
            // An earlier release may have succeeded, or the lease may have ended before. Both count as released.
            Response::Refused(Status::Error | Status::LeaseExpired) if release.repeated => Ok(()),
            Response::Refused(Status::Error | Status::LeaseExpired) => Err(Error::new(
                ErrorKind::NotHeld,
                format!("{:?} was not held any more when it was released", release.key()),
            )),
            Response::Refused(status) => Err(status.to_error(release.key().as_str())),
            other => Err(Error::new(
                ErrorKind::Protocol,
                format!("{other:?} is not a valid answer to a release"),
            )),
        };
        let outcome = outcome.map_err(|error| self.at_endpoint(error));
        self.end_release(release, outcome, turn);
    }

    /// Ends a release with its outcome.
    pub(super) fn end_release(&mut self, release: PendingRelease, outcome: Result<()>, turn: &mut Turn<'_>) {
        self.releases.end(release.token());
        // The server can return this grant again only as the answer to a repeated try.
        if !self.repeats.is_empty() {
            self.connections.note_released(*release.token());
        }
        if let Some(id) = release.id {
            self.leases.remove(id, turn.now);
        }
        self.connections.disown(release.owner, turn);
        if let Some(closing) = &mut self.closing {
            closing.count(release.key(), outcome.is_ok());
        }
        self.tell_release(&release, &outcome);
        if let Some(reply) = release.reply {
            turn.push(Effect::Answer(Answer::Release(reply, outcome)));
        }
    }

    fn tell_release(&self, release: &PendingRelease, outcome: &Result<()>) {
        let (key, token, kind) = (release.key(), release.token(), release.target.kind().as_str());
        let (shard, endpoint) = (self.index, self.endpoint());
        match outcome {
            Ok(()) => tracing::debug!(shard, %endpoint, %key, kind, %token, "released"),
            Err(error) => tracing::debug!(shard, %endpoint, %key, kind, %token, %error, "not released"),
        }
    }

    /// Ends the releases of leases whose TTL has passed before the release could be sent.
    pub(super) fn end_overdue_releases(&mut self, turn: &mut Turn<'_>) {
        for release in self.releases.take_ended(turn.now) {
            let message = format!(
                "the lease of {:?} ended with its TTL before its release could be sent",
                release.key()
            );
            let error = Error::new(ErrorKind::LeaseLost, message);
            let error = self.at_endpoint(error);
            self.end_release(release, Err(error), turn);
        }
    }

    /// Releases a grant that its caller does not get: the caller is gone, or gets an error.
    pub(super) fn give_back_orphan(&mut self, acquire: &Acquire, grant: Grant, owner: LaneId, turn: &mut Turn<'_>) {
        self.give_back_grant(acquire.target, acquire.key.clone(), grant, owner, turn);
    }

    pub(super) fn give_back_grant(
        &mut self,
        target: Target,
        key: Key,
        grant: Grant,
        owner: LaneId,
        turn: &mut Turn<'_>,
    ) {
        tracing::debug!(
            shard = self.index,
            endpoint = %self.endpoint_of(owner),
            %key,
            kind = target.kind().as_str(),
            token = %grant.token,
            "released a grant that no caller gets"
        );
        self.leases.orphaned(target.kind());
        self.release_grant(target, key, grant, owner, turn);
    }

    /// Releases a grant that no caller has.
    pub(super) fn release_grant(&mut self, target: Target, key: Key, grant: Grant, owner: LaneId, turn: &mut Turn<'_>) {
        let release = PendingRelease {
            target,
            subject: ReleaseSubject::Grant(Box::new((key, grant.token))),
            id: None,
            owner,
            until: after(turn.now, grant.ttl.as_duration()),
            repeated: true,
            reply: None,
        };
        self.begin_release(release, turn);
    }
}
