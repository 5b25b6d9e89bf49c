//! A limit on the requests of this process that are in flight: tower's own `ConcurrencyLimitLayer`.
//!
//!     cargo run --example layer_concurrency_limit
//!
//! Twenty tasks want a lock each, and four requests may be in flight. `poll_ready` shows the limit, and handles wait for their turn within
//! their own timeouts. A wait for a held lock uses a place under the limit as long as it lasts; the release that ends it does not need one.

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
        "{} locks were taken and given back, four requests at a time",
        DONE.load(Ordering::Relaxed)
    );

    // Four tasks wait for a lock that a fifth holds, and use all places.
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
    // The release is sent before the layer sees the request, so the waiters that use all places do not block it.
    held.release().await?;
    for waiter in waiting {
        waiter.await??;
    }
    println!("the holder released, and all four had their turn");
    Ok(())
}
