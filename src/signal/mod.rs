//! Publish and subscribe.
//!
//! Each [`SignalConn`] has a connection of its own to each shard, and an actor that keeps it up: servers before 1.0 close a
//! connection that asks for what they do not know, so no lease may depend on one. What comes is put into the consumer's
//! buffer by the connections' tasks themselves.

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
