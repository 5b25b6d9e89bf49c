//! Keeps one connection to a set of servers: decides which server is tried next, after which pause, and what callers
//! get in the meantime. Pure: no sockets, and the caller provides the time.
//!
//! A shard has one [`Reconnect`] for its pipelined connections, and a signal connection has its own.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::backoff::{Attempts, ReconnectPolicy};
use super::endpoint::Endpoint;
use super::failover::{Failover, FailoverReason, Pace, Switch};
use crate::error::{Error, ErrorKind};
use crate::net::health::{ConnectionState, ShardHealth};

/// The state of reconnecting.
pub(crate) struct Reconnect {
    shard: usize,
    failover: Failover,
    policy: ReconnectPolicy,
    attempts: Attempts,
    /// Whether requests fail at once, instead of being kept, while there is no connection.
    fail_fast: bool,
    /// While there is no connection: why the last attempt failed, or why the connection was lost.
    last_error: Option<Error>,
    /// The number of successive attempts that failed with a fatal error, which waiting does not cure.
    fatal_in_a_row: usize,
    was_connected: bool,
    failovers: u64,
    last_failover: Option<FailoverReason>,
}

/// The next attempt, after a connection was lost or an attempt failed.
#[derive(Debug)]
pub(crate) struct Retry {
    pub(crate) pause: Duration,
    /// The number of failed attempts since a connection was last useful.
    pub(crate) attempt: u32,
    /// The new state for the health. `None` if there was no connection yet, and every failed attempt so far was followed
    /// at once by another.
    pub(crate) state: Option<ConnectionState>,
}

/// The result of a successful connection.
#[derive(Debug)]
pub(crate) struct Found {
    /// The change of the serving server, if there was one.
    pub(crate) switch: Option<Switch>,
    /// Whether a connection was lost before this one.
    pub(crate) is_reconnect: bool,
    /// The number of attempts that failed before.
    pub(crate) attempts: u32,
}

impl Reconnect {
    /// Starts with the current endpoint of `failover`. `seen` is the health that this shard's previous actor published,
    /// if there was one.
    pub(crate) fn new(
        shard: usize,
        failover: Failover,
        policy: ReconnectPolicy,
        fail_fast: bool,
        seen: &ShardHealth,
    ) -> Self {
        Self {
            shard,
            failover,
            attempts: policy.start(),
            policy,
            fail_fast,
            last_error: None,
            fatal_in_a_row: 0,
            was_connected: false,
            failovers: seen.failovers,
            last_failover: seen.last_failover,
        }
    }

    /// Returns the choice of the server.
    pub(crate) fn failover(&self) -> &Failover {
        &self.failover
    }

    /// Returns the server that is connected or tried.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        self.failover.current()
    }

    /// Begins a new sequence of pauses, for other connections.
    pub(crate) fn pauses(&self) -> Attempts {
        self.policy.start()
    }

    /// Notes a successful connection.
    pub(crate) fn connected(&mut self) -> Found {
        self.last_error = None;
        self.fatal_in_a_row = 0;
        let switch = self.failover.connected();
        if let Some(switch) = switch {
            self.failovers += 1;
            self.last_failover = Some(switch.why);
        }
        Found {
            switch,
            is_reconnect: std::mem::replace(&mut self.was_connected, true),
            attempts: self.attempts.made(),
        }
    }

    /// Notes that the connection proved useful, so that attempts are counted from zero again.
    pub(crate) fn proved(&mut self) {
        self.attempts = self.policy.start();
        self.failover.proved();
    }

    /// Notes a failed attempt. Before `guarded_until`, no other server may be asked, because this one may have granted
    /// leases.
    pub(crate) fn attempt_failed(&mut self, error: &Error, now: Instant, guarded_until: Instant) -> Retry {
        self.count_fatal(error);
        let pace = match error.kind() {
            ErrorKind::NotLeader if self.failover.is_cluster() => self.failover.redirected(error.leader()),
            _ => self.failover.failed(now, guarded_until),
        };
        self.retry(error, pace)
    }

    /// Notes a failed attempt at a server that another part of the client chooses. The same server is tried again.
    pub(crate) fn attempt_failed_there(&mut self, error: &Error) -> Retry {
        self.count_fatal(error);
        self.retry(error, Pace::AfterAPause)
    }

    /// Notes the loss of the connection. `of_use` says whether it has [proved useful](Self::proved). `guarded_until` is
    /// as in [`attempt_failed`](Self::attempt_failed).
    pub(crate) fn lost(&mut self, cause: &Error, of_use: bool, now: Instant, guarded_until: Instant) -> Retry {
        let pace = self.failover.lost(of_use, now, guarded_until);
        self.retry(cause, pace)
    }

    /// Notes that the connected member no longer leads its cluster; it may have named the leader.
    pub(crate) fn deposed(&mut self, error: &Error, leader: Option<&str>) -> Retry {
        let pace = self.failover.redirected(leader);
        self.retry(error, pace)
    }

    /// Goes back to the first server.
    pub(crate) fn go_back(&mut self, error: &Error) -> Retry {
        self.failover.go_back();
        self.attempts = self.policy.start();
        self.retry(error, Pace::AfterAPause)
    }

    /// Adopts an endpoint chosen elsewhere; returns whether it changed.
    pub(crate) fn follow(&mut self, endpoint: &str, why: Option<FailoverReason>) -> bool {
        self.failover.follow(endpoint, why)
    }

    /// Notes the members that the leader has named.
    pub(crate) fn note_members<'a>(&mut self, members: impl IntoIterator<Item = &'a str>) {
        self.failover.note_members(members);
    }

    /// Returns the error with which requests are refused, or `None` if requests are kept until there is a connection.
    pub(crate) fn refusal(&self) -> Option<Error> {
        let error = self.last_error.as_ref()?;
        if self.is_fatal() {
            return Some(error.clone());
        }
        self.fail_fast
            .then(|| unavailable(self.shard, self.endpoint().shared_text(), error))
    }

    /// Returns the health to publish.
    pub(crate) fn health(&self, state: ConnectionState, now: Instant) -> ShardHealth {
        ShardHealth {
            shard: self.shard,
            endpoint: Arc::clone(self.endpoint().shared_text()),
            failovers: self.failovers,
            last_failover: self.last_failover,
            state,
            since: now,
            closed_because: None,
            death: None,
        }
    }

    fn count_fatal(&mut self, error: &Error) {
        self.fatal_in_a_row = match error.is_fatal() {
            true => self.fatal_in_a_row + 1,
            false => 0,
        };
    }

    /// Returns whether the last attempt at each server failed with a fatal error.
    fn is_fatal(&self) -> bool {
        self.fatal_in_a_row >= self.failover.len()
    }

    fn retry(&mut self, error: &Error, pace: Pace) -> Retry {
        let pause = pace.pause(&mut self.attempts);
        let attempt = self.attempts.made();
        // While another server may be found at once, the shard does not count as disconnected.
        if pace != Pace::AtOnce || self.is_fatal() {
            self.last_error = Some(error.clone());
        }
        let is_away = self.was_connected || self.last_error.is_some();
        let state = is_away.then(|| ConnectionState::Reconnecting {
            attempt,
            last_error: error.clone(),
        });
        Retry { pause, attempt, state }
    }
}

/// Returns the error of a shard that cannot be reached, with the cause.
pub(crate) fn unavailable(shard: usize, endpoint: &Arc<str>, cause: &Error) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("shard {shard} is not connected: {}", cause.message()),
    )
    .with_source_of(cause)
    .at(endpoint)
}
