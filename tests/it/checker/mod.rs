//! The judge of histories finds what it is there to find: in records that are made by hand, in random ones that a model makes, and nothing else.
#![allow(clippy::wildcard_imports)]

mod beliefs;
mod client_rules;
mod hand;
mod model;
mod mutations;
mod records;
mod server_rules;
mod signals;
