//! Tests of the queue positions alone.

use tokio::sync::oneshot;

use super::*;
use crate::error::Result;
use crate::shard::bench::{SECOND, ask, key};
use crate::types::Limit;

type Caller = oneshot::Receiver<Result<Acquired>>;

fn position(lane: Option<LaneId>) -> QueuePosition {
    let (ask, _) = ask();
    let ttl = Some(Ttl::from_secs(7).unwrap());
    let mut acquire = Acquire::new(slot(), key("k"), ttl, policy(), ask);
    acquire.redirects = 2;
    QueuePosition::of(&acquire, lane, Instant::now().into())
}

fn slot() -> Target {
    Target::Semaphore(Limit::new(3).unwrap())
}

fn policy() -> RenewTerms {
    RenewTerms {
        never: true,
        ..RenewTerms::default()
    }
}

/// Adds a queue position on a connection, and a caller that waits for its grant.
fn collected(positions: &mut QueuePositions, lane: LaneId) -> (TicketId, Caller) {
    let id = positions.insert(position(Some(lane)));
    let (ask, caller) = ask();
    assert_eq!(positions.collect(id, Instant::now(), ask).ok(), Some(Some(lane)));
    (id, caller)
}

#[test]
fn a_queue_position_keeps_its_terms() {
    let (ask, _caller) = ask();
    let acquire = Acquire::new(slot(), key("k"), Some(Ttl::from_secs(7).unwrap()), policy(), ask);
    let enqueued_at = Moment::from(Instant::now());
    let position = QueuePosition::of(&acquire, Some(1), enqueued_at);
    assert_eq!(position.ttl(), acquire.ttl);
    assert_eq!(position.enqueued_at(), enqueued_at);
    assert_eq!(position.wait_key(), (slot(), key("k")));
    assert!(!position.is_to_give_up());

    let mut positions = QueuePositions::default();
    let id = positions.insert(position);
    assert_eq!(positions.wait_key(id), Some((slot(), key("k"))));
    let enqueue = Request::Enqueue {
        target: slot(),
        key: key("k"),
        ttl: acquire.ttl,
    };
    assert!(
        positions.request(id) == Some(enqueue),
        "the position is reclaimed on the same terms"
    );
    assert!(positions.remove(id).is_some() && positions.remove(id).is_none());
    assert!(positions.wait_key(id).is_none() && positions.request(id).is_none());
}

#[test]
fn ticket_identifiers_are_not_reused() {
    let mut positions = QueuePositions::default();
    let first = positions.insert(position(None));
    positions.remove(first);
    let second = positions.insert(position(None));
    positions.take_callers();
    let third = positions.insert(position(None));
    assert!(first < second && second < third);
}

#[test]
fn a_caller_waits_over_the_connection_of_its_queue_position() {
    let mut positions = QueuePositions::default();
    let id = positions.insert(position(Some(3)));
    assert!(!positions.is_collected(id));
    let (ask_first, mut caller) = ask();
    assert_eq!(positions.collect(id, Instant::now(), ask_first).ok(), Some(Some(3)));
    assert!(positions.is_collected(id) && positions.len() == 1);

    let taken = positions.remove(id).unwrap();
    let acquire = taken.into_acquire().expect("a caller waits at the position");
    assert_eq!((acquire.wait_key(), acquire.policy), ((slot(), key("k")), policy()));
    assert_eq!(acquire.ttl, Some(Ttl::from_secs(7).unwrap()));
    acquire.ask.tell(Err(crate::ending::shut_down()));
    assert!(matches!(caller.try_recv(), Ok(Err(_))), "the caller gets the answer");

    let (ask_late, _caller) = ask();
    assert!(
        positions.collect(id, Instant::now(), ask_late).is_err(),
        "the caller is returned"
    );
    assert!(!positions.is_collected(id));
}

