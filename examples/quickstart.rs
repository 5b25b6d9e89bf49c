//! Shows locks and semaphores at work, and the time of each step.
//!
//!     cargo run --example quickstart
//!
//! This command starts an embedded server in this process. The next command uses your own servers instead:
//!
//!     DFLOCKD_SERVERS=127.0.0.1:6388,127.0.0.1:6389 cargo run --example quickstart
//!
//! `docs/guide/src/configuration.md` lists the environment variables.

use std::time::{Duration, Instant};

use dflockd_client::server::Server;
use dflockd_client::{Client, ClientBuilder, Error, ErrorKind, Lease};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let story = Story::begin();

    // Starts an embedded server if the environment names no servers.
    let mut embedded = None;
    let mut builder = ClientBuilder::from_env()?;
    if ["DFLOCKD_URL", "DFLOCKD_SERVERS"]
        .iter()
        .all(|name| std::env::var_os(name).is_none())
    {
        let server = embedded.insert(Server::builder().port(0).start().await?);
        builder = builder.servers([server.local_addr().to_string()]);
    }
    let client = builder.connect().await?;
    let servers: Vec<String> = client.health().iter().map(|shard| shard.endpoint.to_string()).collect();
    let whose = if embedded.is_some() {
        "an embedded server"
    } else {
        "your servers"
    };
    story.tell(&format!("connected to {whose}: {}", servers.join(", ")));

    two_tasks_want_one_lock(&story, &client).await?;
    a_lease_outlives_its_ttl(&story, &client).await?;
    three_tasks_share_a_semaphore_of_two(&story, &client).await?;
    what_the_server_says(&story, &client).await?;

    let report = client.shutdown(Duration::from_secs(5)).await;
    story.tell(&format!(
        "shut down: {} leases released, {} end with their TTL",
        report.released,
        report.unreleased.len()
    ));
    Ok(())
}

/// Task 1 works under the lock while task 2 waits for it.
async fn two_tasks_want_one_lock(story: &Story, client: &Client) -> Result<(), Error> {
    let lock = client.lock("quickstart/report")?;
    let first = lock.acquire().await?;
    story.tell(&format!("task 1 holds {} ({})", first.key(), fence(&first)));

    let second = tokio::spawn({
        let (story, lock) = (story.clone(), lock.clone());
        async move {
            story.tell("task 2 waits for the same lock");
            let asked = Instant::now();
            let guard = lock.acquire().await?;
            story.tell(&format!(
                "task 2 holds it after {:.0?} ({})",
                asked.elapsed(),
                fence(&guard)
            ));
            guard.release().await
        }
    });
    // `run` does the work under the lock. If the lease were lost, `run` would stop the work and return an error.
    first.run(tokio::time::sleep(Duration::from_millis(400))).await?;
    story.tell("task 1 is done and releases");
    first.release().await?;
    match second.await {
        Ok(outcome) => outcome,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// Describes the fence of a lease. Servers issue fences from release 2.1 on. The first lease may have none, because the
/// client does not yet know whether the server issues them. Code that needs fences requires them with
/// `ClientBuilder::fencing`.
fn fence(lease: &Lease) -> String {
    match lease.fence() {
        Some(fence) => format!("fence {fence}"),
        None => "no fence is known".to_owned(),
    }
}

/// Holds a lease with a TTL of 1 s for 3 s. This works because the client renews the lease in the background.
async fn a_lease_outlives_its_ttl(story: &Story, client: &Client) -> Result<(), Error> {
    let guard = client
        .lock("quickstart/long-job")?
        .lease_ttl(Duration::from_secs(1))
        .acquire()
        .await?;
    story.tell("a lease of 1 s is taken and held for 3 s");
    tokio::select! {
        reason = guard.lost() => story.tell(&format!("it was lost: {reason}")),
        () = tokio::time::sleep(Duration::from_secs(3)) => {
            story.tell(&format!("it is still held, for another {:.0?} at least", guard.remaining()));
        }
    }
    guard.release().await
}

async fn three_tasks_share_a_semaphore_of_two(story: &Story, client: &Client) -> Result<(), Error> {
    let slots = client.semaphore("quickstart/workers", 2)?;
    let mut workers = tokio::task::JoinSet::new();
    for number in 1..=3 {
        let (story, slots) = (story.clone(), slots.clone());
        workers.spawn(async move {
            let asked = Instant::now();
            let permit = slots.acquire().await?;
            story.tell(&format!(
                "worker {number} has one of 2 slots after {:.0?}",
                asked.elapsed()
            ));
            tokio::time::sleep(Duration::from_millis(200)).await;
            permit.release().await
        });
    }
    for outcome in workers.join_all().await {
        match outcome {
            // The Python server 0.5.0 has no semaphores.
            Err(error) if error.kind() == ErrorKind::Refused || error.kind() == ErrorKind::Disconnected => {
                story.tell(&format!("this server has no semaphores: {error}"));
            }
            other => other?,
        }
    }
    Ok(())
}

async fn what_the_server_says(story: &Story, client: &Client) -> Result<(), Error> {
    let guard = client.lock("quickstart/report")?.acquire().await?;
    match client.stats().await {
        Ok(stats) => {
            story.tell(&format!("the server counts {} connections", stats.connections));
            for lock in stats.locks {
                story.tell(&format!(
                    "  lock {}: {} waiters, lease ends in {} s",
                    lock.key, lock.waiters, lock.lease_expires_in_s
                ));
            }
            for idle in stats.idle_locks.iter().chain(&stats.idle_semaphores) {
                story.tell(&format!("  {} is free, last used {} s ago", idle.key, idle.idle_s));
            }
        }
        Err(error) => {
            // The Python server 0.5.0 has no stats.
            story.tell(&format!("this server has no stats: {error}"));
        }
    }
    guard.release().await
}

/// Prints each event with the time since the start of the example.
#[derive(Clone)]
struct Story {
    began: Instant,
}

impl Story {
    fn begin() -> Self {
        Self { began: Instant::now() }
    }

    fn tell(&self, what: &str) {
        println!("{:>6.3} s  {what}", self.began.elapsed().as_secs_f64());
    }
}
