//! Acquires in two phases: first the caller takes a ticket, which is a queue position, and then it waits for the lock.

use std::time::Duration;

use crate::support::proxy::Proxy;
use crate::support::until;
use dflockd_client::server::{EventKind, Server, ServerBuilder};
use dflockd_client::{Client, Enqueued, ErrorKind, Lock, LockGuard, Ticket};
use tokio::time::sleep;

const LONG: Duration = Duration::from_secs(30);

async fn scene(builder: ServerBuilder) -> (Server, Client) {
    let server = builder.port(0).record_events(true).start().await.unwrap();
    let servers = [server.local_addr().to_string()];
    let client = Client::builder().servers(servers).connect().await.unwrap();
    (server, client)
}

async fn queued(lock: &Lock) -> Ticket<LockGuard> {
    match lock.enqueue().await.unwrap() {
        Enqueued::Queued(ticket) => ticket,
        Enqueued::Acquired(guard) => panic!("{guard:?}: the key was free, so the call was not queued"),
    }
}

async fn acquired(lock: &Lock) -> LockGuard {
    match lock.enqueue().await.unwrap() {
        Enqueued::Acquired(guard) => guard,
        Enqueued::Queued(ticket) => panic!("{ticket:?} was held"),
    }
}

fn waiters(server: &Server) -> u64 {
    server.stats().locks.iter().map(|lock| lock.waiters).sum()
}

fn seen(server: &Server, kind: EventKind) -> usize {
    server.events().iter().filter(|event| event.kind == kind).count()
}

#[tokio::test]
async fn enqueues_of_a_free_key_reuse_their_connections() {
    let (server, client) = scene(Server::builder()).await;
    let lock = client.lock("k").unwrap();
    for _ in 0..20 {
        let guard = acquired(&lock).await;
        assert!(guard.is_held());
        guard.release().await.unwrap();
    }
    assert_eq!(server.stats().connections, 2);
    assert!(server.stats().locks.is_empty());
}

/// The wait at a ticket does not count against `max_waiters`. If it did, the callers that wait could prevent the
/// ticket from collecting its grant.
#[tokio::test]
async fn the_wait_of_a_ticket_needs_no_room() {
    let server = Server::builder().port(0).start().await.unwrap();
    let servers = [server.local_addr().to_string()];
    let client = Client::builder()
        .servers(servers)
        .max_waiters(1)
        .connect()
        .await
        .unwrap();
    let lock = client.lock("k").unwrap();
    let holder = lock.acquire().await.unwrap();
    let (first, second) = (queued(&lock).await, queued(&lock).await);
    let other = client.lock("other").unwrap();
    let _held = other.acquire().await.unwrap();
    let waiting = tokio::spawn(async move { other.acquire().await.map(drop) });
    until("the waits take all room", || waiters(&server) == 3).await;
    let behind = tokio::spawn(second.wait(LONG));
    holder.release().await.unwrap();
    let guard = first.wait(LONG).await.unwrap();
    assert!(!behind.is_finished());
    guard.release().await.unwrap();
    assert!(behind.await.unwrap().unwrap().is_held());
    waiting.abort();
}

#[tokio::test]
async fn a_ticket_keeps_its_queue_position_while_no_caller_waits() {
    let (server, client) = scene(Server::builder()).await;
    let lock = client.lock("k").unwrap();
    let first = lock.acquire().await.unwrap();
    let ticket = queued(&lock).await;
    assert_eq!(ticket.key().as_str(), "k");
    let later = tokio::spawn({
        let lock = lock.clone();
        async move { lock.acquire().await.unwrap() }
    });
    until("another caller waits behind the ticket", || waiters(&server) == 2).await;
    first.release().await.unwrap();
    sleep(Duration::from_millis(50)).await;
    assert!(!later.is_finished(), "the ticket is ahead in the queue");
    let second = ticket.wait(LONG).await.unwrap();
    assert!(second.is_held());
    second.release().await.unwrap();
    later.await.unwrap().release().await.unwrap();
}

#[tokio::test]
async fn the_wait_of_a_ticket_blocks_no_other_caller_and_ends_with_the_grant() {
    let (_server, client) = scene(Server::builder()).await;
    let lock = client.lock("k").unwrap();
    let first = lock.acquire().await.unwrap();
    let waiting = tokio::spawn(queued(&lock).await.wait(LONG));
    for number in 0..50 {
        let other = client.lock(format!("other/{number}")).unwrap();
        other.acquire().await.unwrap().release().await.unwrap();
    }
    first.release().await.unwrap();
    waiting.await.unwrap().unwrap().release().await.unwrap();
}

#[tokio::test]
async fn a_timeout_gives_the_queue_position_up() {
    let (server, client) = scene(Server::builder()).await;
    let lock = client.lock("k").unwrap();
    let _held = lock.acquire().await.unwrap();
    for patience in [Duration::ZERO, Duration::from_millis(120)] {
        let ticket = queued(&lock).await;
        let error = ticket.wait(patience).await.unwrap_err();
        assert!(error.is_timeout() && error.to_string().contains("\"k\""), "{error}");
        until("the ticket has left the queue", || waiters(&server) == 0).await;
    }
}

#[tokio::test]
async fn a_dropped_ticket_gives_up_its_queue_position_or_its_grant() {
    let (server, client) = scene(Server::builder()).await;
    let lock = client.lock("k").unwrap();
    let first = lock.acquire().await.unwrap();
    drop(queued(&lock).await);
    until("the ticket has left the queue", || waiters(&server) == 0).await;
    let ticket = queued(&lock).await;
    first.release().await.unwrap();
    until("the ticket is granted", || seen(&server, EventKind::Granted) == 2).await;
    drop(ticket);
    until("the grant is released", || server.stats().locks.is_empty()).await;
    drop(acquired(&lock).await);
}

