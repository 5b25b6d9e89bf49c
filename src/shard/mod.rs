//! The state machine of one shard: its server, its connections, its holders and its waiters.
//!
//! The machine is pure. [`ShardMachine::handle`] takes one input and the current time, and returns effects
//! ([`Effect`]): open, send, close, answer a caller, publish the health. [`ShardMachine::next_due`] returns the time at
//! which the machine needs [`Input::Tick`]. The machine reads no clock, spawns nothing and makes no channel; it gets
//! its randomness from [`Setup`]. The only outside state that it reads is whether a caller still waits.
//!
//! | part | owns |
//! | --- | --- |
//! | [`connections`] | the connections, and the work of each |
//! | [`waits`] | waiting callers, and the server-side waits that serve them |
//! | [`positions`] | queue positions: those of tickets, and those that must be given up in their sessions |
//! | [`registry`] | leases: when each one is renewed, lost or released |
//! | [`confirming`] | grants that are being confirmed |
//! | [`unknown_tokens`] | tokens of grants that are checked when they arrive |
//! | [`releases`] | pending releases |
//! | [`repeats`] | tries that the server may have granted although no answer arrived |
//! | [`parked`] | requests that wait for a connection |
//! | [`wait_pace`] | how fast connections for waits open and close |
//! | [`shortage`] | why waits have no connection |
//! | [`serving`] | the server that serves, reconnecting, the takeover delay |
//! | [`shutdown`] | the shutdown |
//!
//! [`ShardMachine`] coordinates these parts. `intake` accepts requests. `answers` and `wait_answers` interpret answers.
//! `grants` gives grants to callers. `endings` handles requests whose connection ended before they were answered.
//! `connecting` opens connections. `leaders` and `standby` choose the server. `waiting` and `sessions` handle waits,
//! and `leases` handles leases.

// Large values stay in one box from the caller's task to the connection and back, so that each move copies one pointer.
#![allow(clippy::boxed_local, clippy::vec_box)]

pub(crate) mod acquire;
mod answers;
pub(crate) mod ask;
mod confirming;
mod connecting;
mod connection;
mod connections;
pub(crate) mod effect;
mod endings;
#[cfg(all(feature = "server", feature = "tls"))]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod grants;
pub(crate) mod held;
mod holdings;
pub(crate) mod ids;
pub(crate) mod input;
mod intake;
mod leaders;
mod leases;
mod metrics;
#[cfg(feature = "server")]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#[cfg(test)]
mod model;
mod numbers;
mod parked;
mod positions;
pub(crate) mod progress;
pub(crate) mod question;
pub(crate) mod registry;
mod releases;
mod repeat;
mod repeats;
pub(crate) mod request;
mod rules;
mod serving;
mod sessions;
mod shortage;
mod shutdown;
mod standby;
#[cfg(feature = "server")]
pub(crate) mod started;
mod unknown_tokens;
mod wait_answers;
mod wait_pace;
mod waiting;
mod waits;

use std::time::Duration;

use tokio::time::Instant;
use tracing::Span;

use self::confirming::Confirming;
use self::connections::Connections;
use self::effect::{Effect, Effects, Handover, Role, Turn};
use self::ids::LaneId;
use self::input::Input;
use self::metrics::{Population, ShardMetrics};
use self::parked::Parked;
use self::positions::QueuePositions;
use self::registry::{Batching, Registry};
use self::releases::Releases;
use self::repeats::Repeats;
use self::request::{Pending, Wait};
use self::serving::Serving;
use self::shortage::Shortage;
use self::shutdown::Closing;
use self::unknown_tokens::UnknownTokens;
use self::wait_pace::WaitPace;
use self::waits::Waits;
use crate::error::Error;
use crate::events::ShardEvents;
use crate::lease::metrics::LeaseMetrics;
use crate::lease::schedule::Schedule;
use crate::net::backoff::{Attempts, ReconnectPolicy};
use crate::net::endpoint::Endpoint;
use crate::net::failover::Failover;
use crate::net::fencing::{FenceEvidence, Fencing};
use crate::net::health::{ConnectionState, ShardHealth};
use crate::net::membership::SeenClusters;
use crate::net::reconnect::Reconnect;
use crate::net::takeover::TakeoverDelay;
use crate::protocol::StableRef;
use crate::shards::ShardPlan;
use crate::telemetry::sink::ShardSink;
use crate::types::Ttl;
use crate::unwind::catch;

