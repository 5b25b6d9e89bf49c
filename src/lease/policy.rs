//! How a lease is renewed.

use std::time::Duration;

use super::schedule::RenewRatio;

/// How the leases of one acquire behave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RenewPolicy {
    /// Do not renew at all.
    pub(crate) never: bool,
    /// Renew for so long, from the grant on.
    pub(crate) max_hold: Option<Duration>,
    /// Renew at another part of the TTL than the client's other leases.
    pub(crate) ratio: Option<RenewRatio>,
}