#[test]
fn a_caller_at_a_position_that_is_being_reclaimed_waits_until_it_is_reclaimed() {
    let mut positions = QueuePositions::default();
    let id = positions.insert(position(Some(3)));
    assert!(positions.leave_connection(id));
    let until = Instant::now() + SECOND;
    let (ask, _caller) = ask();
    assert_eq!(positions.collect(id, until, ask).ok(), Some(None));
    match positions.taken_back(id, 4) {
        Some(AfterRejoin::Collect(then, ask)) => assert!(then == until && !ask.is_gone()),
        _ => panic!("a caller waits at the position"),
    }
    assert!(!positions.is_collected(id), "the caller was returned");
    assert!(matches!(positions.taken_back(id, 5), Some(AfterRejoin::Keep)));
    assert!(
        matches!(positions.give_up(id), Some(GivingUp::On(5, _))),
        "the position is on the new connection"
    );
    assert!(!positions.leave_connection(id) && positions.taken_back(id, 6).is_none());
}

#[test]
fn a_queue_position_is_given_up_over_its_connection_or_later_if_it_has_none() {
    let mut positions = QueuePositions::default();
    let id = positions.insert(position(Some(3)));
    assert!(matches!(positions.give_up(id), Some(GivingUp::On(3, _))));
    assert!(positions.give_up(id).is_none() && positions.len() == 0);

    let id = positions.insert(position(Some(3)));
    positions.leave_connection(id);
    assert!(positions.take_to_give_up(id).is_none(), "the ticket has a holder");
    assert!(matches!(positions.give_up(id), Some(GivingUp::Later)));
    assert!(positions.is_to_give_up(id));
    let taken = positions.take_to_give_up(id).expect("no caller wants it");
    assert!(taken.is_to_give_up() && taken.into_acquire().is_none());
    assert!(positions.take_to_give_up(id).is_none() && !positions.is_to_give_up(id));
}

#[test]
fn a_queue_position_without_a_ticket_can_be_given_up() {
    let mut positions = QueuePositions::default();
    let now = Moment::from(Instant::now());
    let id = positions.insert(QueuePosition::to_give_up(Target::Lock, key("k"), now));
    assert!(positions.is_to_give_up(id) && !positions.is_collected(id));
    assert_eq!(positions.count_rejoin(id), Some(1));
    assert!(matches!(positions.taken_back(id, 1), Some(AfterRejoin::GiveUp)));
}

#[test]
fn reclaims_are_counted_from_the_redirects_of_the_acquire() {
    let mut positions = QueuePositions::default();
    let id = positions.insert(position(None));
    assert_eq!(
        (positions.count_rejoin(id), positions.count_rejoin(id)),
        (Some(3), Some(4))
    );
    assert!(positions.remove(id).is_some());
    assert_eq!(positions.count_rejoin(id), None);
}

#[test]
fn a_queue_position_is_abandoned_when_its_caller_has_been_gone_for_long_enough() {
    let start = Instant::now();
    let mut positions = QueuePositions::default();
    let (_, gone_later) = collected(&mut positions, 9);
    let (_, gone) = collected(&mut positions, 4);
    let (_, _there) = collected(&mut positions, 5);
    let (lost, gone_and_lost) = collected(&mut positions, 6);
    positions.insert(position(Some(7)));
    positions.leave_connection(lost);
    assert!(positions.abandoned(start, start).is_empty(), "all callers still wait");
    drop((gone, gone_and_lost));

    let noticed = start + SECOND;
    assert!(
        positions.abandoned(noticed, start).is_empty(),
        "the callers are only noticed to be gone now"
    );
    drop(gone_later);
    let later = start + 2 * SECOND;
    assert_eq!(
        positions.abandoned(later, noticed),
        [4],
        "a position without a connection is not returned"
    );
    assert!(positions.abandoned(later + SECOND, noticed - SECOND / 2).is_empty());
    assert_eq!(
        positions.abandoned(later + SECOND, later),
        [4, 9],
        "the connections are sorted"
    );
    assert_eq!(positions.len(), 5, "no position is removed");
}

#[test]
fn taking_the_callers_removes_all_queue_positions() {
    let mut positions = QueuePositions::default();
    let (_, mut on_connection) = collected(&mut positions, 1);
    let (lost, mut without) = collected(&mut positions, 2);
    positions.leave_connection(lost);
    positions.insert(position(Some(3)));
    let callers = positions.take_callers();
    assert_eq!((callers.len(), positions.len()), (2, 0));
    for ask in callers {
        ask.tell(Err(crate::ending::shut_down()));
    }
    assert!(matches!(on_connection.try_recv(), Ok(Err(_))) && matches!(without.try_recv(), Ok(Err(_))));
}
