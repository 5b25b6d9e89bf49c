//! A dropped future leaves no half of a lease (see `mod.rs`) and no queue position behind.

use std::time::Duration;

use tokio::time::timeout;

use super::LONG;
use super::fleet::{Fleet, MOVES};

#[tokio::test]
async fn dropping_a_wait_for_either_half_gives_up_both() {
    let fleet = Fleet::start().await;
    let [old, both, new] = fleet.clients().await;
    for holder in [&old, &new] {
        let held = holder.lock(MOVES).unwrap().acquire().await.unwrap();
        let lock = both.lock(MOVES).unwrap().acquire_timeout(LONG);
        let waiting = tokio::spawn(async move { lock.acquire().await });
        let waits_at_old = std::ptr::eq(holder, &old);
        fleet
            .until_load(match waits_at_old {
                true => [(1, 1), (0, 0), (0, 0)],
                false => [(1, 0), (0, 0), (1, 1)],
            })
            .await;
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        held.release().await.unwrap();
        fleet.until_free().await;
    }
}

/// Drops futures after times that grow in small steps, while the proxies delay all bytes by 2 ms.
#[tokio::test]
async fn a_future_that_is_dropped_at_any_await_leaks_nothing() {
    let fleet = Fleet::start().await;
    let client = fleet.both().connect().await.unwrap();
    for proxy in &fleet.proxies {
        proxy.change(|treatment| treatment.delay = Duration::from_millis(2));
    }
    let lock = client.lock(MOVES).unwrap().acquire_timeout(LONG);
    let (mut dropped, mut finished) = (0, 0);
    // In the first 150 attempts, the time grows by 200 µs for each attempt. In each further round of 150 attempts, the
    // growth is greater, so that enough futures complete on a slow machine.
    for attempt in 0_u64.. {
        if dropped > 30 && finished > 30 {
            break;
        }
        let (round, step) = (attempt / 150 + 1, attempt % 150);
        let patience = Duration::from_micros(200 * round * step);
        let ended = match attempt % 3 {
            0 => timeout(patience, lock.acquire()).await.map(|held| drop(held.unwrap())),
            1 => timeout(patience, lock.try_acquire())
                .await
                .map(|held| drop(held.unwrap())),
            _ => timeout(patience, lock.enqueue()).await.map(|held| drop(held.unwrap())),
        };
        match ended {
            Ok(()) => finished += 1,
            Err(_) => dropped += 1,
        }
    }
    assert!(
        dropped > 30 && finished > 30,
        "{dropped} were dropped, {finished} were not"
    );
    fleet.until_free().await;
    for proxy in &fleet.proxies {
        proxy.pass_everything();
    }
    lock.acquire().await.unwrap().release().await.unwrap();
    let report = client.shutdown(Duration::from_secs(10)).await;
    assert!(report.unreleased.is_empty(), "{report:?}");
}

/// The release of both halves continues after its future is dropped.
#[tokio::test]
async fn a_dropped_release_releases_both_halves() {
    let fleet = Fleet::start().await;
    let client = fleet.both().connect().await.unwrap();
    let guard = client.lock(MOVES).unwrap().acquire().await.unwrap();
    {
        let mut release = Box::pin(guard.release());
        let polled = futures_poll(release.as_mut()).await;
        assert!(polled.is_pending());
    }
    fleet.until_free().await;
}

async fn futures_poll<F: Future>(mut future: std::pin::Pin<&mut F>) -> std::task::Poll<F::Output> {
    std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx))).await
}
