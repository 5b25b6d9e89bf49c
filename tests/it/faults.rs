//! Leases and callers when the network fails. A proxy between the client and the embedded server causes the faults. The
//! server runs in the process of the test and records its events by the same clock.

use std::sync::Arc;
use std::time::Duration;

use crate::support::fake::{FakeConnection, FakeServer};
use crate::support::proxy::Proxy;
use crate::support::until;
use dflockd_client::server::{Event, EventKind, Server, ServerBuilder};
use dflockd_client::{Client, ClientBuilder, ErrorKind, LeaseState, LostReason, OnUnavailable, ReconnectPolicy};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

struct Scene {
    server: Server,
    proxy: Proxy,
}

impl Scene {
    async fn set(builder: ServerBuilder) -> Self {
        let server = builder.port(0).record_events(true).start().await.unwrap();
        let proxy = Proxy::start(&server.local_addr().to_string()).await;
        Self { server, proxy }
    }

    fn builder(&self) -> ClientBuilder {
        Client::builder()
            .servers([&self.proxy.address])
            .reconnect(ReconnectPolicy::exponential(
                Duration::from_millis(5),
                Duration::from_millis(50),
            ))
    }

    async fn client(&self) -> Client {
        self.builder().connect().await.unwrap()
    }

    /// Connects a client to the server without the proxy.
    async fn direct_client(&self) -> Client {
        let servers = [self.server.local_addr().to_string()];
        Client::builder().servers(servers).connect().await.unwrap()
    }

    fn events(&self, kind: EventKind, key: &str) -> Vec<Event> {
        let all = self.server.events().into_iter();
        all.filter(|event| event.kind == kind && event.key.as_str() == key)
            .collect()
    }

    async fn until_free(&self) {
        until("no caller holds or waits", || {
            let stats = self.server.stats();
            stats.locks.is_empty() && stats.semaphores.is_empty()
        })
        .await;
    }
}

/// Each round cuts the connection at another byte of the request or of the answer, by a close or by a reset.
#[tokio::test(flavor = "multi_thread")]
async fn an_acquire_that_is_cut_anywhere_takes_one_grant_at_most_and_leaks_none() {
    let ping = "ping\n_\n_\n".len();
    let request = "l\nk00\n0 30\n".len();
    let answer = "ok 0123456789abcdef0123456789abcdef 30\n".len();
    let mut faults = 0;
    for reset in [false, true] {
        for up in [true, false] {
            let (first, last) = if up { (ping, ping + request) } else { (3, 3 + answer) };
            for cut in first..=last {
                let scene = Scene::set(Server::builder()).await;
                let client = scene.builder().lease_ttl(Duration::from_secs(30)).build().unwrap();
                scene.proxy.change(|treatment| {
                    treatment.reset = reset;
                    match up {
                        true => treatment.cut_up_after = Some(cut),
                        false => treatment.cut_down_after = Some(cut),
                    }
                });
                let lock = client.lock("k00").unwrap().acquire_timeout(Duration::from_millis(300));
                let outcome = lock.acquire().await;
                faults += 1;
                let granted = scene.events(EventKind::Granted, "k00").len();
                assert!(granted <= 1, "cut at {cut}, up {up}, reset {reset}: {granted} grants");
                if let Err(error) = &outcome {
                    assert!(error.is_retryable(), "cut at {cut}, up {up}, reset {reset}: {error:?}");
                }
                drop(outcome);
                scene.proxy.pass_everything();
                scene.until_free().await;
                let guard = client.lock("k00").unwrap().acquire().await.unwrap();
                guard.release().await.unwrap();
            }
        }
    }
    assert!(faults > 90, "{faults}");
    println!("cut {faults} times");
}

