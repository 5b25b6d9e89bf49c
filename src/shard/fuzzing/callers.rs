//! The callers, and what they hold.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use crate::clock::Moment;
use crate::error::Result;
use crate::lease::policy::RenewTerms;
use crate::lease::release::ReleaseAnswer;
use crate::lease::state::LeaseState;
use crate::protocol::{Call, Request, Response};
use crate::shard::acquire::Acquire;
use crate::shard::ask::Ask;
use crate::shard::held::{Acquired, HeldLease, HeldPosition};
use crate::shard::ids::LaneId;
use crate::shard::input::ShutdownReport;
use crate::shard::progress::Refusal;
use crate::shard::question::{Answered, Question};
use crate::types::{Fence, Key, Limit, Target, Token, Ttl};

#[derive(Default)]
pub(super) struct Callers {
    /// Callers that wait for the outcome of an acquire.
    waiting: Vec<oneshot::Receiver<Result<Acquired>>>,
    asking: Vec<oneshot::Receiver<Result<Answered<()>>>>,
    failing_back: Vec<oneshot::Receiver<Result<Duration>>>,
    releasing: Vec<ReleaseAnswer>,
    shutting_down: Vec<oneshot::Receiver<ShutdownReport>>,
    leases: Vec<HeldLease>,
    positions: Vec<HeldPosition>,
    /// Unfinished probes of the first server.
    pub(super) probes: Vec<Ask<Duration>>,
    /// For each token, the instant until which the server keeps its lease, and the connection that got it.
    granted: HashMap<Token, (Instant, LaneId)>,
    /// The tokens whose release was sent.
    released: Vec<Token>,
    /// The total time for which the machine was suspended.
    pub(super) suspended: Duration,
    count: usize,
}

fn target(what: u8) -> (Target, Key) {
    let target = match what / 4 % 2 {
        0 => Target::Lock,
        _ => Target::Semaphore(Limit::new(2).unwrap()),
    };
    let name = ["a", "b", "c", "d"][usize::from(what % 4)];
    (target, Key::new(name).unwrap())
}

impl Callers {
    /// Returns the total number of callers and grants so far.
    pub(super) fn count(&self) -> usize {
        self.count + self.granted.len()
    }

    fn new_ask<T>(&mut self) -> (Ask<T>, oneshot::Receiver<Result<T>>) {
        self.count += 1;
        let (reply, receiver) = oneshot::channel();
        let room = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        (Ask { reply, _room: room }, receiver)
    }

    pub(super) fn acquire(&mut self, what: u8, ttl: u8) -> Box<Acquire> {
        let (ask, receiver) = self.new_ask();
        self.waiting.push(receiver);
        let (target, key) = target(what);
        let policy = RenewTerms {
            never: ttl >= 192,
            max_hold: (ttl >= 128).then_some(Duration::from_secs(7)),
            pace: None,
        };
        let mut acquire = Acquire::new(target, key, Ttl::from_secs(u64::from(ttl % 32)), policy, ask);
        acquire.holding = what >= 128;
        acquire
    }

    /// Returns a server's recent answer that a key is held.
    pub(super) fn refusal(now: Instant) -> Refusal {
        Refusal { at: now, own: 0 }
    }

    pub(super) fn collect(&mut self, which: u8, until: Instant) {
        if let Some(index) = usize::from(which).checked_rem(self.positions.len()) {
            let (ask, receiver) = self.new_ask();
            self.waiting.push(receiver);
            self.positions.swap_remove(index).collect(until, ask);
        }
    }

    pub(super) fn ask(&mut self, which: u8) -> Box<Question> {
        let (ask, receiver) = self.new_ask();
        self.asking.push(receiver);
        match which % 2 {
            0 => Question::of_any(Call::ping(), ask),
            _ => Question::of_the_leader(Call::barrier(), ask),
        }
    }

    pub(super) fn failback(&mut self) -> Ask<Duration> {
        let (ask, receiver) = self.new_ask();
        self.failing_back.push(receiver);
        ask
    }

    pub(super) fn shutdown(&mut self) -> oneshot::Sender<ShutdownReport> {
        let (reply, receiver) = oneshot::channel();
        self.shutting_down.push(receiver);
        reply
    }

    /// Drops a caller's receiver. A lease that it was given meanwhile is released.
    pub(super) fn leave(&mut self, which: u8) {
        if let Some(index) = usize::from(which).checked_rem(self.waiting.len()) {
            self.waiting.swap_remove(index);
        }
    }

    pub(super) fn release(&mut self, which: u8) {
        if let Some(index) = usize::from(which).checked_rem(self.leases.len()) {
            let lease = self.leases.swap_remove(index);
            match which >= 128 {
                true => drop(lease),
                false => self.releasing.push(lease.release()),
            }
        }
    }

