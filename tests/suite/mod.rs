//! Cases that every server must pass together with this client, and the servers against which the cases run.
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
