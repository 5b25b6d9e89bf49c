//! Waits for microseconds, on systems without a timer for them.

use std::time::Duration;

use super::turns::wait_in_turns;

#[derive(Default)]
pub(super) struct PreciseTimer;

impl PreciseTimer {
    pub(super) async fn wait(&mut self, duration: Duration) {
        wait_in_turns(duration).await;
    }
}
