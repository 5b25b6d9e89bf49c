//! The command `dflock`, as real processes against the embedded server.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub
)]

mod bench;
mod commands;
mod doctor;
mod ends;
mod exit_codes;
mod loss;
mod outages;
mod pty;
mod serve;
mod server_process;
mod signals;
mod snapshots;
mod stats;
#[path = "../support/mod.rs"]
mod support;
mod terminal;
mod tool;
mod top;
