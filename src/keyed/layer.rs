//! The layers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tower::Layer;

#[cfg(doc)]
use super::error::KeyedError;
use super::key::RequestKey;
use super::section::Section;
use super::service::Keyed;
use crate::client::Client;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;
use crate::handle::guard::{LockGuard, SemaphorePermit};
use crate::lease::policy::RenewPolicy;
use crate::types::{Limit, Target};

/// Runs the requests of one key one at a time, across all processes that use the same servers. See [`KeyedLayer`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use dflockd_client::{Client, Fence, LockLayer};
/// use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
///
/// struct Deposit {
///     account: u32,
///     fence: Option<Fence>,
/// }
///
/// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
/// # let client = Client::builder().servers([server.local_addr().to_string()]).connect().await?;
/// let locks = LockLayer::new(&client, |deposit: &Deposit| format!("accounts/{}", deposit.account))
///     .on_acquired(|deposit, guard| deposit.fence = guard.fence());
/// let mut service = ServiceBuilder::new().layer(locks).service(service_fn(async |deposit: Deposit| {
///     // No other deposit to this account runs meanwhile.
///     Ok::<_, std::io::Error>(deposit.account)
/// }));
/// let account = service.ready().await?.call(Deposit { account: 7, fence: None }).await?;
/// # assert_eq!(account, 7);
/// # Ok(())
/// # }
/// ```
pub type LockLayer<R> = KeyedLayer<LockGuard, R>;

/// Limits how many requests of one key run at once, across all processes that use the same servers. See
/// [`KeyedLayer`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use dflockd_client::{Client, SemaphoreLayer};
/// use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
///
/// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
/// # let client = Client::builder().servers([server.local_addr().to_string()]).connect().await?;
/// // At most eight reports at once, across all processes.
/// let slots = SemaphoreLayer::new(&client, |_report: &u32| "reports", 8)?;
/// let mut service = ServiceBuilder::new()
///     .layer(slots)
///     .service(service_fn(async |report: u32| Ok::<_, std::io::Error>(report)));
/// assert_eq!(service.ready().await?.call(42).await?, 42);
/// # Ok(())
/// # }
/// ```
pub type SemaphoreLayer<R> = KeyedLayer<SemaphorePermit, R>;

/// [`LockLayer`] or [`SemaphoreLayer`]: a layer for any tower service, in which each request, of type `R`, first
/// acquires a lease.
///
/// A request passes these steps:
///
/// 1. The closure returns its key. A request without a key passes through, without a lease. An invalid key is an
///    error, and nothing is sent.
/// 2. The lease is acquired, within the [acquire timeout](Self::acquire_timeout).
/// 3. The closure of [`on_acquired`](Self::on_acquired) may change the request, for example to put the fence into it.
/// 4. The inner service is called. If the lease is lost before the future of the inner service is ready, that future is
///    dropped, and then the caller gets [`KeyedError::Lease`] with an error of kind
///    [`LeaseLost`](ErrorKind::LeaseLost).
/// 5. The lease is released. When the server has answered the release, or after the request timeout, the caller gets
///    the response or the inner service's error. A failed release does not change the response, because the work was
///    done while the lease was held; it is logged as a warning. The release goes on in the background, and the lease
///    ends with its TTL at the latest.
///
/// If the response future is dropped or panics, the future of the inner service is dropped, and then the lease is
/// released. Nothing is acquired in [`poll_ready`](tower::Service::poll_ready): it is ready when the inner service is.
/// The lease covers the response's future. It does not cover tasks that a handler spawned, or a body that is streamed
/// afterwards.
///
/// [`guide::layers`](https://docs.rs/dflockd-client/latest/dflockd_client/guide/layers/index.html) has more details.
/// The example `layer_lock` uses an axum service.
pub struct KeyedLayer<G, R> {
    section: Arc<Section<G, R>>,
}

impl<R> LockLayer<R> {
    /// Creates a layer that acquires the lock on the key that the closure returns: a string, a [`Key`](crate::Key), or
    /// an `Option` of one.
    #[must_use]
    pub fn new<K: RequestKey>(client: &Client, key: impl Fn(&R) -> K + Send + Sync + 'static) -> Self {
        Self::of(Section::new(client.core(), Target::Lock, key))
    }
}

