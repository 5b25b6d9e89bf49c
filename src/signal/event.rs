//! The events that a consumer of signals receives.

use crate::error::Error;
use crate::protocol::Signal;

/// An event for a consumer of signals. Events come in order.
///
/// A consumer that needs only the signals calls [`SignalConn::next_signal`](super::SignalConn::next_signal), or skips
/// other events. A consumer that keeps something in step with them, such as a cache, must consider where signals may be
/// missing: between [`Lost`](Self::Lost) and [`Restored`](Self::Restored), and where some were
/// [`Dropped`](Self::Dropped).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SignalEvent {
    /// A signal.
    Signal(Signal),
    /// The connection to a shard was lost: from here on, signals of the shard may be missing.
    #[non_exhaustive]
    Lost {
        /// The shard's index; 0 with a single server.
        shard: usize,
        /// The cause.
        cause: Error,
    },
    /// All subscriptions exist again at that shard. Any gap ends here.
    #[non_exhaustive]
    Restored {
        /// The shard's index.
        shard: usize,
    },
    /// The consumer was too slow: at this position, this number of signals was dropped.
    ///
    /// Some servers silently drop signals for slow readers. So this client never stops reading, and applies its own
    /// policy to signals that do not fit into its own buffer.
    #[non_exhaustive]
    Dropped {
        /// The number of dropped signals.
        count: u64,
    },
}
