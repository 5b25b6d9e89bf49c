//! The test server of `dflockd_client::testing`. Each function of the module `checks` runs on one thread in real time,
//! on one thread in paused time, and on several threads in real time.

use std::time::Duration;

use dflockd_client::protocol::Status;
use dflockd_client::server::{Cluster, Server};
use dflockd_client::testing::TestServer;
use dflockd_client::{
    Client, ConnectionState, Enqueued, ErrorKind, Fencing, LeaseState, LostReason, OnUnavailable, ReconnectPolicy,
    Shard,
};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

everywhere! {
    a_lock_is_granted_waited_for_and_released
    the_leases_of_a_key_are_listed
    losing_a_lease_tells_its_holder_and_grants_the_key_to_the_next
    losing_a_lease_of_a_semaphore_frees_one_slot
    a_free_key_cannot_be_lost
    the_loss_of_a_lease_without_renewals_reaches_its_holder_too
    a_cut_ends_all_connections_and_new_ones_succeed
    a_cut_ends_waits_with_an_error
    a_server_can_be_unreachable_for_a_while
    a_connection_is_refused_once
    acquires_are_refused_in_order
    a_connection_is_refused_for_its_secret
    a_draining_server_closes_its_connections
    the_next_renewal_can_be_refused
    the_next_release_can_be_refused
    the_leader_can_be_moved
    leases_and_connections_of_a_cluster_can_be_ended
    a_cluster_without_a_leader_grants_nothing
    several_servers_are_shards
    a_standby_takes_over
    dropping_the_server_before_the_client_does_not_hang
    dropping_the_client_before_the_server_does_not_hang
    dropping_a_stalled_server_does_not_hang
    a_shutdown_of_the_server_ends_in_time
    test_servers_are_independent
    leases_may_outlive_a_cut
    losses_are_events_of_the_client
    signals_work_with_a_release_that_has_them
    not_leader_can_be_answered
    nothing_passes_during_a_stall
}

const KEY: &str = "orders/42";

/// Starts a caller that waits for the key.
fn waiting(client: &Client) -> JoinHandle<dflockd_client::Result<dflockd_client::LockGuard>> {
    let lock = client.lock(KEY).unwrap().acquire_timeout(Duration::from_secs(60));
    tokio::spawn(async move { lock.acquire().await })
}

/// Connects a client that renews its leases after half an hour. A test that needed a renewal would hang.
async fn rarely_renewing(server: &TestServer) -> Client {
    let ttl = Duration::from_secs(3600);
    server.client_builder().lease_ttl(ttl).connect().await.unwrap()
}

/// Connects a client that reconnects after a pause of at most 5 ms.
async fn hasty(server: &TestServer) -> Client {
    let pauses = ReconnectPolicy::exponential(Duration::from_millis(1), Duration::from_millis(5));
    server.client_builder().reconnect(pauses).connect().await.unwrap()
}

/// Acquires the key. The timeout is long, because the client may first have to find a new leader.
async fn acquire(client: &Client) -> dflockd_client::LockGuard {
    let lock = client.lock(KEY).unwrap().acquire_timeout(Duration::from_secs(60));
    lock.acquire().await.unwrap()
}

/// Cuts all connections and waits until the client has noticed, so that no request is sent over an old connection.
async fn cut(server: &TestServer, client: &Client) {
    let mut health = client.watch_health(0).unwrap();
    health.mark_unchanged();
    server.cut();
    health.changed().await.unwrap();
}

mod checks {
    use super::*;

    pub(super) async fn a_lock_is_granted_waited_for_and_released() {
        let server = TestServer::start().await.unwrap();
        let (one, other) = (server.client().await.unwrap(), server.client().await.unwrap());
        let guard = one.lock(KEY).unwrap().acquire().await.unwrap();
        let waiter = waiting(&other);
        server.wait_for_waiters(KEY, 1).await.unwrap();
        assert_eq!(server.waiters(KEY), 1);
        guard.release().await.unwrap();
        let guard = waiter.await.unwrap().unwrap();
        assert!(guard.was_contended() && server.is_held(KEY));
        assert_eq!(server.waiters(KEY), 0);
        guard.release().await.unwrap();
        assert!(!server.is_held(KEY));
        drop(one.lock(KEY).unwrap().acquire().await.unwrap());
        server.wait_until_free(KEY).await.unwrap();
    }

