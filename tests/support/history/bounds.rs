//! The bounds of a judge: how late events may be. All in nanoseconds.

use std::time::Duration;

/// How late events may be. Each rule names the bounds that it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How much later than due a task of a living process may run.
    pub scheduling: u64,
    /// For how long a client may not know that the server has ended a lease (the lease's connection has ended, or the server is gone), and
    /// how much longer a release may take after trouble.
    pub unnoticed: u64,
    /// For how long a subscription may not know that its connection is lost: the heartbeat of signal connections, which differs from the
    /// keepalive of other connections, plus the reply timeout.
    pub silence: u64,
    /// For how long a server may hold a grant that no caller holds or waits for, without trouble.
    pub unowned: u64,
    /// For how long a request may be on its way to a server.
    pub transit: u64,
    /// For how long a signal may be on its way to its subscribers.
    pub delivery: u64,
}

impl Default for Bounds {
    /// Returns bounds for a client with default settings on a busy machine.
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

/// Converts a duration to the form of records.
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
