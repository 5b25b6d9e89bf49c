//! Tests that the parts of a state stay consistent with each other under random requests.

use std::collections::HashMap;
use std::time::Duration;

use super::super::bench::{Bench, Waiting, key, secs, slots};
use super::super::*;
use crate::protocol::Request;
use crate::server::release::Release;
use crate::types::{Target, Token};

/// Five connections that send random requests.
struct Crowd {
    bench: Bench,
    random: fastrand::Rng,
    connections: Vec<ConnectionId>,
    /// The connections with a blocking request; they send nothing else.
    blocked: HashMap<ConnectionId, Waiting>,
    tokens: Vec<Token>,
}

impl Crowd {
    fn new(release: Release, auto_release: bool, seed: u64) -> Self {
        let bench = Bench::new(|options| {
            options.release = release;
            options.auto_release_on_disconnect = auto_release;
            options.max_locks = 4;
            options.max_waiters = 3;
        });
        Self {
            bench,
            random: fastrand::Rng::with_seed(seed),
            connections: (1..=5).collect(),
            blocked: HashMap::new(),
            tokens: Vec::new(),
        }
    }

    fn step(&mut self) {
        let tokens = &mut self.tokens;
        self.blocked.retain(|_, waiting| match waiting.answer() {
            Some(Response::Granted(grant)) => {
                tokens.push(grant.token);
                false
            }
            Some(other) => panic!("{other:?}"),
            None => true,
        });
        let which = self.random.usize(..self.connections.len());
        let connection = self.connections[which];
        match self.random.u8(..40) {
            0 => {
                self.blocked.remove(&connection);
                self.bench.disconnect(connection);
                self.connections[which] = self.bench.state.connect(0).expect("there is room");
            }
            1..=4 => {
                self.bench.pass(Duration::from_millis(self.random.u64(..1500)));
            }
            5..=6 => self.bench.state.expire(self.bench.now),
            7 => self.bench.state.collect(self.bench.now),
            _ => match self.blocked.get(&connection) {
                // Sometimes its time is over.
                Some(Waiting(subject, _)) if self.random.bool() => {
                    let subject = *subject;
                    self.bench.state.give_up(connection, subject, self.bench.now);
                    self.blocked.remove(&connection);
                }
                Some(_) => {}
                None => {
                    let request = self.request();
                    match self.bench.send(connection, request) {
                        ServerAnswer::Now(Response::Granted(grant) | Response::Acquired(grant)) => {
                            self.tokens.push(grant.token);
                        }
                        ServerAnswer::Later { subject, granted, .. } => {
                            self.blocked.insert(connection, Waiting(subject, granted));
                        }
                        ServerAnswer::Now(_) | ServerAnswer::Hangs { .. } | ServerAnswer::Listening(_) => {}
                    }
                }
            },
        }
    }

    fn request(&mut self) -> Request {
        let random = &mut self.random;
        let target = match random.u8(..3) {
            0 => slots(2),
            _ => Target::Lock,
        };
        let (kind, key) = (target.kind(), key(["a", "b", "c"][random.usize(..3)]));
        let ttl = Ttl::from_secs(random.u64(1..4));
        let wait = secs(random.u64(..2));
        let token = match random.usize(..self.tokens.len() + 1) {
            0 => Token::NEVER_ISSUED,
            held => self.tokens[held - 1],
        };
        match random.u8(..10) {
            0..=3 => Request::Acquire { target, key, wait, ttl },
            4..=5 => Request::Enqueue { target, key, ttl },
            6..=7 => Request::Wait { kind, key, wait },
            8 => Request::Release { kind, key, token },
            _ => Request::Renew { kind, key, token, ttl },
        }
    }
}

#[test]
fn the_state_stays_consistent_under_random_requests() {
    for release in Release::ALL {
        for (seed, auto_release) in (0..20).flat_map(|seed| [(seed, true), (seed, false)]) {
            let mut crowd = Crowd::new(release, auto_release, seed);
            for _ in 0..1000 {
                crowd.step();
                crowd.bench.state.assert_consistent();
            }
            assert!(crowd.tokens.len() > 20, "nothing was tested");
        }
    }
}
