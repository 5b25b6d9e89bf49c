//! Tests of a machine that is suspended while leases are held. The suspend is simulated for this thread only, which
//! runs the whole client.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::client::Client;
use crate::client::builder::ClientBuilder;
use crate::clock::{SUSPEND_IS_KNOWN, testing::suspend_for};
use crate::handle::guard::LockGuard;
use crate::lease::state::{LeaseState, LostReason};
use crate::server::{EventKind, Server};

/// Longer than any step of a test takes, unless it hangs.
const SOON: Duration = Duration::from_secs(30);

async fn hold(ttl: u64, change: impl FnOnce(ClientBuilder) -> ClientBuilder) -> (Server, Client, LockGuard) {
    let server = Server::builder().port(0).record_events(true).start().await.unwrap();
    let builder = Client::builder().servers([server.local_addr().to_string()]);
    let client = change(builder)
        .lease_ttl(Duration::from_secs(ttl))
        .connect()
        .await
        .unwrap();
    let guard = client.lock("k").unwrap().acquire().await.unwrap();
    (server, client, guard)
}

const HOUR: Duration = Duration::from_secs(3600);

/// Sets timeouts so long that no timer of the client becomes due during a test, and that no suspend of a test is too
/// long for the server.
fn quiet(builder: ClientBuilder) -> ClientBuilder {
    builder
        .keepalive(HOUR / 2)
        .reply_timeout(HOUR)
        .server_read_timeout(HOUR * 10)
}

/// Starts to wait for the loss of a lease.
async fn waits_for_loss(guard: &LockGuard) -> JoinHandle<LostReason> {
    let begun = Arc::new(Notify::new());
    let waiting = tokio::spawn({
        let (begun, lost) = (Arc::clone(&begun), guard.lost());
        async move {
            let mut lost = std::pin::pin!(lost);
            let first = std::future::poll_fn(|cx| Poll::Ready(lost.as_mut().poll(cx))).await;
            assert!(first.is_pending());
            begun.notify_one();
            lost.await
        }
    });
    begun.notified().await;
    waiting
}

fn renewals(server: &Server) -> usize {
    let events = server.events();
    events.iter().filter(|event| event.kind == EventKind::Renewed).count()
}

async fn why_lost(guard: &LockGuard) -> LostReason {
    timeout(SOON, guard.lost()).await.expect("the guard reports the loss")
}

/// The state shows the loss before any task of the client has run; then the waiting caller is told.
#[tokio::test]
async fn a_lease_whose_time_is_over_is_lost_at_once() {
    let (_server, _client, guard) = hold(30, |builder| builder).await;
    assert!(guard.is_held());
    suspend_for(Duration::from_secs(30));
    assert!(!guard.is_held());
    assert_eq!(guard.state(), LeaseState::Lost(LostReason::Expired));
    assert_eq!(why_lost(&guard).await, LostReason::Expired);
}

#[tokio::test]
async fn a_task_that_waits_for_the_loss_is_told_although_timers_stood_still() {
    let (_server, client, guard) = hold(3600, quiet).await;
    let waiting = waits_for_loss(&guard).await;
    suspend_for(HOUR);
    if SUSPEND_IS_KNOWN {
        let told = timeout(SOON, waiting).await.expect("the waiting task is told");
        assert_eq!(told.unwrap(), LostReason::Expired);
    }
    // A lease that the server may still hold is released, and the client continues.
    drop(guard);
    let again = client.lock("k").unwrap().acquire().await.unwrap();
    assert!(again.is_held());
}

/// The suspend reduces the remaining time, and the renewal that is due by now is sent.
#[tokio::test]
async fn a_lease_with_time_left_is_renewed() {
    let (server, _client, guard) = hold(3600, quiet).await;
    let before = guard.remaining();
    suspend_for(HOUR * 2 / 3);
    let left = guard.remaining();
    assert!(guard.is_held() && before - left >= HOUR * 2 / 3, "{before:?} {left:?}");
    if SUSPEND_IS_KNOWN {
        let renewed = async {
            while renewals(&server) == 0 || guard.remaining() <= left {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, renewed)
            .await
            .expect("more than half of its TTL is over, so it is renewed");
        assert!(guard.remaining() > HOUR / 2);
    }
}

/// A server that received nothing during a long suspend may have given up the connection, and the lease with it.
#[tokio::test]
async fn a_long_suspend_ends_leases_however_long_their_ttl() {
    let (_server, _client, guard) = hold(3600, |builder| builder).await;
    suspend_for(Duration::from_secs(60));
    assert!(!guard.is_held());
    let (_server, _client, survives) = hold(3600, |builder| builder.survives_disconnect(true)).await;
    suspend_for(Duration::from_secs(60));
    assert!(survives.is_held());
}

/// The grant comes after the suspend, but the client cannot know that: it may also have come before.
#[tokio::test]
async fn a_grant_that_was_requested_before_a_suspend_counts_from_its_request() {
    let (_server, client, holder) = hold(30, |builder| builder).await;
    let waiting = tokio::spawn({
        let lock = client.lock("k").unwrap();
        async move { lock.acquire().await }
    });
    let stats = async {
        while client.stats().await.unwrap().locks.iter().all(|lock| lock.waiters == 0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, stats).await.expect("the server has a waiter");
    suspend_for(Duration::from_secs(60));
    holder.release().await.unwrap_err();
    let guard = timeout(SOON, waiting)
        .await
        .expect("the wait is granted")
        .unwrap()
        .unwrap();
    // A renewal confirmed the grant before the caller got it, so its whole TTL is left.
    assert!(
        guard.is_held() && guard.remaining() > Duration::from_secs(20),
        "{:?}",
        guard.remaining()
    );
}
