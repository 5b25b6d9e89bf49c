//! Every metric of this crate: its name, description, labels and buckets.

use metrics::Unit;

/// The prefix of every name.
#[cfg(test)]
pub(crate) const PREFIX: &str = "dflockd_client_";

/// One metric. It has a series for each combination of its labels.
#[derive(Debug)]
pub(crate) struct MetricFamily {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) unit: Unit,
    pub(crate) help: &'static str,
}

/// The kind of a metric.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    Counter,
    Gauge,
    /// With the upper bounds of its buckets.
    Histogram(#[cfg_attr(not(feature = "prometheus"), allow(dead_code))] &'static [f64]),
}

impl MetricFamily {
    const fn counter(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            shape: Shape::Counter,
            unit: Unit::Count,
            help,
        }
    }

    const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            shape: Shape::Gauge,
            unit: Unit::Count,
            help,
        }
    }

    const fn histogram(name: &'static str, unit: Unit, buckets: &'static [f64], help: &'static str) -> Self {
        Self {
            name,
            shape: Shape::Histogram(buckets),
            unit,
            help,
        }
    }
}

/// From the time of an uncontended request on one machine to the longest waits of callers.
const WAITS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    120.0, 300.0,
];

/// From a critical section of one millisecond to a leadership of a day.
const HOLDS: &[f64] = &[
    0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0,
];

/// From a renewal at the last moment to an early renewal of a lease with a long TTL.
const HEADROOM: &[f64] = &[
    0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 16.0, 24.0, 32.0, 60.0, 120.0, 300.0,
];

/// Tenths, half a tenth, and the quarter that the alert `DflockdRenewalHeadroomLow` compares with.
const RATIOS: &[f64] = &[0.05, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];

/// Powers of two up to the default limit of requests in flight.
const COUNTS: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0,
];

pub(crate) const REQUESTS: MetricFamily = MetricFamily::counter(
    "dflockd_client_requests_total",
    "Requests that were answered, that failed or that were given up, by operation and outcome.",
);
pub(crate) const REQUEST_DURATION: MetricFamily = MetricFamily::histogram(
    "dflockd_client_request_duration_seconds",
    Unit::Seconds,
    WAITS,
    "Time from the call to its end, by operation and outcome.",
);
pub(crate) const ACQUIRE_WAIT: MetricFamily = MetricFamily::histogram(
    "dflockd_client_acquire_wait_seconds",
    Unit::Seconds,
    WAITS,
    "Duration of successful acquires, by whether the key was held at first.",
);
pub(crate) const HOLD: MetricFamily = MetricFamily::histogram(
    "dflockd_client_hold_duration_seconds",
    Unit::Seconds,
    HOLDS,
    "Time that leases were held, by how the hold ended.",
);
pub(crate) const LEASES_HELD: MetricFamily =
    MetricFamily::gauge("dflockd_client_leases_held", "Leases that are held now.");
pub(crate) const LEASES_LOST: MetricFamily = MetricFamily::counter(
    "dflockd_client_leases_lost_total",
    "Leases that were lost while they were held, by reason.",
);
pub(crate) const RENEWALS: MetricFamily = MetricFamily::counter(
    "dflockd_client_renewals_total",
    "Attempts to renew a lease, by outcome.",
);
pub(crate) const RENEWAL_HEADROOM: MetricFamily = MetricFamily::histogram(
    "dflockd_client_renewal_headroom_seconds",
    Unit::Seconds,
    HEADROOM,
    "Time from the confirmation of a renewal to the moment at which its lease would have been reported lost.",
);
pub(crate) const RENEWAL_HEADROOM_RATIO: MetricFamily = MetricFamily::histogram(
    "dflockd_client_renewal_headroom_ratio",
    Unit::Count,
    RATIOS,
    "Renewal headroom (dflockd_client_renewal_headroom_seconds) as a fraction of the lease's TTL.",
);
pub(crate) const ORPHANS_RELEASED: MetricFamily = MetricFamily::counter(
    "dflockd_client_orphan_grants_released_total",
    "Grants that no caller got, and that the client released.",
);
pub(crate) const WAITERS: MetricFamily = MetricFamily::gauge(
    "dflockd_client_waiters",
    "Callers that wait for a key: locally for a connection, or on the server for their turn.",
);
pub(crate) const WAITERS_LIMIT: MetricFamily = MetricFamily::gauge(
    "dflockd_client_waiters_limit",
    "Callers that may wait for a key at once: max_waiters. Further callers wait for room.",
);
pub(crate) const WAIT_TRIES: MetricFamily = MetricFamily::counter(
    "dflockd_client_wait_tries_total",
    "Tries of keys for callers that wait without a position in the server's queue, by outcome.",
);
pub(crate) const WAIT_CONNECTIONS_EXHAUSTED: MetricFamily = MetricFamily::counter(
    "dflockd_client_wait_connections_exhausted_total",
    "Times that no further connection for waits was available, by reason.",
);
pub(crate) const REQUESTS_QUEUED: MetricFamily = MetricFamily::gauge(
    "dflockd_client_requests_queued",
    "Requests that are kept until the shard is connected.",
);
pub(crate) const CONNECTIONS: MetricFamily =
    MetricFamily::gauge("dflockd_client_connections", "Connections, by kind and state.");