#[tokio::test]
async fn a_holder_behind_a_black_hole_learns_of_its_loss_before_the_next_grant() {
    let scene = Scene::set(Server::builder().lease_sweep_interval(Duration::from_millis(5))).await;
    let client = scene.client().await;
    let lock = client.lock("k").unwrap().lease_ttl(Duration::from_secs(2));
    let guard = lock.acquire().await.unwrap();
    let other = scene.direct_client().await;
    let next = tokio::spawn(async move { other.lock("k").unwrap().acquire().await.unwrap() });
    until("a renewal has worked", || {
        !scene.events(EventKind::Renewed, "k").is_empty()
    })
    .await;
    scene.proxy.change(|treatment| {
        treatment.stall_up = true;
        treatment.stall_down = true;
    });
    let deadline = Instant::now() + guard.remaining();
    assert_eq!(guard.lost().await, LostReason::Expired);
    let told = Instant::now();
    println!("told {:?} after the deadline", told.saturating_duration_since(deadline));
    assert!(!guard.is_held() && guard.remaining().is_zero());
    let next = next.await.unwrap();
    let granted = scene.events(EventKind::Granted, "k").last().unwrap().clone();
    assert_eq!(granted.token.as_ref(), Some(next.token()));
    println!(
        "and {:?} before the server granted it anew",
        granted.at.saturating_duration_since(told)
    );
    assert!(told < granted.at, "told {:?} too late", told - granted.at);
}

#[tokio::test]
async fn a_cut_connection_loses_its_leases_at_once_and_the_next_acquire_uses_a_new_one() {
    let scene = Scene::set(Server::builder()).await;
    let client = scene.client().await;
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    scene.proxy.cut();
    assert_eq!(guard.lost().await, LostReason::Disconnected);
    let again = client.lock("k").unwrap().acquire().await.unwrap();
    assert!(again.is_held() && again.token().first_half() > guard.token().first_half());
    let error = guard.release().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LeaseLost, "{error}");
    assert!(again.is_held(), "the new lease survives the release of the lost one");
    assert_eq!(scene.proxy.accepted(), 2);
}

#[tokio::test]
async fn leases_that_survive_a_disconnect_are_suspect_then_renewed_and_held() {
    let scene = Scene::set(Server::builder().auto_release_on_disconnect(false)).await;
    let client = scene.builder().survives_disconnect(true).connect().await.unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    let lost = guard.lost();
    scene.proxy.change(|treatment| treatment.refuse = true);
    scene.proxy.cut();
    until("the lease is suspect", || guard.state() == LeaseState::Suspect).await;
    assert!(guard.is_held(), "the deadline of the lease has not come");
    scene.proxy.pass_everything();
    until("the lease is held again", || guard.state() == LeaseState::Held).await;
    assert_eq!(scene.events(EventKind::Renewed, "k").len(), 1);
    assert_eq!(scene.events(EventKind::Granted, "k").len(), 1);
    tokio::select! {
        biased;
        reason = lost => panic!("{reason}"),
        () = std::future::ready(()) => {}
    }
    guard.release().await.unwrap();
    scene.until_free().await;
}

#[tokio::test]
async fn leases_that_a_restarted_server_does_not_know_are_rejected() {
    let scene = Scene::set(Server::builder().auto_release_on_disconnect(false)).await;
    let client = scene.builder().survives_disconnect(true).connect().await.unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    scene.proxy.change(|treatment| treatment.refuse = true);
    scene.proxy.cut();
    until("the lease is suspect", || guard.state() == LeaseState::Suspect).await;
    // Another connection releases the lease by its token, so that the server no longer knows it.
    let token = *guard.token();
    let mut wire = dflockd_client::protocol::functions::Wire::new(
        tokio::net::TcpStream::connect(scene.server.local_addr()).await.unwrap(),
    );
    dflockd_client::protocol::functions::release(&mut wire, guard.key(), &token)
        .await
        .unwrap();
    scene.proxy.pass_everything();
    assert_eq!(guard.lost().await, LostReason::Rejected);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_and_its_callers_get_the_reason() {
    let scene = Scene::set(Server::builder()).await;
    let client = scene
        .builder()
        .reply_timeout(Duration::from_millis(200))
        .connect()
        .await
        .unwrap();
    scene.proxy.change(|treatment| treatment.stall_down = true);
    let error = client.lock("k").unwrap().acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected, "{error}");
    scene.proxy.pass_everything();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    guard.release().await.unwrap();
    scene.until_free().await;
}

#[tokio::test]
async fn a_connection_that_passes_single_bytes_works() {
    let scene = Scene::set(Server::builder()).await;
    scene.proxy.change(|treatment| treatment.trickle = true);
    let client = scene.client().await;
    let mut running = tokio::task::JoinSet::new();
    for number in 0..20 {
        let lock = client.lock(format!("k{number}")).unwrap();
        running.spawn(async move {
            for _ in 0..5 {
                let guard = lock.acquire().await.unwrap();
                assert_eq!(guard.key(), lock.key());
                guard.release().await.unwrap();
            }
        });
    }
    running.join_all().await;
    scene.until_free().await;
}

