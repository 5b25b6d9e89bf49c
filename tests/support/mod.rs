//! What several tests need. Each test uses some of it.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs
)]

pub mod fake;
pub mod process;
pub mod raw;
