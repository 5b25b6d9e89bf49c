//! The metrics of leases.

use std::time::Duration;

use metrics::{Counter, Histogram};
use tokio::time::Instant;

use super::cell::LeaseCell;
use super::state::LostReason;
use crate::telemetry::catalog;
use crate::telemetry::lazy::Lazy;
use crate::telemetry::level::Level;
use crate::telemetry::sink::ShardSink;
use crate::types::{Kind, Ttl};

/// The metrics of one shard's leases.
pub(crate) struct LeaseMetrics {
    locks: KindMetrics,
    semaphores: KindMetrics,
    renewed: Counter,
    rejected: Counter,
    put_off: Counter,
    unanswered: Counter,
    headroom: Histogram,
    headroom_ratio: Histogram,
}

/// The metrics that locks and semaphores have separately.
struct KindMetrics {
    held: Level,
    count: usize,
    hold_released: Histogram,
    hold_lost: Histogram,
    orphans: Counter,
    lost: [Counter; LostReason::ALL.len()],
}

/// The outcome of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RenewalOutcome {
    /// Confirmed in time. `left` is the time that was left until the lease would have been lost.
    Renewed { left: Duration, ttl: Ttl },
    /// The server says that the lease is not held.
    Rejected,
    /// The server refused the renewal for a temporary reason.
    PutOff,
    /// The renewal could not be sent, or its answer was lost with the connection or came too late.
    Unanswered,
}

impl LeaseMetrics {
    pub(crate) fn new(sink: &ShardSink) -> Self {
        let renewals = |outcome: &'static str| sink.counter(&catalog::RENEWALS, &[("outcome", outcome.into())]);
        Self {
            locks: KindMetrics::new(sink, Kind::Lock),
            semaphores: KindMetrics::new(sink, Kind::Semaphore),
            renewed: renewals("renewed"),
            rejected: renewals("rejected"),
            put_off: renewals("put_off"),
            unanswered: renewals("unanswered"),
            headroom: sink.histogram(&catalog::RENEWAL_HEADROOM, &[]),
            headroom_ratio: sink.histogram(&catalog::RENEWAL_HEADROOM_RATIO, &[]),
        }
    }

    pub(crate) fn taken(&mut self, kind: Kind) {
        self.of(kind).change(1);
    }

    pub(crate) fn released(&mut self, cell: &LeaseCell, now: Instant) {
        let metrics = self.of(cell.kind);
        metrics.change(-1);
        metrics.hold_released.record(Lazy(|| cell.age_at(now).as_secs_f64()));
    }

    pub(crate) fn lost(&mut self, cell: &LeaseCell, why: LostReason, now: Instant) {
        let metrics = self.of(cell.kind);
        metrics.change(-1);
        metrics.hold_lost.record(Lazy(|| cell.age_at(now).as_secs_f64()));
        if let Some(counter) = metrics.lost.get(why.index()) {
            counter.increment(1);
        }
    }

    pub(crate) fn renewal(&self, outcome: RenewalOutcome) {
        match outcome {
            RenewalOutcome::Renewed { left, ttl } => {
                self.renewed.increment(1);
                self.headroom.record(left.as_secs_f64());
                self.headroom_ratio
                    .record(left.as_secs_f64() / ttl.as_duration().as_secs_f64());
            }
            RenewalOutcome::Rejected => self.rejected.increment(1),
            RenewalOutcome::PutOff => self.put_off.increment(1),
            RenewalOutcome::Unanswered => self.unanswered.increment(1),
        }
    }

    /// Counts a grant that no caller gets.
    pub(crate) fn orphan(&mut self, kind: Kind) {
        self.of(kind).orphans.increment(1);
    }

    fn of(&mut self, kind: Kind) -> &mut KindMetrics {
        match kind {
            Kind::Lock => &mut self.locks,
            Kind::Semaphore => &mut self.semaphores,
        }
    }
}

impl KindMetrics {
    fn new(sink: &ShardSink, kind: Kind) -> Self {
        let kind = ("kind", kind.as_str().into());
        let hold = |outcome: &'static str| sink.histogram(&catalog::HOLD, &[kind.clone(), ("outcome", outcome.into())]);
        Self {
            held: Level::new(sink.gauge(&catalog::LEASES_HELD, std::slice::from_ref(&kind))),
            count: 0,
            hold_released: hold("released"),
            hold_lost: hold("lost"),
            orphans: sink.counter(&catalog::ORPHANS_RELEASED, std::slice::from_ref(&kind)),
            lost: LostReason::ALL.map(|why| {
                let reason = ("reason", why.as_str().into());
                sink.counter(&catalog::LEASES_LOST, &[kind.clone(), reason])
            }),
        }
    }

    fn change(&mut self, by: isize) {
        self.count = self.count.saturating_add_signed(by);
        self.held.show(self.count);
    }
}

impl std::fmt::Debug for LeaseMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LeaseMetrics")
    }
}
