//! Consistency checks of a state, for tests and fuzzers.

use std::collections::BTreeMap;

use super::State;

impl State {
    /// Asserts that holders, waiters, connections and the order of lease ends are consistent with each other.
    pub(in crate::server) fn assert_consistent(&self) {
        let mut ends = BTreeMap::new();
        for (subject, entry) in self.entries.iter() {
            assert!(
                entry.holders.len() as u64 <= entry.limit,
                "{subject:?} has too many holders"
            );
            assert!(
                !entry.has_room() || entry.waiters.is_empty(),
                "{subject:?} is free, and has waiters"
            );
            for holder in &entry.holders {
                ends.insert((holder.ends, holder.lease), subject);
                if let Some(client) = self.clients.get(&holder.connection) {
                    assert!(client.holds.get(&holder.lease) == Some(&subject), "{subject:?}");
                }
            }
        }
        assert_eq!(ends, self.ends);
        for (connection, client) in &self.clients {
            for (lease, subject) in &client.holds {
                let holders = self.entries.get(*subject).into_iter().flat_map(|entry| &entry.holders);
                let mut own = holders.filter(|holder| holder.connection == *connection);
                assert!(
                    own.any(|holder| holder.lease == *lease),
                    "{connection} holds {subject:?}"
                );
            }
            for (place, subject) in client.places.clone() {
                let waiter = self.entries.get(subject).and_then(|entry| entry.waiters.get(&place));
                assert!(
                    waiter.is_some_and(|waiter| waiter.connection == *connection),
                    "{subject:?}"
                );
            }
        }
    }
}
