//! A cluster loses its leader, and a client continues.
//!
//!     cargo run --example failover
//!
//! Three servers in this process form a cluster. A client holds three locks, and two tasks wait for one of these locks.
//! The example stops the leader, so that no member leads, and then makes another member the leader.
//!
//! The client renews its leases at the new leader with the same tokens. The tasks acquire the lock in the order in
//! which they queued. The client's health says which member serves now, and why the client left the previous member.

use std::error::Error;
use std::time::Duration;

use dflockd_client::server::{Cluster, EventKind, Server};
use dflockd_client::{Client, LeaseState, Lock, Shard, ShardHealth, Token};
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The cluster keeps the leases of an ended connection for the orphan TTL. The client needs the same setting.
    // Without it, the client reports each lease as lost when its connection ends.
    const KEPT: Duration = Duration::from_secs(60);
    let each = Server::builder().orphan_ttl(KEPT).record_events(true);
    let cluster = Cluster::builder().options(each).start().await?;
    let shard = Shard::cluster(cluster.addresses()).orphan_ttl(KEPT);
    let client = Client::builder().shards([shard]).connect().await?;
    let mut health = client.watch_health(0).ok_or("there is no shard")?;
    tell(&health.borrow());

    let mut guards = Vec::new();
    for key in ["orders/1", "orders/2", "orders/3"] {
        guards.push(client.lock(key)?.acquire().await?);
    }
    let mut tasks = JoinSet::new();
    for (before, name) in ["first", "second"].into_iter().enumerate() {
        tasks.spawn(take_a_turn(client.lock("orders/1")?, name));
        until(|| waiters(&cluster) > before as u64).await;
    }
    println!(
        "held: {}; tasks that wait for orders/1: {}",
        guards.len(),
        waiters(&cluster)
    );

    println!("\nthe leader is stopped");
    cluster.stop(0).await?;
    tell(&*health.wait_for(|health| !health.is_connected()).await?);
    let suspect = guards.iter().filter(|guard| guard.state() == LeaseState::Suspect);
    println!("held, but not confirmed: {}", suspect.count());

    println!("\nanother member leads");
    let granted = tokens(&cluster, EventKind::Granted);
    cluster.move_leader(1)?;
    tell(&*health.wait_for(ShardHealth::is_connected).await?);
    until(|| guards.iter().all(|guard| guard.state() == LeaseState::Held)).await;
    let renewed = tokens(&cluster, EventKind::Renewed);
    let kept = granted.iter().filter(|token| renewed.contains(token));
    println!("held, renewed with the same tokens as before: {}", kept.count());

    println!("\neverything is released");
    for guard in guards {
        guard.release().await?;
    }
    while let Some(finished) = tasks.join_next().await {
        finished??;
    }
    Ok(())
}

/// Prints the health of the client's shard.
fn tell(health: &ShardHealth) {
    let endpoint = &health.endpoint;
    match (health.last_error(), health.last_failover) {
        (None, None) => println!("health: {endpoint} serves"),
        // `why` says why the client left the previous member. `lost` means that the connection ended. `deposed` means
        // that the member rejected a request because it does not lead.
        (None, Some(why)) => println!(
            "health: {endpoint} serves, failovers: {}, reason: {why}",
            health.failovers
        ),
        (Some(error), _) => println!("health: no server serves, {error}"),
    }
}

async fn take_a_turn(lock: Lock, name: &str) -> Result<(), dflockd_client::Error> {
    let guard = lock.acquire_timeout(Duration::from_secs(60)).acquire().await?;
    println!("{name} in the queue got its turn");
    guard.release().await
}

/// Returns the number of waiters for all locks of the cluster.
fn waiters(cluster: &Cluster) -> u64 {
    cluster.stats().locks.iter().map(|lock| lock.waiters).sum()
}

/// Returns the tokens of all recorded events of a kind.
fn tokens(cluster: &Cluster, what: EventKind) -> Vec<Token> {
    let events = cluster.events().into_iter();
    let matching = events.filter(|event| event.kind == what);
    matching.filter_map(|event| event.token).collect()
}

/// Checks the condition every 2 ms until it is true.
async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
