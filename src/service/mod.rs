//! Every operation is a request to one tower service; the handles are its users like any other.

mod dispatch;
mod request;

pub use dispatch::ResponseFuture;
pub(crate) use dispatch::{Core, Dispatch};
pub use request::{AcquireRequest, Request, Response};
