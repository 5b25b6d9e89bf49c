//! The metrics of the requests on a connection.

use metrics::Histogram;

use crate::telemetry::catalog;
use crate::telemetry::sink::ShardSink;

/// The metrics of the requests on one shard's connections.
#[derive(Clone)]
pub(crate) struct LaneMetrics {
    depth: Histogram,
    batch: Histogram,
}

impl LaneMetrics {
    pub(crate) fn new(sink: &ShardSink) -> Self {
        Self {
            depth: sink.histogram(&catalog::PIPELINE_DEPTH, &[]),
            batch: sink.histogram(&catalog::BATCH_SIZE, &[]),
        }
    }

    /// Records how many requests were encoded together, and how many are in flight after that.
    pub(crate) fn sent(&self, batch: usize, in_flight: usize) {
        if batch > 0 {
            self.batch.record(batch as f64);
            self.depth.record(in_flight as f64);
        }
    }
}

impl std::fmt::Debug for LaneMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LaneMetrics")
    }
}
