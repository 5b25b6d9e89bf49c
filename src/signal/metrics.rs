//! What is measured of signals.

use metrics::Counter;

use super::buffer::PutReport;
use crate::error::Error;
use crate::telemetry::catalog;
use crate::telemetry::level::Level;
use crate::telemetry::sink::ShardSink;

/// How the connections of signals are called among all kinds of connections.
const KIND: &str = "signals";

/// One shard's connection for signals.
pub(super) struct LinkMetrics {
    sink: ShardSink,
    connecting: Level,
    up: Level,
    subscriptions: Level,
    gaps: Counter,
}

/// What the connection itself counts.
#[derive(Clone)]
pub(super) struct SignalCounters {
    received: Counter,
    dropped: Counter,
}

impl LinkMetrics {
    pub(super) fn new(sink: ShardSink) -> Self {
        let connections = |state: &'static str| {
            let labels = [("kind", KIND.into()), ("state", state.into())];
            Level::new(sink.gauge(&catalog::CONNECTIONS, &labels))
        };
        Self {
            connecting: connections("connecting"),
            up: connections("up"),
            subscriptions: Level::new(sink.gauge(&catalog::SIGNAL_SUBSCRIPTIONS, &[])),
            gaps: sink.counter(&catalog::SIGNAL_GAPS, &[]),
            sink,
        }
    }

    pub(super) fn counters(&self) -> SignalCounters {
        SignalCounters {
            received: self.sink.counter(&catalog::SIGNALS_RECEIVED, &[]),
            dropped: self.sink.counter(&catalog::SIGNALS_DROPPED, &[]),
        }
    }

    /// The connection is there, or being established.
    pub(super) fn show(&mut self, is_up: bool, subscriptions: usize) {
        self.up.show(usize::from(is_up));
        self.connecting.show(usize::from(!is_up));
        self.subscriptions.show(subscriptions);
    }

    pub(super) fn connected(&self) {
        self.count_connect("connected");
    }

    pub(super) fn connect_failed(&self, error: &Error) {
        self.count_connect(error.kind().as_str());
    }

    fn count_connect(&self, outcome: &'static str) {
        let labels = [("kind", KIND.into()), ("outcome", outcome.into())];
        self.sink.counter(&catalog::CONNECTS, &labels).increment(1);
    }

    pub(super) fn disconnected(&self, cause: &Error) {
        let labels = [("kind", KIND.into()), ("reason", cause.kind().as_str().into())];
        self.sink.counter(&catalog::DISCONNECTS, &labels).increment(1);
    }

    /// Signals may be missing from here on.
    pub(super) fn gap(&self) {
        self.gaps.increment(1);
    }
}

impl SignalCounters {
    pub(super) fn received(&self, signals: usize, taken: PutReport) {
        self.received.increment(signals as u64);
        self.dropped.increment(taken.dropped);
    }
}
