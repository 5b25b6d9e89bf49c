//! A lease has a fence only if the client knows that the server issues fences. With `Fencing::Required`, the client
//! returns an error for a server without fences.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::cluster::{soon, until_served_by};
use crate::support::fake::FakeServer;
use crate::support::process::free_port;
use crate::support::until;
use dflockd_client::server::{Cluster, Server, ServerBuilder};
use dflockd_client::{
    Client, ClientBuilder, DistributedLock, DistributedSemaphore, Election, Enqueued, Error, ErrorKind, Fence, Fencing,
    Lease, Shard,
};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(30);

/// Releases of the server whose tokens are random.
const WITHOUT: [&str; 5] = ["1.10", "1.13", "1.14", "1.16", "2.0"];
/// Releases of the server whose tokens begin with a fence.
const WITH: [&str; 2] = ["2.1", "cluster"];
/// The key of a semaphore whose slots the client acquires. From their tokens it learns whether the server issues
/// fences.
const PROBE: &str = "dflockd-client-fences";

fn imitating(release: &str) -> ServerBuilder {
    Server::builder().port(0).release(release)
}

fn of(address: impl Into<String>) -> ClientBuilder {
    Client::builder().servers([address]).reconnect(soon())
}

async fn serve(release: &str) -> (Server, ClientBuilder) {
    let server = imitating(release).start().await.unwrap();
    let builder = of(server.local_addr().to_string());
    (server, builder)
}

/// Asserts that the error names the server at the address `at` and says what to do.
fn assert_no_fences_error(error: &Error, at: &str) {
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{text}");
    assert!(error.is_fatal() && !error.is_retryable(), "{text}");
    for part in ["no fences", "2.1", "Required", at] {
        assert!(text.contains(part), "{text} without {part}");
    }
}

/// Waits until no lock and no slot is held on the server.
async fn until_free(server: &Server) {
    until("nothing is held", || {
        let stats = server.stats();
        stats.locks.is_empty() && stats.semaphores.is_empty()
    })
    .await;
}

fn fence_in_token(lease: &Lease) -> Option<Fence> {
    Some(Fence(lease.token().first_half()))
}

/// Acquires leases in each way, without and with a wait. Calls `look` for each lease.
async fn every_way(server: &Server, client: &Client, look: impl Fn(&Lease)) {
    let (lock, slots) = (client.lock("k").unwrap(), client.semaphore("s", 1).unwrap());
    let (guard, permit) = (lock.acquire().await.unwrap(), slots.acquire().await.unwrap());
    look(&guard);
    look(&permit);
    let waits = tokio::spawn({
        let (lock, slots) = (lock.clone(), slots.clone());
        async move { tokio::join!(lock.acquire(), slots.acquire()) }
    });
    until("both wait", || {
        let stats = server.stats();
        let locks: u64 = stats.locks.iter().map(|lock| lock.waiters).sum();
        let semaphores: u64 = stats.semaphores.iter().map(|semaphore| semaphore.waiters).sum();
        locks + semaphores == 2
    })
    .await;
    guard.release().await.unwrap();
    permit.release().await.unwrap();
    let (guard, permit) = waits.await.unwrap();
    let (guard, permit) = (guard.unwrap(), permit.unwrap());
    assert!(guard.was_contended() && permit.was_contended());
    look(&guard);
    look(&permit);
    let Enqueued::Queued(ticket) = lock.enqueue().await.unwrap() else {
        panic!("it is held");
    };
    guard.release().await.unwrap();
    permit.release().await.unwrap();
    let guard = ticket.wait(LONG).await.unwrap();
    look(&guard);
    guard.release().await.unwrap();
    let Enqueued::Acquired(guard) = lock.enqueue().await.unwrap() else {
        panic!("it is free");
    };
    look(&guard);
    guard.release().await.unwrap();
    let all = client.lock_all(["a", "b"]).unwrap().acquire().await.unwrap();
    all.guards().iter().for_each(|guard| look(guard));
    all.release().await.unwrap();
}

