//! The wire protocol: a request is three lines, an answer is one. No I/O.
//!
//! [`Request`], [`Response`] and [`Signal`] are typed, encode themselves, and decode from lines. A server sends a
//! [`Signal`] unasked, and also an error before it closes a connection whose read timeout is over. [`LineBuffer`] cuts
//! lines out of the bytes that arrive. [`RequestDecoder`] is the reading side of a server. [`functions`] run the
//! protocol over any async stream, one call at a time, and those of `blocking` (feature `blocking`) over any blocking
//! stream.
//!
//! Source of every rule: the observed behaviour of servers, releases 0.5 to 2.1.1, and the code of cluster builds.
//! Cluster builds are the builds after 2.1.1 that can form clusters; they are not released yet.

mod auth_token;
#[cfg(feature = "blocking")]
pub mod blocking;
mod call;
mod channel;
mod fields;
pub mod functions;
mod line;
mod quoted;
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
pub(crate) use quoted::Quoted;
#[cfg(feature = "server")]
pub(crate) use raw_request::{RawRequest, RequestLines};
pub use request::{Expect, Request};
pub use request_decoder::{RequestDecoder, RequestError};
pub use response::{BadResponse, Response};
pub use signal::{Payload, Signal};
pub use stable_ref::StableRef;
pub use status::Status;
pub(crate) use status::{Namespaces, limit_mismatch};

/// The longest response line, in bytes, that the client accepts, except for the answer to `stats`.
pub const MAX_RESPONSE_LINE: usize = 1024 * 1024;

/// The longest answer to `stats`, in bytes, that the client accepts: about 600,000 keys with short names, or 150,000
/// keys with the longest names.
pub const MAX_STATS_LINE: usize = 64 * 1024 * 1024;

/// The longest command, key or ordinary argument line that a server accepts.
pub const MAX_SHORT_LINE: usize = 256;

/// The longest `auth` or `signal` argument line that a server accepts (from 1.15 on; 256 bytes before).
pub const MAX_LONG_LINE: usize = 64 * 1024;
