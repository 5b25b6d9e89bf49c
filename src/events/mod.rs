//! The events of a client, as streams and callbacks.
//!
//! | event | source |
//! | --- | --- |
//! | connections, a change of the serving server, the end of a shard | a change of a shard's [health](crate::ShardHealth): [`board`] compares it with the previous one |
//! | failed authentication | an attempt to connect, for any purpose: [`Refusals`](crate::net::refusals::Refusals) |
//! | lost leases, failed renewals, limits of waits | the shard |
//! | gaps in signals | a signal connection |
//!
//! An event is only created while there is a receiver.

pub(crate) mod board;
mod event;
mod hub;
mod stream;

pub use self::event::{ClientEvent, LeaseLost, RenewalFailed, WaitBound};
pub(crate) use self::hub::{Callback, EventHub, ShardEvents};
pub use self::stream::Events;
