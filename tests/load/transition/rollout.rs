//! A fleet under load is updated client by client: from the previous list to both lists, and then to the current list.
//! The history checker judges the records of the clients and the servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use dflockd_client::{Client, ClientBuilder, ReconnectPolicy};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::LONG;
use super::fleet::Fleet;
use crate::support::history::History;
use crate::support::history::bounds::Bounds;
use crate::support::history::verdict::{Rule, Verdict};
use crate::support::observed::{self, Asked, Held, Observer};
use crate::support::until;

const CLIENTS: usize = 4;
/// The number of tasks per client.
const TASKS: usize = 6;
const SLOTS: u32 = 3;

/// Two keys that move to the new shard 2, two keys that move between the shards 0 and 1, and a key that stays.
const KEYS: [&str; 5] = ["02/a", "12/b", "10/c", "01/d", "11/e"];
const SEMAPHORES: [&str; 2] = ["02/s", "00/s"];

/// A client of the fleet, and its tasks. The tasks end when another client replaces this client.
struct Member {
    client: Client,
    end: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

struct Work {
    client: Client,
    observer: Observer,
    end: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    in_trouble: bool,
}

impl Work {
    /// Acquires, uses and releases keys until the client is replaced. Every fifth acquire has a random timeout of less
    /// than 3 ms, which may drop it.
    async fn go_on(self, caller: usize) {
        for round in caller.. {
            if self.end.load(Ordering::SeqCst) {
                return;
            }
            let acquire = self.acquire(caller, round);
            let acquired = match round % 5 {
                0 => {
                    let patience = Duration::from_micros(fastrand::u64(0..3000));
                    match timeout(patience, acquire).await {
                        Ok(acquired) => acquired,
                        Err(_) => continue,
                    }
                }
                _ => acquire.await,
            };
            let held = match acquired {
                Ok(held) => held,
                Err(error) => {
                    assert!(self.in_trouble && error.is_retryable(), "{error}");
                    continue;
                }
            };
            let mut is_held = held.is_held();
            for _ in 0..fastrand::u64(1..4) {
                tokio::time::sleep(Duration::from_micros(500)).await;
                is_held = is_held && held.is_held();
            }
            assert!(is_held || self.in_trouble, "{:?}", held.lease());
            let released = held.release().await;
            assert!(released.is_ok() || self.in_trouble, "{released:?}");
            self.rounds.fetch_add(1, Ordering::SeqCst);
        }
    }

    async fn acquire(&self, caller: usize, round: usize) -> dflockd_client::Result<observed::Observed> {
        let number = caller as u64;
        if round % 4 == 0 {
            let key = SEMAPHORES[round / 4 % SEMAPHORES.len()];
            let slots = self.client.semaphore(key, SLOTS).unwrap().acquire_timeout(LONG);
            let acquire = async { slots.acquire().await.map(|permit| Held::Slot(permit, SLOTS)) };
            return self.observer.acquire(number, Asked::slot(key, SLOTS), acquire).await;
        }
        let key = KEYS[round % KEYS.len()];
        let lock = self.client.lock(key).unwrap().acquire_timeout(LONG);
        let acquire = async { lock.acquire().await.map(Held::Lock) };
        self.observer.acquire(number, Asked::lock(key), acquire).await
    }
}

struct Rollout {
    fleet: Fleet,
    observer: Observer,
    rounds: Arc<AtomicUsize>,
    members: Vec<Member>,
    started: usize,
    /// The task that cuts connections.
    trouble: Option<tokio::task::JoinHandle<()>>,
}

impl Rollout {
    async fn begin(generation: impl Fn(&Fleet) -> ClientBuilder) -> Self {
        Self::begin_in(false, generation).await
    }

