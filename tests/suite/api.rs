//! One interface for both clients. A call of a case goes to the async handles, or to the blocking handles on a thread.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::time::Duration;

use dflockd_client::{ClientBuilder, Key, Lease, LostReason, MultiLockGuard, Result, ShutdownReport, Stats, blocking};
use tokio::sync::oneshot;

/// The client that a case uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    Async,
    Blocking,
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Async => "async",
            Self::Blocking => "blocking",
        })
    }
}

/// Runs blocking calls on a thread outside of any runtime. If the future is dropped, the thread continues.
pub fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> impl Future<Output = T> + Send {
    let (done, outcome) = oneshot::channel();
    std::thread::spawn(move || drop(done.send(work())));
    async { outcome.await.expect("the thread panicked") }
}

/// Moves a blocking value to a thread for one call, and back.
pub async fn on_a_thread_with<B: Send + 'static, T: Send + 'static>(
    value: &mut Option<B>,
    call: impl FnOnce(&mut B) -> T + Send + 'static,
) -> T {
    let mut taken = value.take().expect("the value is not on a thread");
    let (taken, outcome) = on_a_thread(move || {
        let outcome = call(&mut taken);
        (taken, outcome)
    })
    .await;
    *value = Some(taken);
    outcome
}

#[derive(Clone)]
pub enum Client {
    Async(dflockd_client::Client),
    Blocking(blocking::Client),
}

impl Client {
    pub async fn connect(api: Api, builder: ClientBuilder) -> Self {
        match api {
            Api::Async => Self::Async(builder.connect().await.unwrap()),
            Api::Blocking => Self::Blocking(on_a_thread(|| builder.connect_blocking()).await.unwrap()),
        }
    }

    pub fn lock(&self, key: &Key) -> Lock {
        match self {
            Self::Async(client) => Lock::Async(client.lock(key.as_str()).unwrap()),
            Self::Blocking(client) => Lock::Blocking(client.lock(key.as_str()).unwrap()),
        }
    }

    pub fn semaphore(&self, key: &Key, limit: u32) -> Semaphore {
        match self {
            Self::Async(client) => Semaphore::Async(client.semaphore(key.as_str(), limit).unwrap()),
            Self::Blocking(client) => Semaphore::Blocking(client.semaphore(key.as_str(), limit).unwrap()),
        }
    }

    pub async fn stats(&self) -> Result<Stats> {
        match self.clone() {
            Self::Async(client) => client.stats().await,
            Self::Blocking(client) => on_a_thread(move || client.stats()).await,
        }
    }

    pub async fn lock_all(&self, keys: &[Key]) -> Result<AllLocks> {
        match self.clone() {
            Self::Async(client) => client.lock_all(keys)?.acquire().await.map(AllLocks::Async),
            Self::Blocking(client) => {
                let all = client.lock_all(keys)?;
                on_a_thread(move || all.acquire()).await.map(AllLocks::Blocking)
            }
        }
    }

    pub async fn shutdown(&self, timeout: Duration) -> ShutdownReport {
        match self.clone() {
            Self::Async(client) => client.shutdown(timeout).await,
            Self::Blocking(client) => on_a_thread(move || client.shutdown(timeout)).await.unwrap(),
        }
    }
}

#[derive(Clone)]
pub enum Lock {
    Async(dflockd_client::Lock),
    Blocking(blocking::Lock),
}

impl Lock {
    pub fn acquire_timeout(self, timeout: Duration) -> Self {
        match self {
            Self::Async(lock) => Self::Async(lock.acquire_timeout(timeout)),
            Self::Blocking(lock) => Self::Blocking(lock.acquire_timeout(timeout)),
        }
    }

    pub fn lease_ttl(self, ttl: Duration) -> Self {
        match self {
            Self::Async(lock) => Self::Async(lock.lease_ttl(ttl)),
            Self::Blocking(lock) => Self::Blocking(lock.lease_ttl(ttl)),
        }
    }

