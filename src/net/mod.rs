//! Connections: reaching a server, and talking to it without blocking anybody.

pub(crate) mod backoff;
pub(crate) mod connect;
pub(crate) mod dial;
pub(crate) mod endpoint;
pub(crate) mod lane;
pub(crate) mod metrics;
pub(crate) mod pipeline;
