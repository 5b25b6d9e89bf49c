//! The layers of a client, put together: spans, metrics, timeout, those of the user's, and the dispatch.
//!
//! Once owned, as the service that a [`Client`](crate::Client) is; and once borrowed, for the single calls of the handles:
//! a reference count that all cores fight for would cost more than all the layers do.

use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use tower::{Layer, Service};

use super::core::{Core, Explainer, nobody_is_left};
use super::dispatch::Dispatch;
use super::held::{Lease, Origin, QueuePlace};
use super::layered::{Inner, wrap};
use super::metrics::{Metrics, MetricsLayer, RequestMetrics};
use super::ready_first::ReadyFirst;
use super::request::{Request, Response, busy};
use super::routes::Routes;
use super::timeout::{Timeout, TimeoutLayer};
use super::trace::{Trace, TraceLayer};
use super::user_layer::UserLayer;
use crate::config::Config;
use crate::error::Result;

/// The layers around a service, each with what it refers to.
type Layers<S, X, M, R> = Trace<Metrics<Timeout<S, X>, M>, R>;

/// The service that a client is.
pub(crate) type ClientStack = Layers<Inner<Weak<Core>>, Arc<Explainer>, Arc<RequestMetrics>, Arc<Routes>>;

/// The service of a single call, which waits by itself until it is ready.
type CallStack<'a> = Layers<ReadyFirst<Inner<&'a Arc<Core>>>, &'a Explainer, &'a RequestMetrics, &'a Routes>;

/// Starts a client, with the layers of the user's, the first outermost.
pub(crate) fn start(config: Config, layers: &[UserLayer]) -> Result<Arc<Core>> {
    Core::start(config, layers.is_empty(), |core| wrap(layers, Dispatch::new(core)))
}

pub(crate) fn for_client(core: &Arc<Core>) -> ClientStack {
    let inner = Inner::of(core, Arc::downgrade(core));
    let timeout = TimeoutLayer::new(core.config.request_timeout).explained_by(Arc::clone(&core.explainer));
    let metrics = MetricsLayer(core.metrics.clone());
    TraceLayer(Arc::clone(&core.routes)).layer(metrics.layer(timeout.layer(inner)))
}

/// Sends one request through the same layers as [`Client::call`](crate::Client) does; the wait until they are ready is a part
/// of it, and counts against its time.
pub(crate) async fn execute(core: &Arc<Core>, request: Request) -> Result<Response> {
    let mut answer = for_call(core).call(request).await;
    if let (true, Ok(response)) = (core.has_layers(), &mut answer) {
        take_in(response, core);
    }
    answer
}

/// A layer may have granted what comes from no client: it is released through the layers of this one.
fn take_in(response: &mut Response, core: &Arc<Core>) {
    let client = match response {
        Response::Granted(lease) => lease.client_mut(),
        Response::Queued(place) => place.client_mut(),
        _ => return,
    };
    if !(**client).is::<Core>() {
        *client = Arc::<Core>::clone(core);
    }
}

fn for_call(core: &Arc<Core>) -> CallStack<'_> {
    let inner = ReadyFirst(Inner::of(core, core));
    let timeout = TimeoutLayer::new(core.config.request_timeout)
        .explained_by(&*core.explainer)
        // The dispatch ends waits by itself, and so does `ReadyFirst`: only layers in between could take longer.
        .where_waits_end(!core.has_layers());
    let metrics = MetricsLayer(core.metrics.as_deref());
    TraceLayer(&*core.routes).layer(metrics.layer(timeout.layer(inner)))
}

/// Gives a lease back, and waits for the answer.
pub(crate) async fn release(mut lease: Lease) -> Result<()> {
    // First of all: no layer of the user's can hold it up, and a waiter may be waiting for it.
    poll_fn(|cx| {
        lease.begin_release(cx.waker());
        Poll::Ready(())
    })
    .await;
    let core = core_of(lease.client())?;
    match execute(&core, Request::Release(lease)).await? {
        Response::Released => Ok(()),
        other => Err(other.out_of_place()),
    }
}

/// Waits at a place in a queue, once.
pub(crate) async fn collect(place: QueuePlace, wait: Duration) -> Result<Lease> {
    let core = core_of(place.client())?;
    let key = place.key().clone();
    match execute(&core, Request::Collect { place, wait }).await? {
        Response::Granted(lease) => Ok(lease),
        Response::Busy => Err(busy(&key)),
        other => Err(other.out_of_place()),
    }
}

/// The core that a lease or place came from: nothing else hands them out.
fn core_of(origin: Origin) -> Result<Arc<Core>> {
    origin.downcast().map_err(|_| nobody_is_left())
}