#[tokio::test]
async fn random_tokens_never_become_fences() {
    for release in WITHOUT {
        let (server, builder) = serve(release).await;
        let client = builder.clone().connect().await.unwrap();
        every_way(&server, &client, |lease| assert_eq!(lease.fence(), None, "{release}")).await;
        let lock = client.lock("k").unwrap();
        for _ in 0..300 {
            let guard = lock.acquire().await.unwrap();
            assert_eq!(guard.fence(), None, "{release}");
            let error = guard.require_fence().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            guard.release().await.unwrap();
        }
        let leader = Election::new(lock.clone()).campaign().await.unwrap();
        assert_eq!(leader.term(), None, "{release}");
        leader.resign().await.unwrap();
        let (mut lock, slots) = (DistributedLock::from(lock), client.semaphore("s", 1).unwrap());
        let mut slot = DistributedSemaphore::from(slots);
        assert!(lock.acquire().await.unwrap() && slot.acquire().await.unwrap());
        assert_eq!((lock.fence(), slot.fence()), (None, None), "{release}");
        drop((lock, slot));
        until_free(&server).await;
    }
}

#[tokio::test]
async fn counting_tokens_are_fences_from_the_second_grant_on() {
    for release in WITH {
        let (server, builder) = serve(release).await;
        let client = builder.clone().connect().await.unwrap();
        let lock = client.lock("k").unwrap();
        let first = lock.acquire().await.unwrap();
        assert_eq!(
            first.fence(),
            None,
            "{release}: one grant does not show that there are fences"
        );
        drop(first);
        every_way(&server, &client, |lease| {
            assert!(lease.fence().is_some(), "{release}");
            assert_eq!(lease.fence(), fence_in_token(lease), "{release}");
        })
        .await;
        let mut last = None;
        for _ in 0..20 {
            let guard = lock.acquire().await.unwrap();
            assert!(guard.fence() > last, "{release}");
            last = guard.fence();
            guard.release().await.unwrap();
        }
        let leader = Election::new(lock.clone()).campaign().await.unwrap();
        assert!(leader.term() > last, "{release}");
        leader.resign().await.unwrap();
        let mut lock = DistributedLock::from(lock);
        assert_eq!(lock.fence(), None, "the object holds nothing");
        assert!(lock.acquire().await.unwrap());
        assert!(lock.fence() > last && lock.fence() == lock.guard().unwrap().fence());
    }
}

#[tokio::test]
async fn members_of_a_cluster_issue_fences_from_the_first_grant_on() {
    let cluster = Cluster::builder().start().await.unwrap();
    for fencing in [Fencing::IfKnown, Fencing::Required] {
        let shard = Shard::cluster(cluster.addresses());
        let builder = Client::builder().shards([shard]).fencing(fencing).reconnect(soon());
        let client = builder.connect().await.unwrap();
        let lock = client.lock("k").unwrap();
        let mut last = None;
        for leader in [1, 2, 0] {
            let guard = lock.acquire().await.unwrap();
            assert!(guard.fence() > last && guard.fence() == fence_in_token(&guard));
            last = guard.fence();
            guard.release().await.unwrap();
            cluster.move_leader(leader).unwrap();
        }
    }
    let stats = cluster.stats();
    assert!(stats.idle_semaphores.is_empty(), "no probe was sent: {stats:?}");
}

#[tokio::test]
async fn without_required_fences_no_probe_is_sent() {
    for release in ["1.16", "2.1"] {
        let (server, builder) = serve(release).await;
        for fencing in [Fencing::Off, Fencing::IfKnown] {
            let client = builder.clone().fencing(fencing).connect().await.unwrap();
            for _ in 0..3 {
                let guard = client.lock("k").unwrap().acquire().await.unwrap();
                if fencing == Fencing::Off {
                    assert_eq!(guard.fence(), None);
                }
                guard.release().await.unwrap();
            }
            assert!(server.stats().idle_semaphores.is_empty());
        }
    }
}

#[tokio::test]
async fn required_fences_are_on_every_lease_and_cost_one_key() {
    for release in WITH {
        let (server, builder) = serve(release).await;
        let connect = || builder.clone().fencing(Fencing::Required).connect();
        let clients = [connect().await.unwrap(), connect().await.unwrap()];
        for client in &clients {
            every_way(&server, client, |lease| {
                assert_eq!(lease.require_fence().ok(), fence_in_token(lease), "{release}");
            })
            .await;
        }
        until_free(&server).await;
        let stats = server.stats();
        let keys: Vec<&str> = stats.idle_semaphores.iter().map(|idle| idle.key.as_str()).collect();
        assert_eq!(keys, [PROBE]);
    }
}

