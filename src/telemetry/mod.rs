//! The client's metrics, through the `metrics` facade.
//!
//! [`catalog`] lists the metrics, and [`sink`] is their destination. The modules that record them (`metrics.rs` or
//! `metrics/` in several folders of `src`) keep the handles. A handle is registered once, so that recording is an
//! atomic operation without a look-up.

pub(crate) mod actor_span;
pub(crate) mod catalog;
pub(crate) mod client_name;
pub(crate) mod key_class;
pub(crate) mod lazy;
pub(crate) mod level;
pub(crate) mod sink;
