//! The layers of a client: spans, metrics, timeout, the users' layers, and the dispatch.
//!
//! The stack exists in two forms. The owned form is the service of a [`Client`](crate::Client). The borrowed form is
//! for the single calls of the handles: a reference count that all CPU cores modify would cost more than all layers
//! together.

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

/// The layers around a service. `X` refers to the explainer, `M` to the metrics.
type Layers<S, X, M> = Trace<Metrics<Timeout<S, X>, M>, X>;

/// The service of a client.
pub(crate) type ClientStack = Layers<Inner<Weak<Core>>, Arc<Explainer>, Arc<RequestMetrics>>;

/// The service of a single call. The call waits until the service is ready.
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

/// Sends one request through the same layers as [`Client::call`](crate::Client). The wait until the layers are ready is
/// a part of the request and counts towards its time.
pub(crate) async fn execute(core: &Arc<Core>, request: Request) -> Result<Response> {
    let mut answer = for_call(core).call(request).await;
    if let (true, Ok(response)) = (core.has_layers(), &mut answer) {
        attach_client(response, core);
    }
    answer
}

/// Makes sure that a lease or queue position in a response belongs to a client. One that a user's layer created belongs
/// to no client. It gets this client, so that its release passes through this client's layers.
fn attach_client(response: &mut Response, core: &Arc<Core>) {
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
    // Sends the release first, so that no user's layer can delay it: another client may be waiting for the key.
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

/// Waits once at a queue position.
pub(crate) async fn collect(place: QueuePlace, wait: Duration) -> Result<Lease> {
    let core = core_of(place.client())?;
    let key = place.key().clone();
    match execute(&core, Request::Collect { place, wait }).await? {
        Response::Granted(lease) => Ok(lease),
        Response::Busy => Err(busy(&key)),
        other => Err(other.out_of_place()),
    }
}

/// Returns the core that a lease or queue position came from. Callers only have origins that are a core, because
/// `attach_client` replaces any other origin.
fn core_of(origin: Origin) -> Result<Arc<Core>> {
    origin.downcast().map_err(|_| client_is_gone())
}
