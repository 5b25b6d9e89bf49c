//! Keeping one connection to a set of servers: which server is tried next, after which pause, and what callers are told
//! meanwhile. Pure: no sockets, no clock but the caller's.
//!
//! A shard uses one for its pipelined connections, a signal connection one of its own.

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
    /// Whether requests are refused rather than kept while there is no connection.
    fail_fast: bool,
    /// Why the last attempt failed, or the connection was lost, while there is none.
    last_error: Option<Error>,
    /// How many attempts in a row failed for a reason that waiting does not cure.
    fatal_in_a_row: usize,
    was_connected: bool,
    failovers: u64,
    last_failover: Option<FailoverReason>,
}

/// The next attempt, after a connection was lost or an attempt failed.
#[derive(Debug)]
pub(crate) struct Retry {
    pub(crate) pause: Duration,
    /// How many attempts have failed since a connection was last of use.
    pub(crate) attempt: u32,
    /// What the health becomes; `None` while another server may be found in a moment.
    pub(crate) state: Option<ConnectionState>,
}

/// What a connection's success means.
#[derive(Debug)]
pub(crate) struct Found {
    /// Another server than before serves.
    pub(crate) switch: Option<Switch>,
    /// A connection was lost before this one.
    pub(crate) is_reconnect: bool,
    /// How many attempts failed before.
    pub(crate) attempts: u32,
}

impl Reconnect {
    /// Starts with an endpoint. `seen`: the health that was published before, if another machine of this kind ended.
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

    /// Which server is connected, or tried.
    pub(crate) fn failover(&self) -> &Failover {
        &self.failover
    }

    /// The server that is connected, or tried.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        self.failover.current()
    }

    /// A new sequence of pauses, for connections beside this one.
    pub(crate) fn pauses(&self) -> Attempts {
        self.policy.start()
    }

    /// There is a connection.
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

    /// The connection has been of use: from here on attempts are counted anew.
    pub(crate) fn proved(&mut self) {
        self.attempts = self.policy.start();
        self.failover.proved();
    }

    /// An attempt failed. `guarded_until`: before that, no other server may be asked for what this one may have granted.
    pub(crate) fn attempt_failed(&mut self, error: &Error, now: Instant, guarded_until: Instant) -> Retry {
        self.count_fatal(error);
        let pace = match error.kind() {
            ErrorKind::NotLeader if self.failover.is_cluster() => self.failover.redirected(error.leader()),
            _ => self.failover.failed(now, guarded_until),
        };
        self.retry(error, pace)
    }

    /// An attempt failed at a server that someone else chooses: it is tried again.
    pub(crate) fn attempt_failed_there(&mut self, error: &Error) -> Retry {
        self.count_fatal(error);
        self.retry(error, Pace::AfterAPause)
    }

    /// The connection was lost. `of_use`: it has been [proved](Self::proved).
    /// `guarded_until`: as in [`attempt_failed`](Self::attempt_failed).
    pub(crate) fn lost(&mut self, cause: &Error, of_use: bool, now: Instant, guarded_until: Instant) -> Retry {
        let pace = self.failover.lost(of_use, now, guarded_until);
        self.retry(cause, pace)
    }

    /// The member that is connected does not lead its cluster any more, and says who does.
    pub(crate) fn deposed(&mut self, error: &Error, leader: Option<&str>) -> Retry {
        let pace = self.failover.redirected(leader);
        self.retry(error, pace)
    }

    /// The first server is to serve again.
    pub(crate) fn go_back(&mut self, error: &Error) -> Retry {
        self.failover.go_back();
        self.attempts = self.policy.start();
        self.retry(error, Pace::AfterAPause)
    }

    /// Adopts an endpoint chosen elsewhere; returns whether it changed.
    pub(crate) fn follow(&mut self, endpoint: &str, why: Option<FailoverReason>) -> bool {
        self.failover.follow(endpoint, why)
    }

    /// The leader names the members of its cluster.
    pub(crate) fn note_members<'a>(&mut self, members: impl IntoIterator<Item = &'a str>) {
        self.failover.note_members(members);
    }

    /// Why requests are refused rather than kept, if they are.
    pub(crate) fn refusal(&self) -> Option<Error> {
        let error = self.last_error.as_ref()?;
        if self.is_fatal() {
            return Some(error.clone());
        }
        self.fail_fast
            .then(|| unavailable(self.shard, self.endpoint().shared_text(), error))
    }

    /// The health to publish.
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

    /// The last attempt at each of the servers failed for a reason that waiting does not cure.
    fn is_fatal(&self) -> bool {
        self.fatal_in_a_row >= self.failover.len()
    }

    fn retry(&mut self, error: &Error, pace: Pace) -> Retry {
        let pause = pace.pause(&mut self.attempts);
        let attempt = self.attempts.made();
        // While another server may be found in a moment, the shard is not away.
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

/// The shard cannot be reached, and why.
pub(crate) fn unavailable(shard: usize, endpoint: &Arc<str>, cause: &Error) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("shard {shard} is not connected: {}", cause.message()),
    )
    .for_the_cause_of(cause)
    .at(endpoint)
}
