//! Clients with much to do on few keys, and what they saw themselves: a record that can be judged like those of servers.

use std::future::{Future, poll_fn};
use std::ops::Deref;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use dflockd_client::server::EventKind;
use dflockd_client::{Client, Lease, LockGuard, LostReason, Result, SemaphorePermit};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::checker::{Checker, Step};
use super::told::Told;

const LOCKS: usize = 3;
const SLOTS: u32 = 2;

/// The key of those who do not give back what they have.
pub const KEPT: &str = "kept";

/// The work of several clients.
#[derive(Default)]
pub struct Load {
    clients: Vec<Arc<Witness>>,
    end: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

/// What the users of one client saw.
#[derive(Default)]
pub struct Witness {
    client: usize,
    steps: Mutex<Vec<Step>>,
    losses: Mutex<Vec<(String, LostReason)>>,
}

enum Held {
    Lock(LockGuard),
    Slot(SemaphorePermit),
}

impl Deref for Held {
    type Target = Lease;

    fn deref(&self) -> &Lease {
        match self {
            Self::Lock(guard) => guard,
            Self::Slot(permit) => permit,
        }
    }
}

impl Held {
    async fn release(self) -> Result<()> {
        match self {
            Self::Lock(guard) => guard.release().await,
            Self::Slot(permit) => permit.release().await,
        }
    }
}

impl Witness {
    /// How many grants were seen.
    pub fn grants(&self) -> usize {
        let steps = self.steps.lock().unwrap();
        steps.iter().filter(|step| step.kind == EventKind::Granted).count()
    }

    /// Whether the grant of a key that was seen last is held.
    pub fn holds(&self, key: &str) -> bool {
        let steps = self.steps.lock().unwrap();
        let last = steps.iter().rev().find(|step| step.key == key);
        last.is_some_and(|step| step.kind == EventKind::Granted)
    }

    /// Why leases of a key were lost.
    pub fn losses(&self, key: &str) -> Vec<LostReason> {
        let losses = self.losses.lock().unwrap();
        losses
            .iter()
            .filter(|(lost, _)| lost == key)
            .map(|(_, why)| *why)
            .collect()
    }

    fn saw(&self, kind: EventKind, held: &Held, at: Instant) {
        let limit = match held {
            Held::Lock(_) => 1,
            Held::Slot(_) => SLOTS,
        };
        self.steps.lock().unwrap().push(Step {
            at,
            kind,
            namespace: held.kind(),
            key: held.key().to_string(),
            limit: limit.into(),
            token: Some(*held.token()),
            place: None,
            connection: self.client as u64,
        });
    }

    /// Holds it until it is lost, or there is no reason any more. A lease is over when its holder is told so, and in any case
    /// when its time is up as its holder knew it: a task that needs longer to wake up does not hold it longer.
    async fn hold(&self, held: Held, goes_on: impl Fn() -> bool) {
        let mut lost = Told::new(held.lost());
        // From here on it is noted when it is lost. It may have been on its way here.
        let was_lost = poll_fn(|cx| Poll::Ready(Pin::new(&mut lost).poll(cx).is_ready())).await;
        let since = Instant::now();
        if was_lost || !held.is_held() {
            return;
        }
        self.saw(EventKind::Granted, &held, since);
        let mut time_is_up = since + held.remaining();
        let mut over = None;
        while over.is_none() && (goes_on() || !held.is_held()) {
            tokio::select! {
                (why, told) = &mut lost => {
                    self.losses.lock().unwrap().push((held.key().to_string(), why));
                    over = Some(told);
                }
                () = sleep(Duration::from_millis(2)) => {}
            }
            let left = held.remaining();
            if !left.is_zero() {
                time_is_up = Instant::now() + left;
            }
        }
        let over = over.unwrap_or_else(Instant::now).min(time_is_up).max(since);
        self.saw(EventKind::Released, &held, over);
        // Of what was lost meanwhile it says that.
        drop(held.release().await);
    }

    /// Acquires, holds and releases in turn, whatever goes wrong.
    async fn work(&self, client: &Client, number: usize, end: &AtomicBool) {
        for round in number.. {
            if end.load(Ordering::SeqCst) {
                return;
            }
            let acquired = match round % (LOCKS + 1) {
                LOCKS => client
                    .semaphore("slots", SLOTS)
                    .unwrap()
                    .acquire()
                    .await
                    .map(Held::Slot),
                lock => client.lock(format!("k{lock}")).unwrap().acquire().await.map(Held::Lock),
            };
            let until = Instant::now() + Duration::from_millis((round % 7) as u64);
            self.was_acquired(acquired, || Instant::now() < until).await;
        }
    }

    /// Acquires one key and keeps it until it is lost.
    async fn keep(&self, client: &Client, end: &AtomicBool) {
        while !end.load(Ordering::SeqCst) {
            let acquired = client.lock(KEPT).unwrap().acquire().await.map(Held::Lock);
            self.was_acquired(acquired, || !end.load(Ordering::SeqCst)).await;
        }
    }

    async fn was_acquired(&self, acquired: Result<Held>, goes_on: impl Fn() -> bool) {
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
    /// Puts a client to work: so many tasks, and one that keeps what it gets.
    pub fn add(&mut self, client: &Client, tasks: usize) -> Arc<Witness> {
        let witness = Arc::new(Witness {
            client: self.clients.len(),
            ..Witness::default()
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

    /// How many grants each client saw.
    pub fn grants(&self) -> Vec<usize> {
        self.clients.iter().map(|witness| witness.grants()).collect()
    }

    /// Ends the work; what the clients saw, to be judged.
    pub async fn end(self) -> Checker {
        self.end.store(true, Ordering::SeqCst);
        self.tasks.join_all().await;
        let clients = self.clients.iter().enumerate();
        clients.fold(Checker::default(), |checker, (number, witness)| {
            let mut steps = witness.steps.lock().unwrap().clone();
            // Its tasks wrote it together, and an end may be older than the moment in which it was seen.
            steps.sort_by_key(|step| step.at);
            checker.record(&format!("client {number}"), steps)
        })
    }
}
