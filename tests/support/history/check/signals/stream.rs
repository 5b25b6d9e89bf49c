//! A stream: those signals of one caller on one channel that one subscription received.

/// A received signal: the time of its emit, and its index in the subscription's list of signals and gaps (`heard`).
type Emit = (u64, usize);

/// A stream in which the neighbours of a missing signal can be found.
#[derive(Default)]
pub struct Stream {
    /// Sorted by the time of the emit.
    emits: Vec<Emit>,
    /// For each emit: the greatest index among this emit and all earlier emits.
    last_up_to: Vec<usize>,
    /// For each emit: the smallest index among this emit and all later emits.
    first_from: Vec<usize>,
}

impl Stream {
    pub fn of(mut emits: Vec<Emit>) -> Self {
        emits.sort_unstable();
        let mut last_up_to = Vec::with_capacity(emits.len());
        for (_, number) in &emits {
            let before = last_up_to.last().copied().unwrap_or(0);
            last_up_to.push(before.max(*number));
        }
        let mut first_from: Vec<usize> = Vec::with_capacity(emits.len());
        for (_, number) in emits.iter().rev() {
            let behind = first_from.last().copied().unwrap_or(usize::MAX);
            first_from.push(behind.min(*number));
        }
        first_from.reverse();
        Self {
            emits,
            last_up_to,
            first_from,
        }
    }

    /// Returns the greatest index of the signals emitted before the time `at`, and the smallest index of the signals
    /// emitted after `at`.
    pub fn neighbours(&self, at: u64) -> (Option<usize>, Option<usize>) {
        let before = self.emits.partition_point(|(emitted, _)| *emitted < at);
        let behind = self.emits.partition_point(|(emitted, _)| *emitted <= at);
        let last = before.checked_sub(1).and_then(|before| self.last_up_to.get(before));
        (last.copied(), self.first_from.get(behind).copied())
    }
}
