//! `DistributedLock` and `DistributedSemaphore`, which are objects that keep their own guard, and `with_lock`, which
//! runs work while a lock is held.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::process::free_port;
use crate::support::raw::RawConnection;
use crate::support::until;
use dflockd_client::server::{EventKind, Server};
use dflockd_client::{
    Client, ClientBuilder, DistributedLock, DistributedSemaphore, EnqueueStatus, Error, ErrorKind, Lock, LockGuard,
    Token,
};

const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(30);

async fn server() -> Server {
    Server::builder().port(0).record_events(true).start().await.unwrap()
}

fn options(servers: &[&Server]) -> ClientBuilder {
    Client::builder()
        .servers(servers.iter().map(|server| server.local_addr().to_string()))
        .acquire_timeout(SHORT)
}

async fn scene() -> (Server, Client) {
    let server = server().await;
    let client = options(&[&server]).connect().await.unwrap();
    (server, client)
}

fn object(client: &Client) -> DistributedLock {
    client.lock("k").unwrap().into()
}

fn waiters(server: &Server) -> u64 {
    server.stats().locks.iter().map(|lock| lock.waiters).sum()
}

fn seen(server: &Server, kind: EventKind) -> usize {
    server.events().iter().filter(|event| event.kind == kind).count()
}

fn kind<T>(result: Result<T, Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

/// Releases the lock by its token over another connection, so that the holder loses it.
async fn take_away(server: &Server, token: &Token) {
    let mut raw = RawConnection::open(&server.local_addr().to_string()).await;
    assert_eq!(raw.request("r", "k", token.as_str()).await, "ok");
}

#[tokio::test]
async fn an_object_keeps_its_guard_and_releases_it_once() {
    let (server, client) = scene().await;
    let (mut first, mut second) = (object(&client), object(&client));
    assert_eq!((first.is_held(), first.token(), first.ttl()), (false, None, None));
    assert!(first.acquire().await.unwrap());
    assert!(first.is_held() && first.guard().is_some());
    assert_eq!(server.events()[0].token.as_ref(), first.token());
    assert_eq!(first.ttl().unwrap().as_secs(), 33);
    assert_eq!(first.lease().unwrap().key().as_str(), "k");
    assert!(!second.acquire().await.unwrap(), "it is held");
    assert!(!second.is_held());
    assert!(first.release().await.unwrap());
    assert_eq!((first.is_held(), first.token(), first.ttl()), (false, None, None));
    assert!(!first.release().await.unwrap(), "nothing was held");
    assert!(second.acquire().await.unwrap());
}

#[tokio::test]
async fn an_object_with_its_own_client_connects_at_first_use_and_only_to_the_server_of_its_key() {
    let servers = [server().await, server().await];
    let all = options(&[&servers[0], &servers[1]]).sharding_strategy(|key: &str, servers: usize| {
        assert_eq!((key, servers), ("k", 2));
        1
    });
    let mut lock = DistributedLock::with_options("k", all).unwrap();
    assert_eq!((servers[0].stats().connections, servers[1].stats().connections), (0, 0));
    for _ in 0..2 {
        assert!(lock.acquire().await.unwrap());
        assert_eq!((servers[0].stats().connections, servers[1].stats().connections), (0, 1));
        lock.close().await;
        until("its connection is closed", || servers[1].stats().connections == 0).await;
        assert!(servers[1].stats().locks.is_empty() && !lock.is_held());
    }
}

#[test]
fn objects_are_made_outside_of_any_runtime_and_invalid_settings_are_errors_at_once() {
    assert_eq!(DistributedLock::new("k").unwrap().key().as_str(), "k");
    assert!(!DistributedSemaphore::new("k", 3).unwrap().is_held());
    let refused = |result: Result<DistributedLock, Error>| kind(result) == Some(ErrorKind::InvalidInput);
    assert!(refused(DistributedLock::new("k k")));
    let with = |options| refused(DistributedLock::with_options("k", options));
    assert!(with(Client::builder().servers([""; 0])));
    assert!(with(Client::builder().renew_ratio(1.0)));
    assert!(with(Client::builder().lease_ttl(Duration::ZERO)));
    assert!(with(Client::builder().sharding_strategy(|_: &str, _: usize| 1)));
    assert_eq!(kind(DistributedSemaphore::new("k", 0)), Some(ErrorKind::InvalidInput));
}

#[tokio::test]
async fn a_server_that_is_not_there_or_refuses_the_secret_is_an_error_at_once() {
    let no_server = Client::builder().servers([format!("127.0.0.1:{}", free_port())]);
    let mut lock = DistributedLock::with_options("k", no_server.acquire_timeout(LONG)).unwrap();
    let started = Instant::now();
    assert_eq!(kind(lock.acquire().await), Some(ErrorKind::Connect));
    assert!(started.elapsed() < LONG / 2);

    let secret = Server::builder().port(0).auth_token("s3cret");
    let secret = secret.start().await.unwrap();
    let mut wrong = DistributedLock::with_options("k", options(&[&secret]).auth_token("wrong")).unwrap();
    assert_eq!(kind(wrong.acquire().await), Some(ErrorKind::Auth));
    let mut right = DistributedLock::with_options("k", options(&[&secret]).auth_token("s3cret")).unwrap();
    assert!(right.acquire().await.unwrap());
}

#[tokio::test]
async fn objects_with_equal_options_share_nothing_and_objects_of_one_client_its_connection() {
    let server = server().await;
    let mut own = Vec::new();
    for key in ["a", "b"] {
        let mut lock = DistributedLock::with_options(key, options(&[&server])).unwrap();
        assert!(lock.acquire().await.unwrap());
        own.push(lock);
    }
    assert_eq!(server.stats().connections, 2);
    own[0].close().await;
    assert!(own[1].is_held() && !own[0].is_held());
    drop(own);
    until("both are gone", || server.stats().connections == 0).await;

    let client = options(&[&server]).connect().await.unwrap();
    let (mut first, mut second) = (object(&client), DistributedLock::from(client.lock("other").unwrap()));
    assert!(first.acquire().await.unwrap() && second.acquire().await.unwrap());
    assert_eq!(server.stats().connections, 1);
    first.close().await;
    assert!(second.is_held() && client.health()[0].is_connected());
}

#[tokio::test]
async fn options_of_a_client_and_of_a_lock_apply_to_objects() {
    let server = server().await;
    let ttl = Duration::from_secs(7);
    let mut own = DistributedLock::with_options("k", options(&[&server]).lease_ttl(ttl)).unwrap();
    assert!(own.acquire().await.unwrap());
    assert_eq!(own.ttl().unwrap().as_duration(), ttl);
    let client = options(&[&server]).connect().await.unwrap();
    let patient = client.lock("k").unwrap().acquire_timeout(LONG).lease_ttl(ttl * 2);
    let mut patient = DistributedLock::from(patient);
    let waiting = tokio::spawn(async move {
        assert!(patient.acquire().await.unwrap());
        patient
    });
    until("the object waits", || waiters(&server) == 1).await;
    tokio::time::sleep(SHORT * 2).await;
    own.release().await.unwrap();
    assert_eq!(waiting.await.unwrap().ttl().unwrap().as_duration(), ttl * 2);
}

#[tokio::test]
async fn a_renew_ratio_of_one_lock_does_not_affect_others() {
    let (server, client) = scene().await;
    let lock = |key: &str| client.lock(key).unwrap().lease_ttl(Duration::from_secs(10));
    let _seldom = lock("seldom").acquire().await.unwrap();
    let mut often = DistributedLock::from(lock("often").renew_ratio(0.01));
    assert!(often.acquire().await.unwrap());
    until("it is renewed", || seen(&server, EventKind::Renewed) >= 5).await;
    assert!(
        server
            .events()
            .iter()
            .all(|event| event.kind != EventKind::Renewed || event.key.as_str() == "often")
    );
    let invalid = client.lock("k").unwrap().renew_ratio(0.0);
    assert_eq!(kind(invalid.acquire().await), Some(ErrorKind::InvalidInput));
}

#[tokio::test]
async fn an_object_that_holds_or_is_queued_refuses_to_acquire_and_keeps_its_state() {
    let (server, client) = scene().await;
    let (mut held, mut queued) = (object(&client), object(&client));
    assert_eq!(kind(queued.wait(SHORT).await), Some(ErrorKind::NotEnqueued));
    assert_eq!(held.enqueue().await.unwrap(), EnqueueStatus::Acquired);
    let token = *held.token().unwrap();
    assert_eq!(kind(held.acquire().await), Some(ErrorKind::Misuse));
    assert_eq!(kind(held.enqueue().await), Some(ErrorKind::Misuse));
    let nothing = held.with_lock(async |_: &LockGuard| Ok::<_, Error>(())).await;
    assert_eq!(kind(nothing), Some(ErrorKind::Misuse));
    assert!(held.wait(None).await.unwrap(), "it is held");
    assert_eq!(held.token(), Some(&token));

    assert_eq!(queued.enqueue().await.unwrap(), EnqueueStatus::Queued);
    assert_eq!(kind(queued.enqueue().await), Some(ErrorKind::AlreadyEnqueued));
    assert_eq!(kind(queued.acquire().await), Some(ErrorKind::Misuse));
    assert_eq!(waiters(&server), 1);
    assert!(!queued.release().await.unwrap(), "nothing was held");
    until("the object has left the queue", || waiters(&server) == 0).await;
}

#[tokio::test]
async fn a_queued_object_waits_once_for_the_given_time_or_for_the_acquire_timeout() {
    let (server, client) = scene().await;
    let (mut held, mut queued) = (object(&client), object(&client));
    assert!(held.acquire().await.unwrap());
    for patience in [None, Some(Duration::from_millis(250))] {
        assert_eq!(queued.enqueue().await.unwrap(), EnqueueStatus::Queued);
        let started = Instant::now();
        assert!(!queued.wait(patience).await.unwrap());
        assert!(started.elapsed() >= patience.unwrap_or(SHORT));
        assert_eq!(kind(queued.wait(SHORT).await), Some(ErrorKind::NotEnqueued));
        until("the object has left the queue", || waiters(&server) == 0).await;
    }
    queued.enqueue().await.unwrap();
    held.release().await.unwrap();
    assert!(queued.wait(LONG).await.unwrap());
    assert!(queued.is_held());
}

#[tokio::test]
async fn a_release_reports_a_lost_lease_once_and_the_next_acquire_succeeds() {
    let (_server, client) = scene().await;
    let ttl = Duration::from_secs(1);
    let lock = client.lock("k").unwrap().renew(false).lease_ttl(ttl);
    let mut lock = DistributedLock::from(lock.acquire_timeout(LONG));
    assert!(lock.acquire().await.unwrap());
    lock.guard().unwrap().lost().await;
    assert_eq!((lock.is_held(), lock.token(), lock.ttl()), (false, None, None));
    assert_eq!(kind(lock.wait(SHORT).await), Some(ErrorKind::LeaseLost));
    assert_eq!(kind(lock.release().await), Some(ErrorKind::LeaseLost));
    assert!(!lock.release().await.unwrap(), "the loss was reported already");
    assert!(lock.acquire().await.unwrap());
    lock.guard().unwrap().lost().await;
    assert!(lock.acquire().await.unwrap(), "no release is needed in between");
}

#[tokio::test]
async fn dropped_calls_and_dropped_objects_leave_nothing() {
    let (server, client) = scene().await;
    let mut held = object(&client);
    assert!(held.acquire().await.unwrap());
    let mut other = DistributedLock::from(client.lock("k").unwrap().acquire_timeout(LONG));
    tokio::select! {
        result = other.acquire() => panic!("{result:?}"),
        () = until("it waits", || waiters(&server) == 1) => {}
    }
    until("the wait is given up", || waiters(&server) == 0).await;
    other.enqueue().await.unwrap();
    assert!(tokio::time::timeout(SHORT, other.wait(LONG)).await.is_err());
    until("the object has left the queue", || waiters(&server) == 0).await;
    assert_eq!(kind(other.wait(SHORT).await), Some(ErrorKind::NotEnqueued));
    other.enqueue().await.unwrap();
    drop(other);
    until("the dropped object has left the queue", || waiters(&server) == 0).await;
    {
        let mut release = Box::pin(held.release());
        let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(release.as_mut().poll(cx).is_ready()));
        assert!(!polled.await);
    }
    assert!(!held.is_held());
    until("the lock is released all the same", || server.stats().locks.is_empty()).await;
    assert!(held.acquire().await.unwrap());
    std::thread::spawn(move || drop(held)).join().unwrap();
    until("the lock goes with its object", || server.stats().locks.is_empty()).await;
}

