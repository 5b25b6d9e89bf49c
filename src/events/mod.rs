//! The events of a client, as streams and callbacks.
//!
//! | what | where it arises |
//! | --- | --- |
//! | connections, who serves, the end | a change of a shard's [health](crate::ShardHealth): [`board`] compares it with the one before |
//! | refused secrets | an attempt to connect, of whatever kind: [`Refusals`](crate::net::refusals::Refusals) |
//! | leases, renewals, bounds of waits | the shard |
//! | gaps in signals | the link |
//!
//! An event is only created while there is a receiver.

pub(crate) mod board;
mod event;
mod hub;
mod stream;

pub use self::event::{ClientEvent, LeaseLost, RenewalFailed, WaitBound};
pub(crate) use self::hub::{Callback, EventHub, ShardEvents};
pub use self::stream::Events;
