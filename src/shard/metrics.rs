//! What is measured of a shard: its connections, and who waits.

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

/// Why there is no connection for a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exhausted {
    /// As many as there may be are in use.
    Limit,
    /// The server takes no more.
    ServerFull,
    /// None could be established, for another reason.
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

/// What came of a try for callers that have no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tried {
    Granted,
    Busy,
    Refused,
    /// The connection was lost, or it was not sent.
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

/// One shard.
pub(crate) struct ShardMetrics {
    sink: ShardSink,
    /// Whether anybody looks at the levels.
    recorded: bool,
    connected: Level,
    /// By endpoint, those that were given first: whether it serves.
    serving: Vec<(Arc<str>, Level)>,
    /// Why another endpoint took over, and how often.
    failovers: Vec<(FailoverReason, Counter)>,
    /// By role: those being established, those that are up.
    connections: [(Level, Level); Role::ALL.len()],
    waiting_here: Level,
    waiting_on_server: Level,
    tries: [Counter; Tried::ALL.len()],
    exhausted: [Counter; Exhausted::ALL.len()],
    queued: Level,
    reconnects: Counter,
    redirects: Counter,
}

/// How many there are of everything that is counted.
pub(crate) struct Population<'a> {
    /// The endpoint to which the pipelined connection leads, if that is up.
    pub(crate) served_by: Option<&'a Arc<str>>,
    /// By role.
    pub(crate) connections: [LaneCount; Role::ALL.len()],
    /// Waits that have no connection yet.
    pub(crate) waiting_here: usize,
    /// Waits that have one.
    pub(crate) waiting_on_server: usize,
    /// Requests and releases that are kept until the shard is connected.
    pub(crate) queued: usize,
}

/// The gauge of one endpoint.
fn serving(sink: &ShardSink, endpoint: &Arc<str>) -> Level {
    let endpoint = SharedString::from(endpoint.to_string());
    Level::new(sink.gauge(&catalog::SERVING, &[("endpoint", endpoint)]))
}

impl ShardMetrics {
    /// Registers the metrics. `is_all`: whether there will be no other endpoints than these.
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
        // Registered before there is one, so that the first is seen as an increase. Where there is one endpoint alone no other
        // can take over.
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

    /// Whether anybody looks at what [`show`](Self::show) shows.
    pub(crate) fn is_recorded(&self) -> bool {
        self.recorded
    }

    /// Publishes how many there are now of everything that is counted.
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

    /// A server that was found at run time has a gauge from the first time that it serves.
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

    // Connections come and go seldom enough to look these up each time.
    fn count_connect(&self, role: Role, outcome: &'static str) {
        let labels: [LabelValue; 2] = [("kind", role.as_str().into()), ("outcome", outcome.into())];
        self.sink.counter(&catalog::CONNECTS, &labels).increment(1);
    }

    pub(crate) fn disconnected(&self, role: Role, cause: &Error) {
        let labels: [LabelValue; 2] = [("kind", role.as_str().into()), ("reason", cause.kind().as_str().into())];
        self.sink.counter(&catalog::DISCONNECTS, &labels).increment(1);
    }

    /// A key was tried for callers that have no server wait.
    pub(crate) fn tried(&self, outcome: Tried) {
        self.tries[outcome as usize].increment(1);
    }

    /// There are no connections for waits any more.
    pub(crate) fn exhausted(&self, why: Exhausted) {
        self.exhausted[why as usize].increment(1);
    }

    pub(crate) fn reconnected(&self) {
        self.reconnects.increment(1);
    }

    /// The server says that it is not its cluster's leader.
    pub(crate) fn redirected(&self) {
        self.redirects.increment(1);
    }

    /// Another endpoint took over.
    pub(crate) fn failed_over(&self, why: FailoverReason) {
        if let Some((_, counter)) = self.failovers.iter().find(|(reason, _)| *reason == why) {
            counter.increment(1);
        }
    }
}
