//! Tickets for a key that moves. A ticket has a queue position at only one server at a time.

use std::time::Duration;

use dflockd_client::{Client, Enqueued, ErrorKind, LockGuard, LostReason, Ticket};

use super::LONG;
use super::fleet::{Fleet, MOVES};

async fn queued(client: &Client) -> Ticket<LockGuard> {
    match client.lock(MOVES).unwrap().enqueue().await.unwrap() {
        Enqueued::Queued(ticket) => ticket,
        Enqueued::Acquired(_) => panic!("the key is held"),
    }
}

#[tokio::test]
async fn an_enqueue_of_a_free_key_acquires_both_halves() {
    let fleet = Fleet::start().await;
    let client = fleet.both().connect().await.unwrap();
    let Enqueued::Acquired(guard) = client.lock(MOVES).unwrap().enqueue().await.unwrap() else {
        panic!("the key is free");
    };
    fleet.until_load([(1, 0), (0, 0), (1, 0)]).await;
    guard.release().await.unwrap();
    fleet.until_free().await;
}

#[tokio::test]
async fn a_ticket_at_the_previous_server_is_collected_before_the_other_half_is_acquired() {
    let fleet = Fleet::start().await;
    let [old, both, new] = fleet.clients().await;
    let (first, second) = (
        old.lock(MOVES).unwrap().acquire().await.unwrap(),
        new.lock(MOVES).unwrap(),
    );
    let second = second.acquire().await.unwrap();
    let ticket = queued(&both).await;
    fleet.until_load([(1, 1), (0, 0), (1, 0)]).await;
    let waiting = tokio::spawn(ticket.wait(LONG));
    first.release().await.unwrap();
    fleet.until_load([(1, 0), (0, 0), (1, 1)]).await;
    second.release().await.unwrap();
    let guard = waiting.await.unwrap().unwrap();
    fleet.until_load([(1, 0), (0, 0), (1, 0)]).await;
    guard.release().await.unwrap();
    fleet.until_free().await;
}

#[tokio::test]
async fn a_ticket_at_the_current_server_holds_the_previous_half() {
    let fleet = Fleet::start().await;
    let [_old, both, new] = fleet.clients().await;
    for ends in ["granted", "timed out", "dropped", "dropped while it is waited for"] {
        let held = new.lock(MOVES).unwrap().acquire().await.unwrap();
        let ticket = queued(&both).await;
        fleet.until_load([(1, 0), (0, 0), (1, 1)]).await;
        match ends {
            "granted" => {
                let waiting = tokio::spawn(ticket.wait(LONG));
                held.release().await.unwrap();
                let guard = waiting.await.unwrap().unwrap();
                fleet.until_load([(1, 0), (0, 0), (1, 0)]).await;
                guard.release().await.unwrap();
            }
            "timed out" => {
                let error = ticket.wait(Duration::from_millis(100)).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
                held.release().await.unwrap();
            }
            "dropped" => {
                drop(ticket);
                held.release().await.unwrap();
            }
            _ => {
                let waiting = tokio::spawn(ticket.wait(LONG));
                tokio::task::yield_now().await;
                waiting.abort();
                assert!(waiting.await.unwrap_err().is_cancelled());
                held.release().await.unwrap();
            }
        }
        fleet.until_free().await;
    }
}

#[tokio::test]
async fn a_poll_of_a_ticket_answers_at_once() {
    let fleet = Fleet::start().await;
    let [old, both, new] = fleet.clients().await;
    let second = new.lock(MOVES).unwrap().acquire().await.unwrap();
    let first = old.lock(MOVES).unwrap().acquire().await.unwrap();
    let ticket = queued(&both).await;
    first.release().await.unwrap();
    let error = ticket.wait(Duration::ZERO).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "the other half is held: {error}");
    second.release().await.unwrap();
    let first = old.lock(MOVES).unwrap().acquire().await.unwrap();
    let ticket = queued(&both).await;
    first.release().await.unwrap();
    fleet.until_load([(1, 0), (0, 0), (0, 0)]).await;
    ticket.wait(Duration::ZERO).await.unwrap().release().await.unwrap();
    fleet.until_free().await;
}

/// The ticket waits for the current half. The previous half is lost before the caller waits at the ticket.
#[tokio::test]
async fn a_ticket_ends_with_the_half_that_it_holds() {
    let fleet = Fleet::start().await;
    let [_old, both, new] = fleet.clients().await;
    let held = new.lock(MOVES).unwrap().acquire().await.unwrap();
    let ticket = queued(&both).await;
    fleet.proxies[0].cut();
    fleet.until_load([(0, 0), (0, 0), (1, 1)]).await;
    let error = ticket.wait(LONG).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LeaseLost, "{error}");
    assert!(
        error.to_string().contains(&LostReason::Disconnected.to_string()),
        "{error}"
    );
    held.release().await.unwrap();
    fleet.until_free().await;
}
