//! Tests how the leases of a connection are counted.

use super::*;

#[test]
fn a_retired_connection_finishes_once_when_it_owns_no_lease() {
    let mut scene = Scene::new(1);
    let (owner, free) = (scene.owner(2), scene.idle_one());
    scene.retire_one(free);
    assert_eq!(scene.done(), [Done::Finished(free)]);
    scene.retire_one(owner);
    assert_eq!(scene.kept_for_leases(), [(owner, 2)]);
    scene.disown_one(owner);
    assert_eq!(scene.kept_for_leases(), [(owner, 1)]);
    assert!(scene.done().is_empty());
    assert!(scene.look(owner).is_retired() && !scene.send_one(owner));
    scene.disown_one(owner);
    assert_eq!(scene.done(), [Done::Finished(owner)]);
    assert!(scene.kept_for_leases().is_empty(), "the connection is finishing");
    scene.disown_one(owner);
    scene.retire_one(owner);
    assert!(scene.done().is_empty(), "it finishes once");
}

#[test]
fn a_connection_that_is_not_retired_stays_without_leases() {
    let mut scene = Scene::new(1);
    let id = scene.owner(1);
    scene.disown_one(id);
    scene.disown_one(id);
    assert!(scene.done().is_empty(), "the number of leases does not fall below zero");
    scene.own(id);
    assert_eq!(scene.in_flight_and_owned(), (0, 1));
    scene.own(id + 1);
    scene.disown_one(id + 1);
    assert_eq!(scene.in_flight_and_owned(), (0, 1), "there is no such connection");
    assert!(scene.done().is_empty());
}

#[test]
fn a_session_is_retired_when_another_connection_takes_over_its_lease() {
    let mut scene = Scene::new(1);
    let by = scene.pipelined();
    let idle = Work::Idle(scene.now);
    let before = scene.in_session(idle);
    scene.own(before);
    scene.own(before);
    scene.act(|connections, turn| connections.move_lease(before, by, turn));
    assert_eq!((scene.look(by).owns, scene.look(before).owns), (1, 1));
    assert!(
        scene.look(before).is_retired() && scene.done().is_empty(),
        "the connection still owns a lease"
    );
    scene.act(|connections, turn| connections.move_lease(before, by, turn));
    assert_eq!(scene.look(by).owns, 2);
    assert_eq!(scene.done(), [Done::Finished(before)]);
}

#[test]
fn a_connection_without_a_session_or_for_repeats_stays_when_another_takes_over_its_lease() {
    let mut scene = Scene::new(1);
    let by = scene.pipelined();
    let (plain, repeating) = (scene.owner(1), scene.in_session(Work::Repeating));
    scene.own(repeating);
    for before in [plain, repeating] {
        scene.act(|connections, turn| connections.move_lease(before, by, turn));
        assert!(!scene.look(before).is_retired() && scene.look(before).owns == 0);
    }
    assert!(scene.done().is_empty() && scene.look(by).owns == 2);
}

#[test]
fn a_connection_for_repeats_notes_released_tokens() {
    let mut scene = Scene::new(1);
    let (repeating, idle) = (scene.in_session(Work::Repeating), scene.idle_one());
    scene.note_released(grant(1).token);
    let later = scene.in_session(Work::Repeating);
    assert!(scene.look(repeating).found == [grant(1).token]);
    assert!(scene.look(idle).found.is_empty() && scene.look(later).found.is_empty());
}
