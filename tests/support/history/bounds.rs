//! What a judge has to be told: how late things may come. All in nanoseconds.

use std::time::Duration;

/// How late what is promised may come. The rules say which of them they use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How much later than it should a task of a living process may run.
    pub scheduling: u64,
    /// For how long a client may not know that a server ended a lease of its own accord: that the lease's connection has ended, or
    /// that the server is no more. And for how much longer trouble may delay what is given back.
    pub unnoticed: u64,
    /// For how long a subscription may not know that its connection is lost: the heartbeat of signal connections, which is not the keepalive of the
    /// others, and the reply timeout.
    pub silence: u64,
    /// For how long a server may hold a grant that no caller has or waits for, while nothing is broken.
    pub unowned: u64,
    /// For how long a request may be on its way to a server.
    pub transit: u64,
    /// For how long a signal may be on its way to its subscribers.
    pub delivery: u64,
}

impl Default for Bounds {
    /// For a client with default settings on a busy machine.
    fn default() -> Self {
        Self {
            scheduling: nanoseconds(Duration::from_secs(2)),
            unnoticed: nanoseconds(Duration::from_secs(21)),
            silence: nanoseconds(Duration::from_secs(26)),
            unowned: nanoseconds(Duration::from_secs(10)),
            transit: nanoseconds(Duration::from_secs(1)),
            delivery: nanoseconds(Duration::from_secs(2)),
        }
    }
}

/// A duration as records have them.
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
