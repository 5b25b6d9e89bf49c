//! The actor of one shard: one task that runs the state machine and does the I/O of its pipelined connections.
//!
//! A turn: take what callers have sent, run the machine, write, read, run it again with what came. So a request passes from
//! its caller's task to the socket in one hop, and its answer back in one. Connections for single waits are tasks of their own,
//! which report to the mailbox.

mod shell;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

pub(crate) use self::shell::{Run, ShardActor};
use crate::clock::{SUSPEND_IS_KNOWN, suspended};
use crate::config::ShardConfig;
use crate::ending::{Ending, shut_down};
use crate::error::{Error, ErrorKind, Result};
use crate::events::ShardEvents;
use crate::events::board::HealthBoard;
use crate::net::connect::{ConnectOptions, Connected, Purpose};
use crate::net::dial::{Dial, LaneEvent};
use crate::net::health::{ConnectionState, ShardHealth};
use crate::net::lane::{Command, Lane, LaneSettings, OwnCommands};
use crate::net::metrics::LaneMetrics;
use crate::net::stream::Stream;
use crate::protocol::StableRef;
use crate::shard::ask::Ask;
use crate::shard::effect::{AcquireOutcome, Answer, Effect, Effects, Handover, Opening, Role};
use crate::shard::held::{Acquired, HeldLease, HeldPlace, WayBack};
use crate::shard::ids::LaneId;
use crate::shard::input::{Input, Inputs, Mailbox};
use crate::shard::request::Pending;
use crate::shard::{Refs, Setup, ShardMachine};
use crate::shards::ShardPlan;
use crate::telemetry::catalog;
use crate::telemetry::client_name::ClientName;
use crate::telemetry::level::Level;
use crate::telemetry::sink::ShardSink;

/// What a shard's actor is made of.
#[derive(Clone)]
pub(crate) struct ShardArguments {
    pub(crate) index: usize,
    pub(crate) plan: ShardPlan,
    pub(crate) config: ShardConfig,
    pub(crate) health: HealthBoard,
    pub(crate) events: ShardEvents,
    pub(crate) client: ClientName,
    pub(crate) sink: ShardSink,
    /// Shared with the actors before and after.
    pub(crate) handover: watch::Sender<Handover>,
    /// Of the client.
    pub(crate) ending: Ending,
}

/// The machine, and everything that it acts on.
struct Driver {
    shard: ShardMachine,
    effects: Effects,
    inputs: Inputs,
    mailbox: Mailbox,
    /// The same, for what callers hold.
    holders: WayBack,
    index: usize,
    config: ShardConfig,
    health: HealthBoard,
    handover: watch::Sender<Handover>,
    ending: Ending,
    metrics: LaneMetrics,
    /// Shows how many callers may wait.
    _waiters_limit: Level,
    /// The pipelined connections.
    own: Vec<(LaneId, Own)>,
    /// One of these is new, or was told something, since they were last polled.
    own_changed: bool,
    /// The others.
    tasks: BTreeMap<LaneId, TaskLane>,
    /// What looks whether the first endpoint can be reached.
    probes: JoinSet<()>,
    timer: Pin<Box<Sleep>>,
    /// How many answers came last over the pipelined connections.
    answered: usize,
    /// Inputs were left alone once.
    has_waited: bool,
    is_over: bool,
}

/// A connection whose I/O is done here.
enum Own {
    Connecting(AbortOnDropHandle<Result<(Connected, LaneSettings)>>),
    Up(Box<Lane<Stream, Pending, OwnCommands<Pending>>>),
    /// It has ended, and the machine has not been told yet. What was sent to it meanwhile: its end tells of it.
    Over(Vec<Pending>),
}

/// A connection that is a task.
struct TaskLane {
    /// `None` once nothing more may be sent.
    commands: Option<mpsc::UnboundedSender<Command<Pending>>>,
    /// What was sent when it had just ended: its end tells of it.
    unsent: Vec<Pending>,
    /// Ends the connection when this does, however that happens.
    _task: AbortOnDropHandle<()>,
}

/// The most inputs that are taken before the connections are written to and read. It is much less than a crowd of callers sends at
/// once, so that the server works on the first of their requests while the others are still being encoded.
const INPUTS_A_TURN: usize = 32;

/// While there are leases, suspends are looked for so often: timers stand still in a suspend.
const LOOK_FOR_SUSPENDS: Duration = Duration::from_secs(1);

/// So many turns are made before other tasks get theirs.
const TURNS_IN_A_ROW: usize = 8;

