//! Handles the answers to renewals, and schedules the next renewal of each lease.

use std::time::Duration;

use tokio::time::Instant;

use super::{Phase, Registry};
use crate::clock::{Moment, after};
use crate::lease::metrics::RenewalOutcome;
use crate::lease::state::LostReason;
use crate::shard::ids::{LaneId, LeaseId};
use crate::types::{Token, Ttl};

impl Registry {
    /// Handles a successful renewal that was sent at `sent` over the connection `from`; the server says that `left`
    /// seconds are left. Changes nothing unless a renewal of the lease is under way. Returns whether the renewal
    /// counts: it does not if its answer came too late, or if less than a second is left.
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
        // A lease that may not be renewed, or may not be renewed any more, keeps its end. The answer only shows that
        // the lease is held.
        if entry.renews() {
            entry.ends = epoch.stamp(schedule.deadline(sent_at, ttl));
            entry.renew_at = epoch.stamp(schedule.renew_at(sent_at, ttl, entry.pace(), random));
        }
        entry.deadline = entry.ends;
        // The answer shows that the connection `from` was open when the renewal was sent. It shows nothing about
        // another owner.
        if entry.owner == from {
            entry.cell.note_open_connection(schedule.lost_when_suspended(sent));
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

    /// Handles the server's answer that a lease is not held. Returns whether this client still held it.
    pub(crate) fn renewal_rejected(&mut self, id: LeaseId, now: Instant) -> bool {
        self.metrics.renewal(RenewalOutcome::Rejected);
        self.lose(id, LostReason::Rejected, now)
    }

    /// Notes that a renewal was not answered, so it stays due.
    pub(crate) fn renewal_failed(&mut self, id: LeaseId) {
        self.metrics.renewal(RenewalOutcome::Unanswered);
        if self.phase(id) == Some(Phase::Renewing) {
            self.set_phase(id, Phase::Overdue);
            self.arm(id);
        }
    }

    /// Schedules a renewal again after a pause, because the server refused it for now.
    pub(crate) fn retry_renewal_at(&mut self, id: LeaseId, when: Instant) {
        let when = self.epoch.stamp(when);
        if let Some(entry) = self.entry_mut(id).filter(|entry| entry.phase == Phase::Renewing) {
            entry.phase = Phase::Waiting;
            entry.renew_at = when;
            self.metrics.renewal(RenewalOutcome::PutOff);
            self.arm(id);
        }
    }

    /// Limits the renewals of a lease to this time from now on. The lease then ends a TTL after its last renewal.
    pub(crate) fn renew_for(&mut self, id: LeaseId, hold: Duration, now: Instant) {
        let until = self.epoch.stamp(after(now, hold));
        let Some(entry) = self.entry_mut(id).filter(|entry| entry.phase.is_held()) else {
            return;
        };
        entry.terms.get_or_insert_default().renew_until = Some(until);
        self.arm(id);
    }

    /// Makes the next renewal of a lease due now, if that renewal is in the future and the terms of the lease allow it.
    /// Returns whether to send it. If it cannot be sent, it is kept for [`take_overdue`](Self::take_overdue).
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

    /// Returns the lease with this token, if it is held.
    pub(crate) fn find(&self, token: &Token) -> Option<LeaseId> {
        let is_of = |id: &LeaseId| self.entry(*id).is_some_and(|entry| entry.cell.token == *token);
        self.ids().filter(|id| self.is_held(*id)).find(is_of)
    }

    /// Makes a renewal of a lease due now, even if the lease is never renewed, to find out whether the server still has
    /// the lease. If a renewal is already under way, another one is sent, because the server may have answered the
    /// first one before it lost the lease. Returns the lease if its renewal must be sent now.
    pub(crate) fn check_now(&mut self, id: LeaseId, connected: bool) -> Option<LeaseId> {
        self.set_phase(id, if connected { Phase::Renewing } else { Phase::Overdue });
        self.arm(id);
        connected.then_some(id)
    }
}

/// Returns the TTL that a renewal for `asked` obtained. `left` is the number of seconds in the server's answer. If it
/// is smaller than `asked`, it counts. But a difference of one second is ignored, because servers that round down
/// (observed: the Python server 0.5.0) name one second less than they granted. Returns `None` if less than a second is
/// left.
pub(in crate::shard) fn granted_ttl(asked: Ttl, left: Option<u64>) -> Option<Ttl> {
    match left {
        Some(left) if left + 1 < asked.as_secs() => Ttl::from_secs(left),
        Some(_) | None => Some(asked),
    }
}
