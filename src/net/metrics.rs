//! What is measured of the requests on a connection.

use metrics::Histogram;

use crate::telemetry::catalog;
use crate::telemetry::sink::ShardSink;

/// The requests on the connections of one shard.
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

    /// So many requests were encoded together, and then so many are in flight.
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