#[tokio::test]
async fn a_grant_that_was_delayed_for_half_its_ttl_is_confirmed_first() {
    let scene = Scene::set(Server::builder()).await;
    let client = scene.client().await;
    let lock = client.lock("k").unwrap().lease_ttl(Duration::from_secs(4));
    scene.proxy.change(|treatment| treatment.stall_down = true);
    let acquiring = tokio::spawn(async move { lock.acquire().await.unwrap() });
    sleep(Duration::from_millis(2200)).await;
    scene.proxy.pass_everything();
    let guard = acquiring.await.unwrap();
    assert!(guard.is_held());
    assert!(
        !scene.events(EventKind::Renewed, "k").is_empty(),
        "the guard was returned before a renewal confirmed the lease"
    );
}

#[tokio::test]
async fn a_grant_that_was_delayed_beyond_its_ttl_is_discarded() {
    let scene = Scene::set(Server::builder()).await;
    let client = scene.client().await;
    let lock = client.lock("k").unwrap().lease_ttl(Duration::from_secs(1));
    scene.proxy.change(|treatment| treatment.stall_down = true);
    let acquiring = tokio::spawn(async move { lock.acquire().await });
    sleep(Duration::from_millis(1300)).await;
    scene.proxy.pass_everything();
    let error = acquiring.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LeaseExpired, "{error}");
    scene.until_free().await;
}

#[tokio::test]
async fn a_release_whose_answer_was_lost_is_repeated_and_succeeds() {
    let scene = Scene::set(Server::builder()).await;
    let client = scene.client().await;
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    scene.proxy.change(|treatment| treatment.stall_down = true);
    let releasing = tokio::spawn(guard.release());
    until("the release has arrived", || {
        !scene.events(EventKind::Released, "k").is_empty()
    })
    .await;
    // The cut discards the bytes that the proxy has held back.
    scene.proxy.cut();
    until("the client is disconnected", || !client.health()[0].is_connected()).await;
    scene.proxy.pass_everything();
    releasing.await.unwrap().unwrap();
    scene.until_free().await;
}

