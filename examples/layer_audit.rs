//! A layer that prints a line for each request: the user, the key, the outcome and the duration. It also forbids keys
//! that begin with `vault/`.
//!
//!     cargo run --example layer_audit
//!
//! The layer follows the rules for layers. It is ready when its inner service is ready. It calls the inner service that
//! was ready, not a clone. It returns each response unchanged. `docs/guide/src/layers.md` has all rules.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use dflockd_client::server::Server;
use dflockd_client::{Client, Request, Response};
use tower::{Layer, Service};

/// Puts [`Audit`] around a service.
struct AuditLayer {
    user: &'static str,
}

impl<S> Layer<S> for AuditLayer {
    type Service = Audit<S>;

    fn layer(&self, inner: S) -> Audit<S> {
        Audit { inner, user: self.user }
    }
}

#[derive(Clone)]
struct Audit<S> {
    inner: S,
    user: &'static str,
}

/// The error of this layer. It is the source of the error that the caller gets.
#[derive(Debug)]
struct Forbidden {
    user: &'static str,
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} may not touch the vault", self.user)
    }
}

impl Error for Forbidden {}

type BoxError = Box<dyn Error + Send + Sync>;

impl<S> Service<Request> for Audit<S>
where
    S: Service<Request, Response = Response>,
    S::Error: Into<BoxError> + fmt::Display,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let user = self.user;
        let what = match request.key() {
            Some(key) => format!("{} {key}", request.operation()),
            None => request.operation().to_string(),
        };
        if request.key().is_some_and(|key| key.as_str().starts_with("vault/")) {
            println!("{user}: {what}: forbidden");
            // This drops the request. If the request contained a lease or a queue position, the drop would release it.
            return Box::pin(async move { Err(Forbidden { user }.into()) });
        }
        let asked = Instant::now();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            let outcome = match &answer {
                Ok(Response::Granted(lease)) => format!("granted, token {}", lease.token()),
                Ok(response) => format!("{response:?}"),
                Err(error) => format!("failed: {error}"),
            };
            println!("{user}: {what}: {outcome} after {:.1?}", asked.elapsed());
            // The layer returns the response unchanged. Dropping a granted response would release the lease.
            answer.map_err(Into::into)
        })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = Server::builder().port(0).start().await?;
    let client = Client::builder()
        .servers([server.local_addr().to_string()])
        .layer(AuditLayer { user: "alice" })
        .connect()
        .await?;
    let lock = client.lock("orders/42")?;
    let guard = lock.acquire().await?;
    assert!(lock.try_acquire().await?.is_none());
    guard.release().await?;
    match client.lock("vault/gold")?.acquire().await {
        Err(error) => println!("the caller sees: {error}"),
        Ok(_) => return Err("the rule did not hold".into()),
    }
    Ok(())
}
