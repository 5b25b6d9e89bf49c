//! The common part of locks and semaphores: the client, the key and the settings of their acquires.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Budget, Error, ErrorKind, Result};
use crate::handle::ticket::{Enqueued, Ticket};
use crate::lease::policy::{RenewPolicy, RenewTerms};
use crate::service::{AcquireRequest, Core, Lease, Request, Response, busy, execute};
use crate::types::{Key, Target, Ttl};

/// The settings of one handle's acquires.
#[derive(Clone)]
pub(crate) struct Handle {
    pub(crate) core: Arc<Core>,
    pub(crate) target: Target,
    pub(crate) key: Key,
    /// Another key, whose shard serves this key. `None`: this key's own shard serves it.
    routing_key: Option<Key>,
    pub(crate) wait: Duration,
    /// Unchecked: see [`request`](Self::request).
    ttl: Option<Duration>,
    /// Unchecked. `None`: the client's policy.
    renew_policy: Option<RenewPolicy>,
    /// Whether the caller holds other leases of this client while it waits.
    holding: bool,
}

impl Handle {
    pub(crate) fn new(core: &Arc<Core>, target: Target, key: &str) -> Result<Self> {
        let config = &core.config;
        Ok(Self {
            target,
            key: Key::new(key)?,
            routing_key: None,
            wait: config.acquire_timeout,
            ttl: config.shard.machine.lease_ttl.map(Ttl::as_duration),
            renew_policy: None,
            holding: false,
            core: Arc::clone(core),
        })
    }

