//! Systems on which this crate cannot detect suspends.

use std::time::Duration;

/// Whether it can be told at all.
pub(crate) const IS_KNOWN: bool = false;

pub(super) fn suspended() -> Duration {
    Duration::ZERO
}
