//! Tests of the tries that are sent again.

use super::*;
use crate::lease::policy::RenewTerms;
use crate::shard::bench::{ask, key};

fn name(name: &str) -> StableRef {
    StableRef::new(name).unwrap()
}

/// Creates a try for waiting callers, first written over a connection with this name.
fn probe(key_name: &str, under: &str) -> Repeat {
    Repeat::of_probe((Target::Lock, key(key_name)), None, name(under))
}

fn keys<'a>(repeats: impl IntoIterator<Item = &'a Repeat>) -> Vec<&'a str> {
    repeats.into_iter().map(|repeat| repeat.key.1.as_str()).collect()
}

fn repeats(tries: &[(&str, &str)]) -> Repeats {
    let mut repeats = Repeats::default();
    for (key_name, under) in tries {
        repeats.push(probe(key_name, under));
    }
    repeats
}

/// Gives the next name a connection. Returns the name.
fn present(repeats: &mut Repeats, lane: LaneId) -> Option<String> {
    let named = repeats.next()?;
    named.lane = Some(lane);
    Some(named.name.expose().to_owned())
}

#[test]
fn each_name_gets_one_connection_that_takes_its_tries_in_their_order() {
    let mut repeats = repeats(&[("b", "n1"), ("x", "n2"), ("a", "n1"), ("c", "n1"), ("w", "n2")]);
    assert!(repeats.wants_connection() && repeats.waiting() == 5);
    assert_eq!(
        present(&mut repeats, 1).as_deref(),
        Some("n1"),
        "names keep their order"
    );
    assert!(repeats.wants_connection());
    assert_eq!(present(&mut repeats, 2).as_deref(), Some("n2"));
    assert!(!repeats.wants_connection());
    assert_eq!(present(&mut repeats, 3), None, "each name has a connection");
    assert_eq!(keys(&repeats.take(2)), ["x", "w"]);
    assert_eq!(keys(&repeats.take(1)), ["b", "a", "c"]);
    assert!(repeats.take(1).is_empty() && repeats.take(3).is_empty());
    assert_eq!(repeats.waiting(), 0);
    assert!(!repeats.is_empty(), "a name exists until its connection has left");
}

#[test]
fn a_try_under_a_name_that_is_presented_waits_for_that_connection() {
    let mut repeats = repeats(&[("a", "n")]);
    present(&mut repeats, 1);
    repeats.take(1);
    repeats.push(probe("b", "n"));
    assert!(!repeats.wants_connection() && repeats.next().is_none());
    assert_eq!(keys(&repeats.take(1)), ["b"]);
}

#[test]
fn a_name_whose_connection_left_is_forgotten_unless_tries_wait_under_it() {
    let mut repeats = repeats(&[("a", "n1"), ("x", "n2"), ("b", "n1")]);
    present(&mut repeats, 1);
    present(&mut repeats, 2);
    repeats.detach_lane(3);
    assert!(!repeats.wants_connection(), "connection 1 presents the name");
    // The connection ends before its tries are written.
    repeats.detach_lane(1);
    assert!(repeats.wants_connection());
    assert_eq!(present(&mut repeats, 4).as_deref(), Some("n1"));
    assert!(
        repeats.take(1).is_empty(),
        "this connection no longer presents the name"
    );
    assert_eq!(keys(&repeats.take(4)), ["a", "b"], "the tries keep their order");
    repeats.detach_lane(4);
    assert!(!repeats.is_empty(), "the second name still has a connection");
    repeats.take(2);
    repeats.detach_lane(2);
    assert!(repeats.is_empty() && !repeats.wants_connection());
}

#[test]
fn callers_are_taken_in_order_and_their_tries_remain_without_a_caller() {
    let mut repeats = repeats(&[("first", "n1")]);
    let mut callers = Vec::new();
    for (key_name, under) in [("a", "n1"), ("x", "n2"), ("b", "n1")] {
        let (ask, caller) = ask();
        callers.push(caller);
        let acquire = Acquire::new(Target::Lock, key(key_name), None, RenewTerms::default(), ask);
        repeats.push(Repeat::of_try(acquire, name(under)));
    }
    let taken = repeats.take_callers();
    let taken: Vec<&str> = taken.iter().map(|acquire| acquire.key.as_str()).collect();
    assert_eq!(taken, ["a", "b", "x"]);
    assert!(repeats.take_callers().is_empty(), "once");
    assert_eq!(repeats.waiting(), 4, "the tries are still sent");
    present(&mut repeats, 1);
    let waiting = repeats.take(1);
    assert_eq!(keys(&waiting), ["first", "a", "b"]);
    let without_caller = |repeat: &&Repeat| matches!(repeat.recipient, Recipient::NoCaller);
    assert_eq!(keys(waiting.iter().filter(without_caller)), ["a", "b"]);
    assert!(
        matches!(waiting[0].recipient, Recipient::FirstCaller),
        "the try belongs to no single caller"
    );
}

#[test]
fn a_repeated_try_keeps_its_terms_and_its_number_of_redirects() {
    let (ask, _caller) = ask();
    let ttl = Some(crate::types::Ttl::from_secs(7).unwrap());
    let mut acquire = Acquire::new(Target::Lock, key("k"), ttl, RenewTerms::default(), ask);
    acquire.redirects = 2;
    let repeat = Repeat::of_try(acquire, name("n"));
    assert_eq!(
        (repeat.key, repeat.ttl, repeat.times),
        ((Target::Lock, key("k")), ttl, 2)
    );
    let repeat = Repeat::of_probe((Target::Lock, key("k")), ttl, name("n"));
    assert_eq!((repeat.ttl, repeat.times), (ttl, 0));
}
