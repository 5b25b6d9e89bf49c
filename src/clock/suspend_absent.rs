//! Systems on which this crate cannot detect suspends.

use std::time::Duration;

/// Whether the system reports suspends.
pub(crate) const IS_KNOWN: bool = false;

pub(super) fn suspended() -> Duration {
    Duration::ZERO
}