    pub fn renew(self, renew: bool) -> Self {
        match self {
            Self::Async(lock) => Self::Async(lock.renew(renew)),
            Self::Blocking(lock) => Self::Blocking(lock.renew(renew)),
        }
    }

    pub async fn acquire(&self) -> Result<Guard> {
        match self.clone() {
            Self::Async(lock) => lock.acquire().await.map(Guard::Async),
            Self::Blocking(lock) => on_a_thread(move || lock.acquire()).await.map(Guard::Blocking),
        }
    }

    pub async fn try_acquire(&self) -> Result<Option<Guard>> {
        match self.clone() {
            Self::Async(lock) => Ok(lock.try_acquire().await?.map(Guard::Async)),
            Self::Blocking(lock) => Ok(on_a_thread(move || lock.try_acquire()).await?.map(Guard::Blocking)),
        }
    }

    pub async fn enqueue(&self) -> Result<Enqueued> {
        Ok(match self.clone() {
            Self::Async(lock) => match lock.enqueue().await? {
                dflockd_client::Enqueued::Acquired(guard) => Enqueued::Acquired(Guard::Async(guard)),
                dflockd_client::Enqueued::Queued(ticket) => Enqueued::Queued(Ticket::Async(ticket)),
            },
            Self::Blocking(lock) => match on_a_thread(move || lock.enqueue()).await? {
                blocking::Enqueued::Acquired(guard) => Enqueued::Acquired(Guard::Blocking(guard)),
                blocking::Enqueued::Queued(ticket) => Enqueued::Queued(Ticket::Blocking(ticket)),
            },
        })
    }

    /// Holds the lock for 10 ms, and then returns this outcome.
    pub async fn with_lock<T: Send + 'static>(&self, outcome: Result<T>) -> Result<T> {
        let moment = Duration::from_millis(10);
        match self.clone() {
            Self::Async(lock) => {
                let work = async |_: &dflockd_client::LockGuard| {
                    tokio::time::sleep(moment).await;
                    outcome
                };
                lock.with_lock(work).await
            }
            Self::Blocking(lock) => {
                let work = move |_: &blocking::LockGuard| {
                    std::thread::sleep(moment);
                    outcome
                };
                on_a_thread(move || lock.with_lock(work)).await
            }
        }
    }

    /// Returns a lock object, which is similar to the lock object of the Python client.
    pub fn object(&self) -> Object {
        match self.clone() {
            Self::Async(lock) => Object::Async(lock.into()),
            Self::Blocking(lock) => Object::Blocking(Some(lock.into())),
        }
    }
}

#[derive(Clone)]
pub enum Semaphore {
    Async(dflockd_client::Semaphore),
    Blocking(blocking::Semaphore),
}

impl Semaphore {
    pub async fn acquire(&self) -> Result<Permit> {
        match self.clone() {
            Self::Async(slots) => slots.acquire().await.map(Permit::Async),
            Self::Blocking(slots) => on_a_thread(move || slots.acquire()).await.map(Permit::Blocking),
        }
    }

    pub async fn try_acquire(&self) -> Result<Option<Permit>> {
        match self.clone() {
            Self::Async(slots) => Ok(slots.try_acquire().await?.map(Permit::Async)),
            Self::Blocking(slots) => Ok(on_a_thread(move || slots.try_acquire()).await?.map(Permit::Blocking)),
        }
    }
}

/// A guard or a permit of either client.
#[derive(Debug)]
pub enum Held<A, G> {
    Async(A),
    Blocking(blocking::Held<G>),
}

pub type Guard = Held<dflockd_client::LockGuard, dflockd_client::LockGuard>;
pub type Permit = Held<dflockd_client::SemaphorePermit, dflockd_client::SemaphorePermit>;

impl Guard {
    pub async fn release(self) -> Result<()> {
        match self {
            Self::Async(guard) => guard.release().await,
            Self::Blocking(guard) => on_a_thread(move || guard.release()).await,
        }
    }
}