/// The caller has dropped its request. Then the grant arrives, together with the end of its connection, and the client
/// releases the lease over the next connection.
#[tokio::test]
async fn a_grant_without_a_caller_is_released_even_if_its_connection_has_ended() {
    let (asked, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (released, mut releases) = tokio::sync::mpsc::unbounded_channel();
    let script = {
        let (asked, go_on) = (Arc::clone(&asked), Arc::clone(&go_on));
        move |mut connection: FakeConnection, number| {
            let (asked, go_on, released) = (Arc::clone(&asked), Arc::clone(&go_on), released.clone());
            async move {
                connection.handshake().await;
                if number == 0 {
                    connection.request().await.unwrap();
                    asked.notify_one();
                    go_on.notified().await;
                    // The client sees the answer and the end together, because the runtime has one thread.
                    return connection.say("ok 00000000000000070123456789abcdef 30\n").await;
                }
                while let Some(request) = connection.request().await {
                    released.send(request).unwrap();
                    connection.say("ok\n").await;
                }
            }
        }
    };
    let server = FakeServer::start(script).await;
    let client = Client::builder().servers([&server.address]).connect().await.unwrap();
    let lock = client.lock("k").unwrap();
    tokio::select! {
        _ = lock.try_acquire() => panic!("the server has not answered yet"),
        () = asked.notified() => {}
    }
    go_on.notify_one();
    let release = timeout(Duration::from_secs(30), releases.recv())
        .await
        .expect("the grant is released");
    assert_eq!(release.unwrap(), ["r", "k", "00000000000000070123456789abcdef"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_acquires_dropped_anywhere_leave_no_holder_and_no_waiter() {
    let scene = Scene::set(Server::builder()).await;
    let client = scene.builder().exclusive_connections(8).connect().await.unwrap();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for wave in 0..100 {
        let mut running = tokio::task::JoinSet::new();
        for number in 0..100 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            // The 100 acquires of a wave share 20 keys, so that most of these acquires wait.
            let lock = client.lock(format!("k{}", seed % 20)).unwrap();
            let patience = Duration::from_micros(seed % 3000);
            running.spawn(async move {
                let acquired = tokio::time::timeout(patience, lock.acquire()).await;
                if number % 3 == 0 {
                    drop(acquired);
                } else if let Ok(Ok(guard)) = acquired {
                    drop(tokio::time::timeout(patience / 4, guard.release()).await);
                }
            });
        }
        // The proxy cuts the connections in every tenth wave, but not in the last wave. A cut in the last wave would
        // hide leaked leases, because the server releases leases at a disconnect.
        if wave % 10 == 5 {
            scene.proxy.cut();
        }
        running.join_all().await;
    }
    scene.until_free().await;
    let granted = scene
        .server
        .events()
        .iter()
        .filter(|e| e.kind == EventKind::Granted)
        .count();
    assert!(
        granted > 100,
        "only {granted} acquires were granted, too few for this test"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_waiters_are_served_in_order() {
    let scene = Scene::set(Server::builder()).await;
    let client = scene
        .builder()
        .acquire_timeout(Duration::from_secs(60))
        .connect()
        .await
        .unwrap();
    let lock = client.lock("k").unwrap();
    let first = lock.acquire().await.unwrap();
    let served = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let (lock, served) = (lock.clone(), served.clone());
        waiting.spawn(async move {
            let guard = lock.acquire().await.unwrap();
            served.lock().unwrap().push(*guard.token());
            guard.release().await.unwrap();
        });
    }
    until("all 16 connections wait at the server", || {
        scene.server.stats().locks[0].waiters == 16
    })
    .await;
    first.release().await.unwrap();
    waiting.join_all().await;
    let (events, served) = (scene.server.events(), served.lock().unwrap().clone());
    let of = |kind| events.iter().filter(move |event| event.kind == kind);
    let granted: Vec<_> = of(EventKind::Granted).filter_map(|event| event.token).skip(1).collect();
    assert_eq!(granted.len(), 200);
    assert_eq!(served, granted);
    // The server granted the lock to the connections in the order of their queue positions.
    let queued: Vec<u64> = of(EventKind::Queued).map(|event| event.connection).collect();
    // A grant without a queue position is not compared: its caller came while the lock was free.
    let at_places = of(EventKind::Granted).filter(|event| event.place.is_some());
    let to: Vec<u64> = at_places.map(|event| event.connection).collect();
    assert_eq!(to, queued);
}

#[tokio::test]
async fn a_hot_key_does_not_starve_other_keys() {
    let scene = Scene::set(Server::builder()).await;
    let client = scene
        .builder()
        .exclusive_connections(4)
        .exclusive_connections_per_key(2)
        .connect()
        .await
        .unwrap();
    let other = scene.direct_client().await;
    let _hot = other.lock("hot").unwrap().acquire().await.unwrap();
    let cold = other.lock("cold").unwrap().acquire().await.unwrap();
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let lock = client.lock("hot").unwrap();
        waiting.spawn(async move { lock.acquire().await.map(drop) });
    }
    let waiters = |key: &str| {
        let stats = scene.server.stats();
        stats
            .locks
            .iter()
            .find(|lock| lock.key == key)
            .map_or(0, |lock| lock.waiters)
    };
    until("the hot key has its share", || waiters("hot") == 2).await;
    let cold_lock = client.lock("cold").unwrap();
    let guest = tokio::spawn(async move { cold_lock.acquire().await.unwrap() });
    until("the other key has its waiter at the server too", || {
        waiters("cold") == 1
    })
    .await;
    cold.release().await.unwrap();
    assert!(guest.await.unwrap().is_held());
    assert_eq!(waiters("hot"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_is_away_costs_only_its_own_keys() {
    let scene = Scene::set(Server::builder()).await;
    let healthy = Server::builder().port(0).start().await.unwrap();
    let strategy = |key: &str, _: usize| usize::from(!key.starts_with("away"));
    for what in [OnUnavailable::Wait, OnUnavailable::FailFast] {
        let client = Client::builder()
            .servers([scene.proxy.address.clone(), healthy.local_addr().to_string()])
            .sharding_strategy(strategy)
            .on_unavailable(what)
            .connect()
            .await
            .unwrap();
        scene.proxy.change(|treatment| treatment.refuse = true);
        scene.proxy.cut();
        until("the client is disconnected", || !client.health()[0].is_connected()).await;
        let lock = client.lock("away").unwrap().acquire_timeout(Duration::from_millis(200));
        let error = lock.acquire().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert_eq!(error.endpoint(), Some(scene.proxy.address.as_str()));
        // Callers that wait for the lost shard do not disturb callers of the other shard.
        let patient = client.lock("away").unwrap();
        let waiting = tokio::spawn(async move { patient.acquire().await });
        for number in 0..500 {
            let guard = client.lock(format!("here/{number}")).unwrap().acquire().await.unwrap();
            guard.release().await.unwrap();
        }
        scene.proxy.pass_everything();
        let outcome = waiting.await.unwrap();
        assert_eq!(outcome.is_ok(), what == OnUnavailable::Wait, "{outcome:?}");
        drop(outcome);
        scene.until_free().await;
    }
}

/// The proxy holds back the answer to a renewal until the release is answered, too. Then both answers arrive together.
#[tokio::test]
async fn a_renewal_in_flight_does_not_disturb_a_release() {
    let scene = Scene::set(Server::builder()).await;
    let client = scene.client().await;
    let lock = client.lock("k").unwrap().lease_ttl(Duration::from_secs(1));
    for _ in 0..3 {
        let guard = lock.acquire().await.unwrap();
        let before = scene.events(EventKind::Renewed, "k").len();
        scene.proxy.change(|treatment| treatment.stall_down = true);
        until("a renewal is unanswered", || {
            scene.events(EventKind::Renewed, "k").len() > before
        })
        .await;
        let lost = guard.lost();
        let releasing = tokio::spawn(guard.release());
        until("the release has arrived", || {
            scene.events(EventKind::Released, "k").len() == scene.events(EventKind::Granted, "k").len()
        })
        .await;
        // Waits until the next renewal is due. The client must not send this renewal. The server would refuse it after
        // the release, and the client would take the refusal for a loss.
        sleep(Duration::from_millis(600)).await;
        scene.proxy.pass_everything();
        releasing.await.unwrap().unwrap();
        let renewed = scene.events(EventKind::Renewed, "k").len();
        // The timeout is longer than the interval between two renewals, which is at most 500 ms.
        assert!(
            tokio::time::timeout(Duration::from_millis(700), lost).await.is_err(),
            "a released lease is not lost"
        );
        assert_eq!(
            scene.events(EventKind::Renewed, "k").len(),
            renewed,
            "no renewal follows the release"
        );
    }
}

#[tokio::test]
async fn a_restart_of_the_server_loses_its_leases_and_new_ones_can_be_acquired() {
    let mut scene = Scene::set(Server::builder()).await;
    let client = scene.client().await;
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    let port = scene.server.local_addr().port();
    let old = std::mem::replace(
        &mut scene.server,
        Server::builder().port(0).record_events(true).start().await.unwrap(),
    );
    drop(old);
    assert_eq!(guard.lost().await, LostReason::Disconnected);
    let waiting = tokio::spawn({
        let lock = client.lock("k").unwrap();
        async move { lock.acquire().await.unwrap() }
    });
    let restarted = loop {
        // The old server's task may hold the port for a moment, so the loop repeats the start until it succeeds.
        match Server::builder().port(port).start().await {
            Ok(server) => break server,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Connect, "{error}"),
        }
        sleep(Duration::from_millis(5)).await;
    };
    let again = waiting.await.unwrap();
    assert!(again.is_held());
    assert_eq!(restarted.stats().locks.len(), 1);
}

#[tokio::test]
async fn a_draining_server_has_an_error_of_its_own_and_before_1_16_it_accepts_releases() {
    let scene = Scene::set(Server::builder().release("1.15")).await;
    let client = scene.client().await;
    let kept = client.lock("kept").unwrap().acquire().await.unwrap();
    let given = client.lock("given").unwrap().acquire().await.unwrap();
    let waiting = tokio::spawn({
        let lock = client.lock("kept").unwrap();
        async move { lock.acquire().await.map(drop) }
    });
    until("it waits", || {
        scene.server.stats().locks.iter().any(|lock| lock.waiters == 1)
    })
    .await;
    let shutdown = tokio::spawn(scene.server.shutdown());
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Draining, "{error}");
    assert!(error.is_retryable());
    given.release().await.unwrap();
    assert!(kept.is_held());
    shutdown.abort();
    assert_eq!(kept.lost().await, LostReason::Disconnected);
}

/// Since release 1.16, a draining server answers a request with `error_draining` and closes the connection.
#[tokio::test]
async fn a_draining_server_from_1_16_on_ends_its_leases() {
    let scene = Scene::set(Server::builder()).await;
    let client = scene.client().await;
    let held = client.lock("held").unwrap().acquire().await.unwrap();
    let waiting = tokio::spawn({
        let lock = client.lock("held").unwrap();
        async move { lock.acquire().await.map(drop) }
    });
    until("it waits", || {
        scene.server.stats().locks.iter().any(|lock| lock.waiters == 1)
    })
    .await;
    let shutdown = tokio::spawn(scene.server.shutdown());
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), ErrorKind::Draining);
    let error = client.lock("new").unwrap().acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Draining, "{error}");
    assert!(error.is_retryable());
    assert_eq!(held.lost().await, LostReason::ServerDraining);
    let ended = tokio::time::timeout(Duration::from_secs(30), shutdown).await;
    ended.expect("its clients are gone").unwrap();
}

#[test]
fn guards_and_clients_may_outlive_their_runtime() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (server, client, guard) = runtime.block_on(async {
        let server = Server::builder().port(0).start().await.unwrap();
        let servers = [server.local_addr().to_string()];
        let client = Client::builder().servers(servers).connect().await.unwrap();
        let guard = client.lock("k").unwrap().acquire().await.unwrap();
        (server, client, guard)
    });
    // A thread without a runtime drops a guard while the client's runtime runs. The client releases the lock.
    let second = runtime.block_on(async { client.lock("l").unwrap().acquire().await.unwrap() });
    std::thread::spawn(move || drop(second)).join().unwrap();
    runtime.block_on(until("the lock is released", || server.stats().locks.len() == 1));
    // The runtime ends while another guard exists.
    runtime.shutdown_timeout(Duration::from_secs(5));
    assert!(!guard.is_held(), "the lease is lost with its actor");
    drop(guard);
    drop(client);
    drop(server);
}

