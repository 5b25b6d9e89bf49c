//! The leases that the server attributes to connections.

use super::*;

#[test]
fn a_retired_connection_finishes_once_and_not_before_it_owns_nothing() {
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
    assert!(scene.kept_for_leases().is_empty(), "it is on its way out");
    scene.disown_one(owner);
    scene.retire_one(owner);
    assert!(scene.done().is_empty(), "once");
}

#[test]
fn what_is_not_retired_stays_when_it_owns_nothing_any_more() {
    let mut scene = Scene::new(1);
    let id = scene.owner(1);
    scene.disown_one(id);
    scene.disown_one(id);
    assert!(scene.done().is_empty(), "one lease too many counts nothing");
    scene.own(id);
    assert_eq!(scene.in_flight_and_owned(), (0, 1));
    scene.own(id + 1);
    scene.disown_one(id + 1);
    assert_eq!(scene.in_flight_and_owned(), (0, 1), "no such connection");
    assert!(scene.done().is_empty());
}

#[test]
fn a_lease_that_passes_to_another_connection_ends_the_session_that_had_its_key() {
    let mut scene = Scene::new(1);
    let by = scene.pipelined();
    let idle = Work::Idle(scene.now);
    let before = scene.in_session(idle);
    scene.own(before);
    scene.own(before);
    scene.act(|connections, turn| connections.pass_on(before, by, turn));
    assert_eq!((scene.look(by).owns, scene.look(before).owns), (1, 1));
    assert!(
        scene.look(before).is_retired() && scene.done().is_empty(),
        "it owns another"
    );
    scene.act(|connections, turn| connections.pass_on(before, by, turn));
    assert_eq!(scene.look(by).owns, 2);
    assert_eq!(scene.done(), [Done::Finished(before)]);
}

#[test]
fn a_lease_that_passes_on_ends_no_connection_without_a_session_or_for_repeats() {
    let mut scene = Scene::new(1);
    let by = scene.pipelined();
    let (plain, repeating) = (scene.owner(1), scene.in_session(Work::Repeating));
    scene.own(repeating);
    for before in [plain, repeating] {
        scene.act(|connections, turn| connections.pass_on(before, by, turn));
        assert!(!scene.look(before).is_retired() && scene.look(before).owns == 0);
    }
    assert!(scene.done().is_empty() && scene.look(by).owns == 2);
}

#[test]
fn what_asks_again_under_a_name_knows_what_was_released_meanwhile() {
    let mut scene = Scene::new(1);
    let (repeating, idle) = (scene.in_session(Work::Repeating), scene.idle_one());
    scene.note_released(grant(1).token);
    let later = scene.in_session(Work::Repeating);
    assert!(scene.look(repeating).found == [grant(1).token]);
    assert!(scene.look(idle).found.is_empty() && scene.look(later).found.is_empty());
}
