//! What is held: when each lease must be renewed, when it must be given up as lost, and who is told.

pub(crate) mod cell;
pub(crate) mod lost_keys;
pub(crate) mod metrics;
pub(crate) mod policy;
pub(crate) mod release;
pub(crate) mod schedule;
