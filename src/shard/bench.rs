//! A test bench for a shard: it passes inputs and records effects.

use std::sync::Arc;

use tokio::sync::{Semaphore, oneshot};

use super::acquire::{Acquire, Patience};
use super::ask::Ask;
use super::effect::{AcquireOutcome, Answer, Opening};
use super::held::{Acquired, HeldLease, HeldPosition};
use super::input::{Inputs, Mailbox, ShutdownReport};
use super::rules::RequestKind;
use super::*;
use crate::error::{ErrorKind, Result};
use crate::lease::policy::RenewTerms;
use crate::net::dial::LaneEvent;
use crate::net::failover::Policy;
use crate::net::lane::{LaneEnd, Outgoing};
use crate::net::pipeline::Leftovers;
use crate::protocol::{Response, StableRef};
use crate::types::{Fence, Grant, Key, Target, Token};

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// A shard and its recorded effects.
pub(super) struct Bench {
    pub(super) shard: ShardMachine,
    pub(super) now: Instant,
    pub(super) mailbox: Mailbox,
    pub(super) opened: Vec<(LaneId, Opening)>,
    pub(super) closed: Vec<LaneId>,
    pub(super) hung_up: Vec<LaneId>,
    /// The connections over which nothing more is sent.
    pub(super) finished: Vec<LaneId>,
    pub(super) sent: Vec<(LaneId, Outgoing<Pending>)>,
    pub(super) report: Option<ShutdownReport>,
    /// The terms of acquires.
    pub(super) target: Target,
    pub(super) ttl: Option<Ttl>,
    pub(super) policy: RenewTerms,
    _inputs: Inputs,
}

impl Bench {
    /// Creates a shard on one server, whose pipelined connection is up.
    pub(super) fn connected(change: impl FnOnce(&mut Settings)) -> Self {
        Self::of(Policy::Single, &["a:1"], None, None, change)
    }

    /// Creates a shard on a cluster of three members, whose pipelined connection is up.
    pub(super) fn cluster(change: impl FnOnce(&mut Settings)) -> Self {
        Self::of(Policy::Cluster, &["a:1", "b:1", "c:1"], None, None, change)
    }

    /// Creates a shard as `cluster` does, with members that keep the leases of a lost connection.
    pub(super) fn keeping(orphan_ttl: Duration) -> Self {
        Self::of(Policy::Cluster, &["a:1", "b:1", "c:1"], Some(orphan_ttl), None, |_| {})
    }

    /// Creates a shard as `keeping` does, with a stable name.
    pub(super) fn named(orphan_ttl: Duration, name: &str) -> Self {
        let members = &["a:1", "b:1", "c:1"];
        Self::of(Policy::Cluster, members, Some(orphan_ttl), Some(name), |_| {})
    }

    fn of(
        policy: Policy,
        endpoints: &[&str],
        orphan_ttl: Option<Duration>,
        stable_ref: Option<&str>,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let mut settings = sample::settings();
        change(&mut settings);
        let now = Instant::now();
        let plan = ShardPlan {
            orphan_ttl,
            stable_ref: stable_ref.map(|name| StableRef::new(name).unwrap()),
            ..sample::plan(policy, endpoints)
        };
        let setup = sample::setup(plan, settings);
        let mut effects = Effects::default();
        let shard = ShardMachine::new(setup, now, &mut effects);
        let (mailbox, inputs) = Mailbox::new();
        let mut bench = Self {
            shard,
            now,
            mailbox,
            opened: Vec::new(),
            closed: Vec::new(),
            hung_up: Vec::new(),
            finished: Vec::new(),
            sent: Vec::new(),
            report: None,
            target: Target::Lock,
            ttl: Ttl::from_secs(10),
            policy: RenewTerms::default(),
            _inputs: inputs,
        };
        bench.apply(effects);
        let (first, _) = bench.opened.remove(0);
        bench.up(first);
        bench
    }

    pub(super) fn handle(&mut self, input: Input) {
        let mut effects = Effects::default();
        self.shard.handle(input, self.now, &mut effects);
        self.apply(effects);
    }

