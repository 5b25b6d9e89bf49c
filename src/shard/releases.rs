//! Pending releases.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use tokio::time::Instant;

use super::request::PendingRelease;
use crate::types::Token;

/// The unanswered releases of a shard.
pub(super) struct Releases {
    /// The releases that wait for a connection.
    pending: Vec<PendingRelease>,
    /// The number of unanswered releases, including those that wait for a connection.
    under_way: usize,
    /// The number of releases of each token. `None` outside of clusters, where servers give no token twice.
    tokens: Option<HashMap<Token, u32>>,
}

impl Releases {
    /// Creates an empty collection. With `in_cluster`, it remembers tokens.
    pub(super) fn new(in_cluster: bool) -> Self {
        Self {
            pending: Vec::new(),
            under_way: 0,
            tokens: in_cluster.then(HashMap::new),
        }
    }

    /// Adds a release.
    pub(super) fn begin(&mut self, token: &Token) {
        self.under_way += 1;
        if let Some(tokens) = &mut self.tokens {
            *tokens.entry(*token).or_default() += 1;
        }
    }

    /// Keeps a release until there is a connection for it.
    pub(super) fn keep(&mut self, release: PendingRelease) {
        self.pending.push(release);
    }

    /// Removes a finished release.
    pub(super) fn end(&mut self, token: &Token) {
        self.under_way = self.under_way.saturating_sub(1);
        let Some(tokens) = &mut self.tokens else { return };
        match tokens.entry(*token) {
            Entry::Occupied(mut count) if *count.get() > 1 => *count.get_mut() -= 1,
            Entry::Occupied(last) => drop(last.remove()),
            Entry::Vacant(_) => {}
        }
    }

    /// Whether the lease with this token is being released. Always false outside of clusters.
    pub(super) fn is_under_way(&self, token: &Token) -> bool {
        self.tokens.as_ref().is_some_and(|tokens| tokens.contains_key(token))
    }

    /// Removes and returns the releases that wait for a connection.
    pub(super) fn take_pending(&mut self) -> Vec<PendingRelease> {
        std::mem::take(&mut self.pending)
    }

    /// Removes and returns the waiting releases of leases that the server has ended by itself.
    pub(super) fn take_ended(&mut self, now: Instant) -> Vec<PendingRelease> {
        let (over, pending) = self
            .take_pending()
            .into_iter()
            .partition(|release| release.until <= now);
        self.pending = pending;
        over
    }

    /// Returns the number of releases that wait for a connection.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Returns the number of unanswered releases.
    #[cfg(test)]
    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Whether all releases are answered.
    pub(super) fn is_done(&self) -> bool {
        self.under_way == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::bench::{SECOND, grant, key};
    use crate::shard::request::ReleaseSubject;
    use crate::types::Target;

    fn release(name: &str, until: Instant) -> PendingRelease {
        PendingRelease {
            target: Target::Lock,
            subject: ReleaseSubject::Grant(Box::new((key(name), grant(1).token))),
            id: None,
            owner: 1,
            until,
            repeated: false,
            reply: None,
        }
    }

    fn keys(releases: &[PendingRelease]) -> Vec<&str> {
        releases.iter().map(|release| release.key().as_str()).collect()
    }

    #[test]
    fn waiting_releases_keep_their_order_and_are_under_way_until_they_end() {
        let now = Instant::now();
        let mut releases = Releases::new(false);
        assert!(releases.is_done() && releases.take_pending().is_empty());
        for name in ["b", "a", "c"] {
            releases.begin(&grant(1).token);
            releases.keep(release(name, now));
        }
        assert_eq!((releases.pending(), releases.under_way()), (3, 3));
        assert_eq!(keys(&releases.take_pending()), ["b", "a", "c"]);
        assert_eq!(
            (releases.pending(), releases.under_way()),
            (0, 3),
            "they are not answered"
        );
        releases.end(&grant(1).token);
        releases.end(&grant(1).token);
        assert!(!releases.is_done());
        releases.end(&grant(1).token);
        assert!(releases.is_done());
    }

    #[test]
    fn the_number_of_releases_does_not_fall_below_zero() {
        let mut releases = Releases::new(true);
        releases.end(&grant(1).token);
        assert!(releases.is_done());
        releases.begin(&grant(1).token);
        assert!(!releases.is_done());
    }

    #[test]
    fn releases_of_leases_that_the_server_has_ended_are_taken_from_that_instant_on() {
        let start = Instant::now();
        let mut releases = Releases::new(false);
        for (name, secs) in [("a", 2), ("b", 1), ("c", 3), ("d", 1)] {
            releases.begin(&grant(1).token);
            releases.keep(release(name, start + secs * SECOND));
        }
        assert!(releases.take_ended(start + SECOND / 2).is_empty());
        assert_eq!(keys(&releases.take_ended(start + SECOND)), ["b", "d"]);
        assert_eq!(
            (releases.pending(), releases.under_way()),
            (2, 4),
            "they stay under way until the caller of `take_ended` ends them"
        );
        assert_eq!(keys(&releases.take_pending()), ["a", "c"]);
    }

    #[test]
    fn in_a_cluster_a_token_is_known_until_its_last_release_is_over() {
        let mut releases = Releases::new(true);
        let (first, second) = (grant(1).token, grant(2).token);
        releases.begin(&first);
        releases.begin(&first);
        releases.begin(&second);
        releases.end(&second);
        assert!(releases.is_under_way(&first) && !releases.is_under_way(&second));
        releases.end(&first);
        assert!(releases.is_under_way(&first), "one of two releases has ended");
        releases.end(&first);
        assert!(!releases.is_under_way(&first) && releases.is_done());
        releases.begin(&first);
        assert!(releases.is_under_way(&first), "another release has begun");
    }

    #[test]
    fn outside_of_clusters_no_token_is_remembered() {
        let mut releases = Releases::new(false);
        releases.begin(&grant(1).token);
        assert!(!releases.is_under_way(&grant(1).token) && releases.under_way() == 1);
    }
}
