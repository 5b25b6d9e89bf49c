//! A shard without real connections, and a registry of leases, for benchmarks.

use std::sync::Arc;

use tokio::sync::{Semaphore, oneshot};

use super::acquire::{Acquire, Patience};
use super::ask::Ask;
use super::effect::{AcquireOutcome, Answer};
use super::ids::LeaseId;
use super::registry::{Batching, GrantTimes};
use super::*;
use crate::lease::policy::RenewTerms;
use crate::net::failover::Policy;
use crate::net::lane::Outgoing;
use crate::protocol::Response;
use crate::types::{Fence, Grant, Key, Target, Token};

/// A shard whose server answers at once.
pub struct LoneShard {
    shard: ShardMachine,
    effects: Effects,
    now: Instant,
    lane: LaneId,
    keys: Vec<Key>,
    room: Arc<Semaphore>,
    sent: Vec<Outgoing<Pending>>,
    held: Vec<LeaseId>,
}

impl LoneShard {
    /// Creates a shard for this number of callers, each with a key of its own.
    #[must_use]
    pub fn new(callers: usize) -> Self {
        let plan = sample::plan(Policy::Single, &["a:1"]);
        let now = Instant::now();
        let mut effects = Effects::default();
        let shard = ShardMachine::new(sample::setup(plan, sample::settings()), now, &mut effects);
        let opened = effects.drain().find_map(|effect| match effect {
            Effect::Open(lane, _) => Some(lane),
            _ => None,
        });
        let mut lone = Self {
            shard,
            effects,
            now,
            lane: opened.unwrap(),
            keys: keys(callers),
            room: Arc::new(Semaphore::new(callers)),
            sent: Vec::new(),
            held: Vec::new(),
        };
        lone.handle(Input::Lane(lone.lane, sample::shown(None)));
        lone.sent.clear();
        lone
    }

    /// Lets each caller acquire its key and release it. Returns the number of inputs.
    pub fn pairs(&mut self) -> usize {
        let mut callers = Vec::with_capacity(self.keys.len());
        for key in self.keys.clone() {
            let (reply, caller) = oneshot::channel();
            callers.push(caller);
            let room = Arc::clone(&self.room).try_acquire_owned().unwrap();
            let ask = Ask { reply, _room: room };
            let acquire = Acquire::new(Target::Lock, key, Ttl::from_secs(30), RenewTerms::default(), ask);
            self.handle(Input::Acquire(acquire, Patience::TryThenWait));
        }
        self.answer(&Response::Granted(grant(1)));
        let held = std::mem::take(&mut self.held);
        for id in &held {
            // The guard was dropped.
            let reply = None;
            self.handle(Input::Release { id: *id, reply });
        }
        self.answer(&Response::Done);
        2 * held.len() + 2
    }

    /// Gives the same answer to all sent requests, in one read.
    fn answer(&mut self, response: &Response) {
        let sent = std::mem::take(&mut self.sent).into_iter();
        let report = sample::report(sent.map(|request| (request, response.clone())), self.now);
        self.handle(Input::Lane(self.lane, report));
    }

    fn handle(&mut self, input: Input) {
        self.shard.handle(input, self.now, &mut self.effects);
        for effect in self.effects.drain() {
            match effect {
                Effect::Send(_, outgoing) => self.sent.push(outgoing),
                Effect::Answer(Answer::Acquire(_, Ok(AcquireOutcome::Lease(id, _)))) => self.held.push(id),
                _ => {}
            }
        }
    }
}

/// A registry of held leases whose grants are spread over a third of their TTL.
pub struct HeldLeases {
    registry: Registry,
    key: Key,
    now: Instant,
}

const TTL_SECS: u64 = 30;

const ALONE: Batching = Batching {
    within: Duration::ZERO,
    most: 1,
};

impl HeldLeases {
    /// Creates a registry that holds this number of leases.
    #[must_use]
    pub fn new(leases: usize) -> Self {
        let settings = sample::settings();
        let (sink, began) = (ShardSink::nowhere(), Instant::now());
        let registry = Registry::new(
            settings.schedule,
            fastrand::Rng::with_seed(7),
            LeaseMetrics::new(&sink),
            began,
        );
        let mut held = Self {
            registry,
            key: Key::new("foreground").unwrap(),
            now: began,
        };
        let ttl = Duration::from_secs(TTL_SECS);
        for (index, key) in keys(leases).into_iter().enumerate() {
            held.now = began + ttl.mul_f64(index as f64 / leases as f64 / 3.0);
            held.insert(key);
        }
        held
    }

    /// Registers one lease and removes it.
    pub fn insert_and_remove(&mut self) {
        let id = self.insert(self.key.clone());
        self.registry.remove(id, self.now);
    }

    /// Renews the leases that are due next. Returns their number.
    pub fn renew_next(&mut self) -> usize {
        let Some(due) = self.registry.next_due() else { return 0 };
        self.now = due;
        let renew = self.registry.tick(due, ALONE, true).renew;
        let sent = self.registry.moment(due);
        for id in &renew {
            self.registry.renewed(*id, 1, sent, Some(TTL_SECS), due);
        }
        renew.len()
    }

    fn insert(&mut self, key: Key) -> LeaseId {
        let times = GrantTimes {
            sent_at: self.registry.moment(self.now),
            now: self.now,
        };
        let policy = RenewTerms::default();
        self.registry.insert(key, Target::Lock, grant(1), times, 1, policy).0
    }
}

fn keys(count: usize) -> Vec<Key> {
    (0..count)
        .map(|number| Key::new(format!("orders/{number}")).unwrap())
        .collect()
}

fn grant(number: u64) -> Grant {
    Grant::new(Token::compose(Fence(number), number), Ttl::from_secs(TTL_SECS).unwrap())
}
