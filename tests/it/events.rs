//! The events of a client: the stream, the callbacks, and the health of all shards.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::pki::Folder;
use crate::support::proxy::Proxy;
use crate::support::until;
use dflockd_client::server::{Cluster, EventKind, Server};
use dflockd_client::{
    Client, ClientBuilder, ClientEvent, ErrorKind, Events, FailoverReason, Kind, LeaseState, LockGuard, LostReason,
    ReconnectPolicy, Shard, WaitBound,
};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(30);

fn soon() -> ReconnectPolicy {
    ReconnectPolicy::exponential(Duration::from_millis(2), Duration::from_millis(20))
}

fn of(server: &str) -> ClientBuilder {
    Client::builder().servers([server]).reconnect(soon())
}

/// Returns the next event that `wanted` accepts. Skips the events before it.
async fn next<T>(events: &mut Events, mut wanted: impl FnMut(ClientEvent) -> Option<T>) -> T {
    let found = async {
        loop {
            let event = events.next_event().await.expect("the client has not ended");
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    };
    timeout(LONG, found).await.expect("the event comes")
}

#[tokio::test]
async fn the_events_tell_of_connections_from_the_first_to_the_shutdown() {
    let server = Server::builder().port(0).start().await.unwrap();
    let proxy = Proxy::start(&server.local_addr().to_string()).await;
    let address = proxy.address.clone();
    let client = of(&address).build().unwrap();
    let mut events = client.events();
    match events.next_event().await.unwrap() {
        ClientEvent::Connected { shard: 0, endpoint, .. } => assert_eq!(*endpoint, *address),
        other => panic!("{other:?}"),
    }
    proxy.change(|treatment| treatment.refuse = true);
    proxy.cut();
    match events.next_event().await.unwrap() {
        ClientEvent::Disconnected {
            shard: 0,
            endpoint,
            cause,
            ..
        } => {
            assert_eq!((&*endpoint, cause.kind()), (&*address, ErrorKind::Disconnected));
        }
        other => panic!("{other:?}"),
    }
    for _ in 0..3 {
        match events.next_event().await.unwrap() {
            ClientEvent::Reconnecting {
                shard: 0,
                attempt,
                error,
                ..
            } => {
                assert!(attempt > 0 && error.kind() == ErrorKind::Connect, "{attempt} {error}");
            }
            other => panic!("{other:?}"),
        }
    }
    proxy.pass_everything();
    next(&mut events, |event| {
        matches!(event, ClientEvent::Connected { .. }).then_some(())
    })
    .await;
    client.shutdown(LONG).await;
    match events.next_event().await.unwrap() {
        ClientEvent::Closed { shard: 0, cause, .. } => assert_eq!(cause.kind(), ErrorKind::Shutdown),
        other => panic!("{other:?}"),
    }
    drop(client);
    assert!(timeout(LONG, events.next_event()).await.unwrap().is_none());
}

#[tokio::test]
async fn lost_leases_are_reported_to_streams_and_callbacks() {
    let server = Server::builder().port(0).start().await.unwrap();
    let proxy = Proxy::start(&server.local_addr().to_string()).await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let callback = Arc::clone(&told);
    let client = of(&proxy.address)
        .on_lost(|_| panic!("a broken callback disturbs no other"))
        .on_lost(move |lost| callback.lock().unwrap().push((lost.key.clone(), lost.reason)))
        .connect()
        .await
        .unwrap();
    let mut events = client.events();
    let guard = client.lock("orders/42").unwrap().acquire().await.unwrap();
    let permit = client.semaphore("workers", 2).unwrap().acquire().await.unwrap();
    proxy.cut();
    let mut lost = Vec::new();
    for _ in 0..2 {
        let one = next(&mut events, |event| match event {
            ClientEvent::LeaseLost(lost) => Some(lost),
            _ => None,
        });
        let one = one.await;
        assert_eq!((one.shard, one.reason), (0, LostReason::Disconnected));
        lost.push((one.key.as_str().to_owned(), one.kind));
    }
    lost.sort_unstable();
    let expected = [
        ("orders/42".to_owned(), Kind::Lock),
        ("workers".to_owned(), Kind::Semaphore),
    ];
    assert_eq!(lost, expected);
    let mut told = std::mem::take(&mut *told.lock().unwrap());
    told.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(told[0], (guard.key().clone(), LostReason::Disconnected));
    assert_eq!(told[1], (permit.key().clone(), LostReason::Disconnected));

    // The client reports no loss for a released lease.
    let given_back = client.lock("orders/43").unwrap().acquire().await.unwrap();
    given_back.release().await.unwrap();
    client.shutdown(LONG).await;
    next(&mut events, |event| match event {
        ClientEvent::LeaseLost(lost) => panic!("{lost:?}"),
        ClientEvent::Closed { .. } => Some(()),
        _ => None,
    })
    .await;
}

/// Returns the names of the next events, up to and including `last`.
async fn names_up_to(events: &mut Events, last: &str) -> Vec<String> {
    let mut names = Vec::new();
    next(events, |event| {
        let text = format!("{event:?}");
        let name = text.split([' ', '(']).next().unwrap_or_default();
        names.push(name.to_owned());
        (name == last).then_some(())
    })
    .await;
    names
}

/// When a reader receives an event, the client's health already shows the change that the event reports.
#[tokio::test]
async fn the_leases_of_a_lost_connection_are_reported_lost_before_the_connection_is() {
    let server = Server::builder().port(0).start().await.unwrap();
    let proxy = Proxy::start(&server.local_addr().to_string()).await;
    let client = of(&proxy.address).connect().await.unwrap();
    let _guards = client.lock_all(["a", "b"]).unwrap().acquire().await.unwrap();
    let mut events = client.events();
    proxy.change(|treatment| treatment.refuse = true);
    proxy.cut();
    assert_eq!(
        names_up_to(&mut events, "Disconnected").await,
        ["LeaseLost", "LeaseLost", "Disconnected"]
    );
    assert!(!client.health()[0].is_connected());
    proxy.pass_everything();
    next(&mut events, |event| {
        matches!(event, ClientEvent::Connected { .. }).then_some(())
    })
    .await;
    assert!(client.health()[0].is_connected());
}

#[tokio::test]
async fn leases_of_the_previous_server_are_reported_lost_before_the_next_serves() {
    let first = Server::builder().port(0).start().await.unwrap();
    let second = Server::builder().port(0).start().await.unwrap();
    let proxy = Proxy::start(&first.local_addr().to_string()).await;
    let shard = Shard::standby([proxy.address.clone(), second.local_addr().to_string()]);
    let client = Client::builder()
        .shards([shard.takeover_delay(Duration::ZERO)])
        .survives_disconnect(true)
        .reconnect(soon())
        .connect()
        .await
        .unwrap();
    let _guard = client.lock("a").unwrap().acquire().await.unwrap();
    let mut events = client.events();
    proxy.change(|treatment| treatment.refuse = true);
    proxy.cut();
    let mut names = names_up_to(&mut events, "Connected").await;
    names.retain(|name| name != "Reconnecting");
    assert_eq!(names, ["Disconnected", "LeaseLost", "ServingChanged", "Connected"]);
}

/// A callback may take a long time, and meanwhile the server may grant the keys to others.
#[tokio::test]
async fn all_holders_know_of_a_loss_before_the_first_callback_runs() {
    let server = Server::builder().port(0).start().await.unwrap();
    let proxy = Proxy::start(&server.local_addr().to_string()).await;
    let guards: Arc<Mutex<Vec<LockGuard>>> = Arc::default();
    let (told, believed) = std::sync::mpsc::channel();
    let looked_at = Arc::clone(&guards);
    let builder = of(&proxy.address).on_lost(move |_| {
        let held = looked_at.lock().unwrap().iter().filter(|guard| guard.is_held()).count();
        let _ = told.send(held);
    });
    let client = builder.connect().await.unwrap();
    for key in 0..10 {
        let guard = client.lock(format!("k{key}")).unwrap().acquire().await.unwrap();
        guards.lock().unwrap().push(guard);
    }
    proxy.cut();
    for _ in 0..10 {
        let mut held = None;
        until("the callback has run", || {
            held = believed.try_recv().ok();
            held.is_some()
        })
        .await;
        assert_eq!(held, Some(0), "every guard knows of the loss");
    }
}

#[tokio::test]
async fn a_failed_renewal_is_reported_while_the_lease_is_held() {
    let builder = Server::builder().auto_release_on_disconnect(false).record_events(true);
    let server = builder.port(0).start().await.unwrap();
    let proxy = Proxy::start(&server.local_addr().to_string()).await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let callback = Arc::clone(&told);
    let client = of(&proxy.address)
        .survives_disconnect(true)
        .renew_ratio(0.01)
        .on_renewal_error(move |failed| callback.lock().unwrap().push((failed.key.clone(), failed.error.kind())))
        .connect()
        .await
        .unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    let renewals = || {
        server
            .events()
            .iter()
            .filter(|event| event.kind == EventKind::Renewed)
            .count()
    };
    proxy.change(|treatment| treatment.stall_down = true);
    let before = renewals();
    until("a renewal is not answered", || renewals() > before).await;
    proxy.cut();
    until("the event comes", || !told.lock().unwrap().is_empty()).await;
    assert_eq!(told.lock().unwrap()[0], (guard.key().clone(), ErrorKind::Disconnected));
    proxy.pass_everything();
    until("the lease is held again", || guard.state() == LeaseState::Held).await;
}

#[tokio::test]
async fn no_failed_renewal_of_a_lost_lease_is_reported() {
    let server = Server::builder().record_events(true).port(0).start().await.unwrap();
    let proxy = Proxy::start(&server.local_addr().to_string()).await;
    let client = of(&proxy.address).renew_ratio(0.01).connect().await.unwrap();
    let mut events = client.events();
    let _guard = client.lock("k").unwrap().acquire().await.unwrap();
    let renewals = || {
        server
            .events()
            .iter()
            .filter(|event| event.kind == EventKind::Renewed)
            .count()
    };
    proxy.change(|treatment| treatment.stall_down = true);
    let before = renewals();
    until("a renewal is not answered", || renewals() > before).await;
    proxy.cut();
    proxy.pass_everything();
    let mut lost = false;
    next(&mut events, |event| {
        assert!(!matches!(event, ClientEvent::RenewalFailed(_)), "{event:?}");
        lost |= matches!(event, ClientEvent::LeaseLost(_));
        (lost && matches!(event, ClientEvent::Connected { .. })).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_refused_secret_is_reported_once() {
    let server = Server::builder().auth_token("sesame").port(0).start().await.unwrap();
    let address = server.local_addr().to_string();
    let client = of(&address).auth_token("wrong").build().unwrap();
    let mut events = client.events();
    let mut refusals = 0;
    for _ in 0..5 {
        match events.next_event().await.unwrap() {
            ClientEvent::AuthRefused {
                shard: 0,
                endpoint,
                error,
                ..
            } => {
                refusals += 1;
                assert_eq!((&*endpoint, error.kind()), (&*address, ErrorKind::Auth));
            }
            ClientEvent::Reconnecting { error, .. } => assert_eq!(error.kind(), ErrorKind::Auth),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(refusals, 1);
}

/// A server with a secret, a proxy in front of the server, and the file from which clients read the secret.
struct Guarded {
    _server: Server,
    proxy: Proxy,
    folder: Folder,
    secret: std::path::PathBuf,
}

impl Guarded {
    async fn start() -> Self {
        let server = Server::builder().release("1.16").auth_token("sesame");
        let server = server.port(0).start().await.unwrap();
        let proxy = Proxy::start(&server.local_addr().to_string()).await;
        let folder = Folder::new();
        let secret = folder.write("secret", "sesame");
        Self {
            _server: server,
            proxy,
            folder,
            secret,
        }
    }

    fn client(&self) -> ClientBuilder {
        of(&self.proxy.address).auth_token_file(&self.secret)
    }

    /// Changes the secret in the client's file, so that the server refuses it.
    fn change_secret(&self) {
        self.folder.write("secret", "changed");
    }

    /// Asserts that an event reports the refusal.
    async fn expect_refusal_event(&self, events: &mut Events) {
        let refused = next(events, |event| match event {
            ClientEvent::AuthRefused {
                shard: 0,
                endpoint,
                error,
                ..
            } => Some((endpoint, error.kind())),
            _ => None,
        });
        let (endpoint, kind) = refused.await;
        assert_eq!((&*endpoint, kind), (&*self.proxy.address, ErrorKind::Auth));
    }
}

#[tokio::test]
async fn a_secret_refused_to_a_connection_for_waits_is_reported_whatever_failed_before() {
    let guarded = Guarded::start().await;
    let client = guarded.client().connect().await.unwrap();
    let mut events = client.events();
    let held = client.lock("k").unwrap().acquire().await.unwrap();
    guarded.proxy.change(|treatment| treatment.refuse = true);
    let before = guarded.proxy.accepted();
    let waiter = client.lock("k").unwrap().acquire_timeout(LONG);
    let waiter = tokio::spawn(async move { waiter.acquire().await.map(drop) });
    until("connections for waits fail", || guarded.proxy.accepted() > before).await;
    guarded.change_secret();
    guarded.proxy.pass_everything();
    assert_eq!(waiter.await.unwrap().unwrap_err().kind(), ErrorKind::Auth);
    guarded.expect_refusal_event(&mut events).await;
    held.release().await.unwrap();
}

#[tokio::test]
async fn a_secret_refused_to_a_connection_for_signals_is_reported() {
    let guarded = Guarded::start().await;
    let client = guarded.client().connect().await.unwrap();
    let mut events = client.events();
    guarded.change_secret();
    assert_eq!(client.subscribe("a").await.unwrap_err().kind(), ErrorKind::Auth);
    guarded.expect_refusal_event(&mut events).await;
}

#[tokio::test]
async fn a_secret_refused_to_a_further_pipelined_connection_is_reported() {
    let guarded = Guarded::start().await;
    let client = guarded.client().pipelined_connections(2).build().unwrap();
    let mut events = client.events();
    until("both connections are there", || guarded.proxy.accepted() == 2).await;
    guarded.change_secret();
    guarded.proxy.change(|treatment| treatment.cut_one = Some(1));
    guarded.expect_refusal_event(&mut events).await;
}

#[tokio::test]
async fn a_secret_refused_to_the_connection_for_stats_is_reported() {
    let guarded = Guarded::start().await;
    let client = guarded.client().connect().await.unwrap();
    let mut events = client.events();
    guarded.change_secret();
    assert_eq!(client.stats().await.unwrap_err().kind(), ErrorKind::Auth);
    guarded.expect_refusal_event(&mut events).await;
}

#[tokio::test]
async fn each_member_that_refuses_the_secret_is_reported_once() {
    let (one, other) = (Guarded::start().await, Guarded::start().await);
    let members = [one.proxy.address.clone(), other.proxy.address.clone()];
    let builder = Client::builder().shards([Shard::cluster(members)]).reconnect(soon());
    let client = builder.auth_token("wrong").build().unwrap();
    let mut events = client.events();
    one.expect_refusal_event(&mut events).await;
    other.expect_refusal_event(&mut events).await;
    let mut attempts = 0;
    next(&mut events, |event| match event {
        ClientEvent::AuthRefused { .. } => panic!("{event:?}"),
        ClientEvent::Reconnecting { .. } => {
            attempts += 1;
            (attempts == 5).then_some(())
        }
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn a_change_of_leader_is_reported() {
    let each = Server::builder().orphan_ttl(LONG);
    let cluster = Cluster::builder().options(each).start().await.unwrap();
    let client = Client::builder()
        .shards([Shard::cluster(cluster.addresses()).orphan_ttl(LONG)])
        .reconnect(soon())
        .connect()
        .await
        .unwrap();
    let mut events = client.events();
    let next_leader = (cluster.leader().unwrap() + 1) % 3;
    cluster.move_leader(next_leader).unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    let (endpoint, reason) = next(&mut events, |event| match event {
        ClientEvent::ServingChanged {
            shard: 0,
            endpoint,
            reason,
            ..
        } => Some((endpoint, reason)),
        _ => None,
    })
    .await;
    assert_eq!(*endpoint, *cluster.addresses()[next_leader]);
    assert_eq!(reason, FailoverReason::Deposed);
    next(&mut events, |event| {
        matches!(event, ClientEvent::Connected { .. }).then_some(())
    })
    .await;
    guard.release().await.unwrap();
}

#[tokio::test]
async fn reaching_the_bound_of_waits_is_reported() {
    let server = Server::builder().port(0).start().await.unwrap();
    let address = server.local_addr().to_string();
    let holder = of(&address).connect().await.unwrap();
    let held = holder.lock_all(["a", "b"]).unwrap().acquire().await.unwrap();
    let client = of(&address).exclusive_connections(1).connect().await.unwrap();
    let mut events = client.events();
    let waiting = ["a", "b"].map(|key| {
        let lock = client.lock(key).unwrap().acquire_timeout(LONG);
        tokio::spawn(async move { lock.acquire().await.map(drop) })
    });
    let bound = next(&mut events, |event| match event {
        ClientEvent::WaitBoundReached { shard: 0, bound, .. } => Some(bound),
        _ => None,
    });
    assert_eq!(bound.await, WaitBound::ExclusiveConnections);
    held.release().await.unwrap();
    for waiter in waiting {
        waiter.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn the_first_refusal_for_too_many_waiters_is_reported() {
    let server = Server::builder().max_waiters(1).port(0).start().await.unwrap();
    let address = server.local_addr().to_string();
    let other = of(&address).connect().await.unwrap();
    let held = other.lock("k").unwrap().acquire().await.unwrap();
    let enqueued = other.lock("k").unwrap().enqueue().await.unwrap();
    let client = of(&address).connect().await.unwrap();
    let mut events = client.events();
    let refused = async || {
        let lock = client.lock("k").unwrap().acquire_timeout(LONG);
        let error = lock.acquire().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MaxWaiters, "{error}");
    };
    refused().await;
    refused().await;
    // The server accepts a waiter again, and then refuses another waiter.
    drop(enqueued);
    let waiting = client.lock("k").unwrap().enqueue().await.unwrap();
    refused().await;
    drop(waiting);
    held.release().await.unwrap();
    client.shutdown(LONG).await;
    let mut told = 0;
    next(&mut events, |event| match event {
        ClientEvent::WaitBoundReached { shard: 0, bound, .. } => {
            assert_eq!(bound, WaitBound::ServerWaiters);
            told += 1;
            None
        }
        ClientEvent::Closed { .. } => Some(()),
        _ => None,
    })
    .await;
    assert_eq!(told, 2);
}

#[tokio::test]
async fn a_gap_in_signals_is_reported() {
    let server = Server::builder().release("1.16").port(0).start().await.unwrap();
    let proxy = Proxy::start(&server.local_addr().to_string()).await;
    let client = of(&proxy.address).connect().await.unwrap();
    let mut events = client.events();
    let _signals = client.subscribe("a").await.unwrap();
    proxy.cut();
    let cause = next(&mut events, |event| match event {
        ClientEvent::SignalsGap { shard: 0, cause, .. } => Some(cause),
        _ => None,
    });
    assert_eq!(cause.await.kind(), ErrorKind::Disconnected);
}

#[tokio::test]
async fn one_stream_watches_the_health_of_all_shards() {
    let servers = [
        Server::builder().port(0).start().await.unwrap(),
        Server::builder().port(0).start().await.unwrap(),
    ];
    let proxy = Proxy::start(&servers[1].local_addr().to_string()).await;
    let client = Client::builder()
        .servers([servers[0].local_addr().to_string(), proxy.address.clone()])
        .reconnect(soon())
        .connect()
        .await
        .unwrap();
    let mut health = client.watch_all_health();
    assert!(health.current().iter().all(|shard| shard.is_connected()));
    proxy.change(|treatment| treatment.refuse = true);
    proxy.cut();
    assert_eq!(timeout(LONG, health.changed()).await.unwrap(), Some(1));
    let current = health.current();
    assert!(current[0].is_connected() && !current[1].is_connected());
    proxy.pass_everything();
    while !health.current()[1].is_connected() {
        assert_eq!(timeout(LONG, health.changed()).await.unwrap(), Some(1));
    }
    client.shutdown(LONG).await;
    drop(client);
    while let Some(shard) = timeout(LONG, health.changed()).await.unwrap() {
        assert!(health.current()[shard].closed_because().is_some());
    }
}
