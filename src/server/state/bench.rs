//! A state for tests, with a clock that the tests control.

use std::time::Duration;

use super::*;
use crate::protocol::{Request, RequestDecoder, StableRef};
use crate::server::event::EventKind as Happened;
use crate::server::release::Release;
use crate::types::{Key, Limit, Target, Token};

/// A state, with a clock that moves only on command.
pub(super) struct Bench {
    pub(super) state: State,
    pub(super) now: Instant,
}

/// An acquire that waits.
pub(super) struct Waiting(pub(super) KeyId, pub(super) oneshot::Receiver<Response>);

impl Waiting {
    pub(super) fn answer(&mut self) -> Option<Response> {
        self.1.try_recv().ok()
    }

    /// Expects a grant and returns its token.
    pub(super) fn granted(&mut self) -> Token {
        match self.answer() {
            Some(Response::Granted(grant)) => grant.token,
            other => panic!("no grant: {other:?}"),
        }
    }

    /// Panics unless the request is never answered, because its connection ends.
    pub(super) fn assert_never_answered(&mut self) {
        assert_eq!(self.1.try_recv(), Err(oneshot::error::TryRecvError::Closed));
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
    pub(super) fn new(change: impl FnOnce(&mut ServerOptions)) -> Self {
        let mut options = ServerOptions {
            record_events: true,
            ..ServerOptions::default()
        };
        change(&mut options);
        let mut state = State::new(options, Random::default());
        for connection in 1..=5 {
            assert_eq!(state.connect(0), Some(connection));
        }
        Self {
            state,
            now: Instant::now(),
        }
    }

    /// Creates a cluster of three members. Connections 1 to 3 go to the first member, which is the leader, connection
    /// 4 goes to the second, and connection 5 to the third.
    pub(super) fn cluster(change: impl FnOnce(&mut ServerOptions)) -> Self {
        let mut options = ServerOptions {
            record_events: true,
            release: Release::Cluster,
            orphan_ttl: 10 * SECOND,
            ..ServerOptions::default()
        };
        change(&mut options);
        let addresses = (1..=3).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        let mut state = State::of_cluster(options, Random::default(), addresses);
        for (member, connection) in [0, 0, 0, 1, 2].into_iter().zip(1..) {
            assert_eq!(state.connect(member), Some(connection));
        }
        Self {
            state,
            now: Instant::now(),
        }
    }

    /// Opens a new connection of a session.
    pub(super) fn connect(&mut self, member: usize, session: &str) -> ConnectionId {
        let connection = self.state.connect(member).expect("there is room");
        assert_eq!(self.present(connection, session), Response::Done);
        connection
    }

    pub(super) fn present(&mut self, connection: ConnectionId, session: &str) -> Response {
        let reference = StableRef::new(session).unwrap();
        self.ask(connection, Request::StableRef { reference })
    }

    pub(super) fn disconnect(&mut self, connection: ConnectionId) {
        self.state.disconnect(connection, self.now);
    }

    pub(super) fn lead(&mut self, member: usize) {
        self.state.lead(member, self.now);
    }

    pub(super) fn renew(&mut self, connection: ConnectionId, name: &str, token: Token, ttl: u64) -> Response {
        let request = Request::Renew {
            kind: Kind::Lock,
            key: key(name),
            token,
            ttl: Ttl::from_secs(ttl),
        };
        self.ask(connection, request)
    }

    /// Sends a request in the form in which it is read from the wire.
    pub(super) fn send(&mut self, connection: ConnectionId, request: Request) -> ServerAnswer {
        let mut decoder = RequestDecoder::default();
        request.encode(decoder.read_space());
        let lines = decoder.next_lines().unwrap().expect("it is complete");
        let request = RawRequest::read(lines).expect("it is well-formed");
        self.state.request(connection, request, self.now)
    }

    pub(super) fn ask(&mut self, connection: ConnectionId, request: Request) -> Response {
        match self.send(connection, request) {
            ServerAnswer::Now(response) => response,
            ServerAnswer::Later { subject, .. } => panic!("it waits for {subject:?}"),
            ServerAnswer::Hangs { .. } => panic!("it hangs"),
            ServerAnswer::Listening(_) => panic!("it listens"),
        }
    }

    pub(super) fn acquire_for(
        &mut self,
        connection: ConnectionId,
        target: Target,
        name: &str,
        wait: u64,
        ttl: u64,
    ) -> ServerAnswer {
        let request = Request::Acquire {
            target,
            key: key(name),
            wait: secs(wait),
            ttl: Ttl::from_secs(ttl),
        };
        self.send(connection, request)
    }

    pub(super) fn acquire(&mut self, connection: ConnectionId, target: Target, name: &str) -> Response {
        match self.acquire_for(connection, target, name, 0, 30) {
            ServerAnswer::Now(response) => response,
            ServerAnswer::Later { .. } | ServerAnswer::Hangs { .. } | ServerAnswer::Listening(_) => {
                panic!("a try does not wait")
            }
        }
    }

    pub(super) fn token(&mut self, connection: ConnectionId, target: Target, name: &str) -> Token {
        match self.acquire(connection, target, name) {
            Response::Granted(grant) => grant.token,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn waiting(&mut self, connection: ConnectionId, target: Target, name: &str) -> Waiting {
        match self.acquire_for(connection, target, name, 60, 30) {
            ServerAnswer::Later { subject, granted, .. } => Waiting(subject, granted),
            ServerAnswer::Now(response) => panic!("it was answered at once: {response:?}"),
            ServerAnswer::Hangs { .. } => panic!("it hangs"),
            ServerAnswer::Listening(_) => panic!("it listens"),
        }
    }

    pub(super) fn release(&mut self, connection: ConnectionId, kind: Kind, name: &str, token: Token) -> Response {
        let key = key(name);
        self.ask(connection, Request::Release { kind, key, token })
    }

    pub(super) fn enqueue(&mut self, connection: ConnectionId, name: &str, ttl: u64) -> Response {
        let request = Request::Enqueue {
            target: Target::Lock,
            key: key(name),
            ttl: Ttl::from_secs(ttl),
        };
        self.ask(connection, request)
    }

    pub(super) fn collect(&mut self, connection: ConnectionId, name: &str) -> Response {
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

    /// Returns how many events of this kind there were.
    pub(super) fn count(&self, kind: Happened) -> usize {
        self.kinds().iter().filter(|(happened, _)| *happened == kind).count()
    }

    pub(super) fn kinds(&self) -> Vec<(Happened, ConnectionId)> {
        let events = self.state.events().iter();
        events.map(|event| (event.kind, event.connection)).collect()
    }
}

pub(super) const SECOND: Duration = Duration::from_secs(1);
