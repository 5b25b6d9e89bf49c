//! The actor of one shard: one task that runs the state machine and does the I/O of its pipelined connections.
//!
//! In each turn, the task takes what callers have sent, runs the machine, writes, reads, and runs the machine again
//! with what arrived. So a request needs one hop from its caller's task to the socket, and its answer one hop back. The
//! connections for single waits are tasks of their own, which report to the mailbox.

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
use crate::shard::held::{Acquired, HeldLease, HeldPosition, WayBack};
use crate::shard::ids::LaneId;
use crate::shard::input::{Input, Inputs, Mailbox};
use crate::shard::request::Pending;
use crate::shard::{Refs, Setup, ShardMachine};
use crate::shards::ShardPlan;
use crate::telemetry::catalog;
use crate::telemetry::client_name::ClientName;
use crate::telemetry::level::Level;
use crate::telemetry::sink::ShardSink;

/// The parameters of a shard's actor.
#[derive(Clone)]
pub(crate) struct ShardArguments {
    pub(crate) index: usize,
    pub(crate) plan: ShardPlan,
    pub(crate) config: ShardConfig,
    pub(crate) health: HealthBoard,
    pub(crate) events: ShardEvents,
    pub(crate) client: ClientName,
    pub(crate) sink: ShardSink,
    /// Shared with the previous and the next actor of the shard.
    pub(crate) handover: watch::Sender<Handover>,
    /// Whether the client has ended, and why.
    pub(crate) ending: Ending,
}

/// The machine, and everything that it acts on.
struct Driver {
    shard: ShardMachine,
    effects: Effects,
    inputs: Inputs,
    mailbox: Mailbox,
    /// The same mailbox, in the form that leases and tickets keep.
    holders: WayBack,
    index: usize,
    config: ShardConfig,
    health: HealthBoard,
    handover: watch::Sender<Handover>,
    ending: Ending,
    metrics: LaneMetrics,
    /// The gauge of the maximum number of waiting callers.
    _waiters_limit: Level,
    /// The pipelined connections.
    own: Vec<(LaneId, Own)>,
    /// Whether a pipelined connection was added, got a command, or changed its state, since the driver began its last
    /// poll of these connections.
    own_changed: bool,
    /// The other connections.
    tasks: BTreeMap<LaneId, TaskLane>,
    /// The probes of the first endpoint.
    probes: JoinSet<()>,
    timer: Pin<Box<Sleep>>,
    /// The number of answers in the last report of a pipelined connection.
    answered: usize,
    /// Whether the last turn left its inputs for the next one.
    has_waited: bool,
    is_over: bool,
}

/// A connection whose I/O this task does.
enum Own {
    Connecting(AbortOnDropHandle<Result<(Connected, LaneSettings)>>),
    Up(Box<Lane<Stream, Pending, OwnCommands<Pending>>>),
    /// The connection has ended, and the machine has not been told yet. The report of the end includes these requests,
    /// which were sent after the end.
    Over(Vec<Pending>),
}

/// A connection with a task of its own.
struct TaskLane {
    /// `None` once nothing more may be sent.
    commands: Option<mpsc::UnboundedSender<Command<Pending>>>,
    /// Requests that were sent after the connection had ended. The report of the end includes them.
    unsent: Vec<Pending>,
    /// Dropping this value ends the connection.
    _task: AbortOnDropHandle<()>,
}

/// The maximum number of inputs that a turn takes before it writes to the connections and reads from them. If many
/// callers send more inputs than this, the server works on their first requests while this task encodes the next ones.
const INPUTS_A_TURN: usize = 32;

/// The interval at which the driver checks for suspends while there are leases, because timers stand still during a
/// suspend.
const LOOK_FOR_SUSPENDS: Duration = Duration::from_secs(1);

