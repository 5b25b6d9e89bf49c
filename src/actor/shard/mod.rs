//! The actor of one shard. It owns the shard's connections, its reconnecting, its waits and its leases; nobody else
//! touches them, so nothing here is locked.
//!
//! It never waits for anything: each message is handled to its end at once, connections report by message, and what is
//! due later comes as a tick. So a server that is slow, or gone, costs the callers of this shard alone, and no lease's
//! deadline is ever late because of a request.

mod adoption;
mod aside;
mod clock;
mod closing;
mod connections;
mod exclusive;
mod intake;
mod leader;
mod legacy;
mod releases;
mod renewals;
mod replies;
mod sessions;
mod standby;
mod tickets;

use std::collections::VecDeque;
use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::Span;

use self::aside::Aside;
use self::closing::Closing;
pub(crate) use self::legacy::Will;
pub(crate) use self::tickets::TicketId;
use self::tickets::Tickets;
use crate::actor::lanes::{Lanes, Role};
use crate::actor::message::{Pending, Releasing, ShardMessage};
use crate::actor::metrics::{Population, ShardMetrics};
use crate::actor::waits::WaitQueue;
use crate::config::ShardConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::health::{ConnectionState, ShardHealth};
use crate::lease::metrics::LeaseMetrics;
use crate::lease::registry::{LaneId, Registry};
use crate::net::backoff::Attempts;
use crate::net::endpoint::Endpoint;
use crate::net::failover::{Failover, FailoverReason, Guard};
use crate::net::membership::SeenClusters;
use crate::net::metrics::LaneMetrics;
use crate::shards::ShardPlan;
use crate::telemetry::sink::ShardSink;
use crate::types::Ttl;

/// What a shard's actor is made of.
#[derive(Clone)]
pub(crate) struct ShardArguments {
    pub(crate) index: usize,
    pub(crate) plan: ShardPlan,
    pub(crate) config: ShardConfig,
    pub(crate) health: watch::Sender<ShardHealth>,
    pub(crate) sink: ShardSink,
    /// Shared with the actors before and after.
    pub(crate) will: Will,
}

/// The behaviour; the state is [`Shard`].
pub(crate) struct ShardActor;

/// The state of a shard.
pub(crate) struct Shard {
    myself: ActorRef<ShardMessage>,
    index: usize,
    failover: Failover,
    guard: Guard,
    will: Will,
    /// How often another endpoint took over, and why the last time.
    failovers: u64,
    last_failover: Option<FailoverReason>,
    config: ShardConfig,
    health: watch::Sender<ShardHealth>,
    lanes: Lanes,
    lane_metrics: LaneMetrics,
    /// The pipelined connection: the one that is up, or the one that is being established.
    main: LaneId,
    main_is_up: bool,
    /// Since when it is up.
    main_since: Instant,
    aside: Aside,
    /// What the members that led said of their clusters.
    clusters: SeenClusters,
    attempts: Attempts,
    /// Why the last attempt failed, or the connection was lost; while it is not up.
    last_error: Option<Error>,
    /// The last attempt at each of the endpoints failed for a reason that waiting does not cure.
    hopeless: bool,
    /// So many attempts in a row failed for such a reason.
    hopeless_in_a_row: usize,
    registry: Registry,
    waits: WaitQueue<Pending>,
    tickets: Tickets,
    /// Requests that wait for the pipelined connection.
    parked: VecDeque<Pending>,
    /// The length at which parked requests whose callers are gone are thrown out.
    clean_parked_at: usize,
    /// Releases that wait for the pipelined connection.
    owed: Vec<Releasing>,
    /// Releases that are owed or in flight.
    releasing: usize,
    /// Attempts to open exclusive connections that failed in a row.
    exclusive_attempts: Attempts,
    /// No pipelined connection is opened before that.
    hold_back: Instant,
    /// No exclusive connection is opened before that.
    exclusive_not_before: Instant,
    /// When to look through what is kept: idle connections, releases that are owed.
    housekeeping_at: Option<Instant>,
    /// The tick that is under way.
    timer: Option<(Instant, AbortOnDropHandle<()>)>,
    closing: Option<Closing>,
    metrics: ShardMetrics,
    /// It was connected at least once.
    was_connected: bool,
    /// Open from the loss of the pipelined connection, or the first failed attempt, until there is one.
    away: Option<Span>,
}

impl Actor for ShardActor {
    type Msg = ShardMessage;
    type State = Shard;
    type Arguments = ShardArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<ShardMessage>,
        arguments: ShardArguments,
    ) -> Result<Shard, ActorProcessingErr> {
        Ok(Shard::start(myself, arguments))
    }

    async fn handle(
        &self,
        _myself: ActorRef<ShardMessage>,
        message: ShardMessage,
        shard: &mut Shard,
    ) -> Result<(), ActorProcessingErr> {
        shard.handle(message);
        Ok(())
    }
}

