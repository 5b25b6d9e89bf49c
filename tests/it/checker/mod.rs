//! Tests that the judge of histories finds every violation, and that it reports no violation in a correct record. Some
//! of the records are written by hand, and the others are random histories of a model.
#![allow(clippy::wildcard_imports)]

mod beliefs;
mod client_rules;
mod hand;
mod model;
mod mutations;
mod records;
mod server_rules;
mod signals;
