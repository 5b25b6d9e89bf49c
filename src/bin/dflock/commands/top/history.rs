//! Values over time.

use std::collections::VecDeque;

/// How many values are kept: a terminal of 200 columns shows no more of them.
const KEPT: usize = 200;

/// The last values, the newest at the end.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    values: VecDeque<f64>,
}

impl History {
    pub(super) fn push(&mut self, value: f64) {
        if self.values.len() == KEPT {
            self.values.pop_front();
        }
        self.values.push_back(value);
    }

    pub(super) fn newest(&self) -> Option<f64> {
        self.values.back().copied()
    }

    /// Returns whether all values are zero.
    pub(super) fn is_flat(&self) -> bool {
        self.values.iter().all(|value| *value == 0.0)
    }

    /// Returns the last values as bars, the newest at the right. The highest value has the highest bar.
    pub(super) fn bars(&self, width: usize) -> String {
        const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let shown = self.values.iter().skip(self.values.len().saturating_sub(width));
        let highest = shown.clone().copied().fold(0.0, f64::max);
        let missing = width.saturating_sub(shown.len());
        let bar = |value: f64| {
            let level = match highest > 0.0 {
                true => (value / highest * 7.0).ceil(),
                false => 0.0,
            };
            BARS.get(level as usize).copied().unwrap_or('█')
        };
        let bars = shown.map(|value| bar(*value));
        std::iter::repeat_n(' ', missing).chain(bars).collect()
    }

    /// Returns the last values in hundredths, for a chart of whole numbers.
    pub(super) fn scaled(&self, width: usize) -> Vec<u64> {
        let shown = self.values.iter().skip(self.values.len().saturating_sub(width));
        let missing = width.saturating_sub(shown.len());
        let scaled = shown.map(|value| (value * 100.0) as u64);
        std::iter::repeat_n(0, missing).chain(scaled).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(values: impl IntoIterator<Item = f64>) -> History {
        let mut history = History::default();
        values.into_iter().for_each(|value| history.push(value));
        history
    }

    #[test]
    fn bars_show_the_newest_at_the_right_and_the_highest_in_full() {
        for (values, bars) in [
            (&[][..], "     "),
            (&[0.0, 0.0], "   ▁▁"),
            (&[0.0, 7.0, 3.0, 1.0], " ▁█▄▂"),
            (&[100.0, 0.0, 1.0, 1.0, 2.0, 0.5], "▁▅▅█▃"),
        ] {
            assert_eq!(history(values.iter().copied()).bars(5), bars);
        }
    }

    #[test]
    fn old_values_are_forgotten() {
        let history = history((0..1_000).map(f64::from));
        assert_eq!(history.values.len(), KEPT);
        assert_eq!(history.newest(), Some(999.0));
        assert_eq!(history.scaled(2), [99_800, 99_900]);
        assert!(!history.is_flat());
    }
}
