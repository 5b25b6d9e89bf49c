//! Tests of the pipelined connections: slots, keys and unanswered requests.

use super::*;

#[test]
fn a_shard_has_one_slot_per_pipelined_connection_and_at_least_one() {
    for (pipelined, slots) in [(0, 1), (1, 1), (3, 3)] {
        let mut scene = Scene::new(pipelined);
        let mut ids = Vec::new();
        while scene.has_vacancy() {
            ids.push(scene.opening_pipelined());
        }
        assert_eq!(ids.len(), slots);
        assert_eq!(scene.in_slots(), ids);
        assert!(ids.iter().all(|id| scene.has_slot(*id)));
        let one_more = scene.opening_pipelined();
        assert!(!scene.has_slot(one_more), "all slots have a connection");
        scene.remove(ids[0]);
        assert!(scene.has_vacancy() && !scene.has_slot(ids[0]));
    }
}

#[test]
fn the_shard_serves_while_any_pipelined_connection_with_a_slot_is_up() {
    let mut scene = Scene::new(2);
    let (first, second) = (scene.opening_pipelined(), scene.opening_pipelined());
    assert!(!scene.is_serving() && scene.oldest_serving().is_none());
    assert_eq!(scene.serving(&key("k")), None);
    scene.rise(second);
    assert!(scene.is_serving());
    assert_eq!(scene.oldest_serving(), Some(second), "the first connection is not up");
    scene.rise(first);
    scene.rise(first);
    assert_eq!(scene.oldest_serving(), Some(first));
    scene.remove(first);
    assert!(scene.is_serving());
    scene.retire_one(second);
    assert!(!scene.is_serving() && scene.serving(&key("k")).is_none());
    // These connections no longer serve, or never did, so their ends change nothing.
    scene.retire_one(second);
    scene.remove(second);
    let third = scene.opening_pipelined();
    scene.retire_one(third);
    scene.rise(third);
    assert!(!scene.is_serving(), "the connection was retired before it was up");
    scene.pipelined();
    assert!(scene.is_serving());
}

#[test]
fn the_oldest_serving_connection_is_the_one_that_was_opened_first() {
    let mut scene = Scene::new(2);
    let (first, second) = (scene.pipelined(), scene.pipelined());
    scene.remove(first);
    scene.pipelined();
    assert_eq!(
        scene.oldest_serving(),
        Some(second),
        "the second connection is older, although its slot is later"
    );
}

#[test]
fn a_key_keeps_its_connection_among_idle_ones_unless_that_connection_is_not_up() {
    let mut scene = Scene::new(3);
    let ids = [scene.pipelined(), scene.pipelined(), scene.pipelined()];
    let keys = many_keys();
    let choose = |scene: &Scene| -> Vec<LaneId> { keys.iter().map(|key| scene.serving(key).unwrap()).collect() };
    let before = choose(&scene);
    assert!(ids.iter().all(|id| before.contains(id)), "each connection gets keys");
    assert_eq!(choose(&scene), before);

    scene.remove(ids[1]);
    let next = scene.opening_pipelined();
    for (before, after) in before.iter().zip(choose(&scene)) {
        match *before == ids[1] {
            true => assert_eq!(after, ids[2], "the slots after the vacant one are tried in order"),
            false => assert_eq!(after, *before),
        }
    }
    scene.rise(next);
    for (before, after) in before.iter().zip(choose(&scene)) {
        let same_slot = if *before == ids[1] { next } else { *before };
        assert_eq!(after, same_slot);
    }
}

#[test]
fn a_key_moves_to_the_least_busy_connection_once_its_requests_are_over() {
    let mut scene = Scene::new(2);
    let ids = [scene.pipelined(), scene.pipelined()];
    let keys: Vec<Key> = many_keys()
        .into_iter()
        .filter(|key| scene.serving(key) == Some(ids[0]))
        .collect();
    let (first, second) = (&keys[0], &keys[1]);
    assert!(scene.send_for(ids[0], first) && scene.send_for(ids[0], first));
    assert_eq!(
        scene.serving(first),
        Some(ids[0]),
        "the next request follows the key's unanswered requests"
    );
    assert_eq!(scene.serving(second), Some(ids[1]), "the other connection is idle");
    scene.answered(ids[0], 1, 0);
    assert_eq!(
        scene.serving(first),
        Some(ids[0]),
        "one of the key's requests is unanswered"
    );
    // The skipped request may be one for another key.
    assert!(scene.send_for(ids[0], second));
    scene.answered(ids[0], 0, 1);
    assert_eq!(
        scene.serving(first),
        Some(ids[0]),
        "the key's request may be unanswered"
    );
    assert!(scene.send_for(ids[0], second));
    scene.answered(ids[0], 1, 0);
    assert_eq!(scene.serving(first), Some(ids[1]));
    assert_eq!(
        scene.serving(second),
        Some(ids[0]),
        "the next request follows the key's unanswered request"
    );
    scene.answered(ids[0], 1, 0);
    assert_eq!(scene.serving(second), Some(ids[0]), "both connections are idle");
}

#[test]
fn only_requests_on_pipelined_connections_count_as_in_flight() {
    let mut scene = Scene::new(2);
    let (first, second, other) = (scene.pipelined(), scene.pipelined(), scene.idle_one());
    for id in [first, first, first, second, other] {
        assert!(scene.send_one(id));
    }
    let sent = [first, first, first, second, other].map(Done::Sent);
    assert_eq!(scene.done(), sent);
    assert_eq!(scene.in_flight_pipelined(), 4);
    assert_eq!(scene.look(first).in_flight, 3);
    scene.answered(first, 1, 1);
    assert_eq!((scene.in_flight_pipelined(), scene.look(first).in_flight), (2, 1));
    scene.answered(other, 1, 0);
    assert_eq!((scene.in_flight_pipelined(), scene.look(other).in_flight), (2, 0));
    scene.retire_one(first);
    assert_eq!(
        scene.in_flight_pipelined(),
        2,
        "the requests of a retired connection are still answered"
    );
    scene.remove(first);
    assert_eq!(scene.in_flight_pipelined(), 1, "the connection has ended");
    scene.answered(second, 5, 5);
    assert_eq!(scene.in_flight_pipelined(), 0, "the number does not fall below zero");
    assert_eq!(scene.in_flight_and_owned(), (0, 0));
}

#[test]
fn the_first_answer_of_a_connection_is_recognized() {
    let mut scene = Scene::new(1);
    let id = scene.pipelined();
    (0..4).for_each(|_| assert!(scene.send_one(id)));
    assert!(!scene.answered(id, 0, 1), "skipped");
    assert!(!scene.look(id).has_answered());
    assert!(scene.answered(id, 2, 0) && scene.look(id).has_answered());
    assert!(!scene.answered(id, 1, 0));
    assert!(!scene.answered(id + 1, 1, 0), "there is no such connection");
}

#[test]
fn nothing_is_sent_over_a_retired_cut_or_removed_connection() {
    let mut scene = Scene::new(2);
    let (retired, cut) = (scene.pipelined(), scene.pipelined());
    scene.retire_one(retired);
    scene.cut_one(cut);
    scene.done();
    for id in [retired, cut, cut + 1] {
        assert!(!scene.send_one(id), "the request comes back");
    }
    assert!(scene.done().is_empty() && scene.in_flight_pipelined() == 0);
    let opening = scene.opening_pipelined();
    assert!(scene.send_one(opening), "a request to an opening connection is sent");
}