#[tokio::test]
async fn a_shutdown_without_a_server_reports_the_leases_that_it_could_not_release() {
    let scene = Scene::set(Server::builder().auto_release_on_disconnect(false)).await;
    let client = scene.builder().survives_disconnect(true).connect().await.unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    scene.proxy.change(|treatment| treatment.refuse = true);
    scene.proxy.cut();
    until("the client is disconnected", || !client.health()[0].is_connected()).await;
    let report = client.shutdown(Duration::from_millis(200)).await;
    assert_eq!((report.released, report.unreleased), (0, vec![guard.key().clone()]));
    assert_eq!(guard.lost().await, LostReason::Shutdown);
    let error = client.lock("k").unwrap().acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Shutdown, "{error}");
}

/// After its read timeout, the server sends the line `error` without a request and closes the connection. The client
/// must not take this line for an answer.
#[tokio::test]
async fn the_error_after_a_read_timeout_answers_no_request() {
    let scene = Scene::set(Server::builder().read_timeout(Duration::from_millis(250))).await;
    // This client does not know the server's short read timeout, so it sends no keepalive in time.
    let client = scene.client().await;
    for _ in 0..3 {
        let guard = client.lock("k").unwrap().acquire().await.unwrap();
        let releasing = {
            assert_eq!(guard.lost().await, LostReason::Disconnected);
            guard.release().await
        };
        assert_eq!(releasing.unwrap_err().kind(), ErrorKind::LeaseLost);
    }
    scene.until_free().await;
}

