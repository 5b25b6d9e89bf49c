//! Tests which connections end, and how.

use super::*;

#[test]
fn a_connection_that_was_cut_is_not_used_again() {
    let mut scene = Scene::new(1);
    let until = scene.now + SECOND;
    let id = scene.waiting("k", until);
    scene.cut_one(id);
    scene.cut_one(id + 1);
    assert_eq!(scene.done(), [Done::HungUp(id)]);
    scene.change(id).stop_waiting(until);
    assert_eq!((scene.idle(), scene.count(Role::Exclusive)), (None, count(1, 1)));
    assert!(!scene.send_one(id));
}

#[test]
fn a_connection_is_finished_once() {
    let mut scene = Scene::new(1);
    let id = scene.owner(1);
    scene.act(|connections, turn| connections.finish(id, turn));
    scene.act(|connections, turn| connections.finish(id + 1, turn));
    assert_eq!(scene.done(), [Done::Finished(id)]);
    scene.retire_one(id);
    scene.disown_one(id);
    assert!(
        scene.done().is_empty() && scene.kept_for_leases().is_empty(),
        "the connection finishes already"
    );
}

#[test]
fn connections_to_other_endpoints_are_hung_up_except_retired_ones() {
    for keep_owners in [true, false] {
        let mut scene = Scene::new(2);
        let until = scene.now + SECOND;
        let (serving, opening) = (scene.pipelined(), scene.opening_pipelined());
        let (owner, waiting) = (scene.owner(1), scene.waiting("k", until));
        scene.own(waiting);
        let (kept, finishing) = (scene.owner(1), scene.idle_one());
        scene.retire_one(kept);
        scene.retire_one(finishing);
        let idle = Work::Idle(scene.now);
        let here = scene.open_with(Role::Exclusive, idle, 1, Purpose::Requests);
        scene.done();
        scene.act(|connections, turn| connections.hang_up_elsewhere(1, keep_owners, turn));
        let mut hung_up = vec![serving, opening, owner, waiting];
        if keep_owners {
            hung_up.retain(|id| *id != owner);
        }
        let hung_up: Vec<Done> = hung_up.into_iter().map(Done::HungUp).collect();
        assert_eq!(scene.done(), hung_up);
        assert!(
            !scene.is_serving() && scene.in_slots().is_empty(),
            "the slots of both connections are free"
        );
        assert!(!scene.send_one(serving) && !scene.send_one(owner) && scene.send_one(here));
        assert_eq!(scene.look(owner).owns, 1, "the lease counts until the connection ends");
        // A second call does nothing, because all of these connections are already ending.
        scene.done();
        scene.act(|connections, turn| connections.hang_up_elsewhere(1, keep_owners, turn));
        assert!(scene.done().is_empty());
    }
}

#[test]
fn idle_connections_are_closed_oldest_first_and_up_to_a_maximum() {
    let mut scene = Scene::new(1);
    scene.pipelined();
    let owner = scene.owner(1);
    let (first, second) = (scene.idle_one(), scene.idle_one());
    let now = scene.now;
    let disposable = scene.open(Role::Disposable, Work::Idle(now));
    scene.rise(disposable);
    let until = now + SECOND;
    scene.waiting("k", until);
    let busy = scene.idle_one();
    assert!(scene.send_one(busy));
    scene.now += SECOND;
    let later = scene.idle_one();
    scene.done();
    let close = |scene: &mut Scene, before, most| {
        let left = scene.act(|connections, turn| connections.close_idle(before, most, turn));
        (scene.done(), left)
    };
    assert_eq!(
        close(&mut scene, now - SECOND, 9),
        (vec![], true),
        "no connection has been idle for that long"
    );
    assert_eq!(close(&mut scene, now, 1), (vec![Done::Closed(first)], true));
    let rest = [second, disposable].map(Done::Closed).to_vec();
    assert_eq!(close(&mut scene, now, 9), (rest, true));
    assert_eq!(
        close(&mut scene, until, 9),
        (vec![Done::Closed(later)], true),
        "the connection that owns a lease stays"
    );
    scene.remove(owner);
    assert_eq!(close(&mut scene, until, 9), (vec![], false));
    assert!(
        !scene.has_idle_of_any_role(),
        "the idle pipelined connection does not count"
    );
    scene.answered(busy, 1, 0);
    assert!(scene.has_idle_of_any_role());
}

#[test]
fn waiting_connections_that_own_leases_are_closed_only_on_request() {
    for with_leases in [false, true] {
        let mut scene = Scene::new(1);
        let until = scene.now + SECOND;
        let (serving, idle) = (scene.pipelined(), scene.idle_one());
        let (waiting, owner) = (scene.waiting("k", until), scene.waiting("k", until));
        scene.own(owner);
        let opening = scene.open(Role::Exclusive, Work::Opening(None));
        let ticket = scene.exclusive(Work::Ticket(lock("k"), 1, 1));
        let asking = scene.exclusive(Work::Asking(lock("k"), 1));
        let (repeating, ending) = (scene.exclusive(Work::Repeating), scene.exclusive(Work::Ending));
        let closed = scene.act(|connections, turn| connections.close_waiting(with_leases, false, turn));
        let mut ids = vec![waiting, owner, opening, ticket, asking];
        if !with_leases {
            ids.retain(|id| *id != owner);
        }
        assert_eq!(closed.len(), ids.len());
        assert!(matches!(&closed[0].work, Work::Waiting(key) if *key == lock("k")));
        assert_eq!(scene.done(), ids.into_iter().map(Done::Closed).collect::<Vec<_>>());
        for id in [serving, idle, repeating, ending] {
            assert!(scene.get(id).is_some());
        }
        assert_eq!(scene.opening(), 0);
    }
}

#[test]
fn all_connections_are_closed_in_the_order_of_their_identifiers() {
    let mut scene = Scene::new(1);
    let ids = [scene.pipelined(), scene.owner(1), scene.idle_one()];
    assert!(scene.send_one(ids[0]));
    scene.done();
    scene.act(|connections, turn| connections.close_all(turn));
    assert_eq!(scene.done(), ids.map(Done::Closed));
    assert!(Role::ALL.iter().all(|role| scene.count(*role) == count(0, 0)));
    assert_eq!((scene.for_waits(), scene.in_flight_pipelined()), (0, 0));
    assert!(!scene.is_serving() && scene.has_vacancy() && scene.idle().is_none());
}
