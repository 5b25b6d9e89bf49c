//! Recipe: a worker pool on two shards. All processes share a limit on concurrent jobs, and a limit on their rate.
//!
//!     cargo run --example worker_pool
//!
//! Six workers run twelve jobs for two services. Each service has a semaphore with two slots. A worker holds a slot of
//! the service while it runs a job, so at most two jobs of a service run at once. A worker holds the slot for at least
//! 200 ms, so at most two jobs of a service begin within 200 ms. These limits hold for all processes with workers
//! together. The two semaphores are on different shards.

mod common;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use common::Story;
use dflockd_client::{Error, Fencing};

const SERVICES: [&str; 2] = ["recipes/workers/images", "recipes/workers/mail"];
const SLOTS: u32 = 2;
const WORKERS: u32 = 6;
const JOBS: u32 = 12;
/// The minimum time for which a worker holds a slot, even if the job is shorter.
const PERIOD: Duration = Duration::from_millis(200);

static NEXT: AtomicU32 = AtomicU32::new(1);
static RUNNING: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];

#[tokio::main]
async fn main() -> Result<(), Error> {
    let story = Story::begin();
    let (client, _servers) = common::connect(Fencing::IfKnown, 2).await?;
    let began = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    for worker in 1..=WORKERS {
        let client = client.clone();
        workers.spawn(async move {
            while let job @ 1..=JOBS = NEXT.fetch_add(1, Ordering::SeqCst) {
                let (key, running) = (SERVICES[job as usize % 2], &RUNNING[job as usize % 2]);
                let slots = client.semaphore(key, SLOTS)?.acquire_timeout(Duration::from_secs(60));
                let work = slots.with_permit(async |_| {
                    let kept = tokio::time::sleep(PERIOD);
                    let at_once = running.fetch_add(1, Ordering::SeqCst) + 1;
                    story.tell(format!(
                        "worker {worker} does job {job} for {key}, which now runs {at_once} of at most {SLOTS} jobs"
                    ));
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    running.fetch_sub(1, Ordering::SeqCst);
                    kept.await;
                    Ok::<_, Error>(())
                });
                work.await?;
            }
            Ok::<_, Error>(())
        });
    }
    workers.join_all().await.into_iter().collect::<Result<(), Error>>()?;
    let shards = client.health().len();
    story.tell(format!("{JOBS} jobs in {:.1?}, on {shards} shards", began.elapsed()));
    Ok(())
}
