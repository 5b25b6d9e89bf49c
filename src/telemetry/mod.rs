//! What the client counts and measures, through the `metrics` facade.
//!
//! [`catalog`] says which metrics there are, and [`sink`] is where they go. The handles are kept by those who record
//! them (`metrics.rs` in their folders): registered once, so that recording is an atomic operation and no look-up.

pub(crate) mod actor_span;
pub(crate) mod catalog;
pub(crate) mod client_name;
pub(crate) mod key_class;
pub(crate) mod lazy;
pub(crate) mod level;
pub(crate) mod sink;
