//! The layers of a client, put together: spans, metrics, timeouts, those of the user's, and the dispatch.

use std::sync::Arc;

use tower::Layer;

use super::core::Core;
use super::layered::Inner;
use super::metrics::{Metrics, MetricsLayer};
use super::timeout::Timeout;
use super::trace::{Trace, TraceLayer};

/// The layers that every client has, around something.
pub(crate) type Stack<S> = Trace<Metrics<Timeout<S>>>;

/// The layers of a client's core around `inner`.
pub(crate) fn stack<S>(core: &Arc<Core>, inner: S) -> Stack<S> {
    let timed = core.timeout.layer(inner);
    let measured = MetricsLayer(Arc::clone(&core.metrics)).layer(timed);
    TraceLayer(Arc::clone(&core.routes)).layer(measured)
}

/// All of it.
pub(crate) type FullStack = Stack<Inner>;
