//! The signals of one caller on one channel that a subscription received.

/// A received signal: the time of its emit, and its index among the reports.
type Emit = (u64, usize);

/// The received signals of a stream, to find the neighbours of a missing one.
#[derive(Default)]
pub struct Stream {
    /// In the order of their emits.
    emits: Vec<Emit>,
    /// For each emit, the last report among the emits up to it, and the first report among those from it on.
    last_up_to: Vec<usize>,
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

    /// Returns the last report of the signals emitted before a time, and the first report of those emitted after it.
    pub fn neighbours(&self, at: u64) -> (Option<usize>, Option<usize>) {
        let before = self.emits.partition_point(|(emitted, _)| *emitted < at);
        let behind = self.emits.partition_point(|(emitted, _)| *emitted <= at);
        let last = before.checked_sub(1).and_then(|before| self.last_up_to.get(before));
        (last.copied(), self.first_from.get(behind).copied())
    }
}
