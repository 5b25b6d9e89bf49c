//! The client's metrics, through the `metrics` facade.
//!
//! [`catalog`] lists the metrics, and [`sink`] is their destination. The modules that record them keep the handles
//! (`metrics.rs` or `metrics/` in their folders), which are registered once, so that recording is an atomic operation
//! without a look-up.

pub(crate) mod actor_span;
pub(crate) mod catalog;
pub(crate) mod client_name;
pub(crate) mod key_class;
pub(crate) mod lazy;
pub(crate) mod level;
pub(crate) mod sink;
