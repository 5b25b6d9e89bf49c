//! The events of a client, as streams and callbacks.
//!
//! | event | source |
//! | --- | --- |
//! | connections, the serving server, the end | a change of a shard's [health](crate::ShardHealth): [`board`] compares it with the previous one |
//! | refused secrets | an attempt to connect, for any purpose: [`Refusals`](crate::net::refusals::Refusals) |
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
