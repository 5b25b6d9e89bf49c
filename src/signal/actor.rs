//! The actor of one link: a connection for signals to one shard. It keeps the connection and its subscriptions alive.
//!
//! The actor never waits. Signals do not pass through it: the connection's task puts them into the consumer's buffer,
//! which is bounded. Only answers, losses and reconnects come to the actor.

mod answers;
mod lane;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ractor::ActorRef;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use self::answers::refuse;
use self::lane::LinkLane;
use super::buffer::Buffer;
use super::family::HealthWatch;
use super::follow::follow;
use super::message::{LinkMessage, LinkRequest, Subscription};
use super::metrics::{LinkMetrics, SignalCounters};
use crate::clock::Moment;
use crate::error::{Error, ErrorKind};
use crate::events::ShardEvents;
use crate::human::human;
use crate::net::backoff::ReconnectPolicy;
use crate::net::dial::{Dial, LaneEvent};
use crate::net::failover::{Failover, FailoverReason};
use crate::net::health::{ConnectionState, ShardHealth};
use crate::net::lane::{Caller, Command, LaneEnd, Outgoing};
use crate::net::pipeline::Leftovers;
use crate::net::reconnect::{Reconnect, Retry};
use crate::shard::ask::Ask;
use crate::shards::ShardPlan;
use crate::telemetry::client_name::ClientName;
use crate::telemetry::sink::ShardSink;
use crate::unwind::Panic;

/// The parameters of a link.
pub(super) struct LinkArguments {
    pub(super) index: usize,
    pub(super) plan: ShardPlan,
    /// The health of the shard that the link follows.
    pub(super) shard: Option<HealthWatch>,
    pub(super) dial: Dial,
    pub(super) reconnect: ReconnectPolicy,
    pub(super) fail_fast: bool,
    pub(super) buffer: Arc<Buffer>,
    pub(super) health: watch::Sender<ShardHealth>,
    pub(super) sink: ShardSink,
    pub(super) events: ShardEvents,
    pub(super) client: ClientName,
}

/// The state of a link.
pub(super) struct LinkMachine {
    myself: ActorRef<LinkMessage>,
    index: usize,
    reconnect: Reconnect,
    /// The task that reports the shard's server. Without it, the link chooses the server by itself.
    guide: Option<AbortOnDropHandle<()>>,
    dial: Dial,
    buffer: Arc<Buffer>,
    health: watch::Sender<ShardHealth>,
    metrics: LinkMetrics,
    events: ShardEvents,
    counters: SignalCounters,
    lane: LinkLane,
    /// Whether the connection was lost and the consumer was told so.
    lost: bool,
    /// The subscriptions that the server has confirmed, and that must be made again after a loss of the connection.
    /// They are made again in this order.
    subscriptions: BTreeSet<Subscription>,
    /// How many of these the server has not yet confirmed on this connection.
    renewing: usize,
    /// The requests that wait for a connection.
    parked: VecDeque<LinkRequest>,
    /// Whether the link was closed.
    over: bool,
}

impl LinkMachine {
    pub(super) fn start(myself: ActorRef<LinkMessage>, arguments: LinkArguments) -> Self {
        let plan = arguments.plan;
        let at = Arc::clone(arguments.dial.connect.endpoint.shared_text());
        let failover = Failover::new(plan.policy, plan.endpoints, &at);
        let seen = arguments.health.borrow().clone();
        let reconnect = Reconnect::new(
            arguments.index,
            failover,
            arguments.reconnect,
            arguments.fail_fast,
            &seen,
        );
        let guide = arguments.shard.map(|shard| follow(shard, myself.clone()));
        let metrics = LinkMetrics::new(arguments.sink);
        let counters = metrics.counters();
        let lane = LinkLane::open(
            1,
            Duration::ZERO,
            &arguments.dial,
            &myself,
            &arguments.buffer,
            &counters,
        );
        Self {
            myself,
            index: arguments.index,
            reconnect,
            guide,
            dial: arguments.dial,
            buffer: arguments.buffer,
            health: arguments.health,
            metrics,
            events: arguments.events,
            counters,
            lane,
            lost: false,
            subscriptions: BTreeSet::new(),
            renewing: 0,
            parked: VecDeque::new(),
            over: false,
        }
    }

