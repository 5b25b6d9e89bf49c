//! One shard: which server serves it, over which connections, who holds and who waits.
//!
//! A pure state machine. [`ShardMachine::handle`] takes one input and the time, and says what is to be done ([`Effect`]): open, send,
//! close, answer a caller, publish the health. [`ShardMachine::next_due`] says when it wants to be told [`Input::Tick`]. It reads no
//! clock, spawns nothing, and makes no channel; randomness comes in with [`Setup`]. What is asked of a caller is whether it
//! still waits.
//!
//! | part | owns |
//! | --- | --- |
//! | [`connections`] | the connections and what each is doing |
//! | [`waits`] | callers that wait, and what waits for them on the server |
//! | [`places`] | tickets, and places that are being taken back |
//! | [`registry`] | leases: when each is renewed, lost, released |
//! | [`confirming`] | grants that are being confirmed |
//! | [`releases`] | releases under way |
//! | [`repeats`] | tries that may have been carried out unheard |
//! | [`parked`] | requests that wait for a connection |
//! | [`wait_pace`] | how fast connections for waits are opened and closed |
//! | [`shortage`] | why waits have no connection |
//! | [`serving`] | which server serves, reconnecting, the takeover delay |
//! | [`shutdown`] | the end |
//!
//! This type coordinates them: `intake` takes requests in, `answers` and `wait_answers` say what answers mean, `grants` gives callers what was granted, `endings` what becomes of
//! requests that get none, `connecting` opens connections, `leaders` and `standby` follow servers, `waiting` and `sessions` see to waits, `leases` to leases.

// What is large is passed on in its box, from the caller's task to the connection and back: so what moves is small.
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
mod places;
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
use self::places::Places;
use self::registry::{Registry, Together};
use self::releases::Releases;
use self::repeats::Repeats;
use self::request::{Pending, Wait};
use self::serving::Serving;
use self::shortage::Shortage;
use self::shutdown::Closing;
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

/// How often what is kept is looked through, while there is something.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// How often callers that are gone are looked for, while any wait.
const CLEAN_WAITS: Duration = Duration::from_millis(400);

/// The most idle connections that are closed together.
const CLOSED_TOGETHER: usize = 100;

/// Renewals that are due within this time of each other leave together: a little early, never late.
const TOGETHER: Together = Together {
    within: Duration::from_millis(10),
    most: 32,
};

/// What a shard is set up with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) schedule: Schedule,
    pub(crate) reconnect: ReconnectPolicy,
    /// Whether requests are refused rather than kept while the shard is away.
    pub(crate) fail_fast: bool,
    /// For how long the member that serves need not have shown that it leads, while callers wait there.
    pub(crate) keepalive: Duration,
    pub(crate) server_read_timeout: Duration,
    pub(crate) survives_disconnect: bool,
    pub(crate) fencing: Fencing,
    pub(crate) pipelined: usize,
    pub(crate) exclusive: usize,
    pub(crate) exclusive_per_key: usize,
    pub(crate) idle_timeout: Duration,
    /// What callers ask for who ask for no TTL of their own.
    pub(crate) lease_ttl: Option<Ttl>,
    /// How often a request that was refused by a member that does not lead is asked again.
    pub(crate) max_redirects: u32,
}

/// What a shard begins with.
pub(crate) struct Setup {
    pub(crate) index: usize,
    pub(crate) plan: ShardPlan,
    pub(crate) settings: Settings,
    pub(crate) sink: ShardSink,
    /// Spreads renewals.
    pub(crate) jitter: fastrand::Rng,
    /// Names sessions: no other client has any of these.
    pub(crate) refs: Refs,
    /// The health and what was handed over by the shard whose place this one takes; those of a new one otherwise.
    pub(crate) health: ShardHealth,
    pub(crate) handover: Handover,
}

/// Names for sessions, each used once.
#[derive(Debug)]
pub(crate) struct Refs {
    prefix: StableRef,
    given: u64,
}

impl Refs {
    /// Names that begin with `prefix`, of 32 characters at most, which no other client has.
    pub(crate) fn new(prefix: StableRef) -> Self {
        Self { prefix, given: 0 }
    }

    fn next(&mut self) -> StableRef {
        self.given += 1;
        let name = format!("{}-{}", self.prefix.expose(), self.given);
        // 53 printable characters at most: always valid.
        StableRef::new(name).unwrap_or_else(|_| self.prefix.clone())
    }
}

/// The state of a shard.
pub(crate) struct ShardMachine {
    index: usize,
    settings: Settings,
    /// For how long the cluster keeps what a connection leaves behind, as far as is known.
    orphan_ttl: Option<Duration>,
    /// The name that pipelined connections present, if that is not a new one each time.
    stable_ref: Option<StableRef>,
    refs: Refs,
    serving: Serving,
    connections: Connections,
    leases: Registry,
    releases: Releases,
    confirming: Confirming,
    repeats: Repeats,
    waits: Waits<Wait>,
    /// When a connection may be opened for a wait, or a key is tried.
    waits_due_at: Option<Instant>,
    /// When the member that serves last answered what only the leader of a cluster does.
    led_at: Instant,
    /// When callers that are gone are thrown out next, and queue positions that no caller wants are given up.
    clean_waits_at: Option<Instant>,
    wait_pace: WaitPace,
    shortage: Shortage,
    /// The TTL that the server gives where none is asked for, as far as it was seen.
    default_ttl: Option<Ttl>,
    places: Places,
    parked: Parked,
    /// Whether the server knows `ping`, as far as is known.
    knows_ping: Option<bool>,
    /// Pauses between attempts to open further pipelined connections.
    further_attempts: Attempts,
    /// When to look through what is kept: idle connections, releases that wait for a connection.
    housekeeping_at: Option<Instant>,
    /// What is known of the fences of the server that serves.
    fences: FenceEvidence,
    /// What the members that led said of their clusters.
    clusters: SeenClusters,
    closing: Option<Closing>,
    over: bool,
    metrics: ShardMetrics,
    events: ShardEvents,
    /// Open from the loss of the last pipelined connection, or the first failed attempt, until there is one.
    away: Option<Span>,
}

