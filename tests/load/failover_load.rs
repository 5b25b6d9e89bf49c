//! Clients under load use a cluster whose leader changes often and whose members are stopped. The history checker
//! judges the records of the cluster and the clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::cluster::{ClusterScene, health, patient};
use crate::support::history::History;
use crate::support::history::bounds::Bounds;
use crate::support::history::verdict::Counts;
use crate::support::observed::{Asked, Held, Observer};
use crate::support::until;
use dflockd_client::server::{Cluster, EventKind};
use dflockd_client::{Client, ErrorKind};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// A timeout that only a hang exceeds.
const PATIENCE: Duration = Duration::from_secs(240);
const KEYS: usize = 6;
const CLIENTS: usize = 3;
/// The number of tasks per client.
const TASKS: usize = 16;
/// The limit of the semaphore.
const LIMIT: u32 = 3;

/// The counters that all tasks share.
#[derive(Default)]
struct Counters {
    /// The number of completed rounds with a lock.
    rounds: AtomicUsize,
    /// The number of requests that failed with an unknown outcome.
    unknown: AtomicUsize,
    end: AtomicBool,
}

impl Counters {
    fn rounds(&self) -> usize {
        self.rounds.load(Ordering::SeqCst)
    }

    fn goes_on(&self) -> bool {
        !self.end.load(Ordering::SeqCst)
    }

    /// Waits until the tasks have completed more than [`KEYS`] further rounds.
    async fn more(&self) {
        let before = self.rounds();
        until("callers have had turns", || self.rounds() > before + KEYS).await;
    }

    /// Counts a request that failed because the leader was stopped. Panics for any other error.
    fn tolerate(&self, error: &dflockd_client::Error) {
        assert_eq!(error.kind(), ErrorKind::Disconnected, "{error}");
        assert!(error.is_retryable());
        self.unknown.fetch_add(1, Ordering::SeqCst);
    }
}

/// Acquires, holds and releases keys until the load ends. Sometimes drops an acquire.
async fn work(client: Client, observer: Observer, number: usize, counters: Arc<Counters>) {
    let caller = number as u64;
    let semaphore = client.semaphore("s", LIMIT).unwrap().acquire_timeout(PATIENCE);
    for round in number.. {
        if !counters.goes_on() {
            return;
        }
        if round % 7 == 0 {
            let acquire = async { semaphore.acquire().await.map(|permit| Held::Slot(permit, LIMIT)) };
            let asked = Asked::slot("s", LIMIT).within(PATIENCE);
            match observer.acquire(caller, asked, acquire).await {
                Ok(permit) => {
                    assert!(permit.is_held());
                    tokio::task::yield_now().await;
                    assert!(permit.is_held());
                    permit.release().await.unwrap();
                }
                Err(error) => counters.tolerate(&error),
            }
            continue;
        }
        let key = format!("k{}", round % KEYS);
        let lock = client.lock(&key).unwrap().acquire_timeout(PATIENCE);
        let acquire = async { lock.acquire().await.map(Held::Lock) };
        let acquire = observer.acquire(caller, Asked::lock(&key).within(PATIENCE), acquire);
        let acquired = if round % 5 == 0 {
            // The timeout drops the acquire before, during or after the sending of the request.
            let patience = Duration::from_micros(fastrand::u64(0..2000));
            match timeout(patience, acquire).await {
                Ok(acquired) => acquired,
                Err(_) => continue,
            }
        } else {
            acquire.await
        };
        match acquired {
            Ok(guard) => {
                assert!(guard.is_held());
                tokio::task::yield_now().await;
                assert!(guard.is_held(), "{key} was lost: {:?}", guard.lease().state());
                guard.release().await.unwrap();
                counters.rounds.fetch_add(1, Ordering::SeqCst);
            }
            Err(error) => counters.tolerate(&error),
        }
    }
}

struct Outcome {
    scene: ClusterScene,
    verdict: Counts,
    unknown: usize,
    failovers: u64,
}