impl Permit {
    pub async fn release(self) -> Result<()> {
        match self {
            Self::Async(permit) => permit.release().await,
            Self::Blocking(permit) => on_a_thread(move || permit.release()).await,
        }
    }
}

impl Guard {
    /// In the blocking client, a callback reports the loss, because a thread that waits for the loss would borrow the
    /// guard.
    pub fn lost(&self) -> impl Future<Output = LostReason> + Send + 'static + use<> {
        let (told, answer) = oneshot::channel();
        let lost = match self {
            Self::Async(guard) => Some(guard.lost()),
            Self::Blocking(guard) => {
                guard
                    .when_lost(|reason| {
                        // The receiver may have been dropped.
                        let _ = told.send(reason);
                    })
                    .unwrap();
                None
            }
        };
        async {
            match lost {
                Some(lost) => lost.await,
                None => answer.await.expect("the guard was not released"),
            }
        }
    }
}

impl<A: Deref<Target = Lease>, G> Deref for Held<A, G> {
    type Target = Lease;

    fn deref(&self) -> &Lease {
        match self {
            Self::Async(guard) => guard,
            Self::Blocking(guard) => guard,
        }
    }
}

pub enum Enqueued {
    Acquired(Guard),
    Queued(Ticket),
}

pub enum Ticket {
    Async(dflockd_client::Ticket<dflockd_client::LockGuard>),
    Blocking(blocking::Ticket<dflockd_client::LockGuard>),
}

impl Ticket {
    pub async fn wait(self, timeout: Duration) -> Result<Guard> {
        match self {
            Self::Async(ticket) => ticket.wait(timeout).await.map(Guard::Async),
            Self::Blocking(ticket) => on_a_thread(move || ticket.wait(timeout)).await.map(Guard::Blocking),
        }
    }
}

pub enum AllLocks {
    Async(MultiLockGuard),
    Blocking(blocking::MultiLockGuard),
}

impl AllLocks {
    pub fn is_held(&self) -> bool {
        match self {
            Self::Async(all) => all.is_held(),
            Self::Blocking(all) => all.is_held(),
        }
    }

    pub async fn release(self) -> Result<()> {
        match self {
            Self::Async(all) => all.release().await,
            Self::Blocking(all) => on_a_thread(move || all.release()).await,
        }
    }
}

/// A lock object, which keeps its own guard. During a call, a blocking object moves to a thread.
pub enum Object {
    Async(dflockd_client::DistributedLock),
    Blocking(Option<blocking::DistributedLock>),
}

impl Object {
    pub async fn acquire(&mut self) -> Result<bool> {
        match self {
            Self::Async(object) => object.acquire().await,
            Self::Blocking(object) => on_a_thread_with(object, |object| object.acquire()).await,
        }
    }

    pub async fn enqueue(&mut self) -> Result<String> {
        match self {
            Self::Async(object) => object.enqueue().await,
            Self::Blocking(object) => on_a_thread_with(object, |object| object.enqueue()).await,
        }
        .map(|status| status.to_string())
    }

    pub async fn wait(&mut self, timeout: Option<Duration>) -> Result<bool> {
        match self {
            Self::Async(object) => object.wait(timeout).await,
            Self::Blocking(object) => on_a_thread_with(object, move |object| object.wait(timeout)).await,
        }
    }

    pub async fn release(&mut self) -> Result<bool> {
        match self {
            Self::Async(object) => object.release().await,
            Self::Blocking(object) => on_a_thread_with(object, |object| object.release()).await,
        }
    }

    pub async fn close(&mut self) {
        match self {
            Self::Async(object) => object.close().await,
            Self::Blocking(object) => on_a_thread_with(object, |object| object.close()).await.unwrap(),
        }
    }

    pub fn is_held(&self) -> bool {
        match self {
            Self::Async(object) => object.is_held(),
            Self::Blocking(object) => object.as_ref().unwrap().is_held(),
        }
    }
}
