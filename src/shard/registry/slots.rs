//! Storage for the leases of a registry. It grows in pieces of fixed size, because up to half of a doubling vector's
//! space would be unused.

use super::entry::LeaseEntry;

/// The number of slots in a piece.
const PIECE: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Slots(Vec<Vec<LeaseSlot>>);

#[derive(Debug, Default)]
pub(super) struct LeaseSlot {
    pub(super) generation: u32,
    pub(super) entry: Option<LeaseEntry>,
}

/// A registry may have a million slots, so their size matters.
#[cfg(all(test, target_pointer_width = "64"))]
const _: () = assert!(size_of::<LeaseSlot>() <= 80);

impl Slots {
    /// Adds an empty slot and returns its index.
    pub(super) fn add(&mut self) -> u32 {
        if self.0.last().is_none_or(|piece| piece.len() == PIECE) {
            self.0.push(Vec::with_capacity(PIECE));
        }
        let before = (self.0.len() - 1) * PIECE;
        let Some(piece) = self.0.last_mut() else { return 0 };
        piece.push(LeaseSlot::default());
        (before + piece.len() - 1) as u32
    }

    pub(super) fn get(&self, index: u32) -> Option<&LeaseSlot> {
        let index = index as usize;
        self.0.get(index / PIECE)?.get(index % PIECE)
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut LeaseSlot> {
        let index = index as usize;
        self.0.get_mut(index / PIECE)?.get_mut(index % PIECE)
    }

    /// Iterates over all slots in the order of their indices.
    pub(super) fn iter(&self) -> impl Iterator<Item = &LeaseSlot> {
        self.0.iter().flatten()
    }
}