    pub(super) fn handle(&mut self, message: LinkMessage) {
        match message {
            LinkMessage::Listen(subscription, ask) => self.submit(LinkRequest::Listen(subscription, ask)),
            LinkMessage::Unlisten(subscription, ask) => self.unlisten(subscription, ask),
            LinkMessage::Emit(channel, payload, ask) => self.submit(LinkRequest::Emit(channel, payload, ask)),
            LinkMessage::Lane(id, event) if id == self.lane.id => self.lane_event(event),
            // Sent by a connection that was given up.
            LinkMessage::Lane(..) => {}
            LinkMessage::ShardIsAt(endpoint, why) => self.shard_is_at(&endpoint, why),
            LinkMessage::ShardIsGone => self.guide = None,
            LinkMessage::Overflowed => self.end(self.buffer.ended().unwrap_or_else(closed)),
            LinkMessage::Close(why) => self.end(why),
        }
        self.metrics.show(self.lane.is_up(), self.subscriptions.len());
    }

    /// Handles a panic that occurred while a message was handled: the connection is given up, and is opened again with
    /// all subscriptions.
    pub(super) fn panicked(&mut self, panic: &Panic) {
        let lost = |kind| Error::new(kind, format!("the connection was lost: its actor panicked: {panic}"));
        match self.lane.up {
            _ if self.over => {}
            None => self.lane_event(LaneEvent::Failed(lost(ErrorKind::Connect))),
            Some(since) => self.ended(LaneEnd {
                cause: Some(lost(ErrorKind::Disconnected)),
                leftovers: Leftovers::nothing(),
                was_silent: false,
                heard: Moment {
                    at: since,
                    suspended: Duration::ZERO,
                },
            }),
        }
    }

    /// Returns whether the link was closed.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Sends a request now, or keeps it until there is a connection, or refuses it: see [`Reconnect::refusal`].
    fn submit(&mut self, pending: LinkRequest) {
        if self.lane.is_up() {
            return self.send(pending);
        }
        match self.reconnect.refusal() {
            Some(error) => refuse(pending, &error),
            None => {
                self.parked.retain(|parked| !parked.is_gone());
                self.parked.push_back(pending);
            }
        }
    }

    /// Ends a subscription. Without a connection, it is enough to forget it: no signals arrive now, and it is not made
    /// again.
    fn unlisten(&mut self, subscription: Subscription, ask: Ask<()>) {
        if self.lane.is_up() {
            return self.send(LinkRequest::Unlisten(subscription, ask));
        }
        self.subscriptions.remove(&subscription);
        // A parked `Listen` for the same subscription is answered with success, as if the subscription had been made
        // and ended at once.
        for pending in std::mem::take(&mut self.parked) {
            match pending {
                LinkRequest::Listen(parked, listener) if parked == subscription => listener.tell(Ok(())),
                other => self.parked.push_back(other),
            }
        }
        ask.tell(Ok(()));
    }

    fn send(&mut self, pending: LinkRequest) {
        let outgoing = Outgoing {
            request: pending.request(),
            tag: pending,
        };
        if let Err(refused) = self.lane.commands.send(Command::Send(outgoing)) {
            // The connection has just ended, and its end will be reported.
            self.parked.extend(refused.0.into_iter().map(|outgoing| outgoing.tag));
        }
    }

