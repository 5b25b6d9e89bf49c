//! Several locks as one.

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::after;
use crate::error::{Error, ErrorKind, Result};
use crate::handle::guard::LockGuard;
use crate::handle::lock::Lock;
use crate::handle::terms::Handle;
use crate::join::join_all;
use crate::lease::cell::LostReason;
use crate::lease::policy::RenewPolicy;
use crate::service::Core;
use crate::types::{Key, Target};

/// Locks on several keys, taken all or not at all.
///
/// Made by [`Client::lock_all`](crate::Client::lock_all). They are taken one after the other in the order of their keys,
/// whatever order they were given in: everybody who takes several locks this way takes them in the same order, so that
/// nobody waits in a circle.
#[derive(Clone, Debug)]
pub struct MultiLock {
    /// In order, each key once. Never empty.
    locks: Vec<Lock>,
    acquire_timeout: Duration,
}

impl MultiLock {
    pub(crate) fn new<K: AsRef<str>>(core: &Arc<Core>, keys: impl IntoIterator<Item = K>) -> Result<Self> {
        let mut locks = BTreeMap::new();
        for key in keys {
            let handle = Handle::new(core, Target::Lock, key.as_ref())?;
            locks.insert(handle.key.as_str().to_owned(), Lock(handle));
        }
        if locks.is_empty() {
            return Err(Error::invalid("list of keys", [""; 0], "give at least one"));
        }
        Ok(Self {
            locks: locks.into_values().collect(),
            acquire_timeout: core.config.acquire_timeout,
        })
    }

    /// How long [`acquire`](Self::acquire) waits for all of them together; the client's acquire timeout unless it is set here.
    #[must_use]
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.acquire_timeout = timeout;
        self
    }

    /// How long the servers keep each lock without a renewal; the servers' default unless it is set here or on the client.
    /// Rounded up to whole seconds; less than one second is refused when they are acquired.
    #[must_use]
    pub fn lease_ttl(self, ttl: Duration) -> Self {
        self.each(|lock| lock.lease_ttl(ttl))
    }

    /// How the leases are renewed; as the [client](crate::ClientBuilder::renew_policy) says unless it is set here. The next three change
    /// parts of it. What is invalid is refused when they are acquired.
    #[must_use]
    pub fn renew_policy(self, policy: RenewPolicy) -> Self {
        self.each(|lock| lock.renew_policy(policy))
    }

    /// Whether the leases are renewed in the background (they are, by default). Without, they are lost when their TTL is over.
    #[must_use]
    pub fn renew(self, renew: bool) -> Self {
        self.each(|lock| lock.renew(renew))
    }

    /// Which part of its TTL passes before a lease is renewed, more than 0 and less than 1.
    #[must_use]
    pub fn renew_ratio(self, ratio: f64) -> Self {
        self.each(|lock| lock.renew_ratio(ratio))
    }

    /// Stops renewing each lease once it was held for so long: it is lost at most a TTL later, however alive its holder is.
    #[must_use]
    pub fn max_hold(self, max_hold: Duration) -> Self {
        self.each(|lock| lock.max_hold(max_hold))
    }

    fn each(mut self, change: impl Fn(Lock) -> Lock) -> Self {
        self.locks = self.locks.into_iter().map(change).collect();
        self
    }

    /// The keys, each once, in the order in which they are taken.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &Key> {
        self.locks.iter().map(Lock::key)
    }

    /// Takes all locks, waiting for up to the acquire timeout in all. Those that are taken early are renewed while the others
    /// are waited for.
    ///
    /// # Errors
    ///
    /// As [`Lock::acquire`] for the first key that could not be had, and [`ErrorKind::LeaseLost`] if one that was
    /// taken early was lost meanwhile. Nothing is held after an error.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future gives back what was taken.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let client = dflockd_client::Client::builder().servers([server.local_addr().to_string()]).build()?;
    /// let accounts = client.lock_all(["accounts/7", "accounts/3"])?.acquire().await?;
    /// assert_eq!(server.stats().locks.len(), 2);
    /// accounts.release().await
    /// # }
    /// ```
    pub async fn acquire(&self) -> Result<MultiLockGuard> {
        let until = after(Instant::now(), self.acquire_timeout);
        let mut held = MultiLockGuard { guards: Vec::new() };
        for lock in &self.locks {
            let left = until.saturating_duration_since(Instant::now());
            let lock = Lock(
                lock.0
                    .clone()
                    .acquire_timeout(left)
                    .while_holding(!held.guards.is_empty()),
            );
            tokio::select! {
                biased;
                (key, reason) = held.lost() => return Err(lost_meanwhile(&key, reason).passing()),
                guard = lock.acquire() => held.guards.push(guard?),
            }
        }
        held.check()
    }

    /// Takes all locks if all are free; `None` if any is not.
    ///
    /// # Errors
    ///
    /// As [`Lock::try_acquire`].
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future gives back what was taken.
    pub async fn try_acquire(&self) -> Result<Option<MultiLockGuard>> {
        let mut held = MultiLockGuard { guards: Vec::new() };
        for lock in &self.locks {
            match lock.try_acquire().await? {
                Some(guard) => held.guards.push(guard),
                None => return Ok(None),
            }
        }
        held.check().map(Some)
    }
}

