//! Access to parts of this crate, for its own benchmarks. It is not part of the public API.

pub use crate::net::measure::PipelinedLane;
pub use crate::shard::measure::{HeldLeases, LoneShard};
