//! Publish and subscribe.
//!
//! Each [`SignalConn`] has its own connection to each shard, and an actor that keeps it alive. No lease may depend on
//! such a connection, because servers before 1.0 close a connection that sends an unknown command. The connections'
//! tasks put signals directly into the consumer's buffer.

mod actor;
mod buffer;
mod conn;
mod event;
mod family;
mod follow;
mod link;
mod message;
mod metrics;
mod options;
mod shell;

pub(crate) use buffer::Buffer;
pub use conn::{SignalConn, SignalHandle, Signals};
pub use event::SignalEvent;
pub(crate) use family::Family;
pub(crate) use link::Link;
pub use options::{Overflow, SignalOptions};