impl Driver {
    fn start((arguments, mailbox, inputs): (ShardArguments, Mailbox, Inputs)) -> Self {
        let ShardArguments {
            index,
            plan,
            config,
            health,
            events,
            client: _,
            sink,
            handover,
            ending,
        } = arguments;
        let now = Instant::now();
        let setup = Setup {
            index,
            plan,
            settings: config.machine.clone(),
            sink: sink.clone(),
            jitter: fastrand::Rng::new(),
            refs: Refs::new(StableRef::random()),
            health: health.current(),
            handover: *handover.borrow(),
        };
        let mut waiters_limit = Level::new(sink.gauge(&catalog::WAITERS_LIMIT, &[]));
        waiters_limit.show(config.max_waiters);
        let mut effects = Effects::default();
        let shard = ShardMachine::new(setup, now, &mut effects).telling(events);
        #[cfg(feature = "server")]
        config.started.iter().for_each(|started| started.add(&mailbox));
        let mut driver = Self {
            shard,
            effects,
            inputs,
            holders: mailbox.way_back(),
            mailbox,
            metrics: LaneMetrics::new(&sink),
            _waiters_limit: waiters_limit,
            index,
            config,
            health,
            handover,
            ending,
            own: Vec::new(),
            own_changed: false,
            tasks: BTreeMap::new(),
            probes: JoinSet::new(),
            timer: Box::pin(sleep_until(now)),
            answered: 0,
            has_waited: false,
            is_over: false,
        };
        driver.apply();
        driver
    }

    /// Ready when the shard is over.
    fn poll_turns(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.shard.note_suspended(suspended(), Instant::now());
        for _ in 0..TURNS_IN_A_ROW {
            self.poll_connections(cx);
            if self.waits_for_company() {
                break;
            }
            let taken = self.take_inputs(cx);
            if taken > 0 {
                // What was taken is written at once.
                self.poll_connections(cx);
            }
            let due = self.poll_timer(cx);
            if self.is_over {
                return Poll::Ready(());
            }
            if !(taken == INPUTS_A_TURN || self.own_changed || due) {
                self.shard.show();
                return Poll::Pending;
            }
        }
        self.shard.show();
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether inputs are left alone until other tasks have had their turn. Where several callers were answered at once, or
    /// wait for answers, the first that sends its next request is about to be followed by others: all of them go out in one
    /// write. A lone caller does not wait.
    fn waits_for_company(&mut self) -> bool {
        let has_company = self.answered.max(self.shard.in_flight()) > 1;
        let waits = has_company && !self.has_waited && !self.inputs.is_empty();
        self.has_waited = waits;
        waits
    }

    /// Takes what callers and connections have sent. Returns how much that was.
    fn take_inputs(&mut self, cx: &mut Context<'_>) -> usize {
        let mut turn_began = None;
        for taken in 0..INPUTS_A_TURN {
            match self.inputs.poll_recv(cx) {
                Poll::Ready(Some(input)) => {
                    if taken == 0 {
                        self.notice_ends();
                    }
                    let now = *turn_began.get_or_insert_with(Instant::now);
                    let input = self.completed(input);
                    self.shard.handle(input, now, &mut self.effects);
                    self.apply();
                }
                Poll::Ready(None) | Poll::Pending => return taken,
            }
        }
        INPUTS_A_TURN
    }

    /// A server that hung up while nothing was in flight is noticed before something is sent to it.
    fn notice_ends(&mut self) {
        let mut ends = Vec::new();
        for (id, own) in &mut self.own {
            let end = match own {
                Own::Up(lane) => lane.ended_while_idle(),
                Own::Connecting(_) | Own::Over(_) => None,
            };
            if let Some(end) = end {
                *own = Own::Over(Vec::new());
                ends.push((*id, LaneEvent::Ended(Box::new(end))));
            }
        }
        self.take_events(ends);
    }

    /// Runs the pipelined connections, and the machine with what came over them.
    fn poll_connections(&mut self, cx: &mut Context<'_>) {
        self.own_changed = false;
        let mut events = Vec::new();
        for (id, own) in &mut self.own {
            let event = own.poll(cx, |event| events.push((*id, event)));
            if let Some(event) = event {
                self.own_changed = true;
                events.push((*id, event));
            }
        }
        self.take_events(events);
    }

    fn take_events(&mut self, events: Vec<(LaneId, LaneEvent<Pending>)>) {
        if events.is_empty() {
            return;
        }
        let now = Instant::now();
        for (id, event) in events {
            if let LaneEvent::Report(report) = &event {
                self.answered = report.received.replies.len();
            }
            let input = self.completed(Input::Lane(id, event));
            self.shard.handle(input, now, &mut self.effects);
            self.apply();
        }
    }

    /// Tells the machine when something is due. Returns whether it was.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let now = Instant::now();
        let Some(due) = self.shard.next_due() else {
            return false;
        };
        if due <= now {
            self.shard.handle(Input::Tick, now, &mut self.effects);
            self.apply();
            return true;
        }
        let wake_at = match SUSPEND_IS_KNOWN && self.shard.keeps_leases() {
            true => due.min(now + LOOK_FOR_SUSPENDS),
            false => due,
        };
        // The timer is left alone while it is early enough.
        if wake_at < self.timer.deadline() || self.timer.is_elapsed() {
            self.timer.as_mut().reset(wake_at);
        }
        // Early, and nothing is due: it is set anew.
        self.timer.as_mut().poll(cx).is_ready()
    }

