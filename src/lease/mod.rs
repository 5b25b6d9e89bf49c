//! Leases: when each one must be renewed, when it counts as lost, and how its holder learns that.

pub(crate) mod cell;
pub(crate) mod lost_keys;
pub(crate) mod metrics;
pub(crate) mod policy;
pub(crate) mod release;
pub(crate) mod schedule;
pub(crate) mod state;