/// The interval of the housekeeping, while there is something to clean up.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// The interval at which the shard removes the waits of callers that are gone, while any caller waits.
const CLEAN_WAITS: Duration = Duration::from_millis(400);

/// The maximum number of idle connections that are closed in one turn.
const CLOSED_TOGETHER: usize = 100;

/// Renewals that become due within this time of each other are sent together. This makes some renewals early, and none
/// late.
const RENEWAL_BATCHING: Batching = Batching {
    within: Duration::from_millis(10),
    most: 32,
};

/// The settings of a shard.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) schedule: Schedule,
    pub(crate) reconnect: ReconnectPolicy,
    /// Whether requests fail at once, instead of being kept, while the shard is disconnected.
    pub(crate) fail_fast: bool,
    /// The longest time for which the serving member may show no sign that it still leads, while callers wait.
    pub(crate) keepalive: Duration,
    pub(crate) server_read_timeout: Duration,
    pub(crate) survives_disconnect: bool,
    pub(crate) fencing: Fencing,
    pub(crate) pipelined: usize,
    pub(crate) exclusive: usize,
    pub(crate) exclusive_per_key: usize,
    pub(crate) idle_timeout: Duration,
    /// The TTL of requests whose callers set no TTL.
    pub(crate) lease_ttl: Option<Ttl>,
    /// The maximum number of times that the shard repeats an acquire or a question in a cluster, for example because
    /// the member that got it does not lead, or, for an acquire, because the connection was lost before the answer.
    pub(crate) max_redirects: u32,
}

/// The values from which a shard is created.
pub(crate) struct Setup {
    pub(crate) index: usize,
    pub(crate) plan: ShardPlan,
    pub(crate) settings: Settings,
    pub(crate) sink: ShardSink,
    /// The random source that spreads renewals.
    pub(crate) jitter: fastrand::Rng,
    /// Session names. No other client uses any of them.
    pub(crate) refs: Refs,
    /// The last health of the shard that this one replaces, or the initial health.
    pub(crate) health: ShardHealth,
    pub(crate) handover: Handover,
}

/// A source of session names, which returns each name once.
#[derive(Debug)]
pub(crate) struct Refs {
    prefix: StableRef,
    given: u64,
}

impl Refs {
    /// Creates a source of names that begin with `prefix`: at most 32 characters, used by no other client.
    pub(crate) fn new(prefix: StableRef) -> Self {
        Self { prefix, given: 0 }
    }

    fn next(&mut self) -> StableRef {
        self.given += 1;
        let name = format!("{}-{}", self.prefix.expose(), self.given);
        // The name has at most 53 printable characters, so it is always valid.
        StableRef::new(name).unwrap_or_else(|_| self.prefix.clone())
    }
}