    pub(super) async fn the_leases_of_a_key_are_listed() {
        let server = TestServer::start().await.unwrap();
        let client = server.client_builder().fencing(Fencing::Required);
        let client = client.connect().await.unwrap();
        let lock = client.lock(KEY).unwrap();
        let held = tokio::spawn(async move { lock.acquire().await.unwrap() });
        server.wait_until_held(KEY).await.unwrap();
        let guard = held.await.unwrap();
        let [lease] = &server.leases(KEY)[..] else {
            panic!("one holder");
        };
        assert_eq!((lease.token, lease.fence), (*guard.token(), guard.fence()));
        assert_eq!(lease.kind, guard.kind());
        assert!(lease.remaining > Duration::from_secs(1) && lease.remaining <= guard.ttl().as_duration());

        let semaphore = client.semaphore("s", 2).unwrap();
        let permits = [semaphore.acquire().await.unwrap(), semaphore.acquire().await.unwrap()];
        let tokens: Vec<_> = server.leases("s").iter().map(|lease| lease.token).collect();
        assert_eq!(tokens, permits.each_ref().map(|permit| *permit.token()));
        assert!(server.leases("").is_empty() && server.leases("no such key").is_empty());
        assert_eq!(server.stats().semaphores[0].holders, 2);
        assert!(server.connections() >= 1);
    }

    pub(super) async fn losing_a_lease_tells_its_holder_and_grants_the_key_to_the_next() {
        let server = TestServer::start().await.unwrap();
        let (one, other) = (rarely_renewing(&server).await, server.client().await.unwrap());
        let guard = one.lock(KEY).unwrap().acquire().await.unwrap();
        let unharmed = one.lock("another").unwrap().acquire().await.unwrap();
        let waiter = waiting(&other);
        server.wait_for_waiters(KEY, 1).await.unwrap();
        server.lose(KEY).unwrap();
        assert_eq!(guard.lost().await, LostReason::Rejected);
        assert!(guard.cancellation_token().is_cancelled());
        let next = waiter.await.unwrap().unwrap();
        assert_eq!(server.leases(KEY)[0].token, *next.token());
        assert!(unharmed.is_held() && server.is_held("another"));
        assert_eq!(guard.release().await.unwrap_err().kind(), ErrorKind::LeaseLost);
        unharmed.release().await.unwrap();
        next.release().await.unwrap();
    }

