//! Behaviour that only the blocking client has. `tests/conformance.rs` tests the behaviour that both clients share.

use std::cell::RefCell;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::support::raw::RawConnection;
use crate::support::until_now;
use dflockd_client::blocking::{
    self, Client, DistributedLock, DistributedSemaphore, Enqueued, Lock, LockGuard, allow_in_runtime,
};
use dflockd_client::server::{EventKind, Server};
use dflockd_client::{ClientBuilder, EnqueueStatus, Error, ErrorKind, LostReason, Token};
use tokio::runtime::Runtime;

const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(30);

/// A server on a runtime of its own, and a client that does not belong to that runtime.
struct Scene {
    runtime: Runtime,
    server: Server,
    client: Client,
}

impl Scene {
    fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let server = Server::builder().port(0).record_events(true);
        let server = runtime.block_on(server.start()).unwrap();
        let client = options(&server).connect_blocking().unwrap();
        Self {
            runtime,
            server,
            client,
        }
    }

    fn lock(&self) -> Lock {
        self.client.lock("k").unwrap()
    }

    fn seen(&self, kind: EventKind) -> usize {
        let events = self.server.events();
        events.iter().filter(|event| event.kind == kind).count()
    }

    fn waiters(&self) -> u64 {
        self.server.stats().locks.iter().map(|lock| lock.waiters).sum()
    }

    fn until_free(&self) {
        until_now("it is free", || self.server.stats().locks.is_empty());
    }

    /// Releases the lock by its token over another connection, so that the holder loses it.
    fn take_away(&self, token: &Token) {
        self.runtime.block_on(async {
            let mut raw = RawConnection::open(&self.server.local_addr().to_string()).await;
            assert_eq!(raw.request("r", "k", token.as_str()).await, "ok");
        });
    }
}

fn options(server: &Server) -> ClientBuilder {
    Client::builder()
        .servers([server.local_addr().to_string()])
        .acquire_timeout(SHORT)
}

fn kind<T>(result: Result<T, Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn a_lease_is_renewed_while_its_holder_computes() {
    let scene = Scene::new();
    let lock = scene.lock().lease_ttl(Duration::from_secs(1));
    let guard = lock.acquire().unwrap();
    let began = Instant::now();
    // The renewals do not need this thread, which neither sleeps nor calls the client.
    let mut sum = 0_u64;
    while began.elapsed() < Duration::from_millis(2500) {
        sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(1));
    }
    assert!(guard.is_held() && scene.seen(EventKind::Expired) == 0);
    assert!(scene.seen(EventKind::Renewed) >= 4);
    guard.release().unwrap();
    assert!(scene.server.stats().locks.is_empty());
}

// Calls inside an async runtime.

/// Calls functions that wait. Returns the name of each called function and the kind of its error.
fn all_that_waits(scene: &Scene) -> Vec<(&'static str, Option<ErrorKind>)> {
    let client = &scene.client;
    let mut object = DistributedLock::from(scene.lock());
    let mut slot = DistributedSemaphore::with_options("s", 1, options(&scene.server)).unwrap();
    let all = client.lock_all(["a", "b"]).unwrap();
    let semaphore = client.semaphore("s", 1).unwrap();
    let nothing = |_: &LockGuard| Ok::<_, Error>(());
    vec![
        ("connect_blocking", kind(options(&scene.server).connect_blocking())),
        ("stats", kind(client.stats())),
        ("shard_stats", kind(client.shard_stats(0))),
        ("all_stats", kind(client.all_stats())),
        ("acquire", kind(scene.lock().acquire())),
        ("try_acquire", kind(scene.lock().try_acquire())),
        ("enqueue", kind(scene.lock().enqueue())),
        ("with_lock", kind(scene.lock().with_lock(nothing))),
        ("semaphore acquire", kind(semaphore.acquire())),
        ("semaphore try_acquire", kind(semaphore.try_acquire())),
        ("semaphore enqueue", kind(semaphore.enqueue())),
        ("multi acquire", kind(all.acquire())),
        ("multi try_acquire", kind(all.try_acquire())),
        ("object acquire", kind(object.acquire())),
        ("object enqueue", kind(object.enqueue())),
        ("object wait", kind(object.wait(None))),
        ("object release", kind(object.release())),
        ("object close", kind(object.close())),
        ("object with_lock", kind(object.with_lock(nothing))),
        ("slot acquire", kind(slot.acquire())),
        ("shutdown", kind(client.shutdown(SHORT))),
    ]
}

