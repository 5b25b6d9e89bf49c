//! The progress of a benchmark, on a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A progress bar on standard error. It is shown only on a terminal, and disappears when it is dropped.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Creates a bar with this number of steps.
    pub(super) fn new(what: impl Into<String>, steps: usize) -> Self {
        let bar = ProgressBar::new(steps as u64).with_message(what.into());
        // If the template is invalid, indicatif's default bar remains.
        if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:30}] {percent:>3} % {elapsed}") {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    pub(super) fn step(&self) {
        self.0.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