/// The maximum number of turns before the task yields to other tasks.
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
        let shard = ShardMachine::new(setup, now, &mut effects).with_events(events);
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

    /// Runs turns. Ready when the shard has ended.
    fn poll_turns(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.shard.note_suspended(suspended(), Instant::now());
        for _ in 0..TURNS_IN_A_ROW {
            self.poll_connections(cx);
            if self.waits_for_more_inputs() {
                break;
            }
            let taken = self.take_inputs(cx);
            if taken > 0 {
                // Requests from these inputs are written at once.
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

    /// Returns whether to let other tasks run before the inputs are taken. If several callers were answered at once, or
    /// wait for answers, more requests will soon follow the first, and all of them can leave in one write. The input of
    /// a single caller is taken at once.
    fn waits_for_more_inputs(&mut self) -> bool {
        let are_several = self.answered.max(self.shard.in_flight()) > 1;
        let waits = are_several && !self.has_waited && !self.inputs.is_empty();
        self.has_waited = waits;
        waits
    }

    /// Takes the inputs of callers and connections. Returns their number.
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

    /// Detects that a server hung up while nothing was in flight, before something is sent to it.
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

    /// Runs the pipelined connections, and the machine with their events.
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

    /// Ticks the machine if something is due. Returns whether to take another turn.
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
        // A timer that fires early enough is not reset.
        if wake_at < self.timer.deadline() || self.timer.is_elapsed() {
            self.timer.as_mut().reset(wake_at);
        }
        // If the timer fires while nothing is due, another turn sets it again.
        self.timer.as_mut().poll(cx).is_ready()
    }

    /// Completes an input for the machine: the end of a connection includes all requests that were sent to it.
    fn completed(&mut self, mut input: Input) -> Input {
        if let Input::Lane(id, event @ (LaneEvent::Ended(_) | LaneEvent::Failed(_))) = &mut input {
            let unsent = self.remove(*id);
            if let LaneEvent::Ended(end) = event {
                end.leftovers.unwritten.extend(unsent);
            }
        }
        input
    }

    /// Forgets a connection. Returns the requests that were sent to it after it had ended.
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

    /// Performs the machine's effects.
    fn apply(&mut self) {
        // Performing effects makes no new effects.
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
                Effect::End(reply, report) => {
                    if let Some(reply) = reply {
                        drop(reply.send(report));
                    }
                    self.is_over = true;
                }
            }
        }
        // The vector keeps its capacity for the next turn.
        self.effects = effects;
    }

    /// Publishes the machine's health. The machine reports `Closed` as soon as its shutdown begins.
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
        // If the mailbox is closed, the shard is gone, and this task is about to be aborted.
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

    /// Returns a pipelined connection that is about to get a command.
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
                // The connection has just ended. The report of its end includes these requests.
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
                        Acquired::Queued(HeldPosition::new(id, target, key, refusal, Arc::clone(&self.holders)))
                    }
                });
                ask.tell(acquired);
            }
            Answer::Release(reply, outcome) => reply.tell(outcome),
            Answer::Question(question, answer, at) => question.tell(answer, &at),
            Answer::Failback(ask, answer) => ask.tell(answer),
        }
    }

    fn probe_first(&mut self, ask: Ask<Duration>) {
        let first = self.shard.endpoint_at(0);
        let connect = self.config.reach(self.index, first, Purpose::Pipelined);
        let mailbox = self.mailbox.clone();
        // Removes finished probes.
        while self.probes.try_join_next().is_some() {}
        let probe = async move {
            let outcome = connect.connect().await.map(drop);
            mailbox.send(Input::FirstProbed(outcome, ask));
        };
        self.probes.spawn(probe.in_current_span());
    }
}

/// However the shard ends, its holders are told before its connections are closed.
impl Drop for Driver {
    fn drop(&mut self) {
        self.shard.abandon(Instant::now());
    }
}

impl Own {
    /// Polls the connection and delivers its reports. Returns an event if its state has changed.
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
                    // The attempt's task ended without a result. If `connect` panics, it returns the panic as an error
                    // instead.
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