impl Shard {
    fn start(myself: ActorRef<ShardMessage>, arguments: ShardArguments) -> Self {
        let ShardArguments {
            index,
            plan,
            config,
            health,
            sink,
            will,
        } = arguments;
        // An actor that takes the place of one that died goes on where that one was.
        let at = Arc::clone(&health.borrow().endpoint);
        let (failovers, last_failover) = (health.borrow().failovers, health.borrow().last_failover);
        let metrics = ShardMetrics::new(sink.clone(), &plan.endpoints);
        let failover = Failover::new(plan.policy, plan.endpoints, &at);
        let ttl = config.lease_ttl.unwrap_or(Ttl::DEFAULT).as_duration();
        let (now, legacy) = (Instant::now(), *will.borrow());
        let mut guard = Guard::new(plan.takeover_delay, ttl, now);
        guard.saw(legacy.longest_ttl);
        let hold_back = legacy.hold_back.unwrap_or(now);
        let mut shard = Self {
            myself,
            index,
            failover,
            guard,
            will,
            failovers,
            last_failover,
            lanes: Lanes::new(),
            lane_metrics: LaneMetrics::new(&sink),
            main: 0,
            main_is_up: false,
            main_since: Instant::now(),
            aside: Aside::default(),
            clusters: SeenClusters::default(),
            attempts: config.reconnect.start(),
            last_error: None,
            hopeless: false,
            hopeless_in_a_row: 0,
            registry: Registry::new(config.schedule, LeaseMetrics::new(&sink)),
            waits: WaitQueue::new(config.exclusive_lanes_per_key),
            tickets: Tickets::default(),
            parked: VecDeque::new(),
            clean_parked_at: intake::CLEAN_AT_LEAST,
            owed: Vec::new(),
            releasing: 0,
            exclusive_attempts: config.reconnect.start(),
            hold_back,
            exclusive_not_before: Instant::now(),
            housekeeping_at: None,
            timer: None,
            closing: None,
            metrics,
            was_connected: false,
            away: None,
            health,
            config,
        };
        shard.set_health(ConnectionState::Connecting);
        shard.open_main(hold_back.saturating_duration_since(now));
        shard
    }

    fn handle(&mut self, message: ShardMessage) {
        match message {
            ShardMessage::Acquire(acquire, patience) => self.acquire(acquire, patience),
            ShardMessage::Collect(ticket, until, ask) => self.collect(ticket, until, ask),
            ShardMessage::GiveUp(ticket) => self.give_up(ticket),
            ShardMessage::Stats(ask) => self.submit(Pending::Stats(ask)),
            ShardMessage::Barrier(ask) => self.submit(Pending::Barrier(ask, 0)),
            ShardMessage::Failback(ask) => self.failback(ask),
            ShardMessage::FirstIsThere(outcome, ask) => self.first_is_there(outcome, ask),
            ShardMessage::Release { id, told } => self.release(id, told),
            ShardMessage::Lane(lane, event) => self.lane_event(lane, event),
            ShardMessage::Tick => self.tick(),
            ShardMessage::Shutdown(shutdown) => self.shut_down(shutdown),
            #[cfg(test)]
            #[allow(clippy::panic)]
            ShardMessage::Die => panic!("told to die"),
        }
        self.arm_timer();
        self.show();
        self.end_if_done();
    }

    /// Publishes how many there are of everything that is counted.
    fn show(&mut self) {
        if self.metrics.is_recorded() {
            self.metrics.show(&Population {
                served_by: self.main_is_up.then(|| self.failover.at()),
                connections: Role::ALL.map(|role| self.lanes.count(role)),
                waiting_here: self.waits.queued(),
                waiting_on_server: self.waits.running(),
                queued: self.parked.len() + self.owed.len(),
            });
        }
    }

    /// The endpoint that serves, or is tried.
    fn endpoint(&self) -> &Endpoint {
        self.failover.current()
    }

    /// The endpoint that a connection leads to.
    fn endpoint_of(&self, lane: LaneId) -> &Endpoint {
        match self.lanes.endpoint(lane) {
            Some(index) => self.failover.endpoint(index),
            None => self.endpoint(),
        }
    }

    /// Once the shutdown has begun nothing else is told: whoever's request ends with its connection then shall know why.
    fn set_health(&self, state: ConnectionState) {
        let state = match self.is_closing() {
            true => ConnectionState::Closed,
            false => state,
        };
        self.health.send_replace(ShardHealth {
            shard: self.index,
            endpoint: Arc::clone(self.endpoint().as_text()),
            failovers: self.failovers,
            last_failover: self.last_failover,
            state,
            since: Instant::now(),
        });
    }
}

/// The shard cannot be reached, and why.
pub(crate) fn unavailable(index: usize, endpoint: &Arc<str>, cause: &Error) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("shard {index} is not connected: {}", cause.message()),
    )
    .caused_by(cause.clone())
    .at(endpoint)
}
