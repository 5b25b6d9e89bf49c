//! Renewals: what their answers mean for a lease, and when the next is due.

use tokio::time::Instant;

use super::{Phase, Registry};
use crate::clock::Moment;
use crate::lease::cell::LostReason;
use crate::lease::metrics::RenewalOutcome;
use crate::shard::ids::{LaneId, LeaseId};
#[cfg(feature = "server")]
use crate::types::Token;
use crate::types::Ttl;

impl Registry {
    /// A renewal that was sent at `sent_at` over the connection `from` succeeded; the server says that `left` is left of the lease.
    /// Changes nothing if the lease is not held any more. Returns whether the lease goes on.
    pub(crate) fn renewed(&mut self, id: LeaseId, from: LaneId, sent: Moment, left: Option<u64>, now: Instant) -> bool {
        let (schedule, epoch) = (self.schedule, self.epoch);
        let (sent_at, now) = (self.seen(sent), self.moment(now));
        let random = self.jitter.f64();
        let Some(entry) = self.entry_mut(id).filter(|entry| entry.phase == Phase::Renewing) else {
            return false;
        };
        let Some(ttl) = granted_ttl(entry.cell.ttl, left) else {
            self.renewal_failed(id);
            return false;
        };
        let (asked, left) = (entry.cell.ttl, entry.cell.remaining_at(now));
        entry.phase = Phase::Waiting;
        // A lease that is not renewed keeps its end: this was a probe.
        if entry.renews() {
            entry.ends = epoch.stamp(schedule.deadline(sent_at, ttl));
            entry.renew_at = epoch.stamp(schedule.renew_at(sent_at, ttl, entry.pace(), random));
        }
        entry.deadline = entry.ends;
        // The connection that owns it stood when this was sent. Of others that says nothing.
        if entry.owner == from {
            entry.cell.stood(schedule.lost_when_suspended(sent));
        }
        let goes_on = entry.cell.extend(epoch.instant(entry.deadline), now);
        if goes_on {
            self.metrics.renewal(RenewalOutcome::Renewed { left, ttl: asked });
            self.arm(id);
        } else {
            self.metrics.renewal(RenewalOutcome::Unanswered);
            self.lose(id, LostReason::Expired, now.at);
        }
        goes_on
    }

    /// The server says that a lease whose renewal it was sent is not held. Returns whether that was news.
    pub(crate) fn renewal_rejected(&mut self, id: LeaseId, now: Instant) -> bool {
        self.metrics.renewal(RenewalOutcome::Rejected);
        self.lose(id, LostReason::Rejected, now)
    }

    /// A renewal was not answered, or refused for a reason that passes: it stays due.
    pub(crate) fn renewal_failed(&mut self, id: LeaseId) {
        self.metrics.renewal(RenewalOutcome::Unanswered);
        if self.phase(id) == Some(Phase::Renewing) {
            self.set_phase(id, Phase::Overdue);
            self.arm(id);
        }
    }

    /// A renewal was refused for now by a server that is there: try again after a pause, while the lease lasts.
    pub(crate) fn retry_renewal_at(&mut self, id: LeaseId, when: Instant) {
        let when = self.epoch.stamp(when);
        if let Some(entry) = self.entry_mut(id).filter(|entry| entry.phase == Phase::Renewing) {
            entry.phase = Phase::Waiting;
            entry.renew_at = when;
            self.metrics.renewal(RenewalOutcome::PutOff);
            self.arm(id);
        }
    }

    /// Brings the next renewal forward to now; if it cannot be sent, it is kept for [`take_overdue`](Self::take_overdue). Not
    /// where the lease is not renewed. Returns whether to send it.
    pub(crate) fn renew_now(&mut self, id: LeaseId, connected: bool) -> bool {
        if !self
            .entry(id)
            .is_some_and(|entry| entry.phase == Phase::Waiting && entry.renews())
        {
            return false;
        }
        self.set_phase(id, if connected { Phase::Renewing } else { Phase::Overdue });
        self.arm(id);
        connected
    }

    /// Has the server asked about the lease of a token now, whether it is renewed or not. One whose renewal is under way is asked about
    /// once more: the answer to that may be an older one. Returns the lease, if it is to be asked about.
    #[cfg(feature = "server")]
    pub(crate) fn check_now(&mut self, token: &Token, connected: bool) -> Option<LeaseId> {
        let is_of = |id: &LeaseId| self.entry(*id).is_some_and(|entry| entry.cell.token == *token);
        let id = self.ids().filter(|id| self.is_held(*id)).find(is_of)?;
        self.set_phase(id, if connected { Phase::Renewing } else { Phase::Overdue });
        self.arm(id);
        connected.then_some(id)
    }
}

/// The lease that a renewal for `asked` brought, of which the server says that `left` seconds are left. Its word counts
/// where it gave less than it was asked for; but servers that round down (seen: the Python server 0.5.0) say one less
/// than they gave. Less than a second is as good as nothing.
pub(in crate::shard) fn granted_ttl(asked: Ttl, left: Option<u64>) -> Option<Ttl> {
    match left {
        Some(left) if left + 1 < asked.as_secs() => Ttl::from_secs(left),
        Some(_) | None => Some(asked),
    }
}
