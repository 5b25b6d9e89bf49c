//! Tests that load the machine: many callers, flapping leaders, whole fleets. They have a binary of their own, so that tests of
//! `tests/it` with short times do not run beside them.
//!
//!     cargo test --test load                  # all of them
//!     cargo test --test load standby_load::   # one module
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod cluster_load;
mod failover_load;
mod standby_load;
mod transition;
mod waits;
