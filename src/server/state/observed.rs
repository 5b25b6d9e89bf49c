//! The state of a server as a test sees it.

use std::time::Duration;

use tokio::time::Instant;

use super::State;
use crate::types::{Fence, Key, Kind, Token};

/// A lease as a [`TestServer`](crate::testing::TestServer) sees it. The holder's view can differ: the holder may not
/// know yet that a lease has ended on the server, or may already treat a lease as lost that the server still lists.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObservedLease {
    /// Whether it is a lock or a slot of a semaphore.
    pub kind: Kind,
    /// The token of its holder: [`Lease::token`](crate::Lease::token).
    pub token: Token,
    /// Its fence: [`Lease::fence`](crate::Lease::fence). `None` if the server imitates a release that makes none.
    pub fence: Option<Fence>,
    /// How long the lease lasts if it is not renewed.
    pub remaining: Duration,
}

impl State {
    /// Returns the leases of a key, in the order of their grants.
    pub(in crate::server) fn leases_of(&self, key: &Key, now: Instant) -> Vec<ObservedLease> {
        let entries = self.known_as(key).into_iter().filter_map(|id| self.entries.get(id));
        let makes_fences = self.options.release.makes_fences();
        let mut leases: Vec<_> = entries
            .flat_map(|entry| {
                let kind = match entry.key().0 {
                    Kind::Semaphore if entry.limit == 1 && !self.options.release.separates_namespaces() => Kind::Lock,
                    kind => kind,
                };
                let held = entry.holders.iter().filter(|held| held.ends > now);
                held.map(move |held| (kind, held))
            })
            .collect();
        leases.sort_unstable_by_key(|(_, held)| held.lease);
        let observed = leases.into_iter().map(|(kind, held)| ObservedLease {
            kind,
            token: held.grant.token,
            fence: makes_fences.then(|| Fence(held.grant.token.first_half())),
            remaining: held.ends.saturating_duration_since(now),
        });
        observed.collect()
    }

    /// Returns the number of queue positions of a key.
    pub(in crate::server) fn waiters_of(&self, key: &Key) -> usize {
        let entries = self.known_as(key).into_iter().filter_map(|id| self.entries.get(id));
        entries.map(|entry| entry.waiters.len()).sum()
    }

    /// Returns the number of open connections.
    pub(in crate::server) fn open_connections(&self) -> usize {
        self.clients.len()
    }
}
