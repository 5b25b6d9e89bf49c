//! The state that all clones of a client and all its leases share and keep alive.

use std::borrow::Borrow;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use metrics::Gauge;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::metrics::RequestMetrics;
use super::request::Operation;
use super::routes::Routes;
use super::timeout::{Explain, RequestSummary, Scope};
use super::user_layer::ClientService;
use crate::actor::router::{self, RouterRef};
use crate::actor::topology::{ShardPlace, Topology};
use crate::config::Config;
use crate::ending::{Ending, shut_down};
use crate::error::{Budget, Error, ErrorKind, Result};
use crate::net::health::ConnectionState;
use crate::net::reconnect::unavailable;
use crate::shard::input::{Input, Shutdown, ShutdownReport};
use crate::signal::{Buffer, Family, Link, SignalOptions};
use crate::telemetry::catalog;
use crate::telemetry::level::Level;
use crate::telemetry::sink::Sink;
use crate::unwind::catch;

/// The shared state of a client.
///
/// The users' layers are between a client and its dispatch. They are created once and stored here. The dispatch inside
/// these layers has only a weak reference to this value; a strong one would be a cycle.
pub(crate) struct Core {
    pub(crate) topology: Arc<Topology>,
    pub(crate) config: Config,
    pub(crate) routes: Arc<Routes>,
    /// The metrics of requests, if there is a recorder.
    pub(crate) metrics: Option<Arc<RequestMetrics>>,
    pub(crate) explainer: Arc<Explainer>,
    /// The client's signal connections.
    pub(crate) signals: Family,
    emitters: Arc<Emitters>,
    ending: Ending,
    /// Closes the client when it is dropped, which happens after its last use.
    router: RouterRef,
    /// The dispatch inside the users' layers, if there are any.
    pub(super) layered: Option<ClientService>,
    /// Gauges that exist for as long as the client lives.
    _shown: [Level; 2],
}

impl Core {
    /// Starts a client. `wrap` puts the users' layers, if there are any, around the dispatch to this core.
    pub(super) fn start(
        config: Config,
        is_direct: bool,
        wrap: impl FnOnce(Weak<Self>) -> Option<ClientService>,
    ) -> Result<Arc<Self>> {
        let runtime = crate::runtime::current("a client", config.shard.connection.opens_sockets())?;
        let routes = Routes {
            placement: config.placement.clone(),
            shards: config.shards.len(),
            client: config.name.clone(),
        };
        // Before the client starts anything: the recorder is user code and may panic.
        let (shown, metrics) = catch(|| measure(&config, &routes)).map_err(|panic| {
            Error::new(
                ErrorKind::InvalidInput,
                format!("the metrics recorder cannot be used: it panicked: {panic}"),
            )
        })?;
        log_transition(&config);
        let ending = Ending::default();
        let (router, topology) = router::start(&config, &ending)?;
        let shards = topology.shards.iter().map(|shard| shard.health.clone()).collect();
        let signals = Family::new(runtime, shards, ending.clone());
        let emitters = Arc::new(Emitters::new(routes.shards));
        let explainer = Explainer {
            topology: Arc::clone(&topology),
            routes: routes.clone(),
            emitters: Arc::clone(&emitters),
            is_direct,
        };
        Ok(Arc::new_cyclic(|core| Self {
            topology,
            routes: Arc::new(routes),
            metrics: metrics.map(Arc::new),
            explainer: Arc::new(explainer),
            signals,
            emitters,
            ending,
            router,
            layered: wrap(core.clone()),
            _shown: shown,
            config,
        }))
    }

    /// Returns the connection over which a shard's signals are emitted.
    pub(super) fn emitter(&self, shard: usize) -> Result<Arc<Link>> {
        self.emitters.get(shard, &self.config, &self.signals)
    }

    /// Shuts the client down: nothing starts after this. Returns the shards' reports, and a future that completes when
    /// the signal connections are closed. Dropping them does not stop the shutdown.
    pub(crate) fn shut_down(
        &self,
        until: Instant,
    ) -> (Vec<oneshot::Receiver<ShutdownReport>>, impl Future<Output = ()> + use<>) {
        // Must be first: the router would restart a shard that ends before this.
        self.ending.begin(shut_down());
        let mut reports = Vec::new();
        for shard in &self.topology.shards {
            let (reply, report) = oneshot::channel();
            let reply = Some(reply);
            // A shard that has ended holds no leases.
            if shard.tell(Input::Shutdown(Shutdown { until, reply })).is_ok() {
                reports.push(report);
            }
        }
        // The router closes the shards whose actors have died.
        self.router.close(until);
        (reports, self.signals.close(&shut_down()))
    }

    /// Returns whether users' layers are around the dispatch.
    pub(crate) fn has_layers(&self) -> bool {
        self.layered.is_some()
    }
}

/// The access of a dispatch to its core. A single call borrows the core. A long-lived dispatch has a weak reference,
/// because it may be part of the core's own layers.
pub(crate) trait CoreRef<'a>: Clone {
    /// A reference that keeps the core alive while a request is under way.
    type Held: Borrow<Arc<Core>> + Clone + Send + Unpin + 'a;

    /// Returns the core, or `None` if all its users were dropped.
    fn hold(&self) -> Option<Self::Held>;
}

impl<'a> CoreRef<'a> for &'a Arc<Core> {
    type Held = Self;

    fn hold(&self) -> Option<Self> {
        Some(self)
    }
}

impl CoreRef<'static> for Weak<Core> {
    type Held = Arc<Core>;

    fn hold(&self) -> Option<Arc<Core>> {
        self.upgrade()
    }
}