    async fn begin_in(trouble: bool, generation: impl Fn(&Fleet) -> ClientBuilder) -> Self {
        // This release has no fences. Two servers would count the fences of a moving key separately, and the checker
        // would find that the fences do not grow.
        let fleet = Fleet::start_release("1.16").await;
        let mut rollout = Self {
            observer: Observer::new("0", fleet.start),
            fleet,
            rounds: Arc::default(),
            members: Vec::new(),
            started: 0,
            trouble: None,
        };
        if trouble {
            let cut = rollout.fleet.cutter();
            rollout.trouble = Some(tokio::spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_millis(fastrand::u64(100..300))).await;
                    cut(fastrand::usize(0..3));
                }
            }));
        }
        for _ in 0..CLIENTS {
            rollout.start(&generation).await;
        }
        rollout.more().await;
        rollout
    }

    async fn start(&mut self, generation: &impl Fn(&Fleet) -> ClientBuilder) {
        let pauses = ReconnectPolicy::exponential(Duration::from_millis(20), Duration::from_millis(100));
        let client = generation(&self.fleet).reconnect(pauses).build().unwrap();
        self.started += 1;
        let (end, mut tasks) = (Arc::<AtomicBool>::default(), JoinSet::new());
        for caller in 0..TASKS {
            let work = Work {
                client: client.clone(),
                observer: self.observer.another(&self.started.to_string()),
                end: Arc::clone(&end),
                rounds: Arc::clone(&self.rounds),
                in_trouble: self.trouble.is_some(),
            };
            tasks.spawn(work.go_on(caller));
        }
        self.members.push(Member { client, end, tasks });
    }

    /// Replaces one client after another, as a rolling update does. The new client starts before the old client ends.
    async fn roll(&mut self, generation: impl Fn(&Fleet) -> ClientBuilder) {
        for _ in 0..CLIENTS {
            self.start(&generation).await;
            self.more().await;
            let gone = self.members.remove(0);
            gone.end(self.trouble.is_some()).await;
            self.more().await;
        }
    }

    async fn more(&self) {
        let before = self.rounds.load(Ordering::SeqCst);
        until("more rounds are completed", || {
            self.rounds.load(Ordering::SeqCst) > before + 60
        })
        .await;
    }

    async fn judge(self) -> Verdict {
        for member in self.members {
            member.end(self.trouble.is_some()).await;
        }
        if let Some(trouble) = self.trouble {
            trouble.abort();
        }
        self.fleet.until_free().await;
        for server in &self.fleet.servers {
            observed::judge(server.events());
        }
        History::default()
            .with(self.observer.finish())
            .judge(&Bounds::default())
    }
}

impl Member {
    async fn end(self, in_trouble: bool) {
        self.end.store(true, Ordering::SeqCst);
        self.tasks.join_all().await;
        let report = self.client.shutdown(Duration::from_secs(10)).await;
        assert!(report.unreleased.is_empty() || in_trouble, "{report:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_in_three_steps_never_has_two_holders() {
    let mut rollout = Rollout::begin(Fleet::previous).await;
    rollout.roll(Fleet::both).await;
    rollout.roll(Fleet::current).await;
    let counts = rollout.judge().await.assert();
    assert!(counts.beliefs > 1000, "{counts:?}");
}

/// During the rollout, the test cuts connections to the servers. Leases and waits are lost, but no key has two holders.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_never_has_two_holders_while_connections_are_cut() {
    let mut rollout = Rollout::begin_in(true, Fleet::previous).await;
    rollout.roll(Fleet::both).await;
    rollout.roll(Fleet::current).await;
    let counts = rollout.judge().await.assert();
    assert!(counts.beliefs > 1000, "{counts:?}");
}

/// The fleet shrinks from three shards to two, so the two lists change places.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_shrinks_in_the_same_three_steps() {
    let mut rollout = Rollout::begin(Fleet::current).await;
    rollout.roll(Fleet::both_to_shrink).await;
    rollout.roll(Fleet::previous).await;
    rollout.judge().await.assert();
}

/// Shows that the other tests can fail. Without the second step, keys have two holders, and the checker finds them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_checker_finds_the_two_holders_of_a_rollout_that_skips_a_step() {
    let mut rollout = Rollout::begin(Fleet::previous).await;
    rollout.roll(Fleet::current).await;
    let verdict = rollout.judge().await;
    assert!(
        verdict
            .violations
            .iter()
            .any(|violation| violation.rule == Rule::Believers),
        "{verdict:?}"
    );
}
