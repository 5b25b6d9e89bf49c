//! The shard as a whole, step by step. Most of these are faults that the [model](super::model) has found.

use std::sync::Arc;

use tokio::sync::{Semaphore, oneshot};

use super::acquire::{Acquire, Patience};
use super::ask::Ask;
use super::effect::{AcquireOutcome, Answer, Opening};
use super::held::{Acquired, HeldLease, HeldPlace};
use super::input::{Inputs, Mailbox, Shutdown, ShutdownReport};
use super::question::Question;
use super::request::RequestKind;
use super::*;
use crate::error::{ErrorKind, Result};
use crate::lease::cell::LeaseState;
use crate::lease::policy::RenewPolicy;
use crate::lease::schedule::RenewRatio;
use crate::net::abilities::Abilities;
use crate::net::connect::Shown;
use crate::net::dial::LaneEvent;
use crate::net::fencing::{FencesShown, Fencing};
use crate::net::lane::{LaneEnd, LaneReport, Outgoing};
use crate::net::pipeline::{Leftovers, Received, Reply};
use crate::protocol::{Call, Response, StableRef};
use crate::types::{Fence, Grant, Key, Target, Token};

const SECOND: Duration = Duration::from_secs(1);

/// A shard, and what it wants done.
struct Bench {
    shard: ShardMachine,
    now: Instant,
    mailbox: Mailbox,
    opened: Vec<(LaneId, Opening)>,
    closed: Vec<LaneId>,
    sent: Vec<(LaneId, Outgoing<Pending>)>,
    report: Option<ShutdownReport>,
    _inputs: Inputs,
}