    fn lane_event(&mut self, event: LaneEvent<LinkRequest>) {
        match event {
            LaneEvent::Up(_) => self.up(),
            LaneEvent::Failed(error) => {
                self.metrics.connect_failed(&error);
                // Nothing is granted over this connection, so no takeover delay applies; but a link that follows a
                // shard stays at the shard's server.
                let now = Instant::now();
                let retry = match self.guide {
                    Some(_) => self.reconnect.attempt_failed_there(&error),
                    None => self.reconnect.attempt_failed(&error, now, now),
                };
                self.schedule_retry(error, retry);
            }
            LaneEvent::Report(report) => {
                for reply in report.received.replies {
                    self.reply(reply);
                }
                // Skipped requests were never sent, and their callers no longer wait.
            }
            LaneEvent::Ended(end) => self.ended(*end),
        }
    }

    /// Makes all subscriptions again. The connection counts as connected only after that.
    fn up(&mut self) {
        self.metrics.connected();
        self.lane.up = Some(Instant::now());
        self.renewing = self.subscriptions.len();
        let renewals: Vec<Subscription> = self.subscriptions.iter().cloned().collect();
        for subscription in renewals {
            self.send(LinkRequest::Renew(subscription));
        }
        for pending in std::mem::take(&mut self.parked) {
            self.send(pending);
        }
        self.report_connected_if_renewed();
    }

    /// Reports the connection as connected, if the server has confirmed all subscriptions again.
    fn report_connected_if_renewed(&mut self) {
        if self.renewing > 0 || !self.lane.is_up() {
            return;
        }
        let attempts = self.reconnect.connected().attempts;
        tracing::info!(shard = self.index, endpoint = %self.endpoint(), attempts, "connected for signals");
        if std::mem::take(&mut self.lost) {
            self.buffer.restored(self.index);
        }
        self.set_health(ConnectionState::Connected);
    }

    /// Schedules the next attempt after a pause, because there is no connection.
    fn schedule_retry(&mut self, error: Error, retry: Retry) {
        let Retry { pause, attempt, state } = retry;
        tracing::warn!(
            shard = self.index,
            endpoint = error.endpoint().unwrap_or_default(),
            attempt,
            retry_in = %human(pause),
            error = %error.chain(),
            "not connected for signals"
        );
        if let Some(state) = state {
            self.set_health(state);
        }
        if let Some(error) = self.reconnect.refusal() {
            for pending in std::mem::take(&mut self.parked) {
                refuse(pending, &error);
            }
        }
        self.open(pause);
    }

    /// Moves the connection to the server that serves the shard now, because all listeners and emitters of the shard
    /// must be there.
    fn shard_is_at(&mut self, endpoint: &str, why: Option<FailoverReason>) {
        if !self.reconnect.follow(endpoint, why) {
            return;
        }
        if self.lane.is_up() {
            // The end of the connection returns the requests under way. If it has just ended, that end will be
            // reported.
            drop(self.lane.commands.send(Command::HangUp));
        } else {
            self.open(Duration::ZERO);
        }
    }

    /// Begins to connect, and replaces the previous connection.
    fn open(&mut self, pause: Duration) {
        self.dial.connect.endpoint = self.reconnect.endpoint().clone();
        self.lane = LinkLane::open(
            self.lane.id + 1,
            pause,
            &self.dial,
            &self.myself,
            &self.buffer,
            &self.counters,
        );
    }

    /// Closes the link: nothing more is sent or received.
    fn end(&mut self, why: Error) {
        for pending in std::mem::take(&mut self.parked) {
            refuse(pending, &why);
        }
        self.over = true;
        self.health.send_if_modified(|health| health.close(&why));
        self.buffer.end(why);
        self.myself.stop(None);
    }

    fn endpoint(&self) -> &Arc<str> {
        self.reconnect.endpoint().shared_text()
    }

    fn set_health(&self, state: ConnectionState) {
        let now = self.reconnect.health(state, Instant::now());
        self.health.send_modify(|health| health.become_like(now));
    }
}

/// Returns the error of a connection that was closed on request.
pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Shutdown, "this signal connection is closed")
}