#[tokio::test]
async fn a_semaphore_object_holds_and_releases_slots() {
    let server = server().await;
    let mut slots = Vec::new();
    for _ in 0..2 {
        let mut slot = DistributedSemaphore::with_options("s", 2, options(&[&server])).unwrap();
        assert!(slot.acquire().await.unwrap());
        slots.push(slot);
    }
    let client = options(&[&server]).connect().await.unwrap();
    let mut third = DistributedSemaphore::from(client.semaphore("s", 2).unwrap());
    assert!(!third.acquire().await.unwrap());
    assert_eq!(third.enqueue().await.unwrap().to_string(), "queued");
    assert!(slots[0].release().await.unwrap());
    assert!(third.wait(LONG).await.unwrap());
    let mut other = DistributedSemaphore::from(client.semaphore("s", 3).unwrap());
    assert_eq!(kind(other.acquire().await), Some(ErrorKind::LimitMismatch));
    assert!(third.release().await.unwrap());
    let held = third.with_permit(async |permit| Ok::<_, Error>(permit.is_held())).await;
    assert!(held.unwrap());
    assert_eq!(server.stats().semaphores[0].holders, 1);
}

// Work while a lock is held.

/// An error type that a program defines for its own work.
#[derive(Debug)]
enum Trouble {
    Lock(Error),
    Work(&'static str),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Lock(error)
    }
}

