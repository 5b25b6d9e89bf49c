//! Repeats requests that may succeed later. First the client's own policy does this, then tower's `RetryLayer` with a
//! policy of this example.
//!
//!     cargo run --example layer_retry
//!
//! The server of this example knows at most one key, and forgets a key that has been free for 200 ms. Until then, the
//! server refuses a second key with a retryable error. After an error the caller holds nothing, so a repeated request
//! cannot lead to two grants. A held key needs no policy, because an acquire waits for it.

use std::error::Error as StdError;
use std::future::{Ready, ready};
use std::time::{Duration, Instant};

use dflockd_client::server::Server;
use dflockd_client::{Client, Error, Request, Response, RetryPolicy};
use tower::retry::{Policy, RetryLayer};

/// A policy that repeats failed requests at once, at most the given number of times. It repeats only requests that do
/// not wait.
#[derive(Clone)]
struct TriesAgain(u32);

impl Policy<Request, Response, Error> for TriesAgain {
    type Future = Ready<()>;

    fn retry(&mut self, request: &mut Request, result: &mut Result<Response, Error>) -> Option<Ready<()>> {
        let error = result.as_ref().err().filter(|error| error.is_retryable())?;
        self.0 = self.0.checked_sub(1)?;
        println!("  {}: {error}; again", request.operation());
        Some(ready(()))
    }

    /// Returns a copy for another attempt. Some requests cannot be copied: see `Request::try_clone`.
    fn clone_request(&mut self, request: &Request) -> Option<Request> {
        request.wait().is_zero().then(|| request.try_clone()).flatten()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    let server = Server::builder()
        .port(0)
        .max_locks(1)
        .gc_interval(Duration::from_millis(20))
        .gc_max_idle(Duration::from_millis(200))
        .start()
        .await?;
    let builder = Client::builder().servers([server.local_addr().to_string()]);

    println!("a policy of the client:");
    let policy = RetryPolicy::default().max_attempts(10);
    println!("  {policy}");
    let client = builder.clone().retry(policy).connect().await?;
    client.lock("first")?.acquire().await?.release().await?;
    let asked = Instant::now();
    let guard = client.lock("second")?.acquire().await?;
    println!(
        "  granted when the server had forgotten the first, after {:.1?}",
        asked.elapsed()
    );

    println!("a policy of one's own in tower's RetryLayer:");
    let impatient = builder.layer(RetryLayer::new(TriesAgain(2))).connect().await?;
    match impatient.lock("third")?.try_acquire().await {
        Err(error) => println!("  given up: {error}"),
        Ok(granted) => return Err(format!("there was no room for it: {granted:?}").into()),
    }
    guard.release().await?;
    Ok(())
}