    /// An input as the machine takes it: the end of a connection tells of everything that was sent to it.
    fn completed(&mut self, mut input: Input) -> Input {
        if let Input::Lane(id, event @ (LaneEvent::Ended(_) | LaneEvent::Failed(_))) = &mut input {
            let unsent = self.remove(*id);
            if let LaneEvent::Ended(end) = event {
                end.leftovers.unwritten.extend(unsent);
            }
        }
        input
    }

    /// Forgets a connection. Returns what was sent to it when it had just ended.
    fn remove(&mut self, id: LaneId) -> Vec<Pending> {
        if let Some(lane) = self.tasks.remove(&id) {
            return lane.unsent;
        }
        let index = self.own.iter().position(|(known, _)| *known == id);
        match index.map(|index| self.own.remove(index)) {
            Some((_, Own::Over(unsent))) => unsent,
            _ => Vec::new(),
        }
    }

    /// Does what the machine wants done.
    fn apply(&mut self) {
        // What is done makes no new effects, but for connections that end in being told to.
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain() {
            match effect {
                Effect::Open(id, opening) => self.open(id, *opening),
                Effect::Send(id, outgoing) => self.tell(id, Command::Send(outgoing)),
                Effect::Finish(id) => self.finish(id),
                Effect::HangUp(id) => {
                    self.tell(id, Command::HangUp);
                    self.finish(id);
                }
                Effect::Close(id) => self.close(id),
                Effect::Answer(answer) => self.answer(answer),
                Effect::Publish(health) => self.publish(health),
                Effect::HandOver(handover) => drop(self.handover.send_replace(handover)),
                Effect::ProbeFirst(ask) => self.probe_first(ask),
                Effect::End(told, report) => {
                    if let Some(told) = told {
                        drop(told.send(report));
                    }
                    self.is_over = true;
                }
            }
        }
        // Keeps its room for the next turn.
        self.effects = effects;
    }

    /// Publishes what the machine says of itself. That it is closed it says as soon as it is shut down.
    fn publish(&self, said: ShardHealth) {
        let closed = matches!(said.state, ConnectionState::Closed);
        self.health.change(|health| {
            health.become_like(said);
            if closed {
                health.close(self.ending.cause().unwrap_or(&shut_down()));
            }
        });
    }

    fn open(&mut self, id: LaneId, opening: Opening) {
        let Opening {
            role,
            pause,
            give_up_at,
            endpoint,
            purpose,
        } = opening;
        let connect = ConnectOptions {
            give_up_at,
            ..self.config.reach(self.index, self.shard.endpoint_at(endpoint), purpose)
        };
        let dial = Dial {
            connect,
            metrics: self.metrics.clone(),
        };
        if role == Role::Pipelined {
            let attempt = async move {
                if !pause.is_zero() {
                    sleep(pause).await;
                }
                let connected = dial.connect.connect().await?;
                let settings = dial.connect.lane_settings(connected.shown.abilities, dial.metrics);
                Ok((connected, settings))
            };
            let attempt = tokio::spawn(attempt.in_current_span());
            self.own.push((id, Own::Connecting(AbortOnDropHandle::new(attempt))));
            self.own_changed = true;
            return;
        }
        let (commands, queue) = mpsc::unbounded_channel();
        let mailbox = self.mailbox.clone();
        // If the shard is gone, this task is about to be aborted.
        let tell = move |event| {
            mailbox.send(Input::Lane(id, event));
        };
        let lane = TaskLane {
            commands: Some(commands),
            unsent: Vec::new(),
            _task: AbortOnDropHandle::new(tokio::spawn(dial.run(pause, queue, tell).in_current_span())),
        };
        self.tasks.insert(id, lane);
    }

