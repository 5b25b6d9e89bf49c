//! Tests which connection carries a wait, and which waits may be given up.

use super::*;

#[test]
fn the_oldest_idle_connection_without_leases_is_chosen() {
    let mut scene = Scene::new(1);
    assert_eq!(scene.idle(), None);
    let (first, second, third) = (scene.idle_one(), scene.idle_one(), scene.idle_one());
    assert_eq!(scene.idle(), Some(first));
    assert!(scene.send_one(first));
    assert_eq!(
        scene.idle(),
        Some(second),
        "the first connection has an unanswered request"
    );
    scene.own(second);
    assert_eq!(scene.idle(), Some(third), "the second connection owns a lease");
    scene.answered(first, 1, 0);
    assert_eq!(scene.idle(), Some(first));
    scene.retire_one(first);
    assert_eq!(scene.idle(), Some(third));
    scene.disown_one(second);
    assert_eq!(scene.idle(), Some(second));
    scene.cut_one(second);
    scene.remove(third);
    assert_eq!(scene.idle(), None);
}

#[test]
fn only_exclusive_connections_that_are_up_are_idle_for_waits() {
    let mut scene = Scene::new(1);
    scene.pipelined();
    let now = scene.now;
    let disposable = scene.open(Role::Disposable, Work::Idle(now));
    scene.rise(disposable);
    let exclusive = scene.open(Role::Exclusive, Work::Idle(now));
    assert_eq!((scene.idle(), scene.for_waits()), (None, 1));
    scene.rise(exclusive);
    assert_eq!(scene.idle(), Some(exclusive));
}

#[test]
fn all_exclusive_connections_but_idle_owners_count_as_connections_for_waits() {
    let mut scene = Scene::new(1);
    scene.idle_one();
    let owner = scene.owner(1);
    let until = scene.now + SECOND;
    let waiting = scene.waiting("k", until);
    scene.own(waiting);
    scene.open(Role::Exclusive, Work::Opening(None));
    assert_eq!(
        scene.for_waits(),
        3,
        "the waiting connection counts although it owns a lease"
    );
    scene.change(waiting).stop_waiting(until);
    assert_eq!(scene.for_waits(), 2);
    scene.remove(owner);
    assert_eq!(scene.for_waits(), 2);
}

#[test]
fn an_owner_serves_a_wait_unless_its_session_may_have_had_the_key() {
    let mut scene = Scene::new(1);
    scene.idle_one();
    assert_eq!(scene.idle_owner(&lock("k")), None, "the connection owns no lease");
    let now = scene.now;
    let in_session = scene.in_session(Work::Idle(now));
    scene
        .change(in_session)
        .begin(Work::Waiting(lock("k")), &lock("k"), None);
    scene.own(in_session);
    assert_eq!(scene.idle_owner(&lock("other")), None, "the connection waits");
    scene.change(in_session).stop_waiting(now);
    assert_eq!(scene.idle_owner(&lock("k")), None);
    assert_eq!(scene.idle_owner(&lock("other")), Some(in_session));
    let semaphore = (Target::Semaphore(Limit::new(2).unwrap()), key("k"));
    assert_eq!(
        scene.idle_owner(&semaphore),
        Some(in_session),
        "a semaphore of the same name is another key"
    );
    let plain = scene.owner(1);
    assert_eq!(
        scene.idle_owner(&lock("k")),
        Some(plain),
        "the third connection has no session"
    );
}

#[test]
fn connections_that_open_for_the_next_wait_are_counted_and_those_for_a_bound_wait_are_not() {
    let mut scene = Scene::new(1);
    let next = scene.open(Role::Exclusive, Work::Opening(None));
    let gone = scene.open(Role::Exclusive, Work::Opening(None));
    let for_bound = scene.open(Role::Exclusive, Work::Opening(Some(bound(7))));
    assert_eq!(scene.opening(), 2);
    scene.remove(gone);
    assert_eq!(scene.opening(), 1);
    let now = scene.now;
    for id in [next, for_bound] {
        scene.rise(id);
    }
    assert!(
        scene.take_opening(next, now).is_none(),
        "it was opened for the next wait"
    );
    assert_eq!((scene.opening(), scene.idle()), (0, Some(next)));
    let taken = scene.take_opening(for_bound, now).expect("it was opened for this wait");
    assert!(matches!(taken.wait, Wait::Rejoin(7, _)));
    assert!(scene.look(for_bound).is_idle());
    assert!(scene.take_opening(for_bound, now + SECOND).is_none());
    assert!(
        matches!(scene.look(for_bound).work, Work::Idle(since) if since == now),
        "the connection has been idle since the first call"
    );
    assert!(scene.take_opening(gone, now).is_none());
}

#[test]
fn connections_that_open_to_another_endpoint_are_closed_and_their_waits_returned() {
    let mut scene = Scene::new(1);
    let here = scene.open(Role::Exclusive, Work::Opening(Some(bound(1))));
    let next = scene.open_with(Role::Exclusive, Work::Opening(None), 1, Purpose::Requests);
    let for_bound = scene.open_with(Role::Exclusive, Work::Opening(Some(bound(2))), 1, Purpose::Requests);
    let idle = Work::Idle(scene.now);
    let established = scene.open_with(Role::Exclusive, idle, 1, Purpose::Requests);
    let back = scene.act(|connections, turn| connections.stop_opening_elsewhere(0, turn));
    assert!(matches!(
        back[..],
        [Bound {
            wait: Wait::Rejoin(2, _),
            ..
        }]
    ));
    assert_eq!(scene.done(), [Done::Closed(next), Done::Closed(for_bound)]);
    assert!(scene.get(here).is_some() && scene.get(established).is_some());
    assert_eq!(scene.opening(), 0);
}

#[test]
fn the_closable_waits_of_a_key_are_returned_newest_first() {
    let mut scene = Scene::new(1);
    let soon = scene.now + SECOND;
    let later = soon + SECOND;
    let (first, _) = (scene.waiting("k", later), scene.waiting("other", later));
    let (second, ended_soon) = (scene.waiting("k", later), scene.waiting("k", soon));
    let (owner, retired, cut) = (
        scene.waiting("k", later),
        scene.waiting("k", later),
        scene.waiting("k", later),
    );
    let endless = scene.idle_one();
    scene.change(endless).begin(Work::Waiting(lock("k")), &lock("k"), None);
    let ticket = scene.idle_one();
    scene
        .change(ticket)
        .begin(Work::Ticket(lock("k"), 1, 1), &lock("k"), Some(later));
    scene.own(owner);
    scene.retire_one(retired);
    scene.cut_one(cut);
    assert_eq!(scene.closable(&lock("k"), soon), [second, first]);
    let just_before = soon - SECOND / 2;
    assert_eq!(scene.closable(&lock("k"), just_before), [ended_soon, second, first]);
    scene.change(first).stop_waiting(soon);
    assert_eq!(scene.closable(&lock("k"), soon), [second]);
}
