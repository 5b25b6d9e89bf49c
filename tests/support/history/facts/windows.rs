//! Sets of stretches of time: for example, all freezes of a process, or all troubles of a server.

/// Stretches of time in order. They neither overlap nor touch.
#[derive(Clone, Debug, Default)]
pub struct Windows {
    /// The start and the end of each stretch, and the total length of the stretches before it.
    stretches: Vec<(u64, u64, u64)>,
}

impl Windows {
    /// Sorts the stretches, and merges stretches that overlap or touch.
    pub fn of(mut stretches: Vec<(u64, u64)>) -> Self {
        stretches.sort_unstable();
        let mut windows: Vec<(u64, u64, u64)> = Vec::new();
        for (from, to) in stretches {
            let before = match windows.last_mut() {
                Some((_, last, _)) if from <= *last => {
                    *last = (*last).max(to);
                    continue;
                }
                Some((from, to, before)) => *before + (*to - *from),
                None => 0,
            };
            windows.push((from, to.max(from), before));
        }
        Self { stretches: windows }
    }

    /// Returns how much of the time between `from` and `to` is within the stretches.
    pub fn within(&self, from: u64, to: u64) -> u64 {
        if to <= from {
            return 0;
        }
        self.until(to) - self.until(from)
    }

    /// Returns how much of the time between `from` and `to` is outside the stretches.
    pub fn outside(&self, from: u64, to: u64) -> u64 {
        to.saturating_sub(from) - self.within(from, to)
    }

    /// Returns whether a stretch and the time between `from` and `to` have a moment in common. All ends are included.
    pub fn meet(&self, from: u64, to: u64) -> bool {
        let next = self.stretches.partition_point(|(_, end, _)| *end < from);
        self.stretches.get(next).is_some_and(|(begin, ..)| *begin <= to)
    }

    /// Returns how much of the time up to `at` is within the stretches.
    fn until(&self, at: u64) -> u64 {
        let begun = self.stretches.partition_point(|(from, ..)| *from < at);
        match begun.checked_sub(1).and_then(|last| self.stretches.get(last)) {
            Some((from, to, before)) => before + (at.min(*to) - from),
            None => 0,
        }
    }
}
