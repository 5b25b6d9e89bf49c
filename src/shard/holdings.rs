//! How many leases on a key this client holds. Pure.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::types::{Key, Kind};

/// The number of leases that are held, by key.
#[derive(Debug, Default)]
pub(crate) struct Holdings {
    locks: HashMap<Key, u32>,
    slots: HashMap<Key, u32>,
}

impl Holdings {
    /// Returns how many leases on a key are held.
    pub(crate) fn count(&self, kind: Kind, key: &Key) -> u32 {
        let held = match kind {
            Kind::Lock => &self.locks,
            Kind::Semaphore => &self.slots,
        };
        held.get(key).copied().unwrap_or_default()
    }

    /// Counts one more.
    pub(crate) fn add(&mut self, kind: Kind, key: &Key) {
        *self.of(kind).entry(key.clone()).or_default() += 1;
    }

    /// Counts one less.
    pub(crate) fn remove(&mut self, kind: Kind, key: &Key) {
        match self.of(kind).entry(key.clone()) {
            Entry::Occupied(mut held) if *held.get() > 1 => *held.get_mut() -= 1,
            Entry::Occupied(held) => drop(held.remove()),
            Entry::Vacant(_) => {}
        }
    }

    /// How many keys are held.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.locks.len() + self.slots.len()
    }

    fn of(&mut self, kind: Kind) -> &mut HashMap<Key, u32> {
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
    fn locks_and_slots_are_counted_apart_and_leave_nothing_behind() {
        let (a, b) = (Key::new("a").unwrap(), Key::new("b").unwrap());
        let mut held = Holdings::default();
        held.add(Kind::Semaphore, &a);
        held.add(Kind::Semaphore, &a);
        held.add(Kind::Lock, &b);
        let counts = |held: &Holdings| {
            [(Kind::Semaphore, &a), (Kind::Lock, &a), (Kind::Lock, &b)].map(|(kind, key)| held.count(kind, key))
        };
        assert_eq!(counts(&held), [2, 0, 1]);
        held.remove(Kind::Semaphore, &a);
        held.remove(Kind::Lock, &b);
        assert_eq!(counts(&held), [1, 0, 0]);
        held.remove(Kind::Semaphore, &a);
        held.remove(Kind::Semaphore, &a);
        assert_eq!(counts(&held), [0, 0, 0]);
        assert!(held.locks.is_empty() && held.slots.is_empty());
    }
}
