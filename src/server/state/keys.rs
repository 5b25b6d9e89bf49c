//! The keys that a server knows.

use std::collections::HashMap;

use tokio::time::Instant;

use super::entry::KeyEntry;
use super::{KeyId, QualifiedKey};
use crate::server::name::Name;
use crate::types::Kind;

/// The keys that a server knows. A request looks up its key by name once, and then uses its number.
#[derive(Default)]
pub(super) struct KeyTable {
    slots: Vec<Option<(KeyId, KeyEntry)>>,
    free: Vec<usize>,
    locks: HashMap<Name, KeyId>,
    semaphores: HashMap<Name, KeyId>,
    last_serial: u64,
}

impl KeyTable {
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0 && self.locks.is_empty() && self.semaphores.is_empty()
    }

    pub(super) fn find(&self, namespace: Kind, key: &[u8]) -> Option<KeyId> {
        let ids = match namespace {
            Kind::Lock => &self.locks,
            Kind::Semaphore => &self.semaphores,
        };
        ids.get(key).copied()
    }

    /// Adds a key, which must be unknown.
    pub(super) fn insert(&mut self, (namespace, name): QualifiedKey, limit: u64, now: Instant) -> KeyId {
        self.last_serial += 1;
        let slot = self.free.pop().unwrap_or(self.slots.len());
        let id = KeyId {
            serial: self.last_serial,
            slot,
        };
        self.ids(namespace).insert(name.clone(), id);
        let known = Some((id, KeyEntry::new((namespace, name), limit, now)));
        match self.slots.get_mut(slot) {
            Some(free) => *free = known,
            None => self.slots.push(known),
        }
        id
    }

    pub(super) fn get(&self, key: KeyId) -> Option<&KeyEntry> {
        match self.slots.get(key.slot)? {
            Some((id, entry)) if *id == key => Some(entry),
            _ => None,
        }
    }

    pub(super) fn get_mut(&mut self, key: KeyId) -> Option<&mut KeyEntry> {
        match self.slots.get_mut(key.slot)? {
            Some((id, entry)) if *id == key => Some(entry),
            _ => None,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (KeyId, &KeyEntry)> {
        self.slots.iter().flatten().map(|(id, entry)| (*id, entry))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (KeyId, &mut KeyEntry)> {
        self.slots.iter_mut().flatten().map(|(id, entry)| (*id, entry))
    }

    /// Removes the keys for which `keeps` returns false.
    pub(super) fn retain(&mut self, keeps: impl Fn(&KeyEntry) -> bool) {
        for slot in 0..self.slots.len() {
            let forgotten = self.slots[slot].take_if(|(_, entry)| !keeps(entry));
            if let Some((_, entry)) = forgotten {
                let (namespace, name) = entry.key();
                self.ids(*namespace).remove(name);
                self.free.push(slot);
            }
        }
    }

    fn ids(&mut self, namespace: Kind) -> &mut HashMap<Name, KeyId> {
        match namespace {
            Kind::Lock => &mut self.locks,
            Kind::Semaphore => &mut self.semaphores,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forgotten_key_gets_another_id_when_it_is_used_again() {
        let (mut keys, now) = (KeyTable::default(), Instant::now());
        let name = |name: &[u8]| (Kind::Lock, Name::new(name));
        let first = keys.insert(name(b"a"), 1, now);
        let kept = keys.insert(name(b"b"), 2, now);
        keys.retain(|entry| entry.limit == 2);
        assert!(keys.get(first).is_none() && keys.find(Kind::Lock, b"a").is_none());
        let again = keys.insert(name(b"a"), 1, now);
        assert_eq!((keys.len(), again.slot, again > kept), (2, first.slot, true));
        assert!(keys.get(first).is_none() && keys.get(again).is_some());
        assert_eq!(keys.find(Kind::Lock, b"a"), Some(again));
        assert_eq!(keys.find(Kind::Semaphore, b"a"), None);
    }
}