#[test]
fn inside_a_runtime_waiting_calls_fail_and_other_calls_work() {
    let scene = Scene::new();
    let held = scene.lock().acquire().unwrap();
    let other = scene.client.lock("other").unwrap();
    let (to_release, to_wait) = (
        other.acquire().unwrap(),
        scene.client.lock("third").unwrap().acquire().unwrap(),
    );
    let Enqueued::Queued(ticket) = scene.lock().enqueue().unwrap() else {
        panic!("it is held");
    };
    for current_thread in [true, false] {
        let mut builder = match current_thread {
            true => tokio::runtime::Builder::new_current_thread(),
            false => tokio::runtime::Builder::new_multi_thread(),
        };
        builder.build().unwrap().block_on(async {
            for (what, outcome) in all_that_waits(&scene) {
                assert_eq!(outcome, Some(ErrorKind::Misuse), "{what}");
            }
            assert_eq!(kind(to_wait.wait_lost(SHORT)), Some(ErrorKind::Misuse));
        });
    }
    assert!(held.is_held(), "nothing was shut down");
    scene.runtime.block_on(async {
        // A refused call releases the guard or ticket that it has consumed.
        assert_eq!(kind(to_release.release()), Some(ErrorKind::Misuse));
        assert_eq!(kind(ticket.wait(LONG)), Some(ErrorKind::Misuse));
        drop(held);
        drop(to_wait);
        let built = options(&scene.server).build_blocking().unwrap();
        assert_eq!(built.health().len(), 1);
    });
    scene.until_free();
    assert_eq!(scene.waiters(), 0);
}

#[test]
fn allow_in_runtime_lets_a_thread_of_a_runtime_block() {
    let scene = Scene::new();
    let lock = scene.lock();
    let waiting = scene.runtime.spawn_blocking(move || {
        assert_eq!(kind(lock.acquire()), Some(ErrorKind::Misuse));
        allow_in_runtime(|| {
            lock.with_lock(|guard| {
                assert!(guard.is_held());
                Ok::<_, Error>(42)
            })
        })
    });
    assert_eq!(scene.runtime.block_on(waiting).unwrap().unwrap(), 42);
    scene.until_free();
}

#[test]
fn an_async_client_can_be_used_by_threads_until_its_runtime_ends() {
    let scene = Scene::new();
    let runtime = Runtime::new().unwrap();
    let client = runtime.block_on(options(&scene.server).connect()).unwrap();
    let threads = Client::from(client);
    let guard = threads.lock("k").unwrap().acquire().unwrap();
    let awaited = guard.into_async();
    runtime.block_on(awaited.release()).unwrap();
    let lost = threads.lock("k").unwrap().acquire().unwrap();
    drop(runtime);
    assert!(lost.wait_lost(LONG).unwrap().is_some());
    assert!(threads.lock("k").unwrap().acquire().is_err());
    assert!(lost.release().is_err());
    scene.until_free();
}

// Guards of threads that end.

#[test]
fn a_thread_that_panics_releases_its_guards() {
    let scene = Scene::new();
    let (lock, semaphore) = (scene.lock(), scene.client.semaphore("s", 1).unwrap());
    let panicked = std::thread::spawn(move || {
        let _permit = semaphore.acquire().unwrap();
        lock.with_lock(|_| -> Result<(), Error> { std::panic::resume_unwind(Box::new("on purpose")) })
    });
    assert!(panicked.join().is_err());
    scene.until_free();
    until_now("its slot is free", || scene.server.stats().semaphores.is_empty());
    scene.lock().acquire().unwrap().release().unwrap();
}

/// A thread-local whose destructor uses its lock and its guard.
struct ThreadLocalGuard {
    guard: Option<LockGuard>,
    lock: Lock,
    told: mpsc::Sender<Option<ErrorKind>>,
}

impl Drop for ThreadLocalGuard {
    fn drop(&mut self) {
        self.told.send(kind(self.lock.acquire())).unwrap();
        drop(self.guard.take());
    }
}

thread_local! {
    static THREAD_LOCAL_GUARD: RefCell<Option<ThreadLocalGuard>> = const { RefCell::new(None) };
}