pub(crate) const CONNECTS: MetricFamily = MetricFamily::counter(
    "dflockd_client_connects_total",
    "Attempts to connect that ended, by kind of connection and outcome.",
);
pub(crate) const RECONNECTS: MetricFamily = MetricFamily::counter(
    "dflockd_client_reconnects_total",
    "Times that a shard was connected again after its pipelined connection was lost.",
);
pub(crate) const DISCONNECTS: MetricFamily = MetricFamily::counter(
    "dflockd_client_disconnects_total",
    "Connections that were lost, by kind of connection and reason.",
);
pub(crate) const REDIRECTS: MetricFamily = MetricFamily::counter(
    "dflockd_client_redirects_total",
    "Answers of a cluster member that it is not the leader.",
);
pub(crate) const FAILOVERS: MetricFamily = MetricFamily::counter(
    "dflockd_client_failovers_total",
    "Times that another server of a shard took over, by reason.",
);
pub(crate) const SERVING: MetricFamily = MetricFamily::gauge(
    "dflockd_client_serving",
    "1 for the server that a shard is connected to, 0 for the shard's other servers.",
);
pub(crate) const SHARD_CONNECTED: MetricFamily = MetricFamily::gauge(
    "dflockd_client_shards_connected",
    "1 while the shard's pipelined connection is up, 0 while it is not.",
);
pub(crate) const PIPELINE_DEPTH: MetricFamily = MetricFamily::histogram(
    "dflockd_client_pipeline_depth",
    Unit::Count,
    COUNTS,
    "Requests in flight on a connection, measured whenever requests are sent.",
);
pub(crate) const BATCH_SIZE: MetricFamily = MetricFamily::histogram(
    "dflockd_client_batch_size",
    Unit::Count,
    COUNTS,
    "Requests that were sent together over a connection.",
);
pub(crate) const SIGNALS_RECEIVED: MetricFamily = MetricFamily::counter(
    "dflockd_client_signals_received_total",
    "Signals that were received, including those that were dropped.",
);
pub(crate) const SIGNALS_DROPPED: MetricFamily = MetricFamily::counter(
    "dflockd_client_signals_dropped_total",
    "Signals that were dropped because their consumer was too slow.",
);
pub(crate) const SIGNAL_GAPS: MetricFamily = MetricFamily::counter(
    "dflockd_client_signal_gaps_total",
    "Times that a connection for signals was lost, so that signals may have been missed.",
);
pub(crate) const SIGNAL_SUBSCRIPTIONS: MetricFamily =
    MetricFamily::gauge("dflockd_client_signal_subscriptions", "Subscriptions to signals.");
pub(crate) const TRANSITIONS: MetricFamily = MetricFamily::gauge(
    "dflockd_client_transitions",
    "Clients that use both the previous and the current shard of each key that moves.",
);
pub(crate) const BUILD_INFO: MetricFamily = MetricFamily::gauge(
    "dflockd_client_build_info",
    "1 for each client of the process, labelled with the version of this crate.",
);

/// All metrics.
pub(crate) const ALL: &[MetricFamily] = &[
    REQUESTS,
    REQUEST_DURATION,
    ACQUIRE_WAIT,
    HOLD,
    LEASES_HELD,
    LEASES_LOST,
    RENEWALS,
    RENEWAL_HEADROOM,
    RENEWAL_HEADROOM_RATIO,
    ORPHANS_RELEASED,
    WAITERS,
    WAITERS_LIMIT,
    WAIT_TRIES,
    WAIT_CONNECTIONS_EXHAUSTED,
    REQUESTS_QUEUED,
    CONNECTIONS,
    CONNECTS,
    RECONNECTS,
    DISCONNECTS,
    REDIRECTS,
    FAILOVERS,
    SERVING,
    SHARD_CONNECTED,
    PIPELINE_DEPTH,
    BATCH_SIZE,
    SIGNALS_RECEIVED,
    SIGNALS_DROPPED,
    SIGNAL_GAPS,
    SIGNAL_SUBSCRIPTIONS,
    TRANSITIONS,
    BUILD_INFO,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn metric_names_follow_the_rules_and_are_unique() {
        let names: BTreeSet<&str> = ALL.iter().map(|family| family.name).collect();
        assert_eq!(names.len(), ALL.len());
        for family in ALL {
            let name = family.name;
            assert!(name.starts_with(PREFIX), "{name}");
            let counts = matches!(family.shape, Shape::Counter);
            assert_eq!(name.ends_with("_total"), counts, "{name}");
            assert_eq!(name.ends_with("_seconds"), family.unit == Unit::Seconds, "{name}");
            assert!(family.help.ends_with('.'), "{name}");
            if let Shape::Histogram(buckets) = family.shape {
                assert!(buckets.is_sorted() && buckets.len() <= 20, "{name}: {buckets:?}");
            }
        }
    }

    #[test]
    fn the_buckets_of_waits_include_a_millisecond_and_end_at_five_minutes() {
        let Shape::Histogram(buckets) = ACQUIRE_WAIT.shape else {
            panic!("{ACQUIRE_WAIT:?}");
        };
        assert!(
            buckets.contains(&0.001) && buckets.last() == Some(&300.0),
            "{buckets:?}"
        );
    }
}