#[tokio::test]
async fn required_fences_refuse_a_server_without_them_before_any_acquire() {
    for release in WITHOUT {
        let (server, builder) = serve(release).await;
        let at = server.local_addr().to_string();
        let builder = builder.fencing(Fencing::Required).acquire_timeout(LONG * 10);
        let error = timeout(LONG, builder.clone().connect()).await.unwrap().unwrap_err();
        assert_no_fences_error(&error, &at);
        let client = builder.clone().build().unwrap();
        let (lock, slots) = (client.lock("k").unwrap(), client.semaphore("s", 2).unwrap());
        assert_no_fences_error(&timeout(LONG, lock.acquire()).await.unwrap().unwrap_err(), &at);
        assert_no_fences_error(&slots.try_acquire().await.unwrap_err(), &at);
        assert_no_fences_error(&lock.enqueue().await.unwrap_err(), &at);
        assert_no_fences_error(&client.lock_all(["a", "b"]).unwrap().acquire().await.unwrap_err(), &at);
        let election = Election::new(lock);
        assert_no_fences_error(&timeout(LONG, election.campaign()).await.unwrap().unwrap_err(), &at);
        let mut own = DistributedLock::with_options("k", builder).unwrap();
        assert_no_fences_error(&own.acquire().await.unwrap_err(), &at);
        drop(client);
        until_free(&server).await;
        assert!(server.stats().idle_locks.is_empty());
    }
}

#[cfg(feature = "blocking")]
#[test]
fn threads_get_the_same_fences() {
    use dflockd_client::blocking;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for release in ["1.16", "2.1"] {
        let (server, builder) = runtime.block_on(serve(release));
        let makes_them = release == "2.1";
        let client = builder.clone().connect_blocking().unwrap();
        let lock = client.lock("k").unwrap();
        lock.acquire().unwrap().release().unwrap();
        let guard = lock.acquire().unwrap();
        assert_eq!(guard.fence(), fence_in_token(&guard).filter(|_| makes_them));
        guard.release().unwrap();
        let leader = blocking::Election::new(lock.clone()).try_campaign().unwrap().unwrap();
        assert_eq!(leader.term().is_some(), makes_them);
        leader.resign().unwrap();
        let mut object = blocking::DistributedLock::from(lock);
        assert!(object.acquire().unwrap());
        assert_eq!(object.fence().is_some(), makes_them);
        drop(object);
        match builder.fencing(Fencing::Required).connect_blocking() {
            Ok(client) => {
                assert!(makes_them);
                let all = client.lock_all(["a", "b"]).unwrap().acquire().unwrap();
                assert!(all.fences().all(|fence| fence.is_some()));
            }
            Err(error) => {
                assert!(!makes_them, "{error}");
                assert_no_fences_error(&error, &server.local_addr().to_string());
            }
        }
    }
}

/// Replaces a server by one of another release, at the same address.
async fn replace(server: Server, release: &str) -> Server {
    let port = server.local_addr().port();
    server.kill().await;
    imitating(release).port(port).start().await.unwrap()
}

#[tokio::test]
async fn a_server_of_another_release_at_the_same_address_is_probed_again() {
    let start = async |release| imitating(release).port(free_port()).start().await.unwrap();
    // A release with fences is replaced by a release without fences.
    let server = start("2.1").await;
    let at = server.local_addr().to_string();
    let if_known = of(&at).connect().await.unwrap();
    let required = of(&at).fencing(Fencing::Required).connect().await.unwrap();
    for client in [&if_known, &required] {
        for _ in 0..3 {
            client
                .lock("k")
                .unwrap()
                .acquire()
                .await
                .unwrap()
                .release()
                .await
                .unwrap();
        }
    }
    let server = replace(server, "1.16").await;
    until("the loss is noticed", || {
        required.health()[0].last_error().is_some_and(Error::is_fatal)
    })
    .await;
    assert_no_fences_error(&required.lock("k").unwrap().acquire().await.unwrap_err(), &at);
    until("it is connected", || if_known.health()[0].is_connected()).await;
    for _ in 0..20 {
        let guard = if_known.lock("k").unwrap().acquire().await.unwrap();
        assert_eq!(guard.fence(), None);
        guard.release().await.unwrap();
    }
    // The release without fences is replaced by a release with fences.
    let _server = replace(server, "2.1").await;
    for client in [&if_known, &required] {
        until("it is connected", || client.health()[0].is_connected()).await;
        let lock = client.lock("k").unwrap();
        lock.acquire().await.unwrap().release().await.unwrap();
        let guard = lock.acquire().await.unwrap();
        assert_eq!(guard.fence(), fence_in_token(&guard));
        guard.release().await.unwrap();
    }
}