/// The state of a shard.
pub(crate) struct ShardMachine {
    index: usize,
    settings: Settings,
    /// How long the cluster keeps the leases and queue positions of a connection that ended, if that is configured.
    orphan_ttl: Option<Duration>,
    /// The configured name that pipelined connections present. Without one, each connection presents a new name.
    stable_ref: Option<StableRef>,
    refs: Refs,
    serving: Serving,
    connections: Connections,
    leases: Registry,
    releases: Releases,
    confirming: Confirming,
    unknown_tokens: UnknownTokens,
    repeats: Repeats,
    waits: Waits<Wait>,
    /// When a connection may next be opened for a wait, or a key is next tried.
    waits_due_at: Option<Instant>,
    /// When the serving member last gave an answer that only a leader gives.
    led_at: Instant,
    /// When the shard next removes callers that are gone, and gives up queue positions that no caller wants.
    clean_waits_at: Option<Instant>,
    wait_pace: WaitPace,
    shortage: Shortage,
    /// Whether the server refused the last waiter, because its limit on waiters is reached.
    waiters_refused: bool,
    /// The server's default TTL, once a grant has shown it.
    default_ttl: Option<Ttl>,
    positions: QueuePositions,
    parked: Parked,
    /// Whether the server supports `ping`, if that is known.
    knows_ping: Option<bool>,
    /// The pauses between attempts to open additional pipelined connections.
    further_attempts: Attempts,
    /// When the shard next closes idle connections, and ends releases of leases whose TTL has passed.
    housekeeping_at: Option<Instant>,
    /// The evidence about whether the tokens of the serving server carry fences.
    fences: FenceEvidence,
    /// The cluster that the last leader has described.
    clusters: SeenClusters,
    closing: Option<Closing>,
    over: bool,
    metrics: ShardMetrics,
    events: ShardEvents,
    /// A span that is open while no pipelined connection is up. It begins when the last such connection is lost, or
    /// when the first attempt fails.
    away: Option<Span>,
}

impl ShardMachine {
    /// Creates a shard and begins to connect.
    pub(crate) fn new(setup: Setup, now: Instant, effects: &mut Effects) -> Self {
        let Setup {
            index,
            plan,
            settings,
            sink,
            mut jitter,
            refs,
            health,
            handover,
        } = setup;
        let metrics = ShardMetrics::new(sink.clone(), &plan.endpoints, plan.admission.is_empty());
        let (orphan_ttl, stable_ref) = (plan.orphan_ttl, plan.stable_ref);
        let failover =
            Failover::new(plan.policy, plan.endpoints, &health.endpoint).admitting(plan.admission, &health.endpoint);
        let is_cluster = failover.is_cluster();
        let ttl = settings.lease_ttl.unwrap_or(Ttl::DEFAULT).as_duration();
        let mut takeover = TakeoverDelay::new(plan.takeover_delay, ttl, now);
        takeover.note_ttl(handover.longest_ttl);
        let reconnect = Reconnect::new(index, failover, settings.reconnect.clone(), settings.fail_fast, &health);
        let mut shard = Self {
            index,
            orphan_ttl,
            stable_ref,
            refs,
            wait_pace: WaitPace::new(reconnect.pauses(), now),
            further_attempts: reconnect.pauses(),
            serving: Serving::new(reconnect, takeover, handover.hold_back.unwrap_or(now)),
            connections: Connections::new(settings.pipelined),
            waits: Waits::new(settings.exclusive_per_key, jitter.u64(..)),
            waits_due_at: None,
            led_at: now,
            clean_waits_at: None,
            shortage: Shortage::default(),
            waiters_refused: false,
            default_ttl: None,
            leases: Registry::new(settings.schedule, jitter, LeaseMetrics::new(&sink), now)
                .remembering_tokens(is_cluster),
            releases: Releases::new(is_cluster),
            confirming: Confirming::default(),
            unknown_tokens: UnknownTokens::default(),
            repeats: Repeats::default(),
            positions: QueuePositions::default(),
            parked: Parked::new(),
            knows_ping: None,
            housekeeping_at: None,
            fences: FenceEvidence::default(),
            clusters: SeenClusters::default(),
            closing: None,
            over: false,
            metrics,
            events: ShardEvents::default(),
            away: None,
            settings,
        };
        let turn = &mut Turn { now, effects };
        shard.set_health(ConnectionState::Connecting, turn);
        shard.open_first(shard.serving.held_back_for(now), turn);
        shard
    }

