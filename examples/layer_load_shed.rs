//! Refuses requests above a limit at once, instead of queueing them, with tower's `LoadShedLayer`.
//!
//!     cargo run --example layer_load_shed
//!
//! After a quick refusal, a caller can try again later. Without a refusal, callers queue until they time out.

use std::error::Error;
use std::time::Duration;

use dflockd_client::server::Server;
use dflockd_client::{Client, ErrorKind};
use tower::ServiceBuilder;
use tower::limit::ConcurrencyLimitLayer;
use tower::load_shed::LoadShedLayer;
use tower::load_shed::error::Overloaded;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = Server::builder().port(0).start().await?;
    let client = Client::builder()
        .servers([server.local_addr().to_string()])
        // The first layer refuses a request when the second layer is full. Two requests may be in flight.
        .layer(
            ServiceBuilder::new()
                .layer(LoadShedLayer::new())
                .layer(ConcurrencyLimitLayer::new(2))
                .into_inner(),
        )
        .connect()
        .await?;

    // Another client holds a lock, and two requests of the first client wait for it. So the second layer is full.
    let other = Client::builder()
        .servers([server.local_addr().to_string()])
        .connect()
        .await?;
    let held = other.lock("invoices")?.acquire().await?;
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let lock = client.lock("invoices");
            tokio::spawn(async move { lock?.acquire().await?.release().await })
        })
        .collect();
    while server.stats().locks[0].waiters < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    let asked = std::time::Instant::now();
    match client.lock("something/else")?.acquire().await {
        Err(error) if error.kind() == ErrorKind::Layer => {
            let overloaded = error.source().is_some_and(|source| source.is::<Overloaded>());
            println!(
                "refused after {:.0?} ({error}); because of the load? {overloaded}",
                asked.elapsed()
            );
        }
        other => return Err(format!("the request should have been refused: {other:?}").into()),
    }
    held.release().await?;
    for waiter in waiting {
        waiter.await??;
    }
    client.lock("something/else")?.acquire().await?.release().await?;
    println!("below the limit again, the request is served");
    Ok(())
}