#[tokio::test]
async fn a_standby_may_be_of_another_release() {
    for fencing in [Fencing::IfKnown, Fencing::Required] {
        let (primary, reserve) = (
            imitating("2.1").start().await.unwrap(),
            imitating("1.16").start().await.unwrap(),
        );
        let addresses = [&primary, &reserve].map(|server| server.local_addr().to_string());
        let shard = Shard::standby(addresses.clone()).takeover_delay(Duration::ZERO);
        let builder = Client::builder().shards([shard]).fencing(fencing).reconnect(soon());
        let client = builder.connect().await.unwrap();
        let lock = client.lock("k").unwrap();
        lock.acquire().await.unwrap().release().await.unwrap();
        assert!(lock.acquire().await.unwrap().fence().is_some());
        primary.kill().await;
        if fencing == Fencing::IfKnown {
            until_served_by(&client, &addresses[1]).await;
            for _ in 0..20 {
                assert_eq!(lock.acquire().await.unwrap().fence(), None);
            }
            continue;
        }
        // The primary is down, and the standby issues no fences. The client reports the error of the standby.
        let mut health = client.watch_health(0).unwrap();
        let refused = health.wait_for(|health| health.last_error().is_some_and(Error::is_fatal));
        assert_no_fences_error(
            timeout(LONG, refused).await.unwrap().unwrap().last_error().unwrap(),
            &addresses[1],
        );
        assert!(reserve.stats().idle_locks.is_empty() && reserve.stats().locks.is_empty());
    }
}

#[tokio::test]
async fn a_full_server_cannot_be_probed_until_it_has_room() {
    let soon_forgotten = Duration::from_millis(20);
    let server = imitating("2.1")
        .max_locks(1)
        .gc_interval(soon_forgotten)
        .gc_max_idle(soon_forgotten)
        .start()
        .await
        .unwrap();
    let at = server.local_addr().to_string();
    let other = of(&at).connect().await.unwrap();
    let held = other.lock("k").unwrap().acquire().await.unwrap();
    let required = of(&at).fencing(Fencing::Required);
    let error = required.clone().connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
    assert!(error.is_retryable() && !error.is_fatal(), "{error}");
    for part in ["fences", "--max-locks", &at] {
        assert!(error.to_string().contains(part), "{error}");
    }
    let client = required.build().unwrap();
    until("an attempt has failed", || client.health()[0].last_error().is_some()).await;
    held.release().await.unwrap();
    until("it is connected", || client.health()[0].is_connected()).await;
    until("there is room", || server.stats().idle_semaphores.is_empty()).await;
    assert!(client.lock("k").unwrap().acquire().await.unwrap().fence().is_some());
}

/// A server whose grants have tokens from a function of the test. It records the released tokens.
struct Tokens {
    server: FakeServer,
    released: Arc<Mutex<Vec<String>>>,
}

