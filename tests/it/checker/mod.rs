//! The judge of histories finds every violation and nothing else, in records that are made by hand and in random ones of a model.
#![allow(clippy::wildcard_imports)]

mod beliefs;
mod client_rules;
mod hand;
mod model;
mod mutations;
mod records;
mod server_rules;
mod signals;