    /// A pipelined connection that is about to be told something.
    fn own(&mut self, id: LaneId) -> Option<&mut Own> {
        let (_, own) = self.own.iter_mut().find(|(known, _)| *known == id)?;
        self.own_changed = true;
        Some(own)
    }

    fn tell(&mut self, id: LaneId, command: Command<Pending>) {
        match self.own(id) {
            Some(Own::Up(lane)) => return lane.tell(command),
            Some(Own::Over(unsent)) => return unsent.extend(command.into_iter().map(|outgoing| outgoing.tag)),
            Some(Own::Connecting(_)) | None => {}
        }
        let Some(lane) = self.tasks.get_mut(&id) else { return };
        if let Some(commands) = &lane.commands {
            if let Err(refused) = commands.send(command) {
                // It has just ended, and its end is on its way.
                lane.unsent.extend(refused.0.into_iter().map(|outgoing| outgoing.tag));
            }
        }
    }

    fn finish(&mut self, id: LaneId) {
        match self.own(id) {
            Some(Own::Up(lane)) => lane.finish(),
            Some(Own::Connecting(_)) => self.close(id),
            Some(Own::Over(_)) => {}
            None => {
                if let Some(lane) = self.tasks.get_mut(&id) {
                    lane.commands = None;
                }
            }
        }
    }

    fn close(&mut self, id: LaneId) {
        self.remove(id);
    }

    fn answer(&self, answer: Answer) {
        match answer {
            Answer::Acquire(ask, outcome) => {
                let acquired = outcome.map(|outcome| match outcome {
                    AcquireOutcome::Lease(id, cell) => {
                        Acquired::Lease(HeldLease::new(cell, id, Arc::clone(&self.holders)))
                    }
                    AcquireOutcome::Busy(refusal) => Acquired::Busy(refusal),
                    AcquireOutcome::Queued(id, target, key, refusal) => {
                        Acquired::Queued(HeldPlace::new(id, target, key, refusal, Arc::clone(&self.holders)))
                    }
                });
                ask.tell(acquired);
            }
            Answer::Release(told, outcome) => told.tell(outcome),
            Answer::Question(question, answer, at) => question.tell(answer, &at),
            Answer::Failback(ask, answer) => ask.tell(answer),
        }
    }

    fn probe_first(&mut self, ask: Ask<Duration>) {
        let first = self.shard.endpoint_at(0);
        let connect = self.config.reach(self.index, first, Purpose::Pipelined);
        let mailbox = self.mailbox.clone();
        // Those that are done.
        while self.probes.try_join_next().is_some() {}
        let probe = async move {
            let outcome = connect.connect().await.map(drop);
            mailbox.send(Input::FirstIsThere(outcome, ask));
        };
        self.probes.spawn(probe.in_current_span());
    }
}

/// However the shard ends, its holders are told, before its connections are closed.
impl Drop for Driver {
    fn drop(&mut self) {
        self.shard.abandon(Instant::now());
    }
}

impl Own {
    /// Runs the connection. Returns what has become of it, if anything; what comes over it is delivered.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut deliver: impl FnMut(LaneEvent<Pending>),
    ) -> Option<LaneEvent<Pending>> {
        let (after, event) = match self {
            Self::Up(lane) => match lane.poll_turn(cx, &mut |report| deliver(LaneEvent::Report(report))) {
                Poll::Pending => return None,
                Poll::Ready(end) => (Self::Over(Vec::new()), LaneEvent::Ended(Box::new(end))),
            },
            Self::Connecting(attempt) => match Pin::new(attempt).poll(cx) {
                Poll::Pending => return None,
                Poll::Ready(Ok(Ok((connected, settings)))) => {
                    let lane = Lane::new(connected.stream, OwnCommands::new(), settings);
                    (Self::Up(Box::new(lane)), LaneEvent::Up(connected.shown))
                }
                Poll::Ready(Ok(Err(error))) => (Self::Over(Vec::new()), LaneEvent::Failed(error)),
                Poll::Ready(Err(ended)) => {
                    // What panics while it connects says so itself.
                    let message = format!("the attempt to connect ended with its task: {ended}");
                    let error = Error::new(ErrorKind::Connect, message);
                    (Self::Over(Vec::new()), LaneEvent::Failed(error))
                }
            },
            Self::Over(_) => return None,
        };
        *self = after;
        Some(event)
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod suspend_tests;
