//! The metrics of signals.

use metrics::Counter;

use super::buffer::PutReport;
use crate::error::Error;
use crate::telemetry::catalog;
use crate::telemetry::level::Level;
use crate::telemetry::sink::ShardSink;

/// The label of signal connections among all kinds of connections.
const KIND: &str = "signals";

/// The metrics of one shard's signal connection.
pub(super) struct LinkMetrics {
    sink: ShardSink,
    connecting: Level,
    up: Level,
    subscriptions: Level,
    gaps: Counter,
}

/// The counters that the connection's task updates.
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

    /// Publishes the state of the connection and the number of subscriptions.
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

    /// Counts a gap: from here on, signals may be missing.
    pub(super) fn gap(&self) {
        self.gaps.increment(1);
    }
}

impl SignalCounters {
    pub(super) fn received(&self, signals: usize, report: PutReport) {
        self.received.increment(signals as u64);
        self.dropped.increment(report.dropped);
    }
}
