//! The settings that all requests of one layer share: the client, the lease and its terms.

use std::sync::Arc;
use std::time::Duration;

use tower::Service;

use super::error::KeyedError;
use super::key::RequestKey;
use crate::error::Result;
use crate::handle::guard::Guard;
use crate::handle::terms::Handle;
use crate::lease::policy::RenewPolicy;
use crate::service::{Core, release};
use crate::types::{Key, Target};

type KeyOf<R> = dyn Fn(&R) -> Result<Option<Key>> + Send + Sync;
type OnAcquired<G, R> = dyn Fn(&mut R, &G) + Send + Sync;

/// How a request of type `R` acquires its lease, whose guard is a `G`.
pub(super) struct Section<G, R> {
    core: Arc<Core>,
    pub(super) target: Target,
    key: Arc<KeyOf<R>>,
    on_acquired: Option<Arc<OnAcquired<G, R>>>,
    pub(super) acquire_timeout: Option<Duration>,
    pub(super) lease_ttl: Option<Duration>,
    pub(super) renew_policy: RenewPolicy,
}

impl<G, R> Section<G, R> {
    pub(super) fn new<K: RequestKey>(
        core: &Arc<Core>,
        target: Target,
        key: impl Fn(&R) -> K + Send + Sync + 'static,
    ) -> Self {
        Self {
            core: Arc::clone(core),
            target,
            key: Arc::new(move |request| key(request).into_key()),
            on_acquired: None,
            acquire_timeout: None,
            lease_ttl: None,
            renew_policy: core.config.renew_policy,
        }
    }

    pub(super) fn on_acquired(&mut self, on_acquired: impl Fn(&mut R, &G) + Send + Sync + 'static) {
        self.on_acquired = Some(Arc::new(on_acquired));
    }

    /// Returns the key of a request; `None` if it needs no lease.
    pub(super) fn key(&self, request: &R) -> Result<Option<Key>> {
        (self.key)(request)
    }
}

impl<G: Guard, R> Section<G, R> {
    async fn acquire(&self, key: &Key) -> Result<G> {
        let mut handle = Handle::new(&self.core, self.target, key.as_str())?;
        if let Some(timeout) = self.acquire_timeout {
            handle = handle.acquire_timeout(timeout);
        }
        if let Some(ttl) = self.lease_ttl {
            handle = handle.lease_ttl(ttl);
        }
        let handle = handle.renew_policy(self.renew_policy);
        handle.acquire().await.map(G::of)
    }

    /// Acquires the lease, calls the inner service, and releases the lease.
    ///
    /// # Cancel safety
    ///
    /// Safe if the inner service is: its future is dropped first, and then the lease is released.
    pub(super) async fn run<S: Service<R>>(
        &self,
        key: &Key,
        mut inner: S,
        mut request: R,
    ) -> Result<S::Response, KeyedError<S::Error>> {
        let guard = self.acquire(key).await.map_err(KeyedError::Lease)?;
        if let Some(on_acquired) = &self.on_acquired {
            on_acquired(&mut request, &guard);
        }
        // The inner service is called only if the lease is still held.
        let answer = guard
            .run(async move { inner.call(request).await })
            .await
            // The last poll may have blocked its thread. If the lease ended during that poll, the inner service
            // finished without holding it.
            .and_then(|answer| guard.check().map(|()| answer))
            .map_err(KeyedError::Lease)?;
        if let Err(error) = release(guard.into_lease()).await {
            let client = self.core.config.name.as_deref();
            tracing::warn!(client, %key, error = %error.chain(), "the lease of a request that was answered could not be released");
        }
        answer.map_err(KeyedError::Inner)
    }
}

impl<G, R> Clone for Section<G, R> {
    fn clone(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
            target: self.target,
            key: Arc::clone(&self.key),
            on_acquired: self.on_acquired.clone(),
            acquire_timeout: self.acquire_timeout,
            lease_ttl: self.lease_ttl,
            renew_policy: self.renew_policy,
        }
    }
}