#[test]
fn a_destructor_of_a_thread_local_releases_its_guard_and_cannot_wait() {
    let scene = Scene::new();
    let (told, heard) = mpsc::channel();
    let lock = scene.lock();
    let other = scene.client.lock("other").unwrap();
    std::thread::spawn(move || {
        // Thread-locals are dropped in the reverse order of their first use. `THREAD_LOCAL_GUARD` is used before all
        // thread-locals of the client and the runtime, so it is dropped last.
        THREAD_LOCAL_GUARD.with(|_| ());
        let guard = Some(lock.acquire().unwrap());
        let value = ThreadLocalGuard {
            guard,
            lock: other,
            told,
        };
        THREAD_LOCAL_GUARD.with_borrow_mut(|kept| *kept = Some(value));
    })
    .join()
    .unwrap();
    assert_eq!(heard.recv().unwrap(), Some(ErrorKind::Misuse));
    scene.until_free();
}

// Lost leases.

#[test]
fn waiting_for_a_loss_has_an_optional_timeout() {
    let scene = Scene::new();
    let guard = scene.lock().lease_ttl(Duration::from_secs(1)).acquire().unwrap();
    assert_eq!(guard.wait_lost(SHORT).unwrap(), None);
    scene.take_away(guard.token());
    assert_eq!(guard.wait_lost(LONG).unwrap(), Some(LostReason::Rejected));
    assert_eq!(
        guard.wait_lost(None).unwrap(),
        Some(LostReason::Rejected),
        "a loss is reported after the fact, too"
    );
    assert_eq!(kind(guard.release()), Some(ErrorKind::LeaseLost));
}

#[test]
fn a_loss_callback_gets_the_reason_may_block_and_is_dropped_with_its_guard() {
    let scene = Scene::new();
    let lock = scene.lock().lease_ttl(Duration::from_secs(1));
    let guard = lock.acquire().unwrap();
    let (told, heard) = mpsc::channel();
    for number in 0..2 {
        let (told, other) = (told.clone(), scene.client.lock("other").unwrap().acquire_timeout(LONG));
        guard
            .when_lost(move |reason| {
                // Both callbacks acquire the same lock, one after the other.
                other.acquire().unwrap().release().unwrap();
                told.send((number, reason)).unwrap();
            })
            .unwrap();
    }
    assert!(heard.recv_timeout(SHORT).is_err(), "the lease is held");
    scene.take_away(guard.token());
    let mut all: Vec<_> = (0..2).map(|_| heard.recv_timeout(LONG).unwrap()).collect();
    all.sort_by_key(|(number, _)| *number);
    assert_eq!(all, [(0, LostReason::Rejected), (1, LostReason::Rejected)]);
    let late = told.clone();
    guard.when_lost(move |reason| late.send((2, reason)).unwrap()).unwrap();
    assert_eq!(heard.recv_timeout(LONG).unwrap(), (2, LostReason::Rejected));
    drop(guard);

    // The release drops the callback without a call. The callback owns the only sender, so the channel ends.
    let guard = lock.acquire().unwrap();
    let (told, heard) = mpsc::channel::<LostReason>();
    guard.when_lost(move |reason| told.send(reason).unwrap()).unwrap();
    guard.release().unwrap();
    assert_eq!(heard.recv_timeout(LONG), Err(mpsc::RecvTimeoutError::Disconnected));
}

// Tickets, `MultiLock` and the lock objects.

#[test]
fn two_phases_and_several_locks_at_once() {
    let scene = Scene::new();
    let Enqueued::Acquired(first) = scene.lock().enqueue().unwrap() else {
        panic!("it is free");
    };
    let Enqueued::Queued(place) = scene.lock().enqueue().unwrap() else {
        panic!("it is held");
    };
    assert_eq!(place.key().as_str(), "k");
    first.release().unwrap();
    let second = place.wait(LONG).unwrap();
    assert_eq!(scene.seen(EventKind::Queued), 1);

    let both = scene.client.lock_all(["other", "k"]).unwrap();
    assert!(both.try_acquire().unwrap().is_none());
    assert_eq!(kind(both.acquire()), Some(ErrorKind::Timeout));
    assert_eq!(scene.server.stats().locks.len(), 1, "all or none");
    second.release().unwrap();
    let all = both.acquire().unwrap();
    let keys: Vec<_> = all.keys().map(|key| key.as_str()).collect();
    assert_eq!(keys, ["k", "other"]);
    assert_eq!(all.wait_lost(SHORT).unwrap(), None);
    assert!(all.is_held() && all.remaining() > Duration::ZERO);
    all.release().unwrap();
    scene.until_free();
}

