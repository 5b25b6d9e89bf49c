//! What a caller wants when it acquires.

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
    /// One try.
    Try,
    /// One try, before a wait: spared where another caller of this client waits already.
    TryThenWait,
    /// Until then; a server has said before that the key is held.
    Until(Instant, Refusal),
    /// A place in the queue is enough.
    Enqueue,
}

/// What becomes of an acquire whose grant is gone before its caller got it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// Its caller is told.
    Not,
    /// It is tried again.
    Tries,
    /// It waits again, until then.
    Waits(Instant),
}

/// An acquire under way. It is passed on in a box, from its caller's task through the shard: so what moves is small.
pub(crate) struct Acquire {
    pub(crate) target: Target,
    pub(crate) key: Key,
    pub(crate) ttl: Option<Ttl>,
    pub(crate) policy: RenewTerms,
    /// How often it was asked anew, because another member of the cluster leads.
    pub(crate) redirects: u32,
    /// The session in which its `e` was sent to a server already: asked anew under that name, it keeps its place.
    pub(crate) session: Option<Box<StableRef>>,
    pub(crate) again: Again,
    /// Its caller holds other leases of this client meanwhile.
    pub(crate) holding: bool,
    /// What its caller can see of it.
    pub(crate) progress: Option<Progress>,
    pub(crate) ask: Ask<Acquired>,
}

impl Acquire {
    /// Creates an acquire that was not asked of any server yet.
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

    /// How it is asked for again, if its grant is gone before its caller got it.
    pub(crate) fn asked_with(&mut self, patience: Patience) {
        self.again = match patience {
            Patience::Try | Patience::TryThenWait => Again::Tries,
            Patience::Until(until, _) => Again::Waits(until),
            Patience::Enqueue => Again::Not,
        };
    }

    /// What it waits for.
    pub(crate) fn wait_key(&self) -> WaitKey {
        (self.target, self.key.clone())
    }

    /// Notes what it waits for from now on, if its caller wants to know.
    pub(crate) fn waits_for(&self, what: WaitsFor) {
        if let Some(progress) = &self.progress {
            progress.waits_for(what);
        }
    }
}
