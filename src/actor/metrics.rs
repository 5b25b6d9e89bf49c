//! What is measured of a shard: its connections, and who waits.

use metrics::Counter;

use super::lanes::{LaneCount, Role};
use crate::error::Error;
use crate::telemetry::catalog;
use crate::telemetry::level::Level;
use crate::telemetry::sink::{LabelValue, ShardSink};

/// One shard.
pub(crate) struct ShardMetrics {
    sink: ShardSink,
    connected: Level,
    /// By role: those being established, those that are up.
    connections: [(Level, Level); Role::ALL.len()],
    waiting_here: Level,
    waiting_on_server: Level,
    queued: Level,
    reconnects: Counter,
    redirects: Counter,
}

impl ShardMetrics {
    pub(crate) fn new(sink: ShardSink) -> Self {
        let connections = |role: Role, state: &'static str| {
            let labels = [("kind", role.as_str().into()), ("state", state.into())];
            Level::new(sink.gauge(&catalog::CONNECTIONS, &labels))
        };
        let waiters = |state: &'static str| Level::new(sink.gauge(&catalog::WAITERS, &[("state", state.into())]));
        Self {
            connected: Level::new(sink.gauge(&catalog::SHARD_CONNECTED, &[])),
            connections: Role::ALL.map(|role| (connections(role, "connecting"), connections(role, "up"))),
            waiting_here: waiters("local"),
            waiting_on_server: waiters("server"),
            queued: Level::new(sink.gauge(&catalog::REQUESTS_QUEUED, &[])),
            reconnects: sink.counter(&catalog::RECONNECTS, &[]),
            redirects: sink.counter(&catalog::REDIRECTS, &[]),
            sink,
        }
    }

    pub(crate) fn show_connected(&mut self, connected: bool) {
        self.connected.show(usize::from(connected));
    }

    pub(crate) fn show_connections(&mut self, count: impl Fn(Role) -> LaneCount) {
        for (role, (connecting, up)) in Role::ALL.into_iter().zip(&mut self.connections) {
            let LaneCount { all, up: now_up } = count(role);
            connecting.show(all - now_up);
            up.show(now_up);
        }
    }

    /// How many wait for a connection here, and how many have one and wait on the server.
    pub(crate) fn show_waiters(&mut self, here: usize, on_server: usize) {
        self.waiting_here.show(here);
        self.waiting_on_server.show(on_server);
    }

    /// How many requests are kept until the shard is connected.
    pub(crate) fn show_queued(&mut self, queued: usize) {
        self.queued.show(queued);
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

    pub(crate) fn reconnected(&self) {
        self.reconnects.increment(1);
    }

    /// The server says that it is not its cluster's leader.
    pub(crate) fn redirected(&self) {
        self.redirects.increment(1);
    }
}