#[test]
fn objects_hold_what_they_acquire() {
    let scene = Scene::new();
    let mut own = DistributedLock::with_options("k", options(&scene.server)).unwrap();
    let mut shared = DistributedLock::from(scene.lock());
    assert!(own.acquire().unwrap() && own.is_held());
    assert!(own.token().is_some() && own.ttl().is_some() && own.guard().is_some());
    assert!(!shared.acquire().unwrap());
    assert_eq!(shared.enqueue().unwrap(), EnqueueStatus::Queued);
    own.close().unwrap();
    assert!(shared.wait(None).unwrap());
    assert!(shared.release().unwrap() && !shared.release().unwrap());
    let key = shared.with_lock(|guard| Ok::<_, Error>(guard.key().clone())).unwrap();
    assert_eq!(&key, shared.key());
    scene.until_free();

    let mut slots: Vec<_> = (0..3)
        .map(|_| DistributedSemaphore::from(scene.client.semaphore("s", 2).unwrap()))
        .collect();
    let got: Vec<_> = slots.iter_mut().map(|slot| slot.acquire().unwrap()).collect();
    assert_eq!(got, [true, true, false]);
    drop(slots);
    until_now("all slots are free", || scene.server.stats().semaphores.is_empty());
    let mut slot = DistributedSemaphore::with_options("s", 2, options(&scene.server)).unwrap();
    let held = slot.with_permit(|permit| Ok::<_, Error>(permit.is_held()));
    assert!(held.unwrap());
}

#[test]
fn work_under_a_lock_keeps_its_own_error() {
    let scene = Scene::new();
    let lose_lock_during_work = |outcome: Result<(), String>| {
        scene.lock().with_lock(|guard| {
            scene.take_away(guard.token());
            outcome.map_err(Trouble)
        })
    };
    assert_eq!(lose_lock_during_work(Err("no paper".into())).unwrap_err().0, "no paper");
    assert!(
        lose_lock_during_work(Ok(()))
            .unwrap_err()
            .0
            .contains("not held any more")
    );
    let held = scene.lock().acquire().unwrap();
    let late = scene
        .lock()
        .with_lock(|_| -> Result<(), Error> { panic!("it is not held") });
    assert_eq!(kind(late), Some(ErrorKind::Timeout));
    held.release().unwrap();
}

#[derive(Debug)]
struct Trouble(String);

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self(error.to_string())
    }
}

#[test]
fn a_client_reports_the_health_and_stats_of_each_server() {
    let scene = Scene::new();
    let other = scene.runtime.block_on(Server::builder().port(0).start()).unwrap();
    let gone = format!("127.0.0.1:{}", crate::support::process::free_port());
    let addresses = [
        scene.server.local_addr().to_string(),
        other.local_addr().to_string(),
        gone,
    ];
    let client = Client::builder()
        .servers(addresses)
        .request_timeout(Duration::from_millis(500))
        .sharding_strategy(|key: &str, _: usize| key.len() - 1)
        .build_blocking()
        .unwrap();
    let _guards = [
        client.lock("k").unwrap().acquire().unwrap(),
        client.lock("kk").unwrap().acquire().unwrap(),
    ];
    let all = client.all_stats().unwrap();
    let keys = |shard: usize| all[shard].as_ref().unwrap().locks[0].key.as_str();
    assert_eq!((keys(0), keys(1), all.len()), ("k", "kk", 3));
    assert_eq!(all[2].as_ref().unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(client.shard_stats(1).unwrap().locks[0].key, "kk");
    assert_eq!(client.shard_of("kk").unwrap(), 1);
    assert_eq!(client.previous_shard_of("kk").unwrap(), None);
    assert_eq!(kind(client.shard_stats(3)), Some(ErrorKind::InvalidInput));
    assert_eq!(kind(client.stats()), Some(ErrorKind::Unavailable), "one is missing");
    assert!(client.health()[0].is_connected() && !client.health()[2].is_connected());
    let report = client.shutdown(LONG).unwrap();
    assert_eq!((report.released, report.unreleased.len()), (2, 0));
    assert_eq!(scene.client.stats().unwrap().locks.len(), 0);
}

#[test]
fn blocking_types_can_cross_threads() {
    fn assert_sendable<T: Send + Sync + 'static>() {}
    assert_sendable::<Client>();
    assert_sendable::<Lock>();
    assert_sendable::<LockGuard>();
    assert_sendable::<blocking::SemaphorePermit>();
    assert_sendable::<blocking::Ticket<dflockd_client::LockGuard>>();
    assert_sendable::<blocking::MultiLockGuard>();
    assert_sendable::<DistributedLock>();
}
