//! A state for tests, and a clock that they own.

use std::time::Duration;

use super::*;
use crate::server::event::EventKind as Happened;
use crate::types::Token;

/// A state, and a clock that moves when it is told to.
pub(super) struct Bench {
    pub(super) state: State,
    pub(super) now: Instant,
}

/// An acquire that waits.
pub(super) struct Waiting(pub(super) Subject, oneshot::Receiver<Response>);

impl Waiting {
    pub(super) fn answer(&mut self) -> Option<Response> {
        self.1.try_recv().ok()
    }

    /// It is its turn.
    pub(super) fn granted(&mut self) -> Token {
        match self.answer() {
            Some(Response::Granted(grant)) => grant.token,
            other => panic!("it was its turn: {other:?}"),
        }
    }

    /// It will never be answered: its connection ends.
    pub(super) fn is_cut_off(&mut self) -> bool {
        self.1.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }
}

pub(super) fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

pub(super) fn secs(secs: u64) -> WaitSecs {
    WaitSecs::from_secs(secs).unwrap()
}

pub(super) fn slots(limit: u32) -> Target {
    Target::Semaphore(Limit::new(limit).unwrap())
}

impl Bench {
    pub(super) fn new(change: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options {
            record_events: true,
            ..Options::default()
        };
        change(&mut options);
        let mut state = State::new(options, Random::default());
        for connection in 1..=5 {
            assert!(state.connect(connection));
        }
        Self {
            state,
            now: Instant::now(),
        }
    }

    pub(super) fn ask(&mut self, connection: Connection, request: Request) -> Response {
        match self.state.request(connection, request, self.now) {
            Answer::Now(response) => response,
            Answer::Later { subject, .. } => panic!("it waits for {subject:?}"),
            Answer::Listening(_) => panic!("it listens"),
        }
    }

    pub(super) fn acquire_for(
        &mut self,
        connection: Connection,
        target: Target,
        name: &str,
        wait: u64,
        ttl: u64,
    ) -> Answer {
        let request = Request::Acquire {
            target,
            key: key(name),
            wait: secs(wait),
            ttl: Ttl::from_secs(ttl),
        };
        self.state.request(connection, request, self.now)
    }

    pub(super) fn acquire(&mut self, connection: Connection, target: Target, name: &str) -> Response {
        match self.acquire_for(connection, target, name, 0, 30) {
            Answer::Now(response) => response,
            Answer::Later { .. } | Answer::Listening(_) => panic!("a try does not wait"),
        }
    }

    pub(super) fn token(&mut self, connection: Connection, target: Target, name: &str) -> Token {
        match self.acquire(connection, target, name) {
            Response::Granted(grant) => grant.token,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn waiting(&mut self, connection: Connection, target: Target, name: &str) -> Waiting {
        match self.acquire_for(connection, target, name, 60, 30) {
            Answer::Later { subject, granted, .. } => Waiting(subject, granted),
            Answer::Now(response) => panic!("it was answered at once: {response:?}"),
            Answer::Listening(_) => panic!("it listens"),
        }
    }

    pub(super) fn release(&mut self, connection: Connection, kind: Kind, name: &str, token: Token) -> Response {
        let key = key(name);
        self.ask(connection, Request::Release { kind, key, token })
    }

    pub(super) fn enqueue(&mut self, connection: Connection, name: &str, ttl: u64) -> Response {
        let request = Request::Enqueue {
            target: Target::Lock,
            key: key(name),
            ttl: Ttl::from_secs(ttl),
        };
        self.ask(connection, request)
    }

    pub(super) fn collect(&mut self, connection: Connection, name: &str) -> Response {
        let request = Request::Wait {
            kind: Kind::Lock,
            key: key(name),
            wait: WaitSecs::TRY,
        };
        self.ask(connection, request)
    }

    pub(super) fn pass(&mut self, duration: Duration) {
        self.now += duration;
    }

    pub(super) fn kinds(&self) -> Vec<(Happened, Connection)> {
        let events = self.state.events().iter();
        events.map(|event| (event.kind, event.connection)).collect()
    }
}

pub(super) const SECOND: Duration = Duration::from_secs(1);