async fn free(server: &Server) {
    until("it is free", || server.stats().locks.is_empty()).await;
}

#[tokio::test]
async fn with_lock_releases_the_lock_whatever_the_work_returns() {
    let (server, client) = scene().await;
    let lock = client.lock("k").unwrap();
    let done = lock
        .with_lock(async |guard| {
            assert!(guard.is_held() && server.stats().locks.len() == 1);
            Ok::<_, Trouble>(42)
        })
        .await;
    assert!(matches!(done, Ok(42)));
    assert!(
        server.stats().locks.is_empty(),
        "the lock was released before the call returned"
    );

    let failed = lock.with_lock(async |_| Err::<(), _>(Trouble::Work("no paper"))).await;
    assert!(matches!(failed, Err(Trouble::Work("no paper"))), "{failed:?}");
    assert!(server.stats().locks.is_empty());

    let panics = lock.clone();
    let panicked = tokio::spawn(async move {
        let work = async |_: &LockGuard| -> Result<(), Error> { panic!("on purpose") };
        panics.with_lock(work).await
    });
    assert!(panicked.await.unwrap_err().is_panic());
    free(&server).await;

    let never = lock.with_lock(async |_| {
        std::future::pending::<()>().await;
        Ok::<_, Error>(())
    });
    assert!(tokio::time::timeout(SHORT, never).await.is_err());
    free(&server).await;

    let _held = lock.acquire().await.unwrap();
    let late = lock
        .with_lock(async |_| -> Result<(), Error> { panic!("it is not held") })
        .await;
    assert_eq!(kind(late), Some(ErrorKind::Timeout));
}

