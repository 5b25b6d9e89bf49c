//! The behaviour that every server and this client must have together: cases, and the servers that they run against.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs
)]

pub mod api;
pub mod build;
pub mod cases;
mod composites;
pub mod low;
pub mod peer;
mod signals;
pub mod trials;