/// The proxy passes nothing in either direction. The number of requests in flight is limited, and further callers wait
/// in `poll_ready`.
#[tokio::test]
async fn a_full_pipeline_pushes_back_and_drops_nothing() {
    use std::task::Poll;
    use tower::Service;

    let scene = Scene::set(Server::builder()).await;
    let client = scene.builder().max_in_flight(8).connect().await.unwrap();
    scene.proxy.change(|treatment| {
        treatment.stall_up = true;
        treatment.stall_down = true;
    });
    let mut running = tokio::task::JoinSet::new();
    for number in 0..100 {
        let lock = client.lock(format!("k{number}")).unwrap();
        running.spawn(async move { lock.acquire().await.unwrap().release().await.unwrap() });
    }
    let mut service = client.clone();
    let mut ready = || {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(())))
    };
    assert!(ready(), "no caller has run yet");
    until("the pipeline is full", || !ready()).await;
    scene.proxy.pass_everything();
    drop(service);
    running.join_all().await;
    assert_eq!(
        scene
            .server
            .events()
            .iter()
            .filter(|e| e.kind == EventKind::Granted)
            .count(),
        100
    );
    scene.until_free().await;
}

#[tokio::test]
async fn a_lease_is_not_renewed_beyond_its_max_hold() {
    let scene = Scene::set(Server::builder().lease_sweep_interval(Duration::from_millis(10))).await;
    let client = scene.client().await;
    let lock = client.lock("k").unwrap().lease_ttl(Duration::from_secs(1));
    let guard = lock.max_hold(Duration::from_millis(1200)).acquire().await.unwrap();
    assert_eq!(guard.lost().await, LostReason::Expired);
    let renewed = scene.events(EventKind::Renewed, "k").len();
    assert!((1..=2).contains(&renewed), "renewed {renewed} times");
    let told = Instant::now();
    until("the lease expires at the server", || {
        !scene.events(EventKind::Expired, "k").is_empty()
    })
    .await;
    assert!(told < scene.events(EventKind::Expired, "k")[0].at);
}

