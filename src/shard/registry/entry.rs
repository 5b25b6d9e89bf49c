//! What is kept for each lease.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::stamp::Stamp;
use crate::lease::cell::LeaseCell;
use crate::lease::schedule::Pace;
use crate::shard::ids::LaneId;
use crate::types::Target;

/// What is kept for each lease.
#[derive(Debug)]
pub(super) struct LeaseEntry {
    pub(super) cell: Arc<LeaseCell>,
    pub(super) target: Target,
    pub(super) owner: LaneId,
    pub(super) phase: Phase,
    /// Its own terms, if it has any.
    pub(super) terms: Option<Box<Terms>>,
    pub(super) renew_at: Stamp,
    /// When it is over, as far as its last grant or renewal goes.
    pub(super) ends: Stamp,
    /// When it is reported lost: then, or sooner if it is in doubt.
    pub(super) deadline: Stamp,
    /// Its place in the timer.
    pub(super) timer: Option<Stamp>,
    /// Its neighbours among the leases of its owner.
    pub(super) before: Neighbour,
    pub(super) behind: Neighbour,
}

/// How a lease is renewed that is not renewed as the client's others are.
#[derive(Debug)]
pub(super) struct Terms {
    /// No renewal is sent from then on.
    pub(super) renew_until: Option<Stamp>,
    pub(super) pace: Option<Pace>,
}

/// The slot of a neighbour, if there is one: in half the room of an optional index.
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

/// Where a lease stands between grant and end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Held; the next renewal is in the future.
    Waiting,
    /// Held; a renewal is on its way.
    Renewing,
    /// Held; a renewal is due but there is no connection to send it over.
    Overdue,
    /// Lost; kept until its guard is gone, to give back what the server may still hold.
    Lost,
    /// On its way back to the server. Nothing is renewed and nothing is reported any more.
    Releasing,
}

impl Phase {
    /// Whether it is held, as far as is known.
    pub(super) fn is_held(self) -> bool {
        !matches!(self, Self::Lost | Self::Releasing)
    }
}

impl LeaseEntry {
    pub(super) fn renews(&self) -> bool {
        let until = self.terms.as_ref().and_then(|terms| terms.renew_until);
        until.is_none_or(|until| self.renew_at < until)
    }

    /// Its own pace, if it has one.
    pub(super) fn pace(&self) -> Option<Pace> {
        self.terms.as_ref()?.pace
    }
}
