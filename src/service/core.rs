//! What all clones of a client, and all its leases, keep alive together.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics::Gauge;
use ractor::ActorRef;
use tokio::time::Instant;

use super::dispatch::{CoreRef, Dispatch};
use super::layered::{ClientService, Inner, UserLayer, wrap};
use super::metrics::RequestMetrics;
use super::request::Operation;
use super::routes::Routes;
use super::timeout::{About, Explain, Subject};
use crate::actor::router::RouterMessage;
use crate::actor::topology::{ShardPlace, Topology};
use crate::config::Config;
use crate::error::{Budget, Error, ErrorKind, Result};
use crate::health::ConnectionState;
use crate::net::reconnect::unavailable;
use crate::signal::{Buffer, Link, ShardWatch, SignalOptions};
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
    /// Where requests are counted, if anybody records it.
    pub(crate) metrics: Option<Arc<RequestMetrics>>,
    pub(crate) explainer: Arc<Explainer>,
    emitters: Arc<Emitters>,
    router: ActorRef<RouterMessage>,
    layered: Option<ClientService>,
    /// Shown for as long as the client lives.
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
        let build_info = build_info(&config.sink);
        let metrics = RequestMetrics::new(&config.sink, routes.clone(), config.key_class.clone());
        let metrics = build_info.is_recorded().then_some(metrics);
        let emitters = Arc::new(Emitters::new(routes.shards));
        let explainer = Explainer {
            topology: Arc::clone(&topology),
            routes: routes.clone(),
            emitters: Arc::clone(&emitters),
            is_direct: layers.is_empty(),
        };
        Ok(Arc::new_cyclic(|core| Self {
            topology,
            routes: Arc::new(routes),
            metrics: metrics.map(Arc::new),
            explainer: Arc::new(explainer),
            emitters,
            router,
            layered: wrap(layers, Dispatch::new(core.clone())),
            _build_info: build_info,
            config,
        }))
    }

    /// The connection over which a shard's signals are emitted.
    pub(super) fn emitter(&self, shard: usize) -> Result<&Link> {
        let place = self.topology.shard(shard)?;
        self.emitters.get(shard, &self.config, place.health.clone())
    }

    /// Whether users put layers around the dispatch.
    pub(crate) fn has_layers(&self) -> bool {
        self.layered.is_some()
    }

    /// A way to the dispatch, through the layers that users added.
    pub(crate) fn inner<'a, C: CoreRef<'a>>(&self, core: C) -> Inner<C> {
        match &self.layered {
            Some(layered) => Inner::Layered(layered.clone()),
            None => Inner::Plain(Dispatch::new(core)),
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

/// The connections over which signals are emitted, one for each shard, made when it is first needed. They own nothing, and nothing
/// comes over them.
struct Emitters(Box<[OnceLock<Link>]>);

impl Emitters {
    fn new(shards: usize) -> Self {
        Self((0..shards).map(|_| OnceLock::new()).collect())
    }

    fn get(&self, shard: usize, config: &Config, followed: ShardWatch) -> Result<&Link> {
        let place = self
            .0
            .get(shard)
            .ok_or_else(|| Error::invalid("shard index", shard, "there is no such shard"))?;
        if let Some(link) = place.get() {
            return Ok(link);
        }
        let buffer = Arc::new(Buffer::new(&SignalOptions::default()));
        let link = Link::start(config, shard, config.shard.keepalive, buffer, Some(followed))?;
        // If two begin at once, one of them is closed again.
        Ok(place.get_or_init(|| link))
    }

    /// Why a shard's is not connected, if it is not.
    fn last_error(&self, shard: usize) -> Option<Error> {
        let link = self.0.get(shard)?.get()?;
        link.health.borrow().last_error().cloned()
    }
}

/// Knows whether the shard of a request that was not answered is there.
pub(crate) struct Explainer {
    topology: Arc<Topology>,
    routes: Routes,
    emitters: Arc<Emitters>,
    /// No layer of the user's stands before the dispatch.
    is_direct: bool,
}

impl Explain for &Explainer {
    fn explain(&self, subject: &Subject, budget: Budget) -> Option<Error> {
        let by_strategy = |name: &str| self.routes.strategy.shard(name, self.routes.shards).ok();
        let index = match &subject.about {
            About::Key(key) => by_strategy(key.as_str())?,
            About::Channel(channel) => {
                let index = by_strategy(channel.as_str())?;
                let error = self.emitters.last_error(index)?;
                let place = self.topology.shards.get(index)?;
                return Some(unavailable(index, &place.endpoint(), &error));
            }
            About::Shard(shard) => *shard,
            About::All => return self.topology.shards.iter().find_map(shard_is_away),
        };
        let place = self.topology.shards.get(index)?;
        shard_is_away(place).or_else(|| no_room(place, subject.operation, budget))
    }

    fn is_direct(&self) -> bool {
        self.is_direct
    }
}

impl Explain for Arc<Explainer> {
    fn explain(&self, subject: &Subject, budget: Budget) -> Option<Error> {
        (&**self).explain(subject, budget)
    }

    fn is_direct(&self) -> bool {
        (&**self).is_direct()
    }
}

/// The shard is not connected, and why.
pub(super) fn shard_is_away(place: &ShardPlace) -> Option<Error> {
    let health = place.health.borrow();
    match &health.state {
        ConnectionState::Reconnecting { last_error, .. } => {
            Some(unavailable(place.index, &health.endpoint, last_error))
        }
        ConnectionState::Connecting => {
            let message = format!(
                "shard {} is not connected: the first attempt to connect is still under way",
                place.index
            );
            Some(Error::new(ErrorKind::Unavailable, message).at(&health.endpoint))
        }
        // What is shut down says so by itself.
        ConnectionState::Connected | ConnectionState::Closed => None,
    }
}

fn no_room(place: &ShardPlace, operation: Operation, budget: Budget) -> Option<Error> {
    let room = match operation {
        Operation::Enqueue | Operation::Collect => &place.waiting_room,
        _ => &place.room,
    };
    let full = room.available_permits() == 0;
    full.then(|| ready_too_late(budget).at(&place.endpoint()))
}

/// There was no room for a request in time.
pub(super) fn ready_too_late(budget: Budget) -> Error {
    let message = format!(
        "no room for another request within {budget}: the servers, or a layer of this client, do not keep up (see \
         max_in_flight)"
    );
    Error::new(ErrorKind::Unavailable, message).out_of(budget)
}
