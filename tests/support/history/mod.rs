//! Records of what clients and servers did, and their judge. It knows neither the client nor the server: only lines of a record.
#![allow(dead_code, unreachable_pub, missing_docs)]

pub mod record;
pub mod writer;
