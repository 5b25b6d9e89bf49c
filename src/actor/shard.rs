//! The actor of one shard. It owns the shard's connections, its reconnecting, its waits and its leases; nobody else
//! touches them, so nothing here is locked.
//!
//! It never waits for anything: each message is handled to its end at once, connections report by message, and what is
//! due later comes as a tick. So a server that is slow, or gone, costs the callers of this shard alone, and no lease's
//! deadline is ever late because of a request.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::lanes::{Dial, Lanes, Role, Work};
use super::message::{
    Acquire, Acquired, LaneEvent, Patience, Pending, Releasing, ShardMessage, Shutdown, ShutdownReport,
};
use super::waits::WaitQueue;
use crate::config::{OnUnavailable, ShardConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::health::{ConnectionState, ShardHealth};
use crate::lease::cell::{LeaseState, LostReason};
use crate::lease::registry::{LaneId, LeaseId, Registry};
use crate::net::backoff::Attempts;
use crate::net::connect::{Abilities, ConnectOptions};
use crate::net::endpoint::Endpoint;
use crate::net::lane::{Caller, OnAbandon, Outgoing};

/// What a shard's actor is made of.
#[derive(Clone)]
pub(crate) struct ShardArguments {
    pub(crate) index: usize,
    pub(crate) endpoint: Endpoint,
    pub(crate) config: ShardConfig,
    pub(crate) health: watch::Sender<ShardHealth>,
}

/// The behaviour; the state is [`Shard`].
pub(crate) struct ShardActor;

/// The state of a shard.
pub(crate) struct Shard {
    pub(super) myself: ActorRef<ShardMessage>,
    pub(super) index: usize,
    pub(super) endpoint: Endpoint,
    pub(super) config: ShardConfig,
    pub(super) health: watch::Sender<ShardHealth>,
    pub(super) lanes: Lanes,
    /// The pipelined connection: the one that is up, or the one that is being established.
    pub(super) main: LaneId,
    pub(super) main_is_up: bool,
    /// What the server can do, learnt at the first connect.
    known: Option<Abilities>,
    attempts: Attempts,
    /// Why the last attempt failed, or the connection was lost; while it is not up.
    last_error: Option<Error>,
    /// The last attempt failed for a reason that waiting does not cure.
    hopeless: bool,
    pub(super) registry: Registry,
    pub(super) waits: WaitQueue<Pending>,
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
    /// No exclusive connection is opened before that.
    exclusive_not_before: Instant,
    /// When to look through what is kept: idle connections, releases that are owed.
    housekeeping_at: Option<Instant>,
    /// The tick that is under way.
    timer: Option<(Instant, AbortOnDropHandle<()>)>,
    closing: Option<Closing>,
}

/// A shard that gives everything back before it ends.
pub(super) struct Closing {
    until: Instant,
    told: Option<oneshot::Sender<ShutdownReport>>,
    pub(super) report: ShutdownReport,
}

/// Renewals that are due within this time of each other leave together: a little early, never late.
const TOGETHER: Duration = Duration::from_millis(10);

/// How often what is kept is looked through, while there is something.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Fewer parked requests than this are not worth cleaning.
const CLEAN_AT_LEAST: usize = 64;

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
            endpoint,
            config,
            health,
        } = arguments;
        let mut shard = Self {
            myself,
            index,
            endpoint,
            lanes: Lanes::new(),
            main: 0,
            main_is_up: false,
            known: None,
            attempts: config.reconnect.start(),
            last_error: None,
            hopeless: false,
            registry: Registry::new(config.schedule),
            waits: WaitQueue::new(config.exclusive_lanes_per_key),
            parked: VecDeque::new(),
            clean_parked_at: CLEAN_AT_LEAST,
            owed: Vec::new(),
            releasing: 0,
            exclusive_attempts: config.reconnect.start(),
            exclusive_not_before: Instant::now(),
            housekeeping_at: None,
            timer: None,
            closing: None,
            health,
            config,
        };
        shard.set_health(ConnectionState::Connecting);
        shard.open_main(Duration::ZERO);
        shard
    }

    fn handle(&mut self, message: ShardMessage) {
        match message {
            ShardMessage::Acquire(acquire, patience) => self.acquire(acquire, patience),
            ShardMessage::Stats(ask) => self.submit(Pending::Stats(ask)),
            ShardMessage::Release { id, told } => self.release(id, told),
            ShardMessage::Lane(lane, event) => self.lane_event(lane, event),
            ShardMessage::Tick => self.tick(),
            ShardMessage::Shutdown(shutdown) => self.shut_down(shutdown),
            #[cfg(test)]
            #[allow(clippy::panic)]
            ShardMessage::Die => panic!("told to die"),
        }
        self.arm_timer();
        self.end_if_done();
    }

    // Requests.

    fn acquire(&mut self, acquire: Acquire, patience: Patience) {
        match patience {
            Patience::Try => self.submit(Pending::Try(acquire)),
            Patience::TryThenWait => {
                // Somebody here waits for it already, so a try would fail: spare it.
                if self.waits.is_waited_for(&(acquire.target.kind(), acquire.key.clone())) {
                    acquire.ask.tell(Ok(Acquired::Busy));
                } else {
                    self.submit(Pending::Try(acquire));
                }
            }
            Patience::Until(until) => self.submit(Pending::Wait(acquire, until)),
        }
    }

    /// Sends a request as soon as it can be sent, or refuses it if callers do not want to wait for that.
    pub(super) fn submit(&mut self, pending: Pending) {
        if let Some(error) = self.refusal() {
            return self.refuse(pending, error);
        }
        match pending {
            Pending::Wait(acquire, until) => {
                let subject = (acquire.target.kind(), acquire.key.clone());
                self.waits.push(subject, Pending::Wait(acquire, until));
                self.start_waits();
            }
            pending if self.main_is_up => self.send(pending),
            pending => self.park(pending),
        }
    }

    /// Why requests are refused rather than kept, if they are.
    fn refusal(&self) -> Option<Error> {
        if self.closing.is_some() {
            return Some(Error::new(ErrorKind::Shutdown, "the client is shut down"));
        }
        let error = self.last_error.as_ref()?;
        if self.hopeless {
            return Some(error.clone());
        }
        (self.config.on_unavailable == OnUnavailable::FailFast).then(|| unavailable(self.index, &self.endpoint, error))
    }

    pub(super) fn refuse(&mut self, pending: Pending, error: Error) {
        match pending {
            Pending::Try(acquire) | Pending::Wait(acquire, _) => acquire.ask.tell(Err(error)),
            Pending::Stats(ask) => ask.tell(Err(error)),
            Pending::Confirm { acquire, grant, owner } => {
                self.give_back_orphan(&acquire, grant, owner);
                acquire.ask.tell(Err(error));
            }
            Pending::Renew(id) => self.registry.renewal_failed(id),
            Pending::Release(releasing) => self.owed.push(releasing),
        }
    }

    fn park(&mut self, pending: Pending) {
        self.parked.push_back(pending);
        if self.parked.len() >= self.clean_parked_at {
            self.parked.retain(|pending| !pending.is_gone());
            self.clean_parked_at = (self.parked.len() * 2).max(CLEAN_AT_LEAST);
        }
    }

    /// Sends a request over the pipelined connection.
    pub(super) fn send(&mut self, pending: Pending) {
        let Some(request) = self.request(&pending) else { return };
        let refused = match self.lanes.get_mut(self.main) {
            Some(lane) => lane.send(request, pending, OnAbandon::Finish).err(),
            None => Some(pending),
        };
        if let Some(pending) = refused {
            self.unsent(pending);
        }
    }

    /// A request was not sent because the pipelined connection is gone: it waits for the next.
    fn unsent(&mut self, pending: Pending) {
        match pending {
            Pending::Renew(id) => self.registry.renewal_failed(id),
            Pending::Release(releasing) => self.owed.push(releasing),
            other => match self.refusal() {
                Some(error) => self.refuse(other, error),
                None => self.park(other),
            },
        }
    }

    fn renew_all(&mut self, ids: Vec<LeaseId>) {
        let mut batch = Vec::with_capacity(ids.len());
        for id in ids {
            let tag = Pending::Renew(id);
            if let Some(request) = self.request(&tag) {
                batch.push(Outgoing {
                    request,
                    tag,
                    on_abandon: OnAbandon::Finish,
                });
            }
        }
        if batch.is_empty() {
            return;
        }
        let refused = match self.lanes.get_mut(self.main) {
            Some(lane) => lane.send_all(batch).err().unwrap_or_default(),
            None => batch.into_iter().map(|outgoing| outgoing.tag).collect(),
        };
        for pending in refused {
            self.unsent(pending);
        }
    }

    // Waits and their connections.

    /// Gives connections to waits, as far as there are any.
    pub(super) fn start_waits(&mut self) {
        while self.waits.has_ready() {
            // A connection that owns something is taken only when no other can be had: its waits cannot be cut short.
            if let Some(lane) = self.lanes.idle(true) {
                self.start_wait(lane, OnAbandon::Close);
            } else if self.may_open_exclusive() {
                let Some((subject, place, wait)) = self.waits.pop() else {
                    return;
                };
                let work = Work::Opening(subject, place, wait);
                let dial = self.dial(self.known);
                self.lanes
                    .open(Role::Exclusive, work, Duration::ZERO, dial, self.myself.clone());
            } else if let Some(lane) = self.lanes.idle(false) {
                self.start_wait(lane, OnAbandon::Finish);
            } else {
                return;
            }
        }
    }

    fn may_open_exclusive(&self) -> bool {
        self.main_is_up
            && self.lanes.exclusive() < self.config.exclusive_lanes
            && Instant::now() >= self.exclusive_not_before
    }

    fn start_wait(&mut self, lane: LaneId, on_abandon: OnAbandon) {
        if let Some((subject, place, wait)) = self.waits.pop() {
            self.wait_on(lane, subject, place, wait, on_abandon);
        }
    }

    fn wait_on(
        &mut self,
        id: LaneId,
        subject: super::waits::Subject,
        place: u64,
        wait: Pending,
        on_abandon: OnAbandon,
    ) {
        let request = self.request(&wait);
        let refused = match (self.lanes.get_mut(id), request) {
            (Some(lane), Some(request)) => {
                lane.work = Work::Waiting(subject.clone(), place);
                lane.send(request, wait, on_abandon).err()
            }
            (_, _) => Some(wait),
        };
        if let Some(wait) = refused {
            if let Some(lane) = self.lanes.get_mut(id) {
                lane.work = Work::Ending;
            }
            self.waits.put_back(subject, place, wait);
        }
    }

    /// The wait on a connection is over.
    pub(super) fn wait_ended(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(id) else { return };
        if let Work::Waiting(subject, _) = std::mem::replace(&mut lane.work, Work::Idle(Instant::now())) {
            self.waits.finished(&subject);
        }
        self.keep_house();
    }

    // Connections.

    fn dial(&self, known: Option<Abilities>) -> Dial {
        Dial {
            connect: ConnectOptions {
                endpoint: self.endpoint.clone(),
                auth_token: self.config.auth_token.clone(),
                connect_timeout: self.config.connect_timeout,
                dead_peer_timeout: self.config.keepalive + self.config.reply_timeout,
            },
            known,
            keepalive: self.config.keepalive,
            reply_timeout: self.config.reply_timeout,
            max_in_flight: self.config.max_in_flight,
        }
    }

    fn open_main(&mut self, pause: Duration) {
        // What the server can do is asked anew: it may be another release that comes back.
        let dial = self.dial(None);
        let work = Work::Idle(Instant::now());
        self.main = self.lanes.open(Role::Pipelined, work, pause, dial, self.myself.clone());
    }

    fn lane_event(&mut self, id: LaneId, event: LaneEvent) {
        match event {
            LaneEvent::Up(abilities) if id == self.main => self.main_up(abilities),
            LaneEvent::Up(_) => self.exclusive_up(id),
            LaneEvent::Failed(error) if id == self.main => self.main_failed(error),
            LaneEvent::Failed(error) => self.exclusive_failed(id, error),
            LaneEvent::Report(report) => {
                self.lanes.answered(id, report.replies.len() + report.skipped.len());
                for reply in report.replies {
                    self.reply(id, reply);
                }
                for pending in report.skipped {
                    if let Pending::Wait(..) = pending {
                        self.wait_ended(id);
                    }
                }
                self.start_waits();
            }
            LaneEvent::Ended(end) => {
                let cause = end.cause.map(|cause| cause.at(self.endpoint.as_text()));
                self.lane_ended(id, cause, end.leftovers.unknown, end.leftovers.unwritten);
            }
        }
    }

    fn main_up(&mut self, abilities: Abilities) {
        tracing::info!(shard = self.index, endpoint = %self.endpoint, attempts = self.attempts.made(), "connected");
        self.lanes.is_up(self.main);
        self.main_is_up = true;
        self.known = Some(abilities);
        self.attempts = self.config.reconnect.start();
        self.last_error = None;
        self.hopeless = false;
        self.set_health(ConnectionState::Connected);
        // First what is held, then what is owed, then what is wanted.
        let overdue = self.registry.overdue();
        self.renew_all(overdue);
        self.send_owed();
        for pending in std::mem::take(&mut self.parked) {
            if !pending.is_gone() {
                self.send(pending);
            }
        }
        self.start_waits();
    }

    fn main_failed(&mut self, error: Error) {
        self.lanes.remove(self.main);
        self.hopeless = error.is_fatal();
        self.main_away(error);
    }

    /// The pipelined connection is not there: try again after a pause.
    fn main_away(&mut self, error: Error) {
        self.main_is_up = false;
        let pause = self.attempts.failed();
        tracing::warn!(
            shard = self.index,
            endpoint = %self.endpoint,
            attempt = self.attempts.made(),
            retry_in = ?pause,
            %error,
            "not connected"
        );
        self.last_error = Some(error.clone());
        self.set_health(ConnectionState::Reconnecting {
            attempt: self.attempts.made(),
            last_error: error,
        });
        if self.refusal().is_some() {
            let waits = self.waits.drain();
            for pending in std::mem::take(&mut self.parked).into_iter().chain(waits) {
                if let Some(error) = self.refusal() {
                    self.refuse(pending, error);
                }
            }
        }
        self.open_main(pause);
    }

    fn exclusive_up(&mut self, id: LaneId) {
        self.exclusive_attempts = self.config.reconnect.start();
        self.lanes.is_up(id);
        let Some(lane) = self.lanes.get_mut(id) else { return };
        if let Work::Opening(subject, place, wait) = std::mem::replace(&mut lane.work, Work::Idle(Instant::now())) {
            self.wait_on(id, subject, place, wait, OnAbandon::Close);
        }
    }

    fn exclusive_failed(&mut self, id: LaneId, error: Error) {
        let pause = self.exclusive_attempts.failed();
        tracing::debug!(shard = self.index, endpoint = %self.endpoint, retry_in = ?pause, %error, "no exclusive connection");
        self.exclusive_not_before = Instant::now() + pause;
        if let Some(Work::Opening(subject, place, wait)) = self.lanes.remove(id).map(|lane| lane.work) {
            self.waits.put_back(subject, place, wait);
        }
        self.start_waits();
    }

    fn lane_ended(&mut self, id: LaneId, cause: Option<Error>, unknown: Vec<Pending>, unwritten: Vec<Pending>) {
        let Some(lane) = self.lanes.remove(id) else { return };
        let was_main = id == self.main;
        let cause = cause.unwrap_or_else(|| Error::new(ErrorKind::Disconnected, "the connection was closed"));
        if was_main {
            self.main_is_up = false;
        }
        // First the holders: their leases go with the connection.
        let why = if lane.draining {
            LostReason::ServerDraining
        } else {
            LostReason::Disconnected
        };
        let lost = self.registry.owner_gone(id, self.config.survives_disconnect, why);
        if !lost.is_empty() {
            tracing::warn!(shard = self.index, endpoint = %self.endpoint, leases = lost.len(), %cause, "leases lost");
        }
        // In case the server still holds them; their guards have nothing more to give back.
        for claim in lost {
            self.owe(Releasing::of(&claim, None, true, None));
        }
        let mut wait_begun = match lane.work {
            Work::Opening(subject, place, wait) => {
                self.waits.put_back(subject, place, wait);
                None
            }
            Work::Waiting(subject, place) => Some((subject, place)),
            Work::Idle(_) | Work::Ending => None,
        };
        for pending in unwritten {
            match (pending, wait_begun.take()) {
                // Not one byte of it was sent: it may begin anew.
                (wait @ Pending::Wait(..), Some((subject, place))) => self.waits.put_back(subject, place, wait),
                (other, begun) => {
                    wait_begun = begun;
                    self.unsent(other);
                }
            }
        }
        if let Some((subject, _)) = wait_begun {
            self.waits.finished(&subject);
        }
        self.settle_unknown(unknown, &cause);
        if was_main {
            self.main_away(cause);
        } else if self.main_is_up {
            self.send_owed();
        }
        self.start_waits();
    }

    /// The connection ended after these were sent, and nobody knows what the server made of them.
    fn settle_unknown(&mut self, unknown: Vec<Pending>, cause: &Error) {
        for pending in unknown {
            match pending {
                // Never sent again: that could take two grants.
                Pending::Try(acquire) | Pending::Wait(acquire, _) => acquire.ask.tell(Err(cause.clone())),
                Pending::Stats(ask) => ask.tell(Err(cause.clone())),
                // A renewal may be repeated at will.
                Pending::Renew(id) => self.registry.renewal_failed(id),
                confirm @ Pending::Confirm { .. } => self.unsent(confirm),
                Pending::Release(mut releasing) => {
                    releasing.repeated = true;
                    self.owed.push(releasing);
                }
            }
        }
    }

    // Giving back.

    fn release(&mut self, id: LeaseId, told: Option<oneshot::Sender<Result<()>>>) {
        let state = self.registry.claim(id).map(|claim| (claim.cell.state(), claim));
        let Some((state, claim)) = state else {
            // A lease that was lost with its connection: there is nothing to give back.
            return;
        };
        let LeaseState::Lost(why) = state else {
            if self.registry.begin_release(id).is_some() {
                self.owe(Releasing::of(&claim, Some(id), false, told));
            }
            return;
        };
        if let Some(told) = told {
            let error = Error::new(
                ErrorKind::LeaseLost,
                format!("the lease of {} was lost before it was released: {why}", claim.cell.key),
            );
            drop(told.send(Err(error.at(self.endpoint.as_text()))));
        }
        // Where time alone took it, the server may hold it still.
        if why == LostReason::Expired && self.registry.begin_release(id).is_some() {
            self.owe(Releasing::of(&claim, Some(id), true, None));
        } else {
            self.registry.remove(id);
            self.disown(claim.owner);
        }
    }

    fn send_owed(&mut self) {
        for releasing in std::mem::take(&mut self.owed) {
            self.send(Pending::Release(releasing));
        }
    }

    /// Sends a release now, or as soon as there is a connection.
    pub(super) fn owe(&mut self, releasing: Releasing) {
        self.releasing += 1;
        if self.main_is_up {
            self.send(Pending::Release(releasing));
        } else {
            self.keep_house();
            self.owed.push(releasing);
        }
    }

    /// A release is over, one way or the other.
    pub(super) fn settle_release(&mut self, releasing: Releasing, outcome: Result<()>) {
        self.releasing = self.releasing.saturating_sub(1);
        if let Some(id) = releasing.id {
            self.registry.remove(id);
        }
        self.disown(releasing.owner);
        if let Some(closing) = &mut self.closing {
            match &outcome {
                Ok(()) => closing.report.released += 1,
                Err(_) => closing.report.unreleased.push(releasing.key.clone()),
            }
        }
        if let Some(told) = releasing.told {
            drop(told.send(outcome));
        }
    }

    pub(super) fn disown(&mut self, owner: LaneId) {
        if let Some(lane) = self.lanes.get_mut(owner) {
            lane.owns = lane.owns.saturating_sub(1);
        }
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    // Time.

    fn tick(&mut self) {
        self.timer = None;
        let now = Instant::now();
        let due = self.registry.tick(now, TOGETHER, self.main_is_up);
        if due.expired > 0 {
            tracing::warn!(shard = self.index, endpoint = %self.endpoint, leases = due.expired, "leases expired");
        }
        self.renew_all(due.renew);
        self.clean_up(now);
        self.start_waits();
    }

    /// Makes sure that a tick comes when the next thing is due.
    fn arm_timer(&mut self) {
        let Some(due) = self.next_due() else { return };
        if self.timer.as_ref().is_some_and(|(armed, _)| *armed <= due) {
            return;
        }
        let shard = self.myself.clone();
        let task = tokio::spawn(async move {
            sleep_until(due).await;
            drop(shard.send_message(ShardMessage::Tick));
        });
        self.timer = Some((due, AbortOnDropHandle::new(task)));
    }

    fn next_due(&self) -> Option<Instant> {
        let reopen = (self.waits.has_ready() && self.main_is_up).then_some(self.exclusive_not_before);
        [
            self.registry.next_due(),
            self.housekeeping_at,
            self.closing.as_ref().map(|closing| closing.until),
            reopen.filter(|when| *when > Instant::now()),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Makes sure that what is kept here is looked through before long.
    pub(super) fn keep_house(&mut self) {
        if self.housekeeping_at.is_none() {
            self.housekeeping_at = Some(Instant::now() + HOUSEKEEPING);
        }
    }

    /// Closes connections that nobody needs, and forgets releases that the server has made needless by itself.
    fn clean_up(&mut self, now: Instant) {
        if self.housekeeping_at.is_none_or(|when| when > now) {
            return;
        }
        self.housekeeping_at = None;
        let idle_left = match now.checked_sub(self.config.idle_lane_timeout) {
            Some(before) => self.lanes.close_idle(before),
            None => true,
        };
        let (over, owed): (Vec<_>, Vec<_>) = std::mem::take(&mut self.owed)
            .into_iter()
            .partition(|releasing| releasing.until <= now);
        self.owed = owed;
        for releasing in over {
            let error = Error::new(
                ErrorKind::Unavailable,
                "the release could not be sent: the lease ended with its TTL",
            );
            self.settle_release(releasing, Err(error.at(self.endpoint.as_text())));
        }
        if idle_left || !self.owed.is_empty() {
            self.keep_house();
        }
    }

    // The end.

    fn shut_down(&mut self, shutdown: Shutdown) {
        if self.closing.is_some() {
            return;
        }
        self.closing = Some(Closing {
            until: shutdown.until,
            told: shutdown.told,
            report: ShutdownReport::default(),
        });
        let waits = self.waits.drain();
        for pending in std::mem::take(&mut self.parked).into_iter().chain(waits) {
            if let Some(error) = self.refusal() {
                self.refuse(pending, error);
            }
        }
        let ids: Vec<LeaseId> = self.registry.ids().collect();
        for id in ids {
            if self.registry.lose(id, LostReason::Shutdown) {
                if let Some(claim) = self.registry.begin_release(id) {
                    self.owe(Releasing::of(&claim, Some(id), false, None));
                }
            }
        }
        self.lanes.close_waiting();
    }

    fn end_if_done(&mut self) {
        let done = match &self.closing {
            None => false,
            // What is in flight may still bring a grant that has to be given back.
            Some(closing) => {
                (self.releasing == 0 && self.lanes.in_flight(self.main) == 0) || closing.until <= Instant::now()
            }
        };
        if !done {
            return;
        }
        self.lanes.clear();
        let left: Vec<LeaseId> = self.registry.ids().collect();
        let unreleased: Vec<_> = left.into_iter().filter_map(|id| self.registry.claim(id)).collect();
        if let Some(mut closing) = self.closing.take() {
            closing
                .report
                .unreleased
                .extend(unreleased.into_iter().map(|claim| claim.cell.key.clone()));
            if let Some(told) = closing.told.take() {
                drop(told.send(closing.report));
            }
        }
        self.set_health(ConnectionState::Closed);
        self.myself.stop(None);
    }

    fn set_health(&self, state: ConnectionState) {
        self.health.send_replace(ShardHealth {
            shard: self.index,
            endpoint: Arc::clone(self.endpoint.as_text()),
            state,
            since: Instant::now(),
        });
    }
}

/// The shard cannot be reached, and why.
pub(crate) fn unavailable(index: usize, endpoint: &Endpoint, cause: &Error) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("shard {index} is not connected: {cause}"),
    )
    .caused_by(cause.clone())
    .at(endpoint.as_text())
}