impl<R> SemaphoreLayer<R> {
    /// Creates a layer that acquires a slot of the semaphore on the key that the closure returns: a string, a
    /// [`Key`](crate::Key), or an `Option` of one. Every user of a key must give the same limit.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if the limit is 0.
    pub fn new<K: RequestKey>(
        client: &Client,
        key: impl Fn(&R) -> K + Send + Sync + 'static,
        limit: u32,
    ) -> Result<Self> {
        let target = Target::Semaphore(Limit::new(limit)?);
        Ok(Self::of(Section::new(client.core(), target, key)))
    }
}

impl<G, R> KeyedLayer<G, R> {
    fn of(section: Section<G, R>) -> Self {
        Self {
            section: Arc::new(section),
        }
    }

    /// Sets how long a request waits for its lease. After that it fails with [`ErrorKind::Timeout`], or with
    /// [`ErrorKind::Unavailable`] if no server answered. With zero, a request whose key is held fails at once. Default:
    /// the client's acquire timeout.
    #[must_use]
    pub fn acquire_timeout(self, timeout: Duration) -> Self {
        self.with(|section| section.acquire_timeout = Some(timeout))
    }

    /// Sets how long the server keeps a lease without a renewal, rounded up to whole seconds. With less than one
    /// second, each request fails with [`ErrorKind::InvalidInput`]. Default: the client's TTL, or the server's if the
    /// client sets none.
    #[must_use]
    pub fn lease_ttl(self, ttl: Duration) -> Self {
        self.with(|section| section.lease_ttl = Some(ttl))
    }

    /// Sets how leases are renewed. Default: the [client's policy](crate::ClientBuilder::renew_policy). With an
    /// invalid policy, each request fails with [`ErrorKind::InvalidInput`].
    #[must_use]
    pub fn renew_policy(self, policy: RenewPolicy) -> Self {
        self.with(|section| section.renew_policy = policy)
    }

    /// Stops renewing a lease that has been held for `max_hold`: it is lost at most a TTL later, and the request is
    /// stopped.
    #[must_use]
    pub fn max_hold(self, max_hold: Duration) -> Self {
        self.with(|section| section.renew_policy.max_hold = Some(max_hold))
    }

    /// Sets a closure that gets each request and its lease before the inner service is called. It can add what the
    /// handler needs to the request.
    ///
    /// [`Lease::fence`](crate::Lease::fence) is `None` if the server is not known to issue fences; the closure must
    /// handle that. With [`Fencing::Required`](crate::Fencing::Required) there is always a fence here: without one,
    /// the acquire fails with [`ErrorKind::Unsupported`]. A later call replaces the closure.
    ///
    /// For requests of the crate `http`:
    ///
    /// ```
    /// # use axum::extract::Request;
    /// # use dflockd_client::{Client, LockLayer};
    /// # fn layer(client: &Client) -> LockLayer<Request> {
    /// LockLayer::new(client, |request: &Request| request.uri().path().to_owned()).on_acquired(|request, guard| {
    ///     if let Some(fence) = guard.fence() {
    ///         request.extensions_mut().insert(fence);
    ///     }
    /// })
    /// # }
    /// ```
    #[must_use]
    pub fn on_acquired(self, on_acquired: impl Fn(&mut R, &G) + Send + Sync + 'static) -> Self {
        self.with(|section| section.on_acquired(on_acquired))
    }

    fn with(mut self, change: impl FnOnce(&mut Section<G, R>)) -> Self {
        change(Arc::make_mut(&mut self.section));
        self
    }
}

impl<S, G, R> Layer<S> for KeyedLayer<G, R> {
    type Service = Keyed<S, G, R>;

    fn layer(&self, inner: S) -> Keyed<S, G, R> {
        Keyed::new(inner, Arc::clone(&self.section))
    }
}

impl<G, R> Clone for KeyedLayer<G, R> {
    fn clone(&self) -> Self {
        Self {
            section: Arc::clone(&self.section),
        }
    }
}

impl<G, R> fmt::Debug for KeyedLayer<G, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedLayer")
            .field("target", &self.section.target)
            .field("acquire_timeout", &self.section.acquire_timeout)
            .field("lease_ttl", &self.section.lease_ttl)
            .field("renew_policy", &self.section.renew_policy)
            .finish_non_exhaustive()
    }
}
