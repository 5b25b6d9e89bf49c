//! Errors distinguish a server that does not answer from a server that answers that a key is held.

use std::fmt::Debug;
use std::time::Duration;

use dflockd_client::server::Server;
use dflockd_client::{
    Budget, Client, ClientBuilder, DistributedLock, DistributedSemaphore, Election, Enqueued, Error, ErrorKind,
    blocking,
};

use crate::support::fake::FakeServer;
use crate::support::proxy::Proxy;
use crate::support::until;

/// The timeout of the callers in these tests.
const WAIT: Duration = Duration::from_millis(300);

/// An embedded server behind a proxy. After `stop`, the proxy still accepts connections, but no request is answered.
struct Scene {
    server: Server,
    proxy: Proxy,
}

impl Scene {
    async fn set() -> Self {
        let server = Server::builder().port(0).start().await.unwrap();
        let proxy = Proxy::start(&server.local_addr().to_string()).await;
        Self { server, proxy }
    }

    fn builder(&self) -> ClientBuilder {
        builder(&[&self.proxy.address])
    }

    /// A client with a direct connection to the server.
    async fn direct_client(&self) -> Client {
        builder(&[&self.server.local_addr().to_string()])
            .connect()
            .await
            .unwrap()
    }

    fn stop(&self) {
        self.proxy.change(|treatment| {
            treatment.stall_up = true;
            treatment.stall_down = true;
        });
    }
}

fn builder(servers: &[&str]) -> ClientBuilder {
    Client::builder()
        .servers(servers.iter().copied())
        .acquire_timeout(WAIT)
        .request_timeout(WAIT)
}

/// Asserts that the error does not say that the key is held, because no server answered.
fn assert_unanswered<T: Debug>(outcome: Result<T, Error>, part: &str) {
    assert_unanswered_with_one_of(outcome, &[part]);
}

/// Asserts the same for an `enqueue`. It needs a new connection, so its error may also say that it got no place in the
/// queue.
fn assert_unanswered_enqueue<T: Debug>(outcome: Result<T, Error>, part: &str) {
    assert_unanswered_with_one_of(outcome, &[part, "got no place in its queue"]);
}

fn assert_unanswered_with_one_of<T: Debug>(outcome: Result<T, Error>, parts: &[&str]) {
    let error = outcome.expect_err("no server answered");
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(parts.iter().any(|part| text.contains(part)), "{text}");
    assert!(!text.contains("hold") && !text.contains("held"), "{text}");
    assert!(error.budget().is_some(), "a timeout ended the call: {error:?}");
    assert!(!matches!(error.budget(), Some(Budget::Wait(_))), "{error:?}");
    assert!(error.is_retryable() && !error.is_timeout(), "{error:?}");
}

/// Asserts that the error says that the key is held.
fn a_lease_is_held<T: Debug>(outcome: Result<T, Error>, part: &str) {
    let error = outcome.expect_err("it is held");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    assert!(error.to_string().contains(part), "{error}");
    assert!(matches!(error.budget(), Some(Budget::Wait(_))), "{error:?}");
    assert!(error.is_retryable() && error.is_timeout(), "{error:?}");
}

/// Acquires in every way with a client whose server does not answer.
async fn ask_in_every_way(client: &Client, part: &str) {
    let (lock, slot) = (client.lock("l").unwrap(), client.semaphore("s", 2).unwrap());
    let mut lock_object = DistributedLock::from(client.lock("lo").unwrap());
    let mut slot_object = DistributedSemaphore::from(client.semaphore("so", 2).unwrap());
    let both = client.lock_all(["m1", "m2"]).unwrap();
    let election = Election::new(client.lock("e").unwrap());
    // Two callers request the same key at once. The unanswered request of the first caller says nothing about the key,
    // so the second caller gets the same error.
    let again = client.lock("l").unwrap();
    let no_time = client.lock("z").unwrap().acquire_timeout(Duration::ZERO);
    tokio::join!(
        async { assert_unanswered(lock.acquire().await, part) },
        async { assert_unanswered(again.acquire().await, part) },
        async { assert_unanswered(no_time.acquire().await, part) },
        async { assert_unanswered(lock.try_acquire().await, part) },
        async { assert_unanswered_enqueue(lock.enqueue().await, part) },
        async { assert_unanswered(slot.acquire().await, part) },
        async { assert_unanswered(slot.try_acquire().await, part) },
        async { assert_unanswered_enqueue(slot.enqueue().await, part) },
        async { assert_unanswered(lock_object.acquire().await, part) },
        async { assert_unanswered(slot_object.acquire().await, part) },
        async { assert_unanswered(both.acquire().await, part) },
        async { assert_unanswered(both.try_acquire().await, part) },
        async { assert_unanswered(election.try_campaign().await, part) },
    );
    assert_unanswered_enqueue(lock_object.enqueue().await, part);
    assert_unanswered(lock.with_lock(async |_| Ok::<_, Error>(())).await, part);
    assert_unanswered(slot.with_permit(async |_| Ok::<_, Error>(())).await, part);
}

#[tokio::test]
async fn errors_of_a_stopped_server_do_not_say_that_a_key_is_held() {
    let scene = Scene::set().await;
    let client = scene.builder().connect().await.unwrap();
    scene.stop();
    ask_in_every_way(&client, "the server did not answer").await;
}

#[tokio::test]
async fn a_server_that_accepts_and_never_answers_is_not_connected() {
    let server = FakeServer::start(|connection, _| connection.until_hung_up()).await;
    let client = builder(&[&server.address]).build().unwrap();
    ask_in_every_way(&client, "shard 0 is not connected").await;
}

