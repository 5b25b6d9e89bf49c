//! Connections: reaching a server, and talking to it without blocking other callers.

pub(crate) mod abilities;
pub(crate) mod admission;
pub(crate) mod auth;
pub(crate) mod backoff;
pub(crate) mod connect;
pub(crate) mod connector;
pub(crate) mod dial;
pub(crate) mod endpoint;
pub(crate) mod failover;
mod fence_probe;
pub(crate) mod fencing;
mod happy_eyeballs;
pub(crate) mod health;
pub(crate) mod lane;
#[cfg(feature = "__measure")]
pub(crate) mod measure;
pub(crate) mod membership;
pub(crate) mod metrics;
pub(crate) mod pipeline;
pub(crate) mod reach;
pub(crate) mod reconnect;
pub(crate) mod refusals;
pub(crate) mod settings;
mod socket;
pub(crate) mod stream;
pub(crate) mod takeover;
#[cfg(unix)]
mod unix;
#[cfg(not(unix))]
#[path = "unix_absent.rs"]
mod unix;
