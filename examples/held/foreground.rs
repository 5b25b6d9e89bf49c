//! Pairs of acquire and release at an even pace: what a caller sees while the client does something else.

use std::error::Error;
use std::time::{Duration, Instant};

use dflockd_client::Client;
use hdrhistogram::Histogram;

/// The time from one pair to the next. Even, so that a slow pair does not thin out those that come after.
const PACE: Duration = Duration::from_millis(2);

/// How long each pair took.
pub(crate) struct Foreground(Histogram<u64>);

impl Foreground {
    /// Makes pairs for as long as that.
    pub(crate) async fn during(client: &Client, time: Duration) -> Result<Self, Box<dyn Error>> {
        let mut nanoseconds = Histogram::new_with_max(60_000_000_000, 3)?;
        let lock = client.lock("held/foreground")?;
        let end = Instant::now() + time;
        let mut pace = tokio::time::interval(PACE);
        while Instant::now() < end {
            pace.tick().await;
            let began = Instant::now();
            lock.acquire().await?.release().await?;
            nanoseconds.saturating_record(began.elapsed().as_nanos() as u64);
        }
        Ok(Self(nanoseconds))
    }

    pub(crate) fn pairs(&self) -> u64 {
        self.0.len()
    }

    pub(crate) fn micros(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1e3
    }
}