impl Bench {
    /// A shard whose pipelined connection is up.
    fn connected(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            schedule: Schedule {
                longest_suspend: None,
                renew_ratio: RenewRatio::new(0.5).unwrap(),
                margin: None,
            },
            reconnect: ReconnectPolicy::of(|| Box::new(std::iter::repeat(SECOND))),
            fail_fast: false,
            fencing: Fencing::IfKnown,
            server_read_timeout: 23 * SECOND,
            survives_disconnect: false,
            pipelined: 1,
            exclusive: 4,
            exclusive_per_key: 4,
            idle_timeout: 5 * SECOND,
            lease_ttl: None,
            max_redirects: 3,
        };
        change(&mut settings);
        let endpoint = Endpoint::parse("a:1").unwrap();
        let now = Instant::now();
        let setup = Setup {
            index: 0,
            plan: ShardPlan {
                policy: crate::net::failover::Policy::Single,
                endpoints: vec![endpoint.clone()],
                takeover_delay: None,
            },
            settings,
            sink: ShardSink::nowhere(),
            jitter: fastrand::Rng::with_seed(7),
            refs: Refs::new(StableRef::new("test").unwrap()),
            health: ShardHealth::connecting(0, &endpoint),
            handover: Handover::default(),
        };
        let mut effects = Effects::default();
        let shard = ShardMachine::new(setup, now, &mut effects);
        let (mailbox, inputs) = Mailbox::new();
        let mut bench = Self {
            shard,
            now,
            mailbox,
            opened: Vec::new(),
            closed: Vec::new(),
            sent: Vec::new(),
            report: None,
            _inputs: inputs,
        };
        bench.apply(effects);
        let (first, _) = bench.opened.remove(0);
        bench.up(first);
        bench
    }

    fn handle(&mut self, input: Input) {
        let mut effects = Effects::default();
        self.shard.handle(input, self.now, &mut effects);
        self.apply(effects);
    }

    fn apply(&mut self, mut effects: Effects) {
        for effect in effects.drain() {
            match effect {
                Effect::Open(lane, opening) => self.opened.push((lane, *opening)),
                Effect::Close(lane) => self.closed.push(lane),
                Effect::Send(lane, outgoing) => self.sent.push((lane, outgoing)),
                Effect::End(_, report) => self.report = Some(report),
                Effect::Answer(Answer::Acquire(ask, outcome)) => ask.tell(outcome.map(|outcome| match outcome {
                    AcquireOutcome::Lease(id, cell) => {
                        Acquired::Lease(HeldLease::new(cell, id, Arc::new(self.mailbox.clone())))
                    }
                    AcquireOutcome::Busy(refusal) => Acquired::Busy(refusal),
                    AcquireOutcome::Queued(id, target, key, refusal) => {
                        Acquired::Queued(HeldPlace::new(id, target, key, refusal, Arc::new(self.mailbox.clone())))
                    }
                })),
                Effect::Answer(Answer::Question(question, answer, at)) => question.tell(answer, &at),
                _ => {}
            }
        }
    }

    fn up(&mut self, lane: LaneId) {
        let shown = Shown {
            abilities: Abilities {
                ping: Some(true),
                sessions: None,
            },
            cluster: None,
            fences: FencesShown::Nothing,
        };
        self.handle(Input::Lane(lane, LaneEvent::Up(shown)));
    }

    /// The connection that was opened last.
    fn opened(&mut self) -> LaneId {
        self.opened.pop().expect("a connection is opened").0
    }

    /// The request of this kind that was sent last, and the connection that carries it.
    fn sent(&mut self, kind: RequestKind) -> (LaneId, Outgoing<Pending>) {
        let index = self.sent.iter().rposition(|(_, outgoing)| outgoing.tag.kind() == kind);
        self.sent
            .remove(index.unwrap_or_else(|| panic!("no {kind:?} was sent")))
    }

    fn answer(&mut self, lane: LaneId, request: Outgoing<Pending>, response: Response) {
        let reply = Reply {
            tag: request.tag,
            response,
            sent_at: self.now.into(),
        };
        let mut received = Received::nothing();
        received.replies.push(reply);
        let skipped = Vec::new();
        self.handle(Input::Lane(lane, LaneEvent::Report(LaneReport { received, skipped })));
    }

    /// A connection breaks on which nothing is under way.
    fn cut(&mut self, lane: LaneId) {
        let end = LaneEnd {
            cause: Some(Error::new(ErrorKind::Disconnected, "cut")),
            leftovers: Leftovers {
                unknown: Vec::new(),
                unwritten: Vec::new(),
            },
            was_silent: false,
            heard: self.now.into(),
        };
        self.handle(Input::Lane(lane, LaneEvent::Ended(Box::new(end))));
    }

    fn acquire(&mut self, name: &str, patience: Patience) -> oneshot::Receiver<Result<Acquired>> {
        let (ask, receiver) = ask();
        let acquire = Acquire::new(Target::Lock, key(name), Ttl::from_secs(10), RenewPolicy::default(), ask);
        self.handle(Input::Acquire(acquire, patience));
        receiver
    }

    /// A lease, granted to a try.
    fn hold(&mut self, name: &str) -> HeldLease {
        let mut receiver = self.acquire(name, Patience::Try);
        let (lane, request) = self.sent(RequestKind::Try);
        self.answer(lane, request, Response::Granted(grant(1)));
        match receiver.try_recv().unwrap().unwrap() {
            Acquired::Lease(lease) => lease,
            _ => panic!("it was granted"),
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.shard.next_due().filter(|due| *due <= until) {
            self.now = due.max(self.now);
            self.handle(Input::Tick);
        }
        self.now = until;
    }
}

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

fn grant(number: u64) -> Grant {
    Grant::new(Token::compose(Fence(number), number), Ttl::from_secs(10).unwrap())
}

fn ask<T>() -> (Ask<T>, oneshot::Receiver<Result<T>>) {
    let (told, receiver) = oneshot::channel();
    let room = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    (Ask { told, _room: room }, receiver)
}

#[test]
fn a_disposable_connection_that_was_busy_when_idle_ones_were_closed_is_closed_later() {
    let mut bench = Bench::connected(|settings| settings.idle_timeout = SECOND / 2);
    let (ask, _caller) = ask();
    bench.handle(Input::Ask(Question::of_any(Call::ping(), ask)));
    let lane = bench.opened();
    bench.up(lane);
    let (_, request) = bench.sent(RequestKind::Ask);
    bench.pass(5 * SECOND);
    assert!(bench.closed.is_empty(), "its answer is to come");
    bench.answer(lane, request, Response::Done);
    bench.pass(5 * SECOND);
    assert_eq!(bench.closed, [lane]);
}

