//! Three workers share jobs, and one publisher at a time sends the jobs as signals.
//!
//!     cargo run --example signals
//!
//! The workers are members of one group, so the server sends each job to one of them, in turn. Two publishers compete
//! for a lock. Its holder publishes six jobs and releases the lock. Then the other publisher acquires the lock and
//! publishes the other six jobs.
//!
//! Set `DFLOCKD_SERVERS=host:port,…` or `DFLOCKD_URL` to use your own servers instead of an embedded server. Only
//! servers of releases 1.11 to 1.16 have signals.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dflockd_client::server::Server;
use dflockd_client::{ClientBuilder, Election, Error, Group, Pattern, SignalEvent, SubscribeRequest};

const JOBS: u32 = 12;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut embedded = None;
    let mut builder = ClientBuilder::from_env()?;
    if ["DFLOCKD_URL", "DFLOCKD_SERVERS"]
        .iter()
        .all(|name| std::env::var_os(name).is_none())
    {
        let server = embedded.insert(Server::builder().release("1.16").port(0).start().await?);
        builder = builder.servers([server.local_addr().to_string()]);
    }
    let client = builder.connect().await?;

    let done = Arc::new(AtomicU32::new(0));
    let mut workers = tokio::task::JoinSet::new();
    for number in 1..=3 {
        let share = SubscribeRequest::new(Pattern::new("jobs.*")?).group(Group::new("workers")?);
        let mut jobs = client.subscribe_with(share).await?;
        let done = Arc::clone(&done);
        workers.spawn(async move {
            while let Some(event) = jobs.next_event().await {
                match event {
                    SignalEvent::Signal(job) => {
                        println!("worker {number}: {} ({})", job.payload(), job.channel());
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    // Servers do not store signals. A worker that needs every job must now look for missed jobs.
                    SignalEvent::Restored { shard, .. } => println!("worker {number}: back at shard {shard}"),
                    other => println!("worker {number}: {other:?}"),
                }
            }
        });
    }

    // The number of the next job. Publishers in different processes would keep it in a shared database.
    let next = Arc::new(AtomicU32::new(1));
    let mut publishers = tokio::task::JoinSet::new();
    for name in ["first", "second"] {
        let election = Election::new(client.lock("jobs/publisher")?);
        let (client, next) = (client.clone(), Arc::clone(&next));
        publishers.spawn(async move {
            let leadership = election.campaign().await?;
            println!("the {name} publisher leads");
            let publish = async {
                for _ in 0..JOBS / 2 {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let channel = if number % 2 == 0 { "jobs.even" } else { "jobs.odd" };
                    let heard_by = client.emit(channel, format!("job {number}")).await?;
                    assert_eq!(heard_by, 1, "one member of the group");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Ok::<_, Error>(())
            };
            // `run` stops the work if the leadership is lost.
            leadership.run(publish).await??;
            println!("the {name} publisher steps down");
            leadership.resign().await
        });
    }
    for outcome in publishers.join_all().await {
        outcome?;
    }
    while done.load(Ordering::Relaxed) < JOBS {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    workers.abort_all();
    println!("{JOBS} jobs are done, each by one worker");
    Ok(())
}
