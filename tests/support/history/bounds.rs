//! The bounds of the rules: how late events may be. All bounds are in nanoseconds.

use std::time::Duration;

/// The bounds of the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How late a task that is due may run, while its process is not frozen.
    pub scheduling: u64,
    /// How long a client may be unaware that a lease has ended. This bound applies if the connection or the server
    /// ended, or if a new leader forgot the grant. The rule `owners` adds this time to `unowned` if there was trouble
    /// or a freeze.
    pub unnoticed: u64,
    /// How long a subscription may be unaware that its connection is lost. This is the heartbeat interval of signal
    /// connections plus the reply timeout. The keepalive interval has no effect here, because it applies to other
    /// connections.
    pub silence: u64,
    /// How long a grant may have no owner when there is no trouble. The rule `owners` says which callers own a grant.
    pub unowned: u64,
    /// How long a request may take to reach a server.
    ///
    /// Also how long a signal may still be on its way to a member of a group after the server acknowledged the signal.
    /// If the member ends during this time, the signal may be lost.
    pub transit: u64,
    /// How long a signal may take to reach its subscribers.
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

/// Converts a duration to the unit of records.
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