#[test]
fn dropping_the_last_client_gives_everything_back() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(async {
        Server::builder()
            .auto_release_on_disconnect(false)
            .port(0)
            .start()
            .await
    });
    let server = server.unwrap();
    let (client, guards) = runtime.block_on(async {
        let servers = [server.local_addr().to_string()];
        let client = Client::builder().servers(servers).connect().await.unwrap();
        let mut guards = Vec::new();
        for number in 0..50 {
            guards.push(client.lock(format!("k{number}")).unwrap().acquire().await.unwrap());
        }
        (client, guards)
    });
    // The client and the guards are dropped outside of the runtime, and the client before its guards.
    drop(client);
    drop(guards);
    runtime.block_on(until("all locks are released and the connection is closed", || {
        let stats = server.stats();
        stats.locks.is_empty() && stats.connections == 0
    }));
}

/// A wait has a connection of its own. After a grant, this connection owns a lease. After a timeout, it owns nothing.
#[tokio::test]
async fn idle_connections_are_closed_unless_they_own_leases() {
    let scene = Scene::set(Server::builder()).await;
    let client = scene
        .builder()
        .idle_connection_timeout(Duration::from_millis(100))
        .connect()
        .await
        .unwrap();
    let (a, b) = (client.lock("a").unwrap(), client.lock("b").unwrap());
    let (first, _other) = (a.acquire().await.unwrap(), b.acquire().await.unwrap());
    let waiting = tokio::spawn(async move { a.acquire().await.unwrap() });
    let in_vain = b.acquire_timeout(Duration::from_millis(900));
    let in_vain = tokio::spawn(async move { in_vain.acquire().await });
    until("both wait", || {
        scene.server.stats().locks.iter().all(|lock| lock.waiters == 1)
    })
    .await;
    assert_eq!(scene.server.stats().connections, 3);
    first.release().await.unwrap();
    let owned = waiting.await.unwrap();
    assert!(in_vain.await.unwrap().unwrap_err().is_timeout());
    until("the connection that owns nothing is closed", || {
        scene.server.stats().connections == 2
    })
    .await;
    // The connection that owns a lease stays open for 2.5 s, although the client closes idle connections once a second.
    let token = owned.cancellation_token();
    let lost = tokio::time::timeout(Duration::from_millis(2500), token.cancelled()).await;
    assert!(lost.is_err() && owned.is_held());
    assert_eq!(scene.server.stats().connections, 2);
    owned.release().await.unwrap();
    until("both connections for waits are closed", || {
        scene.server.stats().connections == 1
    })
    .await;
    // The pipelined connection has stayed open. When it is cut, its lease is lost. The loss cancels the cancellation
    // token.
    let last = client.lock("a").unwrap().acquire().await.unwrap();
    let token = last.cancellation_token();
    scene.proxy.cut();
    token.cancelled().await;
    assert_eq!(last.state(), LeaseState::Lost(LostReason::Disconnected));
}