/// Releases the lock by its token during the work, which then ends with `outcome`.
async fn lose_lock_during_work(server: &Server, lock: &Lock, outcome: Result<(), Trouble>) -> Result<(), Trouble> {
    lock.with_lock(async |guard| {
        take_away(server, guard.token()).await;
        outcome
    })
    .await
}

#[tokio::test]
async fn an_error_of_the_work_takes_precedence_over_that_of_the_release() {
    let (server, client) = scene().await;
    let lock = client.lock("k").unwrap();
    let error = lose_lock_during_work(&server, &lock, Err(Trouble::Work("no paper")))
        .await
        .unwrap_err();
    assert!(matches!(error, Trouble::Work("no paper")), "{error:?}");
    let error = lose_lock_during_work(&server, &lock, Ok(())).await.unwrap_err();
    assert!(
        matches!(&error, Trouble::Lock(error) if error.kind() == ErrorKind::NotHeld),
        "{error:?}"
    );
}

#[tokio::test]
async fn work_is_stopped_when_its_lease_is_lost() {
    struct Told(Arc<AtomicBool>);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let (server, client) = scene().await;
    let dropped = Arc::new(AtomicBool::new(false));
    let lock = client.lock("k").unwrap().lease_ttl(Duration::from_secs(2));
    let stopped = tokio::spawn({
        let told = Told(Arc::clone(&dropped));
        async move {
            lock.with_lock(async |_| {
                let _told = told;
                std::future::pending::<()>().await;
                Ok::<_, Error>(())
            })
            .await
        }
    });
    until("it is held", || seen(&server, EventKind::Granted) == 1).await;
    assert!(!dropped.load(Ordering::SeqCst));
    take_away(&server, server.events()[0].token.as_ref().unwrap()).await;
    let stopped = tokio::time::timeout(LONG, stopped)
        .await
        .expect("the loss stops the work");
    assert_eq!(kind(stopped.unwrap()), Some(ErrorKind::LeaseLost));
    assert!(dropped.load(Ordering::SeqCst));
}
