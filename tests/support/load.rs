//! Clients that acquire and release a few keys all the time. What their callers observe is judged together with the
//! records of the servers.

use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use dflockd_client::{Client, LostReason, Result};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::history::History;
use super::observed::{Asked, Held, Observed, Observer};
use super::wake_time::WithWakeTime;

const LOCKS: usize = 3;
const SLOTS: u32 = 2;

/// One task of each client holds this key until the lease is lost or the work ends.
pub const KEPT: &str = "kept";

/// The work of several clients.
#[derive(Default)]
pub struct Load {
    clients: Vec<Arc<Witness>>,
    end: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

/// What the callers of one client observe.
pub struct Witness {
    observer: Observer,
    grants: AtomicUsize,
    held: Mutex<HashSet<String>>,
    losses: Mutex<Vec<(String, LostReason)>>,
}

impl Witness {
    /// Returns the number of grants that callers observed.
    pub fn grants(&self) -> usize {
        self.grants.load(Ordering::SeqCst)
    }

    /// Returns whether a caller of this client holds a key.
    pub fn holds(&self, key: &str) -> bool {
        self.held.lock().unwrap().contains(key)
    }

    /// Returns the reasons for which leases of a key were lost.
    pub fn losses(&self, key: &str) -> Vec<LostReason> {
        let losses = self.losses.lock().unwrap();
        losses
            .iter()
            .filter(|(lost, _)| lost == key)
            .map(|(_, why)| *why)
            .collect()
    }

    /// Returns at once if the lease is lost at the start. Otherwise holds the lease until it is lost, or until
    /// `goes_on` returns false. Calls `is_held` meanwhile and records the results. After one of these calls has
    /// returned false, waits for the loss, whatever `goes_on` returns.
    async fn hold(&self, held: Observed, goes_on: impl Fn() -> bool) {
        let key = held.lease().key().to_string();
        let mut lost = WithWakeTime::new(held.lease().lost());
        // The first poll of the future. From now on it records the time of a loss.
        let was_lost = poll_fn(|cx| Poll::Ready(Pin::new(&mut lost).poll(cx).is_ready())).await;
        if was_lost || !held.is_held() {
            return;
        }
        self.grants.fetch_add(1, Ordering::SeqCst);
        self.held.lock().unwrap().insert(key.clone());
        while !held.is_held() || goes_on() {
            tokio::select! {
                (why, woken_at) = &mut lost => {
                    held.was_lost(why, woken_at);
                    self.losses.lock().unwrap().push((key.clone(), why));
                    break;
                }
                () = sleep(Duration::from_millis(2)) => {}
            }
        }
        self.held.lock().unwrap().remove(&key);
        // The release may fail, for example because the lease was lost meanwhile.
        drop(held.release().await);
    }

    /// Acquires, holds and releases keys in turn until the work ends. Retryable errors do not end the work.
    async fn work(&self, client: &Client, number: usize, end: &AtomicBool) {
        for round in number.. {
            if end.load(Ordering::SeqCst) {
                return;
            }
            let acquired = match round % (LOCKS + 1) {
                LOCKS => self.slot(client, number).await,
                lock => self.lock(client, number, &format!("k{lock}")).await,
            };
            let until = Instant::now() + Duration::from_millis((round % 7) as u64);
            self.was_acquired(acquired, || Instant::now() < until).await;
        }
    }

    /// Acquires [`KEPT`] and holds it until the lease is lost. Repeats this until the work ends.
    async fn keep(&self, client: &Client, end: &AtomicBool) {
        while !end.load(Ordering::SeqCst) {
            let acquired = self.lock(client, 0, KEPT).await;
            self.was_acquired(acquired, || !end.load(Ordering::SeqCst)).await;
        }
    }

    async fn lock(&self, client: &Client, caller: usize, key: &str) -> Result<Observed> {
        let lock = client.lock(key).unwrap();
        let acquire = async { lock.acquire().await.map(Held::Lock) };
        self.observer
            .acquire(caller as u64, Asked::lock(key).watched(), acquire)
            .await
    }

    async fn slot(&self, client: &Client, caller: usize) -> Result<Observed> {
        let slots = client.semaphore("slots", SLOTS).unwrap();
        let acquire = async { slots.acquire().await.map(|permit| Held::Slot(permit, SLOTS)) };
        let asked = Asked::slot("slots", SLOTS).watched();
        self.observer.acquire(caller as u64, asked, acquire).await
    }

    async fn was_acquired(&self, acquired: Result<Observed>, goes_on: impl Fn() -> bool) {
        match acquired {
            Ok(held) => self.hold(held, goes_on).await,
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

impl Load {
    /// Starts `tasks` tasks of a client that acquire and release keys, and one task that holds [`KEPT`].
    pub fn add(&mut self, client: &Client, observer: Observer, tasks: usize) -> Arc<Witness> {
        let witness = Arc::new(Witness {
            observer,
            grants: AtomicUsize::new(0),
            held: Mutex::default(),
            losses: Mutex::default(),
        });
        for number in 0..=tasks {
            let (client, witness, end) = (client.clone(), Arc::clone(&witness), Arc::clone(&self.end));
            self.tasks.spawn(async move {
                match number {
                    0 => witness.keep(&client, &end).await,
                    number => witness.work(&client, number, &end).await,
                }
            });
        }
        self.clients.push(Arc::clone(&witness));
        witness
    }

    /// Returns the number of grants that the callers of each client observed.
    pub fn grants(&self) -> Vec<usize> {
        self.clients.iter().map(|witness| witness.grants()).collect()
    }

    /// Ends the work, and returns what all callers observed.
    pub async fn end(self) -> History {
        self.end.store(true, Ordering::SeqCst);
        self.tasks.join_all().await;
        let clients = self.clients.iter();
        clients.fold(History::default(), |history, witness| {
            history.with(witness.observer.finish())
        })
    }
}
