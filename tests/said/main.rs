//! What errors say: only what is known, each fact once, and what to do about it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod chain;
mod every_kind;
mod mistakes;
mod silent;
