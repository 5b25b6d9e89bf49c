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

/// Has the requests of one key run one at a time, in all processes that use the same servers: [`KeyedLayer`] says how.
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
///     // No other deposit to this account runs now.
///     Ok::<_, std::io::Error>(deposit.account)
/// }));
/// let account = service.ready().await?.call(Deposit { account: 7, fence: None }).await?;
/// # assert_eq!(account, 7);
/// # Ok(())
/// # }
/// ```
pub type LockLayer<R> = KeyedLayer<LockGuard, R>;

/// Has no more requests of one key run at once than its limit, in all processes that use the same servers: a concurrency limit for all of
/// them. [`KeyedLayer`] says how.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use dflockd_client::{Client, SemaphoreLayer};
/// use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
///
/// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
/// # let client = Client::builder().servers([server.local_addr().to_string()]).connect().await?;
/// // Eight reports at once, however many processes there are.
/// let slots = SemaphoreLayer::new(&client, |_report: &u32| "reports", 8)?;
/// let mut service = ServiceBuilder::new()
///     .layer(slots)
///     .service(service_fn(async |report: u32| Ok::<_, std::io::Error>(report)));
/// assert_eq!(service.ready().await?.call(42).await?, 42);
/// # Ok(())
/// # }
/// ```
pub type SemaphoreLayer<R> = KeyedLayer<SemaphorePermit, R>;

/// [`LockLayer`] or [`SemaphoreLayer`]: a layer for any service of tower whose requests, of type `R`, each take a lease first.
///
/// A request goes this way:
///
/// 1. Its key is asked of the closure. A request without a key passes through, without a lease. An invalid key is an error, and nothing is
///    sent.
/// 2. The lease is acquired, within the [acquire timeout](Self::acquire_timeout).
/// 3. What [`on_acquired`](Self::on_acquired) was given changes the request, to put the fence into it, for example.
/// 4. The inner service is called. If the lease is lost before its future is ready, that future is dropped, and then the caller gets
///    [`KeyedError::Lease`] with an error of kind [`LeaseLost`](ErrorKind::LeaseLost).
/// 5. The lease is released, and the response, or the inner service's error, is handed out when the server has answered that, or after the
///    request timeout. A release that fails changes no response, and is logged as a warning: the work was done while the lease was held. The
///    release goes on in the background, and the lease ends with its TTL at the latest.
///
/// A future that is dropped, or panics, drops the future of the inner service and then gives its lease back. Nothing is acquired in
/// [`poll_ready`](tower::Service::poll_ready): it is ready when the inner service is. The lease covers the response's future, and not what a
/// handler spawned or a body that streams afterwards.
///
/// [`guide::layers`](https://docs.rs/dflockd-client/latest/dflockd_client/guide/layers/index.html) tells more, and the example `layer_lock` has a
/// service of axum.
pub struct KeyedLayer<G, R> {
    section: Arc<Section<G, R>>,
}

impl<R> LockLayer<R> {
    /// Makes a layer that takes the lock of the key that the closure gives: a string, a [`Key`](crate::Key), or an `Option` of one.
    #[must_use]
    pub fn new<K: RequestKey>(client: &Client, key: impl Fn(&R) -> K + Send + Sync + 'static) -> Self {
        Self::of(Section::new(client.core(), Target::Lock, key))
    }
}

impl<R> SemaphoreLayer<R> {
    /// Makes a layer that takes a slot of the semaphore of the key that the closure gives: a string, a [`Key`](crate::Key), or an `Option` of
    /// one. Every user of a key must give the same limit.
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

    /// How long a request waits for its lease; the client's acquire timeout unless it is set here. With zero a request whose key is held
    /// is refused at once. What is over ends with [`ErrorKind::Timeout`].
    #[must_use]
    pub fn acquire_timeout(self, timeout: Duration) -> Self {
        self.with(|section| section.acquire_timeout = Some(timeout))
    }

    /// How long the server keeps a lease without a renewal; the server's default unless it is set here or on the client.
    /// Rounded up to whole seconds. With less than one second each request is refused, with [`ErrorKind::InvalidInput`].
    #[must_use]
    pub fn lease_ttl(self, ttl: Duration) -> Self {
        self.with(|section| section.lease_ttl = Some(ttl))
    }

    /// Sets how leases are renewed. Default: the [client's policy](crate::ClientBuilder::renew_policy). With a policy
    /// that is invalid each request is refused, with [`ErrorKind::InvalidInput`].
    #[must_use]
    pub fn renew_policy(self, policy: RenewPolicy) -> Self {
        self.with(|section| section.renew_policy = policy)
    }

    /// Stops renewing once a lease was held for so long: it is lost at most a TTL later, and the request is stopped.
    #[must_use]
    pub fn max_hold(self, max_hold: Duration) -> Self {
        self.with(|section| section.renew_policy.max_hold = Some(max_hold))
    }

    /// Shows each request with its lease to a closure, before the inner service is called: it can put what the handler needs into the request.
    ///
    /// [`Lease::fence`](crate::Lease::fence) is `None` where the server is not known to make fences; it is the closure that decides what
    /// becomes of that. With [`Fencing::Required`](crate::Fencing::Required) no request comes so far without one: its acquire fails with
    /// [`ErrorKind::Unsupported`]. A closure that is set later replaces the one before.
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
