//! What all clones of a client, and all its leases, keep alive together.

use std::sync::Arc;
use std::time::Duration;

use metrics::Gauge;
use ractor::ActorRef;
use tokio::time::Instant;

use super::dispatch::Dispatch;
use super::layered::{ClientService, Inner, UserLayer, wrap};
use super::metrics::RequestMetrics;
use super::routes::Routes;
use super::timeout::{Explain, Subject, TimeoutLayer};
use crate::actor::router::RouterMessage;
use crate::actor::shard::unavailable;
use crate::actor::topology::{ShardPlace, Topology};
use crate::config::Config;
use crate::error::{Budget, Error, ErrorKind, Result};
use crate::telemetry::catalog;
use crate::telemetry::level::Level;
use crate::telemetry::sink::Sink;

/// The heart of a client.
///
/// The layers that users add stand between a client and its dispatch, so they are kept here, made once; and the dispatch
/// within them points back here, weakly, since leases that it hands out keep this alive.
pub(crate) struct Core {
    pub(crate) topology: Arc<Topology>,
    pub(crate) config: Config,
    pub(crate) routes: Arc<Routes>,
    pub(crate) metrics: Arc<RequestMetrics>,
    pub(crate) timeout: TimeoutLayer,
    router: ActorRef<RouterMessage>,
    layered: Option<ClientService>,
    _build_info: Level,
}

/// How long the shards may take to give back what is on its way when the last user of a client is gone.
const LAST_RELEASES: Duration = Duration::from_secs(5);

impl Core {
    pub(crate) fn start(config: Config, layers: &[UserLayer]) -> Result<Arc<Self>> {
        config.sink.describe_all();
        let (router, topology) = crate::actor::router::start(&config)?;
        let routes = Routes {
            strategy: topology.strategy.clone(),
            shards: topology.shards.len(),
        };
        let metrics = RequestMetrics::new(&config.sink, routes.clone(), config.key_class.clone());
        let explain = explain(Arc::clone(&topology), routes.clone());
        Ok(Arc::new_cyclic(|core| Self {
            topology,
            routes: Arc::new(routes),
            metrics: Arc::new(metrics),
            timeout: TimeoutLayer::new(config.request_timeout).explained_by(explain),
            router,
            layered: wrap(layers, Dispatch::new(core.clone())),
            _build_info: build_info(&config.sink),
            config,
        }))
    }

    /// A way to the dispatch, through the layers that users added.
    pub(crate) fn inner(self: &Arc<Self>) -> Inner {
        match &self.layered {
            Some(layered) => Inner::Layered(layered.clone()),
            None => Inner::Plain(Dispatch::new(Arc::downgrade(self))),
        }
    }
}

/// Nobody uses the client any more. Only sends a message: works outside of a runtime, and during a panic.
impl Drop for Core {
    fn drop(&mut self) {
        let until = Instant::now() + LAST_RELEASES;
        drop(self.router.send_message(RouterMessage::Close { until }));
    }
}

fn build_info(sink: &Sink) -> Level {
    let gauge: Gauge = sink.gauge(&catalog::BUILD_INFO, &[("version", crate::VERSION.into())]);
    let mut level = Level::new(gauge);
    level.show(1);
    level
}

/// What is known of a shard that did not answer.
fn explain(topology: Arc<Topology>, routes: Routes) -> Explain {
    Arc::new(move |subject: &Subject, budget: Budget| {
        let key = subject.key.as_ref();
        let index = match (key, subject.shard) {
            (Some(key), _) => routes.strategy.shard(key.as_str(), routes.shards).ok()?,
            (None, shard) => shard?,
        };
        let place = topology.shards.get(index)?;
        shard_is_away(place).or_else(|| no_room(place, budget))
    })
}

/// The shard is not connected, and why.
pub(super) fn shard_is_away(place: &ShardPlace) -> Option<Error> {
    let health = place.health.borrow();
    health
        .last_error()
        .map(|error| unavailable(place.index, &place.endpoint, error))
}

fn no_room(place: &ShardPlace, budget: Budget) -> Option<Error> {
    let full = place.room.available_permits() == 0;
    full.then(|| {
        Error::new(
            ErrorKind::Unavailable,
            format!("no room for another request within {budget}: the server does not keep up (see max_in_flight)"),
        )
        .at(place.endpoint.as_text())
    })
}