/// Several locks that are held together, lost as soon as one of them is.
///
/// Dropping it gives all of them back.
#[must_use = "a guard that is dropped gives its locks back at once"]
pub struct MultiLockGuard {
    guards: Vec<LockGuard>,
}

impl MultiLockGuard {
    /// The guards of the single locks, in the order of their keys.
    pub fn guards(&self) -> &[LockGuard] {
        &self.guards
    }

    /// Whether all of them are held, as far as can be known here. See [`Lease::is_held`](crate::Lease::is_held).
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.guards.iter().all(|guard| guard.is_held())
    }

    /// How long all of them are sure to be held if nothing more is heard from any server; zero if one is lost.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        let remaining = self.guards.iter().map(|guard| guard.remaining());
        remaining.min().unwrap_or_default()
    }

    /// Resolves with the key and the reason when the first of them is lost. See [`Lease::lost`](crate::Lease::lost), which
    /// it is like in all else.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping it changes nothing.
    pub fn lost(&self) -> impl Future<Output = (Key, LostReason)> + Send + 'static + use<> {
        let mut all: Vec<_> = self
            .guards
            .iter()
            .map(|guard| (guard.key().clone(), Box::pin(guard.lost())))
            .collect();
        poll_fn(move |cx| {
            for (key, lost) in &mut all {
                if let Poll::Ready(reason) = lost.as_mut().poll(cx) {
                    return Poll::Ready((key.clone(), reason));
                }
            }
            Poll::Pending
        })
    }

    /// Runs a future for as long as all of them are held.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LeaseLost`], naming the key, if one was lost before the future was done; the future is dropped then.
    ///
    /// # Cancel safety
    ///
    /// As the future's; the locks stay held.
    pub async fn run<F: Future>(&self, future: F) -> Result<F::Output> {
        tokio::select! {
            biased;
            (key, reason) = self.lost() => Err(lost_meanwhile(&key, reason)),
            output = future => Ok(output),
        }
    }

    /// Gives all of them back, at once, and waits for the servers to say so.
    ///
    /// # Errors
    ///
    /// As [`LockGuard::release`] for the first that failed, after all were sent and answered.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future leaves the releases on their way.
    pub async fn release(self) -> Result<()> {
        // Together, so that all are on their way before the first answer is waited for. What a dropped future has not sent
        // yet is dropped with it, and a guard that is dropped is given back.
        let releases = self.guards.into_iter().map(LockGuard::release);
        join_all(releases).await.into_iter().collect()
    }

    /// All or nothing: one that was lost while others were taken gives all of them back.
    fn check(self) -> Result<Self> {
        let lost = self.guards.iter().find(|guard| !guard.is_held());
        match lost.map(|guard| (guard.key(), guard.state())) {
            // The same call may well succeed later.
            Some((key, crate::lease::cell::LeaseState::Lost(reason))) => Err(lost_meanwhile(key, reason).passing()),
            _ => Ok(self),
        }
    }
}

#[cfg(feature = "blocking")]
impl crate::take::Take for MultiLockGuard {
    fn take(&mut self) -> Self {
        let guards = self.guards.iter_mut().map(crate::take::Take::take);
        Self {
            guards: guards.collect(),
        }
    }
}

impl fmt::Debug for MultiLockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MultiLockGuard").field(&self.guards).finish()
    }
}

fn lost_meanwhile(key: &Key, reason: LostReason) -> Error {
    Error::new(ErrorKind::LeaseLost, format!("the lease of {key:?} was lost: {reason}"))
}