    pub(super) async fn losing_a_lease_of_a_semaphore_frees_one_slot() {
        let server = TestServer::start().await.unwrap();
        let client = rarely_renewing(&server).await;
        let semaphore = client.semaphore(KEY, 2).unwrap();
        let permits = [semaphore.acquire().await.unwrap(), semaphore.acquire().await.unwrap()];
        server.lose_one(KEY, permits[1].token()).unwrap();
        assert_eq!(permits[1].lost().await, LostReason::Rejected);
        assert!(permits[0].is_held());
        let again = server.lose_one(KEY, permits[1].token()).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::NotHeld);
        server.lose(KEY).unwrap();
        assert_eq!(permits[0].lost().await, LostReason::Rejected);
    }

    pub(super) async fn a_free_key_cannot_be_lost() {
        let server = TestServer::start().await.unwrap();
        assert_eq!(server.lose(KEY).unwrap_err().kind(), ErrorKind::NotHeld);
        assert_eq!(server.lose("").unwrap_err().kind(), ErrorKind::InvalidInput);
        let client = server.client().await.unwrap();
        client
            .lock(KEY)
            .unwrap()
            .acquire()
            .await
            .unwrap()
            .release()
            .await
            .unwrap();
        assert_eq!(server.lose(KEY).unwrap_err().kind(), ErrorKind::NotHeld);
    }

    pub(super) async fn the_loss_of_a_lease_without_renewals_reaches_its_holder_too() {
        let server = TestServer::start().await.unwrap();
        let client = rarely_renewing(&server).await;
        let lock = client.lock(KEY).unwrap().renew(false);
        let guard = lock.acquire().await.unwrap();
        server.lose(KEY).unwrap();
        assert_eq!(guard.lost().await, LostReason::Rejected);
    }

    pub(super) async fn a_cut_ends_all_connections_and_new_ones_succeed() {
        let server = TestServer::start().await.unwrap();
        let client = hasty(&server).await;
        let guard = client.lock(KEY).unwrap().acquire().await.unwrap();
        let Enqueued::Queued(ticket) = client.lock(KEY).unwrap().enqueue().await.unwrap() else {
            panic!("the key is held");
        };
        server.cut();
        assert!(!server.is_held(KEY));
        assert_eq!((server.connections(), server.waiters(KEY)), (0, 0));
        assert_eq!(guard.lost().await, LostReason::Disconnected);
        drop(ticket);
        for _ in 0..3 {
            let guard = client.lock(KEY).unwrap().acquire().await.unwrap();
            server.cut();
            assert_eq!(guard.lost().await, LostReason::Disconnected);
        }
        acquire(&client).await.release().await.unwrap();
    }

    pub(super) async fn a_cut_ends_waits_with_an_error() {
        let server = TestServer::start().await.unwrap();
        let (one, other) = (hasty(&server).await, hasty(&server).await);
        let guard = one.lock(KEY).unwrap().acquire().await.unwrap();
        let waiter = waiting(&other);
        server.wait_for_waiters(KEY, 1).await.unwrap();
        cut(&server, &other).await;
        assert_eq!(guard.lost().await, LostReason::Disconnected);
        // The server may have granted the wait, so the client does not repeat it.
        let error = waiter.await.unwrap().unwrap_err();
        assert!(
            error.kind() == ErrorKind::Disconnected && error.is_retryable(),
            "{error}"
        );
        acquire(&other).await.release().await.unwrap();
    }

    pub(super) async fn a_server_can_be_unreachable_for_a_while() {
        let server = TestServer::start().await.unwrap();
        let pauses = ReconnectPolicy::exponential(Duration::from_millis(1), Duration::from_millis(5));
        let builder = server.client_builder().reconnect(pauses);
        let client = builder.on_unavailable(OnUnavailable::FailFast).connect().await.unwrap();
        server.refuse_connections(true);
        server.cut();
        let mut health = client.watch_health(0).unwrap();
        let is_away =
            |health: &dflockd_client::ShardHealth| matches!(health.state, ConnectionState::Reconnecting { .. });
        health.wait_for(is_away).await.unwrap();
        let error = client.lock(KEY).unwrap().acquire().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        server.refuse_connections(false);
        health.wait_for(|health| health.is_connected()).await.unwrap();
        acquire(&client).await.release().await.unwrap();
    }

    pub(super) async fn a_connection_is_refused_once() {
        let server = TestServer::start().await.unwrap();
        server.refuse_next_connection();
        server.refuse_next_connection();
        for _ in 0..2 {
            assert_eq!(server.client().await.unwrap_err().kind(), ErrorKind::Connect);
        }
        server.client().await.unwrap();
    }

    pub(super) async fn acquires_are_refused_in_order() {
        let server = TestServer::start().await.unwrap();
        let client = server.client().await.unwrap();
        let refusals = [
            (Status::Error, ErrorKind::Refused),
            (Status::MaxLocks, ErrorKind::MaxLocks),
            (Status::MaxWaiters, ErrorKind::MaxWaiters),
            (Status::LimitMismatch, ErrorKind::LimitMismatch),
        ];
        for (status, _) in &refusals {
            server.refuse_next(status.clone());
        }
        for (status, kind) in &refusals {
            let error = client.lock(KEY).unwrap().acquire().await.unwrap_err();
            assert_eq!(error.kind(), *kind, "{status:?}: {error}");
        }
        server.refuse_next(Status::MaxWaiters);
        let error = client.lock(KEY).unwrap().enqueue().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MaxWaiters);
        server.refuse_next(Status::MaxLocks);
        let error = client.lock(KEY).unwrap().try_acquire().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MaxLocks);
        acquire(&client).await.release().await.unwrap();
    }

    pub(super) async fn a_connection_is_refused_for_its_secret() {
        let server = TestServer::start().await.unwrap();
        server.refuse_next(Status::Auth);
        assert_eq!(server.client().await.unwrap_err().kind(), ErrorKind::Auth);
        server.client().await.unwrap();
        let server = TestServer::start_with(Server::builder().auth_token("sesame"));
        let server = server.await.unwrap();
        let connect = |secret: &str| server.client_builder().auth_token(secret).connect();
        server.refuse_next(Status::Auth);
        assert_eq!(connect("sesame").await.unwrap_err().kind(), ErrorKind::Auth);
        assert_eq!(connect("wrong").await.unwrap_err().kind(), ErrorKind::Auth);
        connect("sesame").await.unwrap();
    }

    pub(super) async fn a_draining_server_closes_its_connections() {
        let server = TestServer::start().await.unwrap();
        let client = hasty(&server).await;
        let guard = client.lock("another").unwrap().acquire().await.unwrap();
        server.refuse_next(Status::Draining);
        let lock = client.lock(KEY).unwrap();
        match lock.acquire().await {
            // A draining server has not executed the request, so the client may repeat it.
            Ok(guard) => guard.release().await.unwrap(),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Draining),
        }
        assert_eq!(guard.lost().await, LostReason::ServerDraining);
    }

    pub(super) async fn the_next_renewal_can_be_refused() {
        let server = TestServer::start().await.unwrap();
        let second = Duration::from_secs(1);
        let client = server.client_builder().lease_ttl(second).connect().await.unwrap();
        let guard = client.lock(KEY).unwrap().acquire().await.unwrap();
        server.refuse_next_renewal(Status::Error);
        assert_eq!(guard.lost().await, LostReason::Rejected);
        drop(guard);
        server.wait_until_free(KEY).await.unwrap();
    }

    pub(super) async fn the_next_release_can_be_refused() {
        let server = TestServer::start().await.unwrap();
        let client = server.client().await.unwrap();
        let guard = client.lock(KEY).unwrap().acquire().await.unwrap();
        server.refuse_next_release(Status::Error);
        assert_eq!(guard.release().await.unwrap_err().kind(), ErrorKind::NotHeld);
        assert!(server.is_held(KEY));
    }

    pub(super) async fn the_leader_can_be_moved() {
        let cluster = TestServer::cluster(3).await.unwrap();
        let client = hasty(&cluster).await;
        assert_eq!(client.health()[0].endpoint.as_ref(), cluster.addresses()[0]);
        for leader in [1, 2, 0, 1] {
            let guard = acquire(&client).await;
            assert_eq!(cluster.move_leader().unwrap(), leader);
            // The new leader knows the lease, even though its connection went to the old leader.
            drop(guard);
            acquire(&client).await.release().await.unwrap();
            assert_eq!(client.health()[0].endpoint.as_ref(), cluster.addresses()[leader]);
        }
        let members = cluster.as_cluster().unwrap();
        members.stop(2).await.unwrap();
        assert_eq!(cluster.move_leader().unwrap(), 0);
        members.stop(1).await.unwrap();
        assert_eq!(cluster.move_leader().unwrap_err().kind(), ErrorKind::InvalidInput);
        members.start(1).await.unwrap();
        assert_eq!(cluster.move_leader().unwrap(), 1);
        acquire(&client).await.release().await.unwrap();

        let alone = TestServer::start().await.unwrap();
        assert!(alone.as_cluster().is_none());
        assert_eq!(alone.move_leader().unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(
            TestServer::cluster(0).await.unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
    }

    pub(super) async fn leases_and_connections_of_a_cluster_can_be_ended() {
        let cluster = TestServer::cluster_with(3, Cluster::builder()).await.unwrap();
        let (one, other) = (hasty(&cluster).await, hasty(&cluster).await);
        let guard = acquire(&one).await;
        let waiter = waiting(&other);
        cluster.wait_for_waiters(KEY, 1).await.unwrap();
        cluster.lose(KEY).unwrap();
        assert_eq!(guard.lost().await, LostReason::Rejected);
        let guard = waiter.await.unwrap().unwrap();
        cluster.cut();
        assert!(!cluster.is_held(KEY));
        assert_eq!(guard.lost().await, LostReason::Disconnected);
        acquire(&one).await.release().await.unwrap();
    }

    pub(super) async fn a_cluster_without_a_leader_grants_nothing() {
        let cluster = TestServer::cluster(3).await.unwrap();
        let client = hasty(&cluster).await;
        cluster.as_cluster().unwrap().depose();
        let lock = client.lock(KEY).unwrap().acquire_timeout(Duration::from_millis(300));
        lock.acquire().await.unwrap_err();
        assert_eq!(cluster.move_leader().unwrap(), 0);
        acquire(&client).await.release().await.unwrap();
    }

    pub(super) async fn several_servers_are_shards() {
        let servers = [
            TestServer::start().await.unwrap(),
            TestServer::start().await.unwrap(),
            TestServer::cluster(3).await.unwrap(),
        ];
        let client = TestServer::client_builder_of(&servers).connect().await.unwrap();
        let mut guards = Vec::new();
        for number in 0..30 {
            let key = format!("orders/{number}");
            guards.push(client.lock(&key).unwrap().acquire().await.unwrap());
            let holding = servers.iter().filter(|server| server.is_held(&key)).count();
            assert_eq!(holding, 1, "{key}");
        }
        for server in &servers {
            assert!(!server.stats().locks.is_empty());
        }
        servers[0].cut();
        let lost = guards
            .iter()
            .filter(|guard| servers.iter().all(|server| !server.is_held(guard.key())));
        for guard in lost {
            assert_eq!(guard.lost().await, LostReason::Disconnected);
        }
        let of_another = guards.iter().find(|guard| servers[1].is_held(guard.key())).unwrap();
        servers[1].lose(of_another.key()).unwrap();
        assert_eq!(of_another.lost().await, LostReason::Rejected);
    }

    pub(super) async fn a_standby_takes_over() {
        let (first, second) = (TestServer::start().await.unwrap(), TestServer::start().await.unwrap());
        let addresses = [first.addresses(), second.addresses()].concat();
        let pauses = ReconnectPolicy::exponential(Duration::from_millis(1), Duration::from_millis(5));
        let client = TestServer::client_builder_of([&first, &second])
            .shards([Shard::standby(addresses)])
            .lease_ttl(Duration::from_secs(1))
            .reconnect(pauses)
            .connect()
            .await
            .unwrap();
        let guard = client.lock(KEY).unwrap().acquire().await.unwrap();
        drop(first);
        assert_eq!(guard.lost().await, LostReason::Disconnected);
        let guard = loop {
            match client.lock(KEY).unwrap().acquire().await {
                Ok(guard) => break guard,
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
        };
        assert_eq!(second.leases(KEY)[0].token, *guard.token());
    }

    pub(super) async fn dropping_the_server_before_the_client_does_not_hang() {
        for server in [
            TestServer::start().await.unwrap(),
            TestServer::cluster(3).await.unwrap(),
        ] {
            let client = hasty(&server).await;
            let guard = client.lock(KEY).unwrap().acquire().await.unwrap();
            let waiter = waiting(&client);
            server.wait_for_waiters(KEY, 1).await.unwrap();
            drop(server);
            assert_eq!(guard.lost().await, LostReason::Disconnected);
            waiter.abort();
            drop(guard);
            client.shutdown(Duration::from_millis(200)).await;
        }
    }

    pub(super) async fn dropping_the_client_before_the_server_does_not_hang() {
        let server = TestServer::start().await.unwrap();
        let client = server.client().await.unwrap();
        let guard = client.lock(KEY).unwrap().acquire().await.unwrap();
        drop(client);
        assert!(server.is_held(KEY) && guard.is_held());
        drop(guard);
        server.wait_until_free(KEY).await.unwrap();
        server.shutdown().await;
    }

    pub(super) async fn dropping_a_stalled_server_does_not_hang() {
        let server = TestServer::start().await.unwrap();
        let client = server.client().await.unwrap();
        let guard = client.lock(KEY).unwrap().acquire().await.unwrap();
        server.stall();
        drop(server);
        assert_eq!(guard.lost().await, LostReason::Disconnected);
    }

    pub(super) async fn a_shutdown_of_the_server_ends_in_time() {
        let options = || Server::builder().shutdown_timeout(Duration::from_millis(100));
        for stalls in [false, true] {
            for server in [
                TestServer::start_with(options()).await.unwrap(),
                TestServer::cluster_with(3, Cluster::builder().options(options()))
                    .await
                    .unwrap(),
            ] {
                let client = server.client().await.unwrap();
                let guard = client.lock(KEY).unwrap().acquire().await.unwrap();
                if stalls {
                    server.stall();
                }
                server.shutdown().await;
                guard.lost().await;
            }
        }
    }

    pub(super) async fn leases_may_outlive_a_cut() {
        let options = Server::builder().auto_release_on_disconnect(false);
        let server = TestServer::start_with(options).await.unwrap();
        let client = server.client_builder().survives_disconnect(true);
        let client = client.connect().await.unwrap();
        let mut health = client.watch_health(0).unwrap();
        let guard = client.lock(KEY).unwrap().acquire().await.unwrap();
        // The server stays unreachable until the client has noticed the cut.
        server.refuse_connections(true);
        server.cut();
        assert!(server.is_held(KEY));
        health.wait_for(|health| !health.is_connected()).await.unwrap();
        assert_eq!(guard.state(), LeaseState::Suspect);
        // The client renews the lease when it is connected again.
        server.lose(KEY).unwrap();
        assert_eq!(guard.state(), LeaseState::Suspect);
        server.refuse_connections(false);
        assert_eq!(guard.lost().await, LostReason::Rejected);
        let guard = acquire(&client).await;
        server.refuse_connections(true);
        server.cut();
        health.wait_for(|health| !health.is_connected()).await.unwrap();
        server.refuse_connections(false);
        guard.release().await.unwrap();
        assert!(!server.is_held(KEY));
    }

    pub(super) async fn nothing_passes_during_a_stall() {
        let server = TestServer::start().await.unwrap();
        let client = server.client().await.unwrap();
        server.stall();
        let lock = client.lock(KEY).unwrap();
        let acquiring = tokio::spawn(async move { lock.acquire().await });
        // The acquire does not succeed during the stall.
        sleep(Duration::from_millis(20)).await;
        assert!(!acquiring.is_finished() && !server.is_held(KEY));
        server.resume();
        acquiring.await.unwrap().unwrap().release().await.unwrap();

        // The client ends during the stall. Its request still arrives, and the grant is released.
        let gone = server.client().await.unwrap();
        server.stall();
        let lock = gone.lock(KEY).unwrap();
        let acquiring = tokio::spawn(async move { lock.acquire().await });
        sleep(Duration::from_millis(20)).await;
        acquiring.abort();
        drop(gone);
        server.resume();
        server.wait_until_free(KEY).await.unwrap();
        acquire(&client).await.release().await.unwrap();
    }

    pub(super) async fn losses_are_events_of_the_client() {
        let server = TestServer::start().await.unwrap();
        let (told, mut lost) = tokio::sync::mpsc::unbounded_channel();
        let client = server
            .client_builder()
            .on_lost(move |lost| told.send((lost.key.clone(), lost.reason)).unwrap_or(()))
            .connect()
            .await
            .unwrap();
        let guard = client.lock(KEY).unwrap().acquire().await.unwrap();
        server.lose(KEY).unwrap();
        assert_eq!(lost.recv().await, Some((guard.key().clone(), LostReason::Rejected)));
    }

    pub(super) async fn signals_work_with_a_release_that_has_them() {
        let options = Server::builder().release("1.16");
        let server = TestServer::start_with(options).await.unwrap();
        let client = server.client().await.unwrap();
        let mut signals = client.subscribe("orders.*").await.unwrap();
        assert_eq!(client.emit("orders.42", "paid").await.unwrap(), 1);
        assert_eq!(signals.next_signal().await.unwrap().payload(), "paid");
        cut(&server, &client).await;
        acquire(&client).await.release().await.unwrap();
    }

    pub(super) async fn not_leader_can_be_answered() {
        let cluster = TestServer::cluster(3).await.unwrap();
        let client = hasty(&cluster).await;
        // The client looks for the leader, and finds the same member.
        cluster.refuse_next(Status::NotLeader(None));
        acquire(&client).await.release().await.unwrap();
        let alone = TestServer::start().await.unwrap();
        let client = alone.client().await.unwrap();
        alone.refuse_next(Status::NotLeader(None));
        let error = client.lock(KEY).unwrap().acquire().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotLeader);
    }

    pub(super) async fn test_servers_are_independent() {
        let (one, other) = (TestServer::start().await.unwrap(), TestServer::start().await.unwrap());
        assert_ne!(one.addresses(), other.addresses());
        let stranger = one
            .client_builder()
            .shards([Shard::single(other.addresses().remove(0))]);
        assert_eq!(stranger.connect().await.unwrap_err().kind(), ErrorKind::Connect);
    }
}

/// In paused time, hours pass at once, and events still happen in their order. So these tests are quick.
mod paused {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn leases_are_renewed_for_hours() {
        let server = TestServer::start().await.unwrap();
        let client = server.client().await.unwrap();
        let guard = client.lock(KEY).unwrap().acquire().await.unwrap();
        sleep(Duration::from_secs(6 * 3600)).await;
        assert!(guard.is_held() && server.is_held(KEY));
        guard.release().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_not_renewed_expires_and_its_holder_hears_of_it_first() {
        let server = TestServer::start().await.unwrap();
        let ten = Duration::from_secs(10);
        let client = server.client_builder().lease_ttl(ten).connect().await.unwrap();
        let began = Instant::now();
        let guard = client.lock(KEY).unwrap().renew(false).acquire().await.unwrap();
        let other = server.client().await.unwrap();
        let waiter = waiting(&other);
        assert_eq!(guard.lost().await, LostReason::Expired);
        assert!(
            began.elapsed() < ten && began.elapsed() > ten * 9 / 10,
            "{:?}",
            began.elapsed()
        );
        assert!(server.is_held(KEY) && !waiter.is_finished());
        let _next = waiter.await.unwrap().unwrap();
        assert!(
            began.elapsed() >= ten && began.elapsed() < ten + ten / 2,
            "{:?}",
            began.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn waits_time_out_on_time() {
        let server = TestServer::start().await.unwrap();
        let (one, other) = (server.client().await.unwrap(), server.client().await.unwrap());
        let _guard = one.lock(KEY).unwrap().acquire().await.unwrap();
        let wait = Duration::from_millis(3_600_500);
        let began = Instant::now();
        let error = other
            .lock(KEY)
            .unwrap()
            .acquire_timeout(wait)
            .acquire()
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        // A timer of tokio may be late by a millisecond.
        assert!(
            began.elapsed() >= wait && began.elapsed() < wait + Duration::from_millis(10),
            "{:?}",
            began.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_stall_ends_leases_in_time_and_the_client_recovers() {
        let server = TestServer::start().await.unwrap();
        let (one, other) = (server.client().await.unwrap(), server.client().await.unwrap());
        let guard = one.lock(KEY).unwrap().acquire().await.unwrap();
        server.stall();
        let began = Instant::now();
        // The server answers nothing, so the client closes the connection before the server would close it.
        assert_eq!(guard.lost().await, LostReason::Disconnected);
        assert!(began.elapsed() < Duration::from_secs(23), "{:?}", began.elapsed());
        assert!(server.is_held(KEY));
        let error = other.lock(KEY).unwrap().acquire().await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
        server.resume();
        drop(guard);
        acquire(&other).await.release().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_stall_costs_only_time() {
        let server = TestServer::start().await.unwrap();
        let client = server.client().await.unwrap();
        let guard = client.lock(KEY).unwrap().acquire().await.unwrap();
        server.stall();
        let lock = client.lock("another").unwrap();
        let waiter = tokio::spawn(async move { lock.acquire().await });
        sleep(Duration::from_secs(2)).await;
        assert!(!waiter.is_finished() && !server.is_held("another"));
        server.resume();
        waiter.await.unwrap().unwrap().release().await.unwrap();
        assert!(guard.is_held());
        guard.release().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_loss_during_a_stall_is_reported_after_it() {
        let server = TestServer::start().await.unwrap();
        let client = server.client().await.unwrap();
        let guard = client.lock(KEY).unwrap().acquire().await.unwrap();
        server.stall();
        server.lose(KEY).unwrap();
        sleep(Duration::from_secs(1)).await;
        assert!(guard.is_held());
        server.resume();
        assert_eq!(guard.lost().await, LostReason::Rejected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_renewal_is_repeated() {
        let server = TestServer::start().await.unwrap();
        let (told, mut refused) = tokio::sync::mpsc::unbounded_channel();
        let client = server
            .client_builder()
            .on_renewal_error(move |failed| told.send(failed.error.kind()).unwrap_or(()))
            .connect()
            .await
            .unwrap();
        let guard = client.lock(KEY).unwrap().acquire().await.unwrap();
        server.refuse_next_renewal(Status::MaxLocks);
        assert_eq!(refused.recv().await, Some(ErrorKind::MaxLocks));
        sleep(Duration::from_secs(120)).await;
        assert!(guard.is_held());
    }

    /// `advance` has the same effect as stopping the process for a while: the lease ends before the client renews it.
    #[tokio::test(start_paused = true)]
    async fn advancing_time_skips_renewals() {
        let server = TestServer::start().await.unwrap();
        let client = server.client().await.unwrap();
        let guard = client.lock(KEY).unwrap().acquire().await.unwrap();
        tokio::time::advance(Duration::from_secs(40)).await;
        assert!(!guard.is_held());
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_an_impossible_state_fails_at_once() {
        let server = TestServer::start().await.unwrap();
        let began = Instant::now();
        for error in [
            server.wait_for_waiters(KEY, 1).await.unwrap_err(),
            server.wait_until_held(KEY).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Timeout);
            assert!(error.to_string().contains("0 holders and 0 waiters"), "{error}");
        }
        let client = server.client().await.unwrap();
        let _guard = client.lock(KEY).unwrap().acquire().await.unwrap();
        server.wait_until_free(KEY).await.unwrap_err();
        assert!(began.elapsed() >= Duration::from_secs(90));
    }
}

/// The server takes 50 ms for each request, so the client gets the grant after the server has ended the lease.
#[tokio::test]
async fn a_lease_can_be_lost_while_its_grant_is_on_its_way() {
    let options = Server::builder().request_time(Duration::from_millis(50));
    let server = TestServer::start_with(options).await.unwrap();
    let client = rarely_renewing(&server).await;
    let check = async {
        for renews in [true, false] {
            let lock = client.lock(KEY).unwrap().renew(renews);
            let acquiring = tokio::spawn(async move { lock.acquire().await.unwrap() });
            server.wait_until_held(KEY).await.unwrap();
            server.lose(KEY).unwrap();
            assert!(!acquiring.is_finished());
            let guard = acquiring.await.unwrap();
            assert_eq!(guard.lost().await, LostReason::Rejected);
        }
    };
    crate::everywhere::in_time(check).await;
}

#[test]
fn a_blocking_client_works_with_a_test_server() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(TestServer::start()).unwrap();
    let client = server.client_builder().connect_blocking().unwrap();
    let guard = client.lock(KEY).unwrap().acquire().unwrap();
    assert!(server.is_held(KEY));
    guard.release().unwrap();
    assert!(!server.is_held(KEY));
}

#[tokio::test]
async fn a_test_server_shows_its_addresses() {
    let server = TestServer::start().await.unwrap();
    assert_eq!(
        format!("{server:?}"),
        format!("TestServer {{ addresses: {:?}, .. }}", server.addresses())
    );
}
