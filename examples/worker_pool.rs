//! Recipe: a worker pool with a limit that all processes share, in number and in rate.
//!
//!     cargo run --example worker_pool
//!
//! Six workers have twelve jobs to do for a service that takes three at once, and from each of these no more than one
//! every 200 ms. A job runs while its worker holds one of three slots; a slot is kept for at least 200 ms. So never
//! more than three run, and never more than three begin within 200 ms, however many processes have workers.

mod common;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use common::Story;
use dflockd_client::{Error, Fencing};

const SLOTS: u32 = 3;
const WORKERS: u32 = 6;
const JOBS: u32 = 12;
/// How long a slot is kept, however quick its job is.
const PERIOD: Duration = Duration::from_millis(200);

#[tokio::main]
async fn main() -> Result<(), Error> {
    let story = Story::begin();
    let (client, _server) = common::connect(Fencing::IfKnown).await?;
    let slots = client
        .semaphore("recipes/workers", SLOTS)?
        .acquire_timeout(Duration::from_secs(60));
    let jobs: Arc<Mutex<VecDeque<u32>>> = Arc::new(Mutex::new((1..=JOBS).collect()));
    let next = move || jobs.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let (running, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));

    let began = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    for worker in 1..=WORKERS {
        let (slots, next) = (slots.clone(), next.clone());
        let (running, most) = (Arc::clone(&running), Arc::clone(&most));
        workers.spawn(async move {
            while let Some(job) = next() {
                slots
                    .with_permit(async |_| {
                        let kept = tokio::time::sleep(PERIOD);
                        most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        story.tell(format!("worker {worker} does job {job}"));
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        running.fetch_sub(1, Ordering::SeqCst);
                        kept.await;
                        Ok::<_, Error>(())
                    })
                    .await?;
            }
            Ok::<_, Error>(())
        });
    }
    for outcome in workers.join_all().await {
        outcome?;
    }
    story.tell(format!(
        "{JOBS} jobs in {:.1?}, never more than {} at once",
        began.elapsed(),
        most.load(Ordering::SeqCst)
    ));
    Ok(())
}
