//! Tests that load the machine with many callers, many clients and frequent leader changes. They have a separate
//! binary, because the tests in `tests/it` have short timeouts and must not run at the same time.
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