#[test]
fn a_guard_that_is_dropped_during_the_shutdown_takes_nothing_from_its_report() {
    let mut bench = Bench::connected(|_| {});
    let lease = bench.hold("k");
    let until = bench.now + 5 * SECOND;
    bench.handle(Input::Shutdown(Shutdown { until, told: None }));
    let (id, _) = (lease.id(), drop(lease));
    bench.handle(Input::Release { id, told: None });
    // The release is not answered.
    bench.pass(5 * SECOND);
    let report = bench.report.expect("it is over");
    assert_eq!((report.released, report.unreleased), (0, vec![key("k")]));
}

/// A grant at a ticket's place that is being confirmed over the pipelined connection.
fn confirmed_grant(survives: bool) -> (Bench, LaneId, oneshot::Receiver<Result<Acquired>>) {
    let mut bench = Bench::connected(|settings| settings.survives_disconnect = survives);
    let mut receiver = bench.acquire("k", Patience::Enqueue);
    let owner = bench.opened();
    bench.up(owner);
    let (_, request) = bench.sent(RequestKind::Enqueue);
    bench.answer(owner, request, Response::Queued);
    let Ok(Ok(Acquired::Queued(ticket))) = receiver.try_recv() else {
        panic!("it is queued")
    };
    // So late that the grant has to be confirmed.
    bench.pass(6 * SECOND);
    let (ask, receiver) = ask();
    bench.handle(Input::Collect(ticket.id(), bench.now + SECOND, ask));
    let (_, request) = bench.sent(RequestKind::Collect);
    bench.answer(owner, request, Response::Granted(grant(1)));
    (bench, owner, receiver)
}

#[test]
fn a_grant_whose_connection_ended_while_it_was_confirmed_is_no_grant() {
    let (mut bench, owner, mut receiver) = confirmed_grant(false);
    let (pipelined, request) = bench.sent(RequestKind::Confirm);
    bench.cut(owner);
    bench.answer(pipelined, request, Response::Renewed(Some(10)));
    match receiver.try_recv().unwrap() {
        Err(error) => assert_eq!(error.kind(), ErrorKind::Disconnected),
        Ok(_) => panic!("it went with its connection"),
    }
    // In case the server has not noticed the end yet.
    bench.sent(RequestKind::Release);
}

#[test]
fn a_grant_that_is_confirmed_during_the_shutdown_is_given_back() {
    let (mut bench, _, mut receiver) = confirmed_grant(false);
    let (pipelined, request) = bench.sent(RequestKind::Confirm);
    let until = bench.now + 5 * SECOND;
    bench.handle(Input::Shutdown(Shutdown { until, told: None }));
    bench.answer(pipelined, request, Response::Renewed(Some(10)));
    match receiver.try_recv().unwrap() {
        Err(error) => assert_eq!(error.kind(), ErrorKind::Shutdown),
        Ok(_) => panic!("its client is shut down"),
    }
    let (pipelined, request) = bench.sent(RequestKind::Release);
    assert_eq!(bench.report, None, "the release is not answered yet");
    bench.answer(pipelined, request, Response::Done);
    assert!(bench.report.is_some());
}

#[test]
fn where_leases_survive_it_a_confirmed_grant_counts_to_the_connection_that_confirmed_it() {
    let (mut bench, owner, mut receiver) = confirmed_grant(true);
    let (pipelined, request) = bench.sent(RequestKind::Confirm);
    bench.cut(owner);
    bench.answer(pipelined, request, Response::Renewed(Some(10)));
    let Ok(Ok(Acquired::Lease(lease))) = receiver.try_recv() else {
        panic!("it is held")
    };
    assert_eq!(lease.cell.state_at(bench.now.into()), LeaseState::Held);
    bench.cut(pipelined);
    assert_eq!(lease.cell.state_at(bench.now.into()), LeaseState::Suspect);
}

#[test]
fn where_leases_survive_it_a_renewed_lease_counts_to_the_connection_that_renewed_it() {
    let mut bench = Bench::connected(|settings| settings.survives_disconnect = true);
    let lease = bench.hold("k");
    for _ in 0..2 {
        let pipelined = bench.shard.connections.in_slots()[0];
        bench.cut(pipelined);
        assert_eq!(lease.cell.state_at(bench.now.into()), LeaseState::Suspect);
        let again = bench.opened();
        bench.up(again);
        let (lane, request) = bench.sent(RequestKind::Renew);
        bench.answer(lane, request, Response::Renewed(Some(10)));
        assert_eq!(lease.cell.state_at(bench.now.into()), LeaseState::Held);
    }
}
