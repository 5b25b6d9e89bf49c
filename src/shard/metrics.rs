//! The metrics of a shard: its connections and its waits.

use std::sync::Arc;

use metrics::{Counter, SharedString};

use super::connection::LaneCount;
use super::effect::Role;
use crate::error::Error;
use crate::net::endpoint::Endpoint;
use crate::net::failover::FailoverReason;
use crate::telemetry::catalog;
use crate::telemetry::level::Level;
use crate::telemetry::sink::{LabelValue, ShardSink};

/// Why a wait has no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exhausted {
    /// All connections that the limit allows are in use.
    Limit,
    /// The server accepts no more connections.
    ServerFull,
    /// No connection could be opened, for another reason.
    NotEstablished,
}

impl Exhausted {
    const ALL: [Self; 3] = [Self::Limit, Self::ServerFull, Self::NotEstablished];

    fn as_str(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::ServerFull => "server_full",
            Self::NotEstablished => "not_established",
        }
    }
}

/// The outcome of a try for callers that have no wait on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tried {
    Granted,
    Busy,
    Refused,
    /// The connection was lost, or the try was not sent.
    Unanswered,
}

impl Tried {
    const ALL: [Self; 4] = [Self::Granted, Self::Busy, Self::Refused, Self::Unanswered];

    fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Busy => "busy",
            Self::Refused => "refused",
            Self::Unanswered => "unanswered",
        }
    }
}

/// The metrics of one shard.
pub(crate) struct ShardMetrics {
    sink: ShardSink,
    /// Whether a recorder is installed.
    recorded: bool,
    connected: Level,
    /// For each endpoint, whether it serves; the configured endpoints come first.
    serving: Vec<(Arc<str>, Level)>,
    /// The number of failovers, by reason.
    failovers: Vec<(FailoverReason, Counter)>,
    /// For each role, the connections that are opening and those that are up.
    connections: [(Level, Level); Role::ALL.len()],
    waiting_here: Level,
    waiting_on_server: Level,
    tries: [Counter; Tried::ALL.len()],
    exhausted: [Counter; Exhausted::ALL.len()],
    queued: Level,
    reconnects: Counter,
    redirects: Counter,
}

/// The current values of all gauges.
pub(crate) struct Population<'a> {
    /// The endpoint that serves, while a pipelined connection is up.
    pub(crate) served_by: Option<&'a Arc<str>>,
    /// The number of connections, by role.
    pub(crate) connections: [LaneCount; Role::ALL.len()],
    /// The number of waits without a queue position on the server.
    pub(crate) waiting_here: usize,
    /// The number of waits with a queue position on the server.
    pub(crate) waiting_on_server: usize,
    /// The number of requests and releases that are kept until the shard is connected.
    pub(crate) queued: usize,
}

/// Creates the gauge of one endpoint.
fn serving(sink: &ShardSink, endpoint: &Arc<str>) -> Level {
    let endpoint = SharedString::from(endpoint.to_string());
    Level::new(sink.gauge(&catalog::SERVING, &[("endpoint", endpoint)]))
}

