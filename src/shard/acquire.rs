//! An acquire, as the shard sees it.

use tokio::time::Instant;

use super::ask::Ask;
use super::held::Acquired;
use super::ids::WaitKey;
use super::progress::{Progress, Refusal, WaitsFor};
use crate::lease::policy::RenewTerms;
use crate::protocol::StableRef;
use crate::types::{Key, Target, Ttl};

/// Whether an acquire may wait on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// The acquire tries once.
    Try,
    /// The acquire tries once, and a wait follows. The try is skipped if an earlier answer of a server, which said that
    /// the key is held, also counts for this acquire: see [`Waits::refused_at`](super::waits::Waits::refused_at).
    TryThenWait,
    /// The acquire waits until this instant. A server has already said that the key is held.
    Until(Instant, Refusal),
    /// The acquire takes a queue position if the key is held.
    Enqueue,
}

/// What happens to an acquire whose grant ends before its caller gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// The caller gets an error.
    Not,
    /// The acquire tries again.
    Tries,
    /// The acquire waits again, until this instant.
    Waits(Instant),
}

/// An acquire under way. It stays in one box from its caller's task through the shard, so that each move copies one
/// pointer.
pub(crate) struct Acquire {
    pub(crate) target: Target,
    pub(crate) key: Key,
    pub(crate) ttl: Option<Ttl>,
    pub(crate) policy: RenewTerms,
    /// The number of repeated requests that count toward `max_redirects`.
    pub(crate) redirects: u32,
    /// The name under which the `e` or the try of this acquire was already sent. An `e` that is sent again under that
    /// name keeps its queue position.
    pub(crate) session: Option<Box<StableRef>>,
    pub(crate) again: Again,
    /// Whether the caller holds other leases of this client while it waits.
    pub(crate) holding: bool,
    /// The progress that the caller can read.
    pub(crate) progress: Option<Progress>,
    pub(crate) ask: Ask<Acquired>,
}

impl Acquire {
    /// Creates an acquire of which no server knows yet.
    pub(crate) fn new(target: Target, key: Key, ttl: Option<Ttl>, policy: RenewTerms, ask: Ask<Acquired>) -> Box<Self> {
        Box::new(Self {
            target,
            key,
            ttl,
            policy,
            redirects: 0,
            session: None,
            again: Again::Not,
            holding: false,
            progress: None,
            ask,
        })
    }

    /// Sets how the acquire is repeated if its grant ends before the caller gets it.
    pub(crate) fn set_patience(&mut self, patience: Patience) {
        self.again = match patience {
            Patience::Try | Patience::TryThenWait => Again::Tries,
            Patience::Until(until, _) => Again::Waits(until),
            Patience::Enqueue => Again::Not,
        };
    }

    /// Returns the key and the kind of lease that the acquire waits for.
    pub(crate) fn wait_key(&self) -> WaitKey {
        (self.target, self.key.clone())
    }

    /// Notes what the acquire waits for from now on, if the caller reads its progress.
    pub(crate) fn waits_for(&self, what: WaitsFor) {
        if let Some(progress) = &self.progress {
            progress.waits_for(what);
        }
    }
}