    pub(crate) fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.wait = timeout;
        self
    }

    pub(crate) fn lease_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    pub(crate) fn renew_policy(mut self, policy: RenewPolicy) -> Self {
        self.renew_policy = Some(policy);
        self
    }

    /// Changes a part of the current policy.
    pub(crate) fn renewing(mut self, change: impl FnOnce(&mut RenewPolicy)) -> Self {
        change(self.renew_policy.get_or_insert(self.core.config.renew_policy));
        self
    }

    /// Sets whether the caller holds other leases of this client while it waits. If connections are scarce, these
    /// callers get one first.
    pub(crate) fn while_holding(mut self, holding: bool) -> Self {
        self.holding = holding;
        self
    }

    /// Returns a lock on the same shard with the same settings. Its lease is renewed for as long as it is held.
    pub(crate) fn turn(&self, key: Key) -> Self {
        let turn = Self {
            target: Target::Lock,
            routing_key: Some(self.key.clone()),
            key,
            ..self.clone()
        };
        turn.renewed_while_held()
    }

    /// Returns the same handle, but its leases are renewed for as long as they are held. Callers that acquire several
    /// leases use it until all leases are granted; then the leases get the [`renew_terms`](Self::renew_terms).
    pub(crate) fn renewed_while_held(self) -> Self {
        self.renewing(|policy| {
            policy.renew = true;
            policy.max_hold = None;
        })
    }

    /// Returns the renewal terms of the handle's leases.
    pub(crate) fn renew_terms(&self) -> Result<RenewTerms> {
        self.core.config.renewal(self.renew_policy.as_ref())
    }

    pub(crate) async fn acquire(&self) -> Result<Lease> {
        self.acquire_within(self.wait).await
    }

    async fn acquire_within(&self, wait: Duration) -> Result<Lease> {
        match self.ask(wait).await? {
            Response::Granted(lease) => Ok(lease),
            Response::Busy => Err(busy(&self.key)),
            other => Err(other.out_of_place()),
        }
    }

    /// Acquires the key, waiting until `deadline`. After the deadline this sends nothing, not even a try, because the
    /// answer to a try would come even later.
    pub(crate) async fn acquire_until(&self, deadline: Instant) -> Result<Lease> {
        let wait = deadline.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            // An invalid setting is an error even after the deadline.
            self.request(wait)?;
            return Err(too_late(&self.key));
        }
        self.acquire_within(wait).await
    }

    /// Returns an error if the key's shard has no stable name, under which a later process could reclaim the key.
    pub(crate) fn require_stable_ref(&self) -> Result<()> {
        let config = &self.core.config;
        let placed = config.placement.place(self.key.as_str())?;
        let has_name = |shard: usize| config.shards.get(shard).is_some_and(|plan| plan.stable_ref.is_some());
        match has_name(placed.shard) && placed.previous.is_none_or(has_name) {
            true => Ok(()),
            false => Err(Error::invalid(
                "reclaim of",
                &self.key,
                "set a stable name for the cluster of its shard with Shard::stable_ref: a lock cannot be reclaimed under a random name",
            )),
        }
    }

    pub(crate) async fn try_acquire(&self) -> Result<Option<Lease>> {
        match self.ask(Duration::ZERO).await? {
            Response::Granted(lease) => Ok(Some(lease)),
            Response::Busy => Ok(None),
            other => Err(other.out_of_place()),
        }
    }

    /// Acquires the key, waiting for up to the acquire timeout. Returns `None` if a server reported the key as held and
    /// did not grant it in time.
    pub(crate) async fn acquire_in_time(&self) -> Result<Option<Lease>> {
        if self.wait.is_zero() {
            return self.try_acquire().await;
        }
        unless_held(self.acquire().await)
    }

    /// Acquires the key, waiting until `deadline`. Returns `None` if a server reported the key as held and did not
    /// grant it in time.
    pub(crate) async fn acquire_in_time_until(&self, deadline: Instant) -> Result<Option<Lease>> {
        unless_held(self.acquire_until(deadline).await)
    }

    pub(crate) async fn enqueue<G>(&self, guard: fn(Lease) -> G) -> Result<Enqueued<G>> {
        let request = Request::Enqueue(self.request(Duration::ZERO)?);
        match execute(&self.core, request).await? {
            Response::Granted(lease) => Ok(Enqueued::Acquired(guard(lease))),
            Response::Queued(place) => Ok(Enqueued::Queued(Ticket::new(place, guard))),
            other => Err(other.out_of_place()),
        }
    }

    async fn ask(&self, wait: Duration) -> Result<Response> {
        execute(&self.core, Request::Acquire(self.request(wait)?)).await
    }

    /// Checks the settings and creates the request.
    fn request(&self, wait: Duration) -> Result<AcquireRequest> {
        if let Some(policy) = &self.renew_policy {
            policy.check()?;
        }
        Ok(AcquireRequest {
            target: self.target,
            key: self.key.clone(),
            routing_key: self.routing_key.clone(),
            wait,
            ttl: self.ttl.map(Ttl::new).transpose()?,
            renew_policy: self.renew_policy,
            holding: self.holding,
            progress: None,
        })
    }
}

fn unless_held(acquired: Result<Lease>) -> Result<Option<Lease>> {
    match acquired {
        Ok(lease) => Ok(Some(lease)),
        Err(error) if error.says_that_it_is_held() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the error for a deadline that passed before the client sent anything: it is not known whether the key is
/// held.
fn too_late(key: &Key) -> Error {
    let message = format!("{key:?} was not requested: the deadline had passed already");
    Error::new(ErrorKind::Unavailable, message).out_of(Budget::Unanswered(Duration::ZERO))
}

/// Shows the handle as the lock or semaphore that it belongs to.
impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = match self.target {
            Target::Lock => f.debug_struct("Lock"),
            Target::Semaphore(_) => f.debug_struct("Semaphore"),
        };
        shown.field("key", &self.key);
        if let Target::Semaphore(limit) = self.target {
            shown.field("limit", &limit.get());
        }
        shown
            .field("acquire_timeout", &self.wait)
            .field("lease_ttl", &self.ttl)
            .field(
                "renew_policy",
                self.renew_policy.as_ref().unwrap_or(&self.core.config.renew_policy),
            )
            .finish_non_exhaustive()
    }
}
