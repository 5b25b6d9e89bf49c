//! Waits without a timer.

use std::time::{Duration, Instant};

use tokio::task::yield_now;

/// Asks the clock until so much time has passed, and lets other tasks run in between.
pub(super) async fn wait_in_turns(duration: Duration) {
    let began = Instant::now();
    while began.elapsed() < duration {
        yield_now().await;
    }
}