    /// Returns this shard, which now reports events through `events`.
    pub(crate) fn with_events(mut self, events: ShardEvents) -> Self {
        self.leases.tell(events.clone());
        self.events = events;
        self
    }

    /// Notes the total time for which the computer has been suspended. Renewals and deadlines that fell into a suspend
    /// become due now.
    pub(crate) fn note_suspended(&mut self, suspended: Duration, now: Instant) {
        self.leases.note_suspended(suspended, now);
    }

    /// Whether there are leases whose expiry the shard must notice.
    pub(crate) fn keeps_leases(&self) -> bool {
        self.leases.next_due().is_some()
    }

    /// Handles one input and appends the resulting effects to `effects`.
    pub(crate) fn handle(&mut self, input: Input, now: Instant, effects: &mut Effects) {
        if self.over {
            // Dropping the input closes the caller's channel, so the caller learns that the shard is gone.
            return;
        }
        let turn = &mut Turn { now, effects };
        match input {
            Input::Acquire(acquire, patience) => self.acquire(acquire, patience, turn),
            Input::Collect(ticket, until, ask) => self.collect(ticket, until, ask, turn),
            Input::GiveUp(ticket) => self.give_up(ticket, turn),
            Input::Ask(question) => self.submit(Pending::Ask(question), turn),
            Input::Failback(ask) => self.failback(ask, turn),
            Input::FirstProbed(outcome, ask) => self.first_was_probed(outcome, ask, turn),
            Input::Release { id, reply } => self.release(id, reply, turn),
            Input::RenewFor { id, hold } => self.leases.renew_for(id, hold, now),
            Input::Lane(lane, event) => self.lane_event(lane, event, turn),
            Input::Tick => self.tick(turn),
            Input::Shutdown(shutdown) => self.shut_down(shutdown, turn),
            Input::CheckLease(token) => self.check_lease(token, turn),
            #[cfg(test)]
            #[allow(clippy::panic)]
            Input::Die => panic!("told to die"),
        }
        self.start_waits(turn);
        if self.clean_waits_at.is_none() && !self.waits.is_empty() {
            self.clean_waits_at = Some(now + CLEAN_WAITS);
        }
        self.end_if_done(turn);
    }

