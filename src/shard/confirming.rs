//! Grants that are being confirmed by a renewal before a caller gets them.

use std::sync::{Arc, Weak};

use crate::types::{Grant, Token};

/// The grants whose confirmation is under way. A grant is known for as long as its request exists, even while the
/// request waits for a connection.
#[derive(Default)]
pub(super) struct Confirming(Vec<Weak<Grant>>);

impl Confirming {
    /// Adds a grant to confirm.
    pub(super) fn begin(&mut self, grant: Grant) -> Arc<Grant> {
        self.0.retain(|grant| grant.strong_count() > 0);
        let grant = Arc::new(grant);
        self.0.push(Arc::downgrade(&grant));
        grant
    }

    /// Whether the grant with this token is being confirmed.
    pub(super) fn has(&self, token: &Token) -> bool {
        let mut grants = self.0.iter().filter_map(Weak::upgrade);
        grants.any(|grant| grant.token == *token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::bench::grant;

    #[test]
    fn a_grant_is_known_as_long_as_its_request_exists() {
        let mut confirming = Confirming::default();
        let [one, other] = [1, 2].map(|number| confirming.begin(grant(number)));
        assert!(confirming.has(&one.token) && confirming.has(&other.token));
        assert!(!confirming.has(&grant(3).token));
        drop(one);
        assert!(!confirming.has(&grant(1).token) && confirming.has(&other.token));
        drop(other);
        for number in 0..100 {
            drop(confirming.begin(grant(number)));
        }
        assert!(confirming.0.len() <= 1);
    }
}