impl Tokens {
    /// `grant` gets the number of a grant and returns the server's answer without its first word, which is `ok` or
    /// `acquired`. The numbers start at 0 and count the grants of all connections together.
    async fn start(grant: impl Fn(u64) -> String + Send + Sync + Clone + 'static) -> Self {
        let released = Arc::new(Mutex::new(Vec::new()));
        let counted = Arc::new(AtomicU64::new(0));
        let server = FakeServer::start({
            let released = Arc::clone(&released);
            move |mut connection, _| {
                let (grant, released, counted) = (grant.clone(), Arc::clone(&released), Arc::clone(&counted));
                async move {
                    while let Some([command, _, argument]) = connection.request().await {
                        let answer = match command.as_str() {
                            "l" | "sl" | "w" | "e" => {
                                let number = counted.fetch_add(1, Ordering::SeqCst);
                                let word = if command == "e" { "acquired" } else { "ok" };
                                format!("{word} {}", grant(number))
                            }
                            "r" | "sr" => {
                                released.lock().unwrap().push(argument);
                                "ok".to_owned()
                            }
                            "n" | "sn" => "ok 30".to_owned(),
                            _ => "ok".to_owned(),
                        };
                        connection.say(&format!("{answer}\n")).await;
                    }
                }
            }
        })
        .await;
        Self { server, released }
    }

    fn builder(&self, fencing: Fencing) -> ClientBuilder {
        of(&self.server.address).fencing(fencing)
    }

    async fn until_released(&self, token: &str) {
        until("the token is released", || {
            self.released.lock().unwrap().iter().any(|released| released == token)
        })
        .await;
    }
}

/// Returns a token that looks random and is the same in every run.
fn random(number: u64) -> String {
    let half = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{half:016x}{half:016x}")
}

/// Some builds of the server between the releases 1.10 and 2.0 add a fence to the answer, after the token and the TTL.
#[tokio::test]
async fn a_fence_in_the_answer_counts_from_the_first_grant_on() {
    let named = Tokens::start(|number| format!("{} 30 {}", random(number), 1000 + number)).await;
    for (fencing, are_shown) in [
        (Fencing::IfKnown, true),
        (Fencing::Required, true),
        (Fencing::Off, false),
    ] {
        let client = named.builder(fencing).connect().await.unwrap();
        let mut last = Some(Fence(999));
        for _ in 0..5 {
            let guard = client.lock("k").unwrap().acquire().await.unwrap();
            match are_shown {
                true => assert!(guard.fence() > last, "{:?}", guard.fence()),
                false => assert_eq!(guard.fence(), None),
            }
            last = guard.fence();
            guard.release().await.unwrap();
        }
    }
}

/// The first two tokens of the fake server have fences, so the client's probe finds fences. All later tokens are
/// random, as if a server without fences had taken its place.
#[tokio::test]
async fn with_required_fences_a_grant_out_of_sequence_is_released() {
    let counted = |number: u64| format!("{:016x}{:016x} 30", 70 + number, number);
    let odd = move |number: u64| match number {
        0..=1 => counted(number),
        other => format!("{} 30", random(other)),
    };
    for way in ["try", "wait", "enqueue", "semaphore"] {
        let tokens = Tokens::start(odd).await;
        let client = tokens.builder(Fencing::Required).connect().await.unwrap();
        let (lock, slots) = (client.lock("k").unwrap(), client.semaphore("k", 2).unwrap());
        let error = match way {
            "try" => lock.try_acquire().await.map(drop),
            "wait" => lock.acquire().await.map(drop),
            "enqueue" => lock.enqueue().await.map(drop),
            _ => slots.acquire().await.map(drop),
        }
        .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Disconnected, "{way}: {error}");
        assert!(
            error.is_retryable() && error.to_string().contains("fencing is Required"),
            "{way}: {error}"
        );
        tokens.until_released(&random(2)).await;
        // The next probe finds that the server issues no fences, and the error says so.
        let error = lock.acquire().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{way}: {error}");
        assert!(error.is_fatal(), "{way}: {error}");
        until("all tokens are released", || tokens.released.lock().unwrap().len() >= 4).await;
    }
}

/// The oldest servers know no semaphores, and some of them close the connection at an unknown command.
#[tokio::test]
async fn servers_without_semaphores_issue_no_fences() {
    for hangs_up in [false, true] {
        let old = FakeServer::start(move |mut connection, _| async move {
            while let Some([command, ..]) = connection.request().await {
                if matches!(command.as_str(), "sl" | "ping") {
                    connection.say("error\n").await;
                    if hangs_up {
                        return;
                    }
                } else {
                    connection.say("error\n").await;
                }
            }
        })
        .await;
        let connect = of(&old.address).fencing(Fencing::Required).connect();
        assert_no_fences_error(&timeout(LONG, connect).await.unwrap().unwrap_err(), &old.address);
    }
}