    pub(super) fn apply(&mut self, mut effects: Effects) {
        for effect in effects.drain() {
            match effect {
                Effect::Open(lane, opening) => self.opened.push((lane, *opening)),
                Effect::Close(lane) => self.closed.push(lane),
                Effect::HangUp(lane) => self.hung_up.push(lane),
                Effect::Finish(lane) => self.finished.push(lane),
                Effect::Send(lane, outgoing) => self.sent.push((lane, outgoing)),
                Effect::End(_, report) => self.report = Some(report),
                Effect::Answer(Answer::Acquire(ask, outcome)) => ask.tell(outcome.map(|outcome| match outcome {
                    AcquireOutcome::Lease(id, cell) => {
                        Acquired::Lease(HeldLease::new(cell, id, self.mailbox.way_back()))
                    }
                    AcquireOutcome::Busy(refusal) => Acquired::Busy(refusal),
                    AcquireOutcome::Queued(id, target, key, refusal) => {
                        Acquired::Queued(HeldPosition::new(id, target, key, refusal, self.mailbox.way_back()))
                    }
                })),
                Effect::Answer(Answer::Release(reply, outcome)) => reply.tell(outcome),
                Effect::Answer(Answer::Question(question, answer, at)) => question.tell(answer, &at),
                _ => {}
            }
        }
    }

    pub(super) fn up(&mut self, lane: LaneId) {
        let shown = sample::shown(self.shard.serving.is_cluster().then_some(true));
        self.handle(Input::Lane(lane, shown));
    }

    /// Makes the opening of a connection fail.
    pub(super) fn fail(&mut self, lane: LaneId) {
        self.fail_with(lane, Error::new(ErrorKind::Connect, "refused"));
    }

    pub(super) fn fail_with(&mut self, lane: LaneId, error: Error) {
        self.handle(Input::Lane(lane, LaneEvent::Failed(error)));
    }

    /// Returns the connection that was opened last.
    pub(super) fn opened(&mut self) -> LaneId {
        self.opened.pop().expect("a connection is opened").0
    }

    /// Brings up the connection that was opened last.
    pub(super) fn opens(&mut self) -> LaneId {
        let lane = self.opened();
        self.up(lane);
        lane
    }

    /// Removes the last request of this kind, and returns it with its connection.
    pub(super) fn sent(&mut self, kind: RequestKind) -> (LaneId, Outgoing<Pending>) {
        let index = self.sent.iter().rposition(|(_, outgoing)| outgoing.tag.kind() == kind);
        self.sent
            .remove(index.unwrap_or_else(|| panic!("no {kind:?} was sent")))
    }

    /// Removes and returns the last request of this kind, which must be on this connection.
    pub(super) fn sent_on(&mut self, lane: LaneId, kind: RequestKind) -> Outgoing<Pending> {
        let (on, outgoing) = self.sent(kind);
        assert_eq!(on, lane);
        outgoing
    }

    /// Whether there is a request of this kind that the test has not removed.
    pub(super) fn has_sent(&self, kind: RequestKind) -> bool {
        self.sent.iter().any(|(_, outgoing)| outgoing.tag.kind() == kind)
    }

    pub(super) fn answer(&mut self, lane: LaneId, request: Outgoing<Pending>, response: Response) {
        self.answer_all(lane, vec![(request, response)]);
    }

    /// Answers the last request of this kind, which must be on this connection.
    pub(super) fn answer_to(&mut self, lane: LaneId, kind: RequestKind, response: Response) {
        let request = self.sent_on(lane, kind);
        self.answer(lane, request, response);
    }

    /// Delivers several answers at once.
    pub(super) fn answer_all(&mut self, lane: LaneId, answers: Vec<(Outgoing<Pending>, Response)>) {
        self.answer_all_sent_at(lane, answers, self.now);
    }