#[test]
fn threads_get_the_same_errors() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let scene = runtime.block_on(Scene::set());
    let client = scene.builder().connect_blocking().unwrap();
    let holder = runtime.block_on(scene.direct_client());
    let guard = runtime.block_on(async { holder.lock("h").unwrap().acquire().await.unwrap() });
    a_lease_is_held(client.lock("h").unwrap().acquire(), "another holder has it");
    assert!(
        !blocking::DistributedLock::from(client.lock("h").unwrap())
            .acquire()
            .unwrap()
    );
    scene.stop();
    let part = "the server did not answer";
    let lock = client.lock("l").unwrap();
    let slot = client.semaphore("s", 2).unwrap();
    assert_unanswered(lock.acquire(), part);
    assert_unanswered(slot.acquire(), part);
    assert_unanswered(lock.try_acquire(), part);
    assert_unanswered_enqueue(lock.enqueue(), part);
    assert_unanswered(client.lock_all(["a", "b"]).unwrap().acquire(), part);
    assert_unanswered(blocking::DistributedLock::from(lock).acquire(), part);
    assert_unanswered(blocking::DistributedSemaphore::from(slot).acquire(), part);
    drop(guard);
}

/// A wait at the server lasts a whole number of seconds. So the client's clock ends the wait of 300 ms, and either side
/// may end the wait of 1 s.
#[tokio::test]
async fn errors_say_that_a_key_is_held() {
    let scene = Scene::set().await;
    let (holder, client) = (scene.direct_client().await, scene.builder().connect().await.unwrap());
    let _lock = holder.lock("l").unwrap().acquire().await.unwrap();
    let _slot = holder.semaphore("s", 1).unwrap().acquire().await.unwrap();
    for wait in [WAIT, Duration::from_secs(1)] {
        let lock = client.lock("l").unwrap().acquire_timeout(wait);
        let slot = client.semaphore("s", 1).unwrap().acquire_timeout(wait);
        let both = client.lock_all(["k", "l"]).unwrap().acquire_timeout(wait);
        let mut object = DistributedLock::from(lock.clone());
        let mut slot_object = DistributedSemaphore::from(slot.clone());
        tokio::join!(
            async { a_lease_is_held(lock.acquire().await, "another holder has it") },
            async { a_lease_is_held(slot.acquire().await, "all slots are taken") },
            async { a_lease_is_held(both.acquire().await, "\"l\" was not granted") },
            async { assert!(!object.acquire().await.unwrap()) },
            async { assert!(!slot_object.acquire().await.unwrap()) },
        );
        let Enqueued::Queued(ticket) = lock.enqueue().await.unwrap() else {
            panic!("it is held");
        };
        a_lease_is_held(ticket.wait(wait).await, "the turn of \"l\" did not come");
        assert!(lock.try_acquire().await.unwrap().is_none());
    }
}

/// A shard that does not answer says nothing about the keys of another shard.
#[tokio::test]
async fn the_error_is_about_the_shard_of_its_key() {
    let (silent, talks) = (Scene::set().await, Scene::set().await);
    let holder = talks.direct_client().await;
    let servers = [silent.proxy.address.as_str(), talks.proxy.address.as_str()];
    let client = builder(&servers).connect().await.unwrap();
    // An acquire of both keys begins with the key that sorts first. This is the key on the silent shard.
    let of_shard = |shard, prefix| {
        let name = |number: u32| format!("{prefix}{number}");
        let is_there = |key: &String| dflockd_client::stable_hash_shard(key, 2) == shard;
        (0..).map(name).find(is_there).unwrap()
    };
    let (away, held) = (of_shard(0, "a"), of_shard(1, "b"));
    let _guard = holder.lock(&held).unwrap().acquire().await.unwrap();
    silent.stop();
    tokio::join!(
        async { assert_unanswered(client.lock(&away).unwrap().acquire().await, "the server did not answer") },
        async { a_lease_is_held(client.lock(&held).unwrap().acquire().await, "another holder has it") },
        async {
            let both = client.lock_all([&away, &held]).unwrap();
            assert_unanswered(both.acquire().await, "the server did not answer");
        },
    );
}

/// The server's answer to one caller also counts for other callers, but only for a short time.
#[tokio::test]
async fn an_answer_to_one_caller_is_not_repeated_to_another_after_the_server_has_stopped() {
    let scene = Scene::set().await;
    let (holder, client) = (scene.direct_client().await, scene.builder().connect().await.unwrap());
    let _guard = holder.lock("k").unwrap().acquire().await.unwrap();
    let first = client.lock("k").unwrap().acquire_timeout(Duration::from_secs(2));
    let first = tokio::spawn(async move { first.acquire().await });
    until("it waits", || scene.server.stats().locks[0].waiters == 1).await;
    scene.stop();
    // The client passes a server's answer on to other callers for less than this time.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_unanswered(client.lock("k").unwrap().acquire().await, "the server did not answer");
    a_lease_is_held(first.await.unwrap(), "another holder has it");
}

/// If too many requests are in flight, a caller gets an error about this limit, not about the key.
#[tokio::test]
async fn a_caller_without_room_gets_an_error_about_it() {
    let scene = Scene::set().await;
    let client = scene.builder().max_in_flight(1).connect().await.unwrap();
    scene.stop();
    // The first request has no answer yet, so it still occupies the only place in flight.
    assert_unanswered(client.lock("a").unwrap().acquire().await, "the server did not answer");
    assert_unanswered(client.lock("b").unwrap().acquire().await, "no room");
    assert_unanswered(client.lock("b").unwrap().try_acquire().await, "no room");
}
