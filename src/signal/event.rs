//! What a consumer of signals is told.

use crate::error::Error;
use crate::protocol::Signal;

/// Something that a consumer of signals is told, in order.
///
/// Whoever only wants the signals takes [`SignalConn::next_signal`](super::SignalConn::next_signal), or skips the rest. Whoever keeps
/// something in step with them (a cache, say) has to look at what may be missing: between [`Lost`](Self::Lost) and
/// [`Restored`](Self::Restored), and where some were [`Dropped`](Self::Dropped).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SignalEvent {
    /// A signal.
    Signal(Signal),
    /// The connection to a shard was lost: from here on its signals may be missing.
    Lost {
        /// The shard's index; 0 where there is one server only.
        shard: usize,
        /// Why.
        cause: Error,
    },
    /// Every subscription is there again at that shard: what is missing, was missed before this.
    Restored {
        /// The shard's index.
        shard: usize,
    },
    /// The consumer was too slow: at this place so many signals were dropped here.
    ///
    /// Some servers drop for readers that are slow, without a word; so this client never stops reading, and what does not fit
    /// into its own buffer is subject to its own policy.
    Dropped {
        /// How many.
        count: u64,
    },
}
