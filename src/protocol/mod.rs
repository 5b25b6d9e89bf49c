//! The wire protocol: three lines up, one line down, no I/O.
//!
//! [`Request`] and [`Response`] are typed, encode themselves, and decode from lines; so does [`Signal`], the one thing
//! that a server says unasked. [`LineBuffer`] cuts lines out of whatever bytes arrive. [`RequestDecoder`] is the server's
//! reading side. [`functions`] puts the protocol on any async stream, one call at a time, and `blocking` (feature
//! `blocking`) on any other.
//!
//! Source of every rule: the servers' observed behaviour, releases 0.5 to 2.1.1, and the code of cluster builds (unreleased after 2.1.1).

mod auth_token;
#[cfg(feature = "blocking")]
pub mod blocking;
mod call;
mod channel;
mod fields;
pub mod functions;
mod line;
mod raw_request;
mod request;
mod request_decoder;
mod response;
mod signal;
mod stable_ref;
mod status;
mod wire;

pub use auth_token::AuthToken;
pub use call::{Call, Enqueued};
pub use channel::{Channel, Group, Pattern};
#[cfg(feature = "server")]
pub(crate) use fields::trim;
pub use line::{LineBuffer, LineError};
#[cfg(feature = "server")]
pub(crate) use raw_request::{RawRequest, RequestLines};
pub use request::{Expect, Request};
pub use request_decoder::{RequestDecoder, RequestError};
pub use response::{BadResponse, Response};
pub use signal::{Payload, Signal};
pub use stable_ref::StableRef;
pub use status::Status;
pub(crate) use status::{Namespaces, limit_mismatch};

/// The longest response line that is accepted: `stats` grows with the number of keys.
pub const MAX_RESPONSE_LINE: usize = 1024 * 1024;

/// The longest command, key or ordinary argument line that a server takes.
pub const MAX_SHORT_LINE: usize = 256;

/// The longest `auth` or `signal` argument line that a server takes (from 1.15 on; 256 before).
pub const MAX_LONG_LINE: usize = 64 * 1024;
