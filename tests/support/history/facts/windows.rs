//! Stretches of time: of a freeze, of trouble.

/// Stretches that do not touch each other, in order.
#[derive(Clone, Debug, Default)]
pub struct Windows {
    /// From, to, and the length of all earlier stretches together.
    stretches: Vec<(u64, u64, u64)>,
}

impl Windows {
    /// Merges stretches that may overlap, in any order.
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

    /// Returns how much of this time is within the stretches.
    pub fn within(&self, from: u64, to: u64) -> u64 {
        if to <= from {
            return 0;
        }
        self.until(to) - self.until(from)
    }

    /// Returns how much of this time is outside the stretches.
    pub fn outside(&self, from: u64, to: u64) -> u64 {
        to.saturating_sub(from) - self.within(from, to)
    }

    /// Returns whether a stretch has a moment in common with this one, ends included.
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
