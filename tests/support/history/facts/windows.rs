//! Stretches of time in which something was so: a process was frozen, something was broken.

/// Stretches that do not touch each other, in order.
#[derive(Clone, Debug, Default)]
pub struct Windows {
    /// From, to, and how much all of them before this one were together.
    stretches: Vec<(u64, u64, u64)>,
}

impl Windows {
    /// Of stretches that may overlap, in any order.
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

    /// How much of the time between lies within.
    pub fn within(&self, from: u64, to: u64) -> u64 {
        if to <= from {
            return 0;
        }
        self.until(to) - self.until(from)
    }

    /// How much of the time between lies outside.
    pub fn outside(&self, from: u64, to: u64) -> u64 {
        to.saturating_sub(from) - self.within(from, to)
    }

    /// Whether one of them has a moment in common with this stretch, ends included.
    pub fn meet(&self, from: u64, to: u64) -> bool {
        let next = self.stretches.partition_point(|(_, end, _)| *end < from);
        self.stretches.get(next).is_some_and(|(begin, ..)| *begin <= to)
    }

    /// How much of all the time until then lies within.
    fn until(&self, at: u64) -> u64 {
        let begun = self.stretches.partition_point(|(from, ..)| *from < at);
        match begun.checked_sub(1).and_then(|last| self.stretches.get(last)) {
            Some((from, to, before)) => before + (at.min(*to) - from),
            None => 0,
        }
    }
}
