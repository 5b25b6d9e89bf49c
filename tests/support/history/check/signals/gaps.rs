//! The gaps that were reported to a subscription.

use super::super::super::facts::signals::{Subscription, Told};
use super::super::super::record::Extent;

struct Gap {
    /// The index of this report in the subscription's list of signals and gaps (`heard`).
    number: usize,
    at: u64,
    /// The number of open gaps after this report.
    open: usize,
}

/// The reports of gaps, in order.
#[derive(Default)]
pub struct Gaps(Vec<Gap>);

impl Gaps {
    pub fn of(subscription: &Subscription) -> Self {
        let mut gaps = Vec::new();
        let mut open = 0_usize;
        for (number, heard) in subscription.heard.iter().enumerate() {
            let Told::Gap(extent) = &heard.told else { continue };
            match extent {
                Extent::Begins => open += 1,
                Extent::Ends => open = open.saturating_sub(1),
                Extent::Here => {}
            }
            let at = heard.at;
            gaps.push(Gap { number, at, open });
        }
        Self(gaps)
    }

    /// Returns whether a gap was open at that time.
    pub fn is_open(&self, at: u64) -> bool {
        let told = self.0.partition_point(|gap| gap.at <= at);
        let last = told.checked_sub(1).and_then(|last| self.0.get(last));
        last.is_some_and(|gap| gap.open > 0)
    }

    /// Finds the first report of a gap that comes after the signal `before` and not earlier than the time `since`.
    /// Returns the time of that report. `None` if there is no such report, or if it comes after the signal `behind`.
    /// `before` and `behind` are indices of received signals in the subscription's list `heard`.
    pub fn told(&self, before: Option<usize>, behind: Option<usize>, since: u64) -> Option<u64> {
        let late = self.0.partition_point(|gap| gap.at < since);
        let after = self
            .0
            .partition_point(|gap| before.is_some_and(|before| gap.number <= before));
        let first = self.0.get(late.max(after));
        first
            .filter(|gap| behind.is_none_or(|behind| gap.number < behind))
            .map(|gap| gap.at)
    }
}