    /// Answers a request that was sent at `sent_at`.
    pub(super) fn answer_from(
        &mut self,
        lane: LaneId,
        request: Outgoing<Pending>,
        response: Response,
        sent_at: Instant,
    ) {
        self.answer_all_sent_at(lane, vec![(request, response)], sent_at);
    }

    fn answer_all_sent_at(&mut self, lane: LaneId, answers: Vec<(Outgoing<Pending>, Response)>, sent_at: Instant) {
        self.handle(Input::Lane(lane, sample::report(answers, sent_at)));
    }

    /// Breaks a connection without requests under way.
    pub(super) fn cut(&mut self, lane: LaneId) {
        self.cut_with(lane, Vec::new());
    }

    /// Breaks a connection after these requests were written and before they were answered.
    pub(super) fn cut_with(&mut self, lane: LaneId, unknown: Vec<Outgoing<Pending>>) {
        self.ends(lane, tags(unknown), Vec::new(), false);
    }

    /// Ends a connection because a requested sign of life did not come.
    pub(super) fn falls_silent(&mut self, lane: LaneId) {
        self.ends(lane, Vec::new(), Vec::new(), true);
    }

    fn ends(&mut self, lane: LaneId, unknown: Vec<Pending>, unwritten: Vec<Pending>, was_silent: bool) {
        let end = LaneEnd {
            cause: Some(Error::new(ErrorKind::Disconnected, "cut")),
            leftovers: Leftovers { unknown, unwritten },
            was_silent,
            heard: self.now.into(),
        };
        self.handle(Input::Lane(lane, LaneEvent::Ended(Box::new(end))));
    }

    /// Breaks a connection before it answers its last request of this kind.
    pub(super) fn cut_unanswered(&mut self, lane: LaneId, kind: RequestKind) {
        let request = self.sent_on(lane, kind);
        self.cut_with(lane, vec![request]);
    }

    /// Breaks a connection before it writes its last request of this kind.
    pub(super) fn cut_unwritten(&mut self, lane: LaneId, kind: RequestKind) {
        let request = self.sent_on(lane, kind);
        self.ends(lane, Vec::new(), tags(vec![request]), false);
    }

    /// Returns the pipelined connection that serves or is opening.
    pub(super) fn pipelined(&self) -> LaneId {
        self.shard.connections.in_slots()[0]
    }

    /// Brings up the pipelined connection that is opening. Its member leads.
    pub(super) fn leader_is_found(&mut self) -> LaneId {
        let lane = self.pipelined();
        self.opened.retain(|(opened, _)| *opened != lane);
        self.up(lane);
        lane
    }

    pub(super) fn acquire(&mut self, name: &str, patience: Patience) -> oneshot::Receiver<Result<Acquired>> {
        let (ask, receiver) = ask();
        let acquire = Acquire::new(self.target, key(name), self.ttl, self.policy, ask);
        self.handle(Input::Acquire(acquire, patience));
        receiver
    }

    /// Acquires a lease with a try.
    pub(super) fn hold(&mut self, name: &str) -> HeldLease {
        let mut receiver = self.acquire(name, Patience::Try);
        let (lane, request) = self.sent(RequestKind::Try);
        self.answer(lane, request, Response::Granted(grant(1)));
        match receiver.try_recv().unwrap().unwrap() {
            Acquired::Lease(lease) => lease,
            _ => panic!("the try gets no lease"),
        }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.shard.next_due().filter(|due| *due <= until) {
            self.now = due.max(self.now);
            self.handle(Input::Tick);
        }
        self.now = until;
    }
}

fn tags(requests: Vec<Outgoing<Pending>>) -> Vec<Pending> {
    requests.into_iter().map(|outgoing| outgoing.tag).collect()
}

pub(super) fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

pub(super) fn grant(number: u64) -> Grant {
    Grant::new(Token::compose(Fence(number), number), Ttl::from_secs(10).unwrap())
}

pub(super) fn ask<T>() -> (Ask<T>, oneshot::Receiver<Result<T>>) {
    let (reply, receiver) = oneshot::channel();
    let room = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    (Ask { reply, _room: room }, receiver)
}
