//! Counts this client's leases by key. Pure.

use std::collections::{HashMap, HashSet};

use crate::types::{Key, Kind};

/// The number of leases that this client holds, by key.
#[derive(Debug, Default)]
pub(crate) struct Holdings {
    locks: Held,
    slots: Held,
}

/// The leases of one kind. There may be very many keys, and most are held once, so only keys that are held several
/// times have a number.
#[derive(Debug, Default)]
struct Held {
    keys: HashSet<Key>,
    /// The number of leases on a key beyond the first.
    more: HashMap<Key, u32>,
}

impl Holdings {
    /// Returns the number of leases on a key.
    pub(crate) fn count(&self, kind: Kind, key: &Key) -> u32 {
        let held = match kind {
            Kind::Lock => &self.locks,
            Kind::Semaphore => &self.slots,
        };
        match held.keys.contains(key) {
            true => 1 + held.more.get(key).copied().unwrap_or_default(),
            false => 0,
        }
    }

    /// Adds one lease.
    pub(crate) fn add(&mut self, kind: Kind, key: &Key) {
        let held = self.of(kind);
        if !held.keys.insert(key.clone()) {
            *held.more.entry(key.clone()).or_default() += 1;
        }
    }

    /// Removes one lease.
    pub(crate) fn remove(&mut self, kind: Kind, key: &Key) {
        let held = self.of(kind);
        match held.more.get_mut(key) {
            Some(more) if *more > 1 => *more -= 1,
            Some(_) => drop(held.more.remove(key)),
            None => drop(held.keys.remove(key)),
        }
    }

    /// Returns the number of keys that are held.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.locks.keys.len() + self.slots.keys.len()
    }

    fn of(&mut self, kind: Kind) -> &mut Held {
        match kind {
            Kind::Lock => &mut self.locks,
            Kind::Semaphore => &mut self.slots,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_and_slots_are_counted_separately_and_released_keys_are_removed() {
        let (a, b) = (Key::new("a").unwrap(), Key::new("b").unwrap());
        let mut held = Holdings::default();
        for _ in 0..3 {
            held.add(Kind::Semaphore, &a);
        }
        held.add(Kind::Lock, &b);
        let counts = |held: &Holdings| {
            [(Kind::Semaphore, &a), (Kind::Lock, &a), (Kind::Lock, &b)].map(|(kind, key)| held.count(kind, key))
        };
        assert_eq!(counts(&held), [3, 0, 1]);
        held.remove(Kind::Semaphore, &a);
        held.remove(Kind::Lock, &b);
        assert_eq!(counts(&held), [2, 0, 0]);
        held.remove(Kind::Semaphore, &a);
        assert_eq!(counts(&held), [1, 0, 0]);
        held.remove(Kind::Semaphore, &a);
        held.remove(Kind::Semaphore, &a);
        assert_eq!(counts(&held), [0, 0, 0]);
        assert!(
            [held.locks, held.slots]
                .iter()
                .all(|held| held.keys.is_empty() && held.more.is_empty())
        );
    }
}