    pub(super) fn drop_position(&mut self, which: u8) {
        if let Some(index) = usize::from(which).checked_rem(self.positions.len()) {
            self.positions.swap_remove(index);
        }
    }

    pub(super) fn next_token(&mut self) -> Token {
        let number = self.granted.len() as u64 + 1;
        Token::compose(Fence(number), number)
    }

    /// Notes, from an answer, until when the server keeps the lease of a token.
    pub(super) fn note(&mut self, request: &Request, response: &Response, lane: LaneId, sent_at: Instant) {
        match (request, response) {
            (_, Response::Granted(grant) | Response::Acquired(grant)) => {
                self.granted
                    .insert(grant.token, (sent_at + grant.ttl.as_duration(), lane));
            }
            (Request::Renew { token, ttl, .. }, Response::Renewed(left)) => {
                let asked = ttl.map_or(Duration::ZERO, Ttl::as_duration);
                let left = Duration::from_secs(left.unwrap_or_default());
                if let Some((until, _)) = self.granted.get_mut(token) {
                    *until = (*until).max(sent_at + asked.max(left));
                }
            }
            _ => {}
        }
    }

    /// Checks that no lease is renewed after its release was sent.
    pub(super) fn before_sending(&mut self, request: &Request) {
        match request {
            Request::Release { token, .. } => self.released.push(*token),
            Request::Renew { token, .. } => assert!(
                !self.released.contains(token),
                "a lease is renewed after its release was sent"
            ),
            _ => {}
        }
    }

    /// Lets the callers take their answers.
    pub(super) fn take_answers(&mut self) {
        let (leases, positions) = (&mut self.leases, &mut self.positions);
        self.waiting.retain_mut(|receiver| match receiver.try_recv() {
            Ok(Ok(Acquired::Lease(lease))) => {
                leases.push(lease);
                false
            }
            Ok(Ok(Acquired::Queued(position))) => {
                positions.push(position);
                false
            }
            Ok(_) => false,
            Err(oneshot::error::TryRecvError::Empty) => true,
            Err(oneshot::error::TryRecvError::Closed) => false,
        });
    }

    /// Checks that no caller relies on a lease that the server may have granted to others by now.
    pub(super) fn check_beliefs(&self, now: Instant) {
        for lease in &self.leases {
            let state = self.state(lease, now);
            let (until, _) = self.granted[&lease.cell.token];
            let believes = matches!(state, LeaseState::Held | LeaseState::Suspect);
            assert!(!believes || now < until, "a caller relies on a lease that has ended");
        }
        for (index, lease) in self.leases.iter().enumerate() {
            let is_again = self.leases[..index]
                .iter()
                .any(|other| other.cell.token == lease.cell.token);
            assert!(!is_again, "two callers hold one grant");
        }
    }

    fn state(&self, lease: &HeldLease, now: Instant) -> LeaseState {
        let suspended = self.suspended;
        lease.cell.state_at(Moment { at: now, suspended })
    }

    /// Checks that no caller relies on a lease whose connection has ended, since the server grants it to others.
    pub(super) fn check_lost_with(&mut self, lane: LaneId, now: Instant) {
        for lease in &self.leases {
            let (_, owner) = self.granted[&lease.cell.token];
            let state = self.state(lease, now);
            let believes = matches!(state, LeaseState::Held | LeaseState::Suspect);
            assert!(
                owner != lane || !believes,
                "a caller relies on a lease whose connection has ended"
            );
        }
    }

    /// Checks the callers after the end of the shard.
    pub(super) fn check_end(mut self, now: Instant) {
        self.take_answers();
        self.probes.clear();
        assert!(self.waiting.is_empty(), "a caller waits for a shard that is gone");
        for lease in &self.leases {
            let believes = matches!(self.state(lease, now), LeaseState::Held | LeaseState::Suspect);
            assert!(!believes, "a caller relies on a lease whose shard is gone");
        }
        let over = |state| state != oneshot::error::TryRecvError::Empty;
        assert!(
            self.asking
                .iter_mut()
                .all(|asked| asked.try_recv().err().is_none_or(over))
        );
        assert!(
            self.releasing
                .iter_mut()
                .all(|asked| asked.try_recv().err().is_none_or(over))
        );
        assert!(
            self.failing_back
                .iter_mut()
                .all(|asked| asked.try_recv().err().is_none_or(over))
        );
        assert!(
            self.shutting_down
                .iter_mut()
                .all(|asked| asked.try_recv().err().is_none_or(over))
        );
    }
}