    /// Returns when the machine needs the next [`Input::Tick`].
    pub(crate) fn next_due(&self) -> Option<Instant> {
        [
            self.leases.next_due(),
            self.housekeeping_at,
            self.closing.as_ref().map(Closing::until),
            self.clean_waits_at,
            self.waits_due_at,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Ends the shard without a shutdown, and tells holders that their leases are lost.
    pub(crate) fn abandon(&mut self, now: Instant) {
        let lost = self.leases.abandon(now);
        if lost.is_empty() {
            return;
        }
        drop(catch(|| {
            tracing::warn!(
                shard = self.index,
                endpoint = %self.endpoint(),
                leases = lost.count(),
                keys = %lost,
                "leases lost: the shard's actor ended"
            );
        }));
    }

    /// Publishes the current numbers of connections, waits and requests as gauges.
    pub(crate) fn show(&mut self) {
        if self.metrics.is_recorded() {
            self.metrics.show(&Population {
                served_by: self
                    .connections
                    .is_serving()
                    .then(|| self.serving.reconnect.endpoint().shared_text()),
                connections: Role::ALL.map(|role| self.connections.count(role)),
                waiting_here: self.waits.local(),
                waiting_on_server: self.waits.at_server(),
                queued: self.parked.len() + self.releases.pending(),
            });
        }
    }

    /// Returns the number of unanswered requests on the pipelined connections.
    pub(crate) fn in_flight(&self) -> usize {
        self.connections.in_flight_pipelined()
    }

    /// Returns the endpoint with this index.
    pub(crate) fn endpoint_at(&self, index: usize) -> &Endpoint {
        self.serving.failover().endpoint(index)
    }

    fn tick(&mut self, turn: &mut Turn<'_>) {
        let due = self
            .leases
            .tick(turn.now, RENEWAL_BATCHING, self.connections.is_serving());
        if !due.expired.is_empty() {
            tracing::warn!(
                shard = self.index,
                endpoint = %self.endpoint(),
                leases = due.expired.count(),
                keys = %due.expired,
                "leases expired"
            );
        }
        self.renew_all(due.renew, turn);
        self.clean_up(turn);
        self.clean_waits(turn);
    }

    /// Removes callers that are gone, and gives up queue positions that no caller wants.
    fn clean_waits(&mut self, turn: &mut Turn<'_>) {
        if self.clean_waits_at.is_some_and(|when| when <= turn.now) {
            self.clean_waits_at = None;
            self.waits.clean(turn.now);
            self.give_up_unclaimed(turn);
            self.look_for_the_leader(turn);
        }
    }

    /// Schedules the housekeeping, unless it is scheduled already.
    fn schedule_housekeeping(&mut self, turn: &Turn<'_>) {
        if self.housekeeping_at.is_none() {
            self.housekeeping_at = Some(turn.now + HOUSEKEEPING);
        }
    }

    /// Closes idle connections, and ends releases of leases whose TTL has passed.
    fn clean_up(&mut self, turn: &mut Turn<'_>) {
        if self.housekeeping_at.is_none_or(|when| when > turn.now) {
            return;
        }
        self.housekeeping_at = None;
        let idle_left = match turn.now.checked_sub(self.settings.idle_timeout) {
            Some(before) => self.connections.close_idle(before, CLOSED_TOGETHER, turn),
            None => true,
        };
        self.end_overdue_releases(turn);
        let kept_left = self.finish_without_held_leases(turn);
        if idle_left || kept_left || self.releases.pending() > 0 {
            self.schedule_housekeeping(turn);
        }
    }

    /// Finishes retired connections whose leases are all lost. Returns whether other retired connections remain.
    fn finish_without_held_leases(&mut self, turn: &mut Turn<'_>) -> bool {
        let mut left = false;
        for (id, owns) in self.connections.kept_for_leases() {
            match owns > self.leases.lost_of(id) {
                true => left = true,
                false => self.connections.finish(id, turn),
            }
        }
        left
    }

    fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Returns the endpoint that serves, or that the shard tries to reach.
    fn endpoint(&self) -> &Endpoint {
        self.serving.reconnect.endpoint()
    }

    /// Returns the endpoint of a connection.
    fn endpoint_of(&self, lane: LaneId) -> &Endpoint {
        match self.connections.get(lane) {
            Some(connection) => self.endpoint_at(connection.endpoint),
            None => self.endpoint(),
        }
    }

    /// Adds the endpoint of a connection to an error that its server reported.
    fn at_lane(&self, lane: LaneId, error: Error) -> Error {
        error.at(self.endpoint_of(lane).shared_text())
    }

    fn at_endpoint(&self, error: Error) -> Error {
        error.at(self.endpoint().shared_text())
    }

    /// Publishes the health. Once a shutdown has begun, the published state is always `Closed`, so that callers whose
    /// requests end with their connections learn the reason.
    fn set_health(&self, state: ConnectionState, turn: &mut Turn<'_>) {
        let state = match self.is_closing() {
            true => ConnectionState::Closed,
            false => state,
        };
        let health = self.serving.reconnect.health(state, turn.now);
        turn.push(Effect::Publish(health));
    }

    fn hand_over(&self, handover: Option<Handover>, turn: &mut Turn<'_>) {
        if let Some(handover) = handover {
            turn.push(Effect::HandOver(handover));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod bench;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod cluster_tests;
#[cfg(feature = "__measure")]
#[allow(clippy::unwrap_used, clippy::panic)]
pub(crate) mod measure;
#[cfg(any(test, feature = "__measure"))]
#[allow(clippy::unwrap_used)]
mod sample;
#[cfg(test)]
mod tests;
