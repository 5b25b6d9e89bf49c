//! The service: every operation is a request to one tower service, and the handles use it like any other caller.
//!
//! A request passes the span, metrics, timeout, the users' layers, and the dispatch. See [`stack`].

mod acquiring;
mod asking;
mod core;
mod dispatch;
mod held;
mod layered;
mod metrics;
mod outcome;
mod ready_first;
mod request;
mod retry;
mod routes;
mod span;
mod stack;
mod stopping;
mod timeout;
mod trace;
mod user_layer;

pub(crate) use self::core::Core;
#[cfg(feature = "server")]
pub(crate) use held::Origin;
pub use held::{Lease, QueuePlace, TransitionFences};
pub(crate) use request::busy;
pub use request::{AcquireRequest, Operation, Request, Response, SubscribeRequest};
pub use retry::RetryPolicy;
pub(crate) use stack::{ClientStack, collect, execute, for_client, release, start};
pub(crate) use stopping::log_stopped;
pub use timeout::{Timeout, TimeoutFuture, TimeoutLayer};
pub use user_layer::ClientService;
pub(crate) use user_layer::UserLayer;