impl ShardMetrics {
    /// Registers the metrics. `is_all` says that the shard will find no further endpoints.
    pub(crate) fn new(sink: ShardSink, endpoints: &[Endpoint], is_all: bool) -> Self {
        let connections = |role: Role, state: &'static str| {
            let labels = [("kind", role.as_str().into()), ("state", state.into())];
            Level::new(sink.gauge(&catalog::CONNECTIONS, &labels))
        };
        let waiters = |state: &'static str| Level::new(sink.gauge(&catalog::WAITERS, &[("state", state.into())]));
        let serving = |endpoint: &Endpoint| {
            (
                Arc::clone(endpoint.shared_text()),
                serving(&sink, endpoint.shared_text()),
            )
        };
        let failovers = |why: FailoverReason| {
            let labels: [LabelValue; 1] = [("reason", why.as_str().into())];
            (why, sink.counter(&catalog::FAILOVERS, &labels))
        };
        // Registered in advance, so that a monitoring system sees the first failover as an increase. With a single
        // endpoint there is no failover.
        let reasons = if endpoints.len() > 1 || !is_all {
            &FailoverReason::ALL[..]
        } else {
            &[]
        };
        let connected = Level::new(sink.gauge(&catalog::SHARD_CONNECTED, &[]));
        Self {
            recorded: connected.is_recorded(),
            connected,
            serving: endpoints.iter().map(serving).collect(),
            failovers: reasons.iter().copied().map(failovers).collect(),
            connections: Role::ALL.map(|role| (connections(role, "connecting"), connections(role, "up"))),
            waiting_here: waiters("local"),
            waiting_on_server: waiters("server"),
            tries: Tried::ALL.map(|tried| {
                let labels: [LabelValue; 1] = [("outcome", tried.as_str().into())];
                sink.counter(&catalog::WAIT_TRIES, &labels)
            }),
            exhausted: Exhausted::ALL.map(|why| {
                let labels: [LabelValue; 1] = [("reason", why.as_str().into())];
                sink.counter(&catalog::WAIT_CONNECTIONS_EXHAUSTED, &labels)
            }),
            queued: Level::new(sink.gauge(&catalog::REQUESTS_QUEUED, &[])),
            reconnects: sink.counter(&catalog::RECONNECTS, &[]),
            redirects: sink.counter(&catalog::REDIRECTS, &[]),
            sink,
        }
    }

    /// Whether a recorder is installed for the values that [`show`](Self::show) publishes.
    pub(crate) fn is_recorded(&self) -> bool {
        self.recorded
    }

    /// Publishes the current values.
    pub(crate) fn show(&mut self, now: &Population<'_>) {
        self.connected.show(usize::from(now.served_by.is_some()));
        self.show_serving(now.served_by);
        for ((connecting, up), count) in self.connections.iter_mut().zip(now.connections) {
            connecting.show(count.all - count.up);
            up.show(count.up);
        }
        self.waiting_here.show(now.waiting_here);
        self.waiting_on_server.show(now.waiting_on_server);
        self.queued.show(now.queued);
    }

    /// Publishes which endpoint serves. An endpoint that was found at run time gets a gauge when it first serves.
    fn show_serving(&mut self, by: Option<&Arc<str>>) {
        let is_known = |by: &Arc<str>| self.serving.iter().any(|(endpoint, _)| endpoint == by);
        if let Some(found) = by.filter(|by| !is_known(by)) {
            self.serving.push((Arc::clone(found), serving(&self.sink, found)));
        }
        for (endpoint, level) in &mut self.serving {
            level.show(usize::from(by == Some(endpoint)));
        }
    }

    pub(crate) fn connected(&self, role: Role) {
        self.count_connect(role, "connected");
    }

    pub(crate) fn connect_failed(&self, role: Role, error: &Error) {
        self.count_connect(role, error.kind().as_str());
    }

    // Connections open and close seldom, so these counters are looked up each time.
    fn count_connect(&self, role: Role, outcome: &'static str) {
        let labels: [LabelValue; 2] = [("kind", role.as_str().into()), ("outcome", outcome.into())];
        self.sink.counter(&catalog::CONNECTS, &labels).increment(1);
    }

    pub(crate) fn disconnected(&self, role: Role, cause: &Error) {
        let labels: [LabelValue; 2] = [("kind", role.as_str().into()), ("reason", cause.kind().as_str().into())];
        self.sink.counter(&catalog::DISCONNECTS, &labels).increment(1);
    }

    /// Counts a try for callers that have no wait on the server.
    pub(crate) fn tried(&self, outcome: Tried) {
        self.tries[outcome as usize].increment(1);
    }

    /// Counts a shortage of connections for waits.
    pub(crate) fn exhausted(&self, why: Exhausted) {
        self.exhausted[why as usize].increment(1);
    }

    pub(crate) fn reconnected(&self) {
        self.reconnects.increment(1);
    }

    /// Counts an answer that the server does not lead its cluster.
    pub(crate) fn redirected(&self) {
        self.redirects.increment(1);
    }

    /// Counts a failover.
    pub(crate) fn failed_over(&self, why: FailoverReason) {
        if let Some((_, counter)) = self.failovers.iter().find(|(reason, _)| *reason == why) {
            counter.increment(1);
        }
    }
}
