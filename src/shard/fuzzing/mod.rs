//! Fuzzes a shard with all inputs that its driver may give it: any callers, any well-formed answers, ends of
//! connections at any time, and time that passes with and without turns. In contrast to the server of `model`, the
//! server here may break the protocol's promises.

mod act;
mod answer;
mod callers;
mod lanes;
mod terms;

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use tokio::time::Instant;

use self::act::Act;
use self::callers::Callers;
use self::lanes::Lanes;
use self::terms::Terms;
use super::ShardMachine;
use super::effect::{AcquireOutcome, Answer, Effect, Effects};
use super::held::{Acquired, HeldLease, HeldPosition};
use super::ids::LaneId;
use super::input::{Input, Inputs, Mailbox};
use super::request::Pending;
use crate::net::dial::LaneEvent;

/// One input may have this many effects, plus four for each caller, grant, connection and unanswered request so far.
const EFFECTS_OF_NOTHING: usize = 64;

/// The maximum number of ticks while time passes. Renewals are at least a few milliseconds apart.
const MOST_TICKS: usize = 20_000;

/// The maximum number of events for one shard.
const MOST_ACTS: usize = 256;

/// Plays the events that the bytes encode.
pub(crate) fn shard(data: &[u8]) {
    let mut bytes = Unstructured::new(data);
    let Ok(terms) = Terms::arbitrary(&mut bytes) else {
        return;
    };
    let mut bench = Bench::new(&terms);
    for _ in 0..MOST_ACTS {
        if bytes.is_empty() || bench.is_over {
            break;
        }
        let Ok(act) = Act::arbitrary(&mut bytes) else { break };
        bench.act(act);
        bench.check_leases();
    }
    bench.end();
}

struct Bench {
    shard: ShardMachine,
    now: Instant,
    mailbox: Mailbox,
    inputs: Inputs,
    lanes: Lanes,
    callers: Callers,
    survives_disconnect: bool,
    /// When the shard must have ended after its shutdown began.
    ends_by: Option<Instant>,
    is_over: bool,
}

impl Bench {
    fn new(terms: &Terms) -> Self {
        let now = Instant::now();
        let mut effects = Effects::default();
        let shard = ShardMachine::new(terms.setup(), now, &mut effects);
        let (mailbox, inputs) = Mailbox::new();
        let mut bench = Self {
            shard,
            now,
            mailbox,
            inputs,
            lanes: Lanes::default(),
            callers: Callers::default(),
            survives_disconnect: terms.survives_disconnect(),
            ends_by: None,
            is_over: false,
        };
        for effect in effects.drain() {
            bench.apply(effect);
        }
        bench
    }

    /// Passes an input to the shard, and then the inputs that callers have sent because of it.
    fn tell(&mut self, input: Input) {
        self.handle(input);
        while let Some(input) = self.next_input() {
            self.handle(input);
        }
    }

    fn next_input(&mut self) -> Option<Input> {
        match self.inputs.poll_recv(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(input) => input,
            Poll::Pending => None,
        }
    }

    fn handle(&mut self, input: Input) {
        let mut effects = Effects::default();
        self.shard.handle(input, self.now, &mut effects);
        let most = EFFECTS_OF_NOTHING + 4 * (self.callers.count() + self.lanes.count());
        let mut count = 0;
        for effect in effects.drain() {
            count += 1;
            self.apply(effect);
        }
        assert!(count <= most, "{count} effects of one input, where {most} are enough");
    }

    fn apply(&mut self, effect: Effect) {
        assert!(!self.is_over, "the shard has an effect after its end");
        match effect {
            Effect::Open(lane, opening) => self.lanes.open(lane, &opening),
            Effect::Send(lane, outgoing) => {
                self.callers.before_sending(&outgoing.request);
                self.lanes.send(lane, outgoing);
            }
            Effect::Finish(lane) => self.lanes.finish(lane, false),
            Effect::HangUp(lane) => self.lanes.finish(lane, true),
            Effect::Close(lane) => self.lanes.close(lane),
            Effect::Answer(answer) => self.answer(answer),
            Effect::Publish(_) | Effect::HandOver(_) => {}
            Effect::ProbeFirst(ask) => self.callers.probes.push(ask),
            Effect::End(reply, report) => {
                if let Some(reply) = reply {
                    drop(reply.send(report));
                }
                self.is_over = true;
            }
        }
    }

    fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::Acquire(ask, outcome) => ask.tell(outcome.map(|outcome| match outcome {
                AcquireOutcome::Lease(id, cell) => Acquired::Lease(HeldLease::new(cell, id, self.mailbox.way_back())),
                AcquireOutcome::Busy(refusal) => Acquired::Busy(refusal),
                AcquireOutcome::Queued(id, target, key, refusal) => {
                    let way_back = self.mailbox.way_back();
                    Acquired::Queued(HeldPosition::new(id, target, key, refusal, way_back))
                }
            })),
            Answer::Release(reply, outcome) => reply.tell(outcome),
            Answer::Question(question, answer, at) => question.tell(answer, &at),
            Answer::Failback(ask, answer) => ask.tell(answer),
        }
    }

    /// Passes an event of a connection.
    fn lane_event(&mut self, lane: LaneId, event: LaneEvent<Pending>) {
        let is_end = matches!(event, LaneEvent::Ended(_));
        self.tell(Input::Lane(lane, event));
        if is_end && !self.survives_disconnect {
            self.callers.check_lost_with(lane, self.now);
        }
    }

    /// Lets time pass, with a tick whenever one is due.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        for ticks in 0.. {
            assert!(ticks < MOST_TICKS, "the shard asks for ticks without end");
            let Some(due) = self.shard.next_due().filter(|due| *due <= until && !self.is_over) else {
                break;
            };
            self.now = due.max(self.now);
            self.tick();
        }
        self.now = until;
    }

    fn tick(&mut self) {
        self.handle(Input::Tick);
        let due = self.shard.next_due();
        assert!(
            self.is_over || due.is_none_or(|due| due > self.now),
            "the shard asks for another tick at the same time"
        );
        let is_late = self.ends_by.is_some_and(|by| by <= self.now);
        assert!(!is_late || self.is_over, "the shard does not end after its shutdown");
    }

    /// Checks that callers rely on nothing that a server may have granted to others.
    fn check_leases(&mut self) {
        self.callers.take_answers();
        self.callers.check_beliefs(self.now);
    }

    /// Checks that, after the end of the shard, no caller waits for it and no holder relies on a lease.
    fn end(mut self) {
        self.shard.abandon(self.now);
        drop(self.shard);
        drop(self.lanes);
        drop(self.inputs);
        self.callers.check_end(self.now);
    }
}
