//! The judge of histories finds what it is there to find: in records that are made by hand, in random ones that a model makes, and nothing else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_imports,
    missing_docs
)]

#[path = "../support/mod.rs"]
mod support;

mod beliefs;
mod client_rules;
mod hand;
mod model;
mod mutations;
mod records;
mod server_rules;
mod signals;