#[tokio::test]
async fn a_dropped_wait_gives_up_its_queue_position() {
    let (server, client) = scene(Server::builder()).await;
    let lock = client.lock("k").unwrap();
    let first = lock.acquire().await.unwrap();
    let waiting = tokio::spawn(queued(&lock).await.wait(LONG));
    sleep(Duration::from_millis(30)).await;
    waiting.abort();
    until("the wait has left the queue", || waiters(&server) == 0).await;
    first.release().await.unwrap();
    assert!(acquired(&lock).await.is_held());
}

#[tokio::test]
async fn enqueues_dropped_anywhere_leave_nothing() {
    let (server, client) = scene(Server::builder()).await;
    for round in 0..300_u64 {
        let lock = client.lock(format!("k{}", round % 3)).unwrap();
        let patience = Duration::from_micros(round * 7 % 400);
        let attempt = async {
            if let Enqueued::Queued(ticket) = lock.enqueue().await.unwrap() {
                drop(ticket.wait(Duration::from_millis(round % 3)).await);
            }
        };
        drop(tokio::time::timeout(patience, attempt).await);
    }
    until("no caller holds or waits", || server.stats().locks.is_empty()).await;
    assert!(
        seen(&server, EventKind::Granted) > 20,
        "too few enqueues were granted for this test"
    );
}

/// The server grants the key to the ticket while no caller waits, and then the lease expires. The wait must return an
/// error with every version of the server, although the versions answer differently.
#[tokio::test]
async fn a_grant_that_expired_before_it_was_collected_is_discarded() {
    for release in ["2.1", "1.14", "1.10", "cluster"] {
        let builder = Server::builder()
            .release(release)
            .lease_sweep_interval(Duration::from_millis(10));
        let (server, client) = scene(builder).await;
        let lock = client.lock("k").unwrap().lease_ttl(Duration::from_secs(1));
        let first = lock.acquire().await.unwrap();
        let ticket = queued(&lock).await;
        first.release().await.unwrap();
        until("the lease has expired", || seen(&server, EventKind::Expired) == 1).await;
        let other = client.lock("k").unwrap().acquire().await.unwrap();
        let error = ticket.wait(LONG).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LeaseExpired, "{error}");
        assert!(other.is_held());
        other.release().await.unwrap();
    }
}

#[tokio::test]
async fn a_grant_that_may_be_old_is_confirmed_first() {
    let (server, client) = scene(Server::builder()).await;
    let lock = client.lock("k").unwrap().lease_ttl(Duration::from_secs(4));
    let first = lock.acquire().await.unwrap();
    let ticket = queued(&lock).await;
    first.release().await.unwrap();
    sleep(Duration::from_millis(2200)).await;
    let renewed = seen(&server, EventKind::Renewed);
    let guard = ticket.wait(LONG).await.unwrap();
    assert!(guard.is_held());
    assert!(
        seen(&server, EventKind::Renewed) > renewed,
        "the guard was returned before a renewal confirmed the lease"
    );
}

#[tokio::test]
async fn a_queue_position_ends_with_its_connection_and_its_wait_fails() {
    let (server, client) = scene(Server::builder()).await;
    let proxy = Proxy::start(&server.local_addr().to_string()).await;
    let distant = Client::builder().servers([&proxy.address]).connect().await.unwrap();
    let _held = client.lock("k").unwrap().acquire().await.unwrap();
    let lock = distant.lock("k").unwrap();
    let (idle, busy) = (queued(&lock).await, queued(&lock).await);
    let waiting = tokio::spawn(busy.wait(LONG));
    sleep(Duration::from_millis(30)).await;
    proxy.cut();
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), ErrorKind::Disconnected);
    until("both tickets have left the queue", || waiters(&server) == 0).await;
    let error = idle.wait(LONG).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected, "{error}");
    drop(queued(&lock).await);
}

#[tokio::test]
async fn tickets_of_a_semaphore_bring_slots() {
    let (server, client) = scene(Server::builder()).await;
    let slots = client.semaphore("s", 2).unwrap();
    let Enqueued::Acquired(first) = slots.enqueue().await.unwrap() else {
        panic!("two slots are free");
    };
    let _second = slots.acquire().await.unwrap();
    let Enqueued::Queued(ticket) = slots.enqueue().await.unwrap() else {
        panic!("no slot is free");
    };
    first.release().await.unwrap();
    let third = ticket.wait(LONG).await.unwrap();
    assert_eq!(server.stats().semaphores[0].holders, 2);
    third.release().await.unwrap();
}

#[tokio::test]
async fn more_tickets_than_connections_is_an_error_and_a_shutdown_ends_the_others() {
    let server = Server::builder().port(0).start().await.unwrap();
    let client = Client::builder()
        .servers([server.local_addr().to_string()])
        .exclusive_connections(2)
        .exclusive_connections_per_key(2)
        .request_timeout(Duration::from_millis(300))
        .connect()
        .await
        .unwrap();
    let lock = client.lock("k").unwrap();
    let _held = lock.acquire().await.unwrap();
    let (first, _second) = (queued(&lock).await, queued(&lock).await);
    let error = lock.enqueue().await.unwrap_err();
    assert!(
        error.is_timeout() && error.to_string().contains("exclusive_connections"),
        "{error}"
    );
    client.shutdown(Duration::from_secs(5)).await;
    let error = first.wait(LONG).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Shutdown, "{error}");
    until("all locks are released", || server.stats().locks.is_empty()).await;
}