/// Runs the tasks of all clients until `trouble` has ended. Then judges the records.
async fn under_load(ttl: Duration, trouble: impl AsyncFnOnce(&Cluster, &Counters)) -> Outcome {
    let scene = ClusterScene::set(patient()).await;
    let counters = Arc::new(Counters::default());
    let mut working = JoinSet::new();
    let mut clients = Vec::new();
    let observer = scene.observer("0");
    for name in 0..CLIENTS {
        let observer = observer.another(&name.to_string());
        let client = scene
            .builder()
            .lease_ttl(ttl)
            .max_redirects(1000)
            .connect()
            .await
            .unwrap();
        for number in 0..TASKS {
            working.spawn(work(client.clone(), observer.clone(), number, Arc::clone(&counters)));
        }
        clients.push(client);
    }
    timeout(PATIENCE, trouble(&scene.cluster, &counters))
        .await
        .expect("the trouble ends in time");
    counters.end.store(true, Ordering::SeqCst);
    timeout(PATIENCE, working.join_all())
        .await
        .expect("all tasks end in time");
    scene.until_free().await;
    let history = History::default().with(observer.finish()).with(scene.lines());
    let verdict = history.judge(&Bounds::default()).assert();
    assert!(verdict.beliefs >= 2 * counters.rounds(), "{verdict:?}");
    Outcome {
        verdict,
        unknown: counters.unknown.load(Ordering::SeqCst),
        failovers: clients.iter().map(|client| health(client).failovers).sum(),
        scene,
    }
}

/// Moves the leadership `flaps` times. With `restarts`, restarts each member before it becomes the leader.
async fn flapping(flaps: usize, ttl: Duration, restarts: bool) -> Outcome {
    let outcome = under_load(ttl, async |cluster, counters| {
        for flap in 1..=flaps {
            let next = flap % 3;
            if restarts {
                cluster.stop(next).await.unwrap();
                cluster.start(next).await.unwrap();
            }
            if flap % 10 == 0 {
                cluster.depose();
            }
            cluster.move_leader(next).unwrap();
            counters.more().await;
        }
    })
    .await;
    assert_eq!(outcome.unknown, 0, "the fate of every request is known");
    assert!(
        outcome.failovers >= flaps as u64,
        "the clients followed only {} leader changes",
        outcome.failovers
    );
    let verdict = outcome.verdict;
    assert!(
        verdict.from_queues > flaps,
        "too few grants came from queues: {verdict:?}"
    );
    assert_eq!((verdict.keys, verdict.held), (KEYS + 1, 0));
    let reclaimed = outcome.scene.count(EventKind::Reclaimed);
    assert!(reclaimed > flaps, "{reclaimed} reclaims");
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_flaps_a_hundred_times_costs_no_lease_and_no_request() {
    let outcome = flapping(100, Duration::from_secs(120), true).await;
    // No lease expired, and no lease ended with its connection.
    assert_eq!(outcome.scene.count(EventKind::Released), outcome.verdict.grants);
}

/// If a client's connection to a member ends while the member does not lead, the leader does not notice. When the
/// member leads again, the queue position of this connection still exists. The client repeats its wait over a new
/// connection, and may get a new queue position behind the old position. Then the grant to the old position expires,
/// because no caller renews it.
#[tokio::test(flavor = "multi_thread")]
async fn members_that_lead_again_without_a_restart_cost_only_the_grants_of_old_connections() {
    let outcome = flapping(12, Duration::from_secs(2), false).await;
    let (scene, grants) = (&outcome.scene, outcome.verdict.grants);
    assert_eq!(
        scene.count(EventKind::Released) + scene.count(EventKind::Expired),
        grants
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_die_under_load_never_grant_a_key_twice() {
    // If a leader is stopped before it sends the token of a grant, no caller can renew or release the lease. The lease
    // expires after this TTL.
    let outcome = under_load(Duration::from_secs(4), async |cluster, counters| {
        for death in 0..30 {
            let leader = cluster.leader().expect("a member leads");
            cluster.stop(leader).await.unwrap();
            if death % 5 == 0 {
                // For a short time no member leads, and two of the three members are stopped.
                cluster.stop((leader + 1) % 3).await.unwrap();
                cluster.start((leader + 1) % 3).await.unwrap();
            }
            cluster.move_leader((leader + 1) % 3).unwrap();
            counters.more().await;
            cluster.start(leader).await.unwrap();
        }
    })
    .await;
    let Outcome { scene, verdict, .. } = outcome;
    assert!(
        outcome.failovers >= 30,
        "the clients followed only {} leader changes",
        outcome.failovers
    );
    assert_eq!((verdict.keys, verdict.held), (KEYS + 1, 0));
    let over = scene.count(EventKind::Expired);
    assert!(
        over <= outcome.unknown,
        "{over} leases expired, though only {} requests were lost",
        outcome.unknown
    );
    assert_eq!(scene.count(EventKind::Released) + over, verdict.grants);
}
