//! The registry's entry of a lease.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::stamp::Stamp;
use crate::lease::cell::LeaseCell;
use crate::lease::schedule::Pace;
use crate::shard::ids::LaneId;
use crate::types::Target;

/// The registry's entry of a lease.
#[derive(Debug)]
pub(super) struct LeaseEntry {
    pub(super) cell: Arc<LeaseCell>,
    pub(super) target: Target,
    pub(super) owner: LaneId,
    pub(super) phase: Phase,
    /// Its own renewal terms, if they differ from the client's.
    pub(super) terms: Option<Box<Terms>>,
    pub(super) renew_at: Stamp,
    /// When it counts as lost, according to its last grant or renewal.
    pub(super) ends: Stamp,
    /// When it is reported as lost: at `ends`, or earlier if it is suspect.
    pub(super) deadline: Stamp,
    /// Its key in the timer.
    pub(super) timer: Option<Stamp>,
    /// Its neighbours in the list of its owner's leases.
    pub(super) before: Neighbour,
    pub(super) behind: Neighbour,
}

/// The renewal terms of a lease that differ from the client's.
#[derive(Debug, Default)]
pub(super) struct Terms {
    /// No renewal is sent from this instant on.
    pub(super) renew_until: Option<Stamp>,
    pub(super) pace: Option<Pace>,
}

/// The optional slot of a neighbour, in half the space of an `Option<u32>`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Neighbour(Option<NonZeroU32>);

impl Neighbour {
    pub(super) fn new(slot: Option<u32>) -> Self {
        // Counted from 1.
        Self(slot.and_then(|slot| NonZeroU32::MIN.checked_add(slot)))
    }

    pub(super) fn slot(self) -> Option<u32> {
        self.0.map(|number| number.get() - 1)
    }
}

/// The phase of a lease between its grant and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Held; the next renewal is in the future.
    Waiting,
    /// Held; a renewal is under way.
    Renewing,
    /// Held; a renewal is due, but there is no connection for it.
    Overdue,
    /// Lost; kept until its guard is gone, because the shard must then release the lease if the server may still have
    /// it.
    Lost,
    /// Being released; neither renewed nor reported as lost.
    Releasing,
}

impl Phase {
    /// Whether the lease is held, as far as the registry knows.
    pub(super) fn is_held(self) -> bool {
        !matches!(self, Self::Lost | Self::Releasing)
    }
}

impl LeaseEntry {
    pub(super) fn renews(&self) -> bool {
        let until = self.terms.as_ref().and_then(|terms| terms.renew_until);
        until.is_none_or(|until| self.renew_at < until)
    }

    /// Returns its own pace, if it has one.
    pub(super) fn pace(&self) -> Option<Pace> {
        self.terms.as_ref()?.pace
    }
}
