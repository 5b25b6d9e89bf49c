//! Limits how many requests of a client are in flight at once, with tower's `ConcurrencyLimitLayer`.
//!
//!     cargo run --example layer_concurrency_limit
//!
//! Each of twenty tasks acquires a lock, and four requests may be in flight. While four requests are in flight,
//! `poll_ready` of the client is pending. Then a handle waits until another request ends, or until its own timeout.
//!
//! A request that waits for a held lock counts as in flight for the whole wait. A release reaches the server even while
//! four requests are in flight, so the holder can end the wait.

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use dflockd_client::Client;
use dflockd_client::server::Server;
use tower::Service;
use tower::limit::ConcurrencyLimitLayer;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = Server::builder().port(0).start().await?;
    let client = Client::builder()
        .servers([server.local_addr().to_string()])
        .layer(ConcurrencyLimitLayer::new(4))
        .connect()
        .await?;

    static DONE: AtomicUsize = AtomicUsize::new(0);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..20 {
        let lock = client.lock(format!("reports/{number}"))?;
        tasks.spawn(async move {
            let guard = lock.acquire().await?;
            DONE.fetch_add(1, Ordering::Relaxed);
            guard.release().await
        });
    }
    for done in tasks.join_all().await {
        done?;
    }
    println!(
        "{} locks were acquired and released, at most four requests at once",
        DONE.load(Ordering::Relaxed)
    );

    // Four tasks wait for a lock that this task holds, so four requests are in flight.
    let lock = client.lock("reports/shared")?;
    let held = lock.acquire().await?;
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let lock = lock.clone();
            tokio::spawn(async move { lock.acquire().await?.release().await })
        })
        .collect();
    while server.stats().locks[0].waiters < 4 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut service = client.clone();
    let ready = service.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready();
    println!("four wait; is there room for a fifth request? {ready}");
    // The client sends a release before the layer sees it, so the four waiting requests do not hold it up.
    held.release().await?;
    for waiter in waiting {
        waiter.await??;
    }
    println!("the holder released, and all four had their turn");
    Ok(())
}
