//! The layers of a client, combined: spans, metrics, timeout, the users' layers, and the dispatch.
//!
//! The stack exists in two forms. One is owned: it is the service of a [`Client`](crate::Client). The other is
//! borrowed, for the single calls of the handles. A reference count that all cores modify would cost more than all
//! layers together.

use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use tower::{Layer, Service};

use super::core::{Core, Explainer, client_is_gone};
use super::dispatch::Dispatch;
use super::held::{Lease, Origin, QueuePlace};
use super::layered::{Inner, wrap};
use super::metrics::{Metrics, MetricsLayer, RequestMetrics};
use super::ready_first::ReadyFirst;
use super::request::{Request, Response, busy};
use super::timeout::{Timeout, TimeoutLayer};
use super::trace::{Trace, TraceLayer};
use super::user_layer::UserLayer;
use crate::config::Config;
use crate::error::Result;

/// The layers around a service, each with its references.
type Layers<S, X, M> = Trace<Metrics<Timeout<S, X>, M>, X>;

/// The service of a client.
pub(crate) type ClientStack = Layers<Inner<Weak<Core>>, Arc<Explainer>, Arc<RequestMetrics>>;

/// The service of a single call. It waits by itself until it is ready.
type CallStack<'a> = Layers<ReadyFirst<Inner<&'a Arc<Core>>>, &'a Explainer, &'a RequestMetrics>;

/// Starts a client with the users' layers; the first one is outermost.
pub(crate) fn start(config: Config, layers: &[UserLayer]) -> Result<Arc<Core>> {
    Core::start(config, layers.is_empty(), |core| wrap(layers, Dispatch::new(core)))
}

pub(crate) fn for_client(core: &Arc<Core>) -> ClientStack {
    let inner = Inner::of(core, Arc::downgrade(core));
    let timeout = TimeoutLayer::new(core.config.request_timeout).explained_by(Arc::clone(&core.explainer));
    let metrics = MetricsLayer(core.metrics.clone());
    TraceLayer(Arc::clone(&core.explainer)).layer(metrics.layer(timeout.layer(inner)))
}

/// Sends one request through the same layers as [`Client::call`](crate::Client). The wait until they are ready is part
/// of it, and counts against its time.
pub(crate) async fn execute(core: &Arc<Core>, request: Request) -> Result<Response> {
    let mut answer = for_call(core).call(request).await;
    if let (true, Ok(response)) = (core.has_layers(), &mut answer) {
        take_in(response, core);
    }
    answer
}

/// Makes sure that a lease or queue position in a response belongs to a client. One that a user's layer made belongs to
/// none, so it is released through the layers of this client.
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
        // The dispatch and `ReadyFirst` end waits by themselves. Only layers in between could take longer.
        .where_waits_end(!core.has_layers());
    let metrics = MetricsLayer(core.metrics.as_deref());
    TraceLayer(&*core.explainer).layer(metrics.layer(timeout.layer(inner)))
}

/// Releases a lease and waits for the answer.
pub(crate) async fn release(mut lease: Lease) -> Result<()> {
    // Sent first, so that no user's layer can delay it: another client may be waiting for the lease.
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

/// Waits at a queue position, once.
pub(crate) async fn collect(place: QueuePlace, wait: Duration) -> Result<Lease> {
    let core = core_of(place.client())?;
    let key = place.key().clone();
    match execute(&core, Request::Collect { place, wait }).await? {
        Response::Granted(lease) => Ok(lease),
        Response::Busy => Err(busy(&key)),
        other => Err(other.out_of_place()),
    }
}

/// Returns the core that a lease or queue position came from. Callers have only those of a core, because `take_in`
/// replaces any other origin.
fn core_of(origin: Origin) -> Result<Arc<Core>> {
    origin.downcast().map_err(|_| client_is_gone())
}