/// Returns the error for a layer that kept its service after all users of the client were dropped.
pub(super) fn client_is_gone() -> Error {
    Error::new(ErrorKind::Shutdown, "the client is gone: all its handles were dropped")
}

/// Describes all metrics to the recorder. Returns the gauges of the client, and the metrics of requests if there is a
/// recorder.
fn measure(config: &Config, routes: &Routes) -> ([Level; 2], Option<RequestMetrics>) {
    config.sink.describe_all();
    let lists = config.placement.fingerprint();
    let labels: Vec<_> = lists.clone().map(|lists| ("lists", lists.into())).into_iter().collect();
    let mut transitions = Level::new(config.sink.gauge(&catalog::TRANSITIONS, &labels));
    transitions.show(usize::from(lists.is_some()));
    let build_info = build_info(&config.sink);
    let is_recorded = build_info.is_recorded();
    let metrics = is_recorded.then(|| RequestMetrics::new(&config.sink, routes.clone(), config.key_class.clone()));
    ([build_info, transitions], metrics)
}

/// Logs that keys move.
fn log_transition(config: &Config) {
    let (Some(previous), Some(lists)) = (config.placement.previous_shards(), config.placement.fingerprint()) else {
        return;
    };
    let shards = config.placement.current_shards();
    // The log subscriber is user code and may panic.
    drop(catch(|| {
        tracing::info!(
            shards,
            previous,
            lists,
            "keys that move are acquired on both of their shards"
        )
    }));
}

fn build_info(sink: &Sink) -> Level {
    let gauge: Gauge = sink.gauge(&catalog::BUILD_INFO, &[("version", crate::VERSION.into())]);
    let mut level = Level::new(gauge);
    level.show(1);
    level
}

/// The connections over which signals are emitted, one per shard. Each connection is created on demand, and again after
/// it has ended. They have no subscriptions and receive no signals.
struct Emitters(Box<[Mutex<Option<Arc<Link>>>]>);

impl Emitters {
    fn new(shards: usize) -> Self {
        Self((0..shards).map(|_| Mutex::default()).collect())
    }

    fn get(&self, shard: usize, config: &Config, family: &Family) -> Result<Arc<Link>> {
        let place = self
            .0
            .get(shard)
            .ok_or_else(|| Error::invalid("shard index", shard, "there is no such shard"))?;
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = place.as_ref().filter(|link| !link.is_closed()) {
            return Ok(Arc::clone(link));
        }
        let buffer = Arc::new(Buffer::new(&SignalOptions::default()));
        let link = Link::start(config, shard, config.shard.connection.keepalive, buffer, Some(family))?;
        Ok(Arc::clone(place.insert(Arc::new(link))))
    }

    /// Returns the last error of a shard's connection if it is not connected.
    fn last_error(&self, shard: usize) -> Option<Error> {
        let place = self.0.get(shard)?.lock().unwrap_or_else(PoisonError::into_inner);
        let health = place.as_ref()?.health.borrow();
        health.last_error().cloned()
    }
}

/// Knows the shards of requests, and explains why a request got no answer.
pub(crate) struct Explainer {
    pub(super) topology: Arc<Topology>,
    pub(super) routes: Routes,
    emitters: Arc<Emitters>,
    /// Whether there are no users' layers in front of the dispatch.
    is_direct: bool,
}

impl Explain for &Explainer {
    fn explain(&self, subject: &RequestSummary, budget: Budget) -> Option<Error> {
        let index = match &subject.about {
            Scope::Key(key) => {
                let route = self.topology.route(key).ok()?;
                let places = route.previous.into_iter().chain([route.place]);
                let error_if_full = |place: &ShardPlace| error_if_full(place, subject.operation, budget);
                return places
                    .clone()
                    .find_map(error_if_away)
                    .or_else(|| places.clone().find_map(error_if_full));
            }
            Scope::Channel(channel) => {
                let index = self.routes.placement.emits_at(channel.as_str()).ok()?;
                let error = self.emitters.last_error(index)?;
                let place = self.topology.shards.get(index)?;
                return Some(unavailable(index, &place.endpoint(), &error));
            }
            Scope::Shard(shard) => *shard,
            Scope::All => return self.topology.shards.iter().find_map(error_if_away),
        };
        let place = self.topology.shards.get(index)?;
        error_if_away(place).or_else(|| error_if_full(place, subject.operation, budget))
    }

    fn is_direct(&self) -> bool {
        self.is_direct
    }
}

impl Explain for Arc<Explainer> {
    fn explain(&self, subject: &RequestSummary, budget: Budget) -> Option<Error> {
        (&**self).explain(subject, budget)
    }

    fn is_direct(&self) -> bool {
        (&**self).is_direct()
    }
}

/// Returns the error of a shard that is not connected or is closed; `None` if it is connected.
pub(super) fn error_if_away(place: &ShardPlace) -> Option<Error> {
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
        ConnectionState::Closed => health.closed_because().cloned(),
        ConnectionState::Connected => None,
    }
}

fn error_if_full(place: &ShardPlace, operation: Operation, budget: Budget) -> Option<Error> {
    let room = match operation {
        Operation::Enqueue => &place.waiting_room,
        Operation::Collect => &place.ticket_room,
        _ => &place.room,
    };
    let full = room.available_permits() == 0;
    full.then(|| ready_too_late(budget).at(&place.endpoint()))
}

/// Returns the error of a request for which there was no room in time.
pub(super) fn ready_too_late(budget: Budget) -> Error {
    let message = format!(
        "no room for another request within {budget}: the servers, or a layer of this client, do not keep up (see \
         max_in_flight)"
    );
    Error::new(ErrorKind::Unavailable, message).out_of(budget)
}
