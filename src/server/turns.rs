//! Waits without a timer.

use std::time::{Duration, Instant};

use tokio::task::yield_now;

/// Polls the clock until the duration has passed, and yields to other tasks in between.
pub(super) async fn wait_in_turns(duration: Duration) {
    let began = Instant::now();
    while began.elapsed() < duration {
        yield_now().await;
    }
}
