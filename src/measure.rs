//! Parts of this crate by themselves, for its own benchmarks. No part of its interface.

pub use crate::net::measure::PipelinedLane;
pub use crate::shard::measure::{HeldLeases, LoneShard};
