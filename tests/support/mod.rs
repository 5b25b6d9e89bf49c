//! Helpers that several test binaries share. Each binary uses only some of them.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs
)]

pub mod cluster;
pub mod fake;
pub mod faulty;
pub mod history;
pub mod load;
pub mod observed;
pub mod old;
pub mod pair;
pub mod pki;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod recorder;
pub mod sources;
pub mod spans;
pub mod wake_time;

use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// Like [`until`], for code that is not async.
pub fn until_now(what: &str, mut holds: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < give_up, "timed out waiting until: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until `holds` returns true. Panics with `what` if that takes longer than [`PATIENCE`].
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let patience = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, patience).await.is_ok(),
        "timed out waiting until: {what}"
    );
}