impl ShardMachine {
    /// Creates a shard, which begins to connect.
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
            default_ttl: None,
            leases: Registry::new(settings.schedule, jitter, LeaseMetrics::new(&sink), now).knowing_tokens(is_cluster),
            releases: Releases::new(is_cluster),
            confirming: Confirming::default(),
            repeats: Repeats::default(),
            places: Places::default(),
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

    /// The same, which tells what happens.
    pub(crate) fn telling(mut self, events: ShardEvents) -> Self {
        self.leases.tell(events.clone());
        self.events = events;
        self
    }

    /// The machine has been suspended for so long by now, in all. What is due because of that is due at once.
    pub(crate) fn note_suspended(&mut self, suspended: Duration, now: Instant) {
        self.leases.note_suspended(suspended, now);
    }

    /// Whether there are leases whose end must be noticed.
    pub(crate) fn keeps_leases(&self) -> bool {
        self.leases.next_due().is_some()
    }

    /// Takes one input. What is to be done because of it is appended to `effects`.
    pub(crate) fn handle(&mut self, input: Input, now: Instant, effects: &mut Effects) {
        if self.over {
            // What comes now is dropped, and its callers see that the shard is gone.
            return;
        }
        let turn = &mut Turn { now, effects };
        match input {
            Input::Acquire(acquire, patience) => self.acquire(acquire, patience, turn),
            Input::Collect(ticket, until, ask) => self.collect(ticket, until, ask, turn),
            Input::GiveUp(ticket) => self.give_up(ticket, turn),
            Input::Ask(question) => self.submit(Pending::Ask(question), turn),
            Input::Failback(ask) => self.failback(ask, turn),
            Input::FirstIsThere(outcome, ask) => self.first_is_there(outcome, ask, turn),
            Input::Release { id, told } => self.release(id, told, turn),
            Input::Lane(lane, event) => self.lane_event(lane, event, turn),
            Input::Tick => self.tick(turn),
            Input::Shutdown(shutdown) => self.shut_down(shutdown, turn),
            #[cfg(feature = "server")]
            Input::CheckLease(token) => self.check_lease(&token, turn),
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

    /// When it wants to be told [`Input::Tick`].
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

    /// The shard ends without having been shut down: its holders are told.
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

    /// Publishes how many there are of everything that is counted.
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

    /// How many requests are not answered yet on the pipelined connections.
    pub(crate) fn in_flight(&self) -> usize {
        self.connections.in_flight_pipelined()
    }

    /// The server that an endpoint's index names.
    pub(crate) fn endpoint_at(&self, index: usize) -> &Endpoint {
        self.serving.failover().endpoint(index)
    }

    fn tick(&mut self, turn: &mut Turn<'_>) {
        let due = self.leases.tick(turn.now, TOGETHER, self.connections.is_serving());
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

    /// Throws out callers that are gone, and gives up queue positions that no caller wants.
    fn clean_waits(&mut self, turn: &mut Turn<'_>) {
        if self.clean_waits_at.is_some_and(|when| when <= turn.now) {
            self.clean_waits_at = None;
            self.waits.clean(turn.now);
            self.give_up_unclaimed(turn);
            self.look_for_the_leader(turn);
        }
    }

    /// Makes sure that what is kept here is looked through before long.
    fn keep_house(&mut self, turn: &Turn<'_>) {
        if self.housekeeping_at.is_none() {
            self.housekeeping_at = Some(turn.now + HOUSEKEEPING);
        }
    }

    /// Closes connections that are not needed, and ends releases that the server has made needless by itself.
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
        let kept_left = self.finish_kept_for_nothing(turn);
        if idle_left || kept_left || self.releases.pending() > 0 {
            self.keep_house(turn);
        }
    }

    /// Ends the retired connections whose leases are all lost. Returns whether others are left.
    fn finish_kept_for_nothing(&mut self, turn: &mut Turn<'_>) -> bool {
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

    /// The endpoint that serves, or is tried.
    fn endpoint(&self) -> &Endpoint {
        self.serving.reconnect.endpoint()
    }

    /// The endpoint that a connection leads to.
    fn endpoint_of(&self, lane: LaneId) -> &Endpoint {
        match self.connections.get(lane) {
            Some(connection) => self.endpoint_at(connection.endpoint),
            None => self.endpoint(),
        }
    }

    /// An error that a server told over this connection.
    fn at_lane(&self, lane: LaneId, error: Error) -> Error {
        error.at(self.endpoint_of(lane).shared_text())
    }

    fn here(&self, error: Error) -> Error {
        error.at(self.endpoint().shared_text())
    }

    /// Once the shutdown has begun the health stays `Closed`: callers whose requests end with its connections shall know why.
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
