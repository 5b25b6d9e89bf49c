use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::net::lane::Caller;
use crate::shard::progress::WaitsFor;
use crate::types::{Key, Limit, Target};

/// A caller: its number, whether it is gone, and the last progress of which it was told.
#[derive(Clone, Debug)]
struct Wait(Rc<State>);

#[derive(Debug)]
struct State {
    number: u32,
    gone: Cell<bool>,
    told: Cell<WaitsFor>,
}

impl Wait {
    fn new(number: u32) -> Self {
        Self(Rc::new(State {
            number,
            gone: Cell::new(false),
            told: Cell::new(WaitsFor::Layers),
        }))
    }

    fn go(&self) {
        self.0.gone.set(true);
    }

    fn told(&self) -> WaitsFor {
        self.0.told.get()
    }
}

impl Caller for Wait {
    fn is_gone(&self) -> bool {
        self.0.gone.get()
    }
}

impl Waiter for Wait {
    fn waits_for(&self, what: WaitsFor) {
        self.0.told.set(what);
    }
}

fn key(name: &str) -> WaitKey {
    (Target::Lock, Key::new(name).unwrap())
}

/// The waits, with a clock.
struct Scene {
    waits: Waits<Wait>,
    now: Instant,
    callers: u32,
}

impl Scene {
    fn new(most_per_key: usize) -> Self {
        Self {
            waits: Waits::new(most_per_key, 7),
            now: Instant::now(),
            callers: 0,
        }
    }

    fn later(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    /// Adds a caller. Callers are numbered in order.
    fn come(&mut self, name: &str) -> Wait {
        self.come_as(name, false, false)
    }

    fn come_as(&mut self, name: &str, holding: bool, ours: bool) -> Wait {
        let wait = Wait::new(self.callers);
        self.callers += 1;
        self.waits.push(key(name), wait.clone(), holding, ours, self.now);
        wait
    }

    /// Starts the next entry on a connection. Returns the key and, for a ticket, the number of its caller.
    fn begin(&mut self) -> Option<String> {
        self.waits.begin(self.now).map(|start| match start {
            Start::Wait(key) => key.1.as_str().to_owned(),
            Start::Ticket(key, _, wait) => format!("{} for {}", key.1, wait.0.number),
        })
    }

    fn ended(&mut self, name: &str) {
        self.waits.ended(&key(name), Occupant::Wait, self.now);
    }

    /// Ends a server wait with a grant. Returns the caller that gets it.
    fn granted(&mut self, name: &str) -> Option<u32> {
        self.ended(name);
        self.claim(name)
    }

    fn claim(&mut self, name: &str) -> Option<u32> {
        self.waits.claim(&key(name), self.now).map(|wait| wait.0.number)
    }

    fn refused(&mut self, name: &str) -> Option<u32> {
        self.ended(name);
        self.waits
            .take_uncovered(&key(name), self.now)
            .map(|wait| wait.0.number)
    }

    fn tried(&mut self) -> Option<String> {
        let tried = self.waits.take_due(self.now, |_| false);
        tried.map(|key| key.1.as_str().to_owned())
    }

    fn is_empty(&self) -> bool {
        let waits = &self.waits;
        let counts = (waits.local(), waits.at_server(), waits.startable());
        waits.is_empty()
            && counts == (0, 0, 0)
            && !waits.has_ready()
            && !waits.has_bound()
            && waits.next_try(self.now).is_none()
    }
}

#[test]
fn a_grant_goes_to_the_first_caller_and_a_hot_key_lets_others_pass() {
    let mut scene = Scene::new(2);
    for _ in 0..4 {
        scene.come("hot");
    }
    scene.come("cold");
    assert_eq!(scene.waits.startable(), 3);
    // The first caller of each key comes before the second caller of any key.
    let begun = [scene.begin(), scene.begin(), scene.begin(), scene.begin()];
    assert_eq!(begun.map(Option::unwrap_or_default), ["hot", "cold", "hot", ""]);
    assert_eq!((scene.waits.local(), scene.waits.at_server()), (2, 3));
    assert_eq!([scene.granted("hot"), scene.granted("hot")], [Some(0), Some(1)]);
    assert_eq!(
        [scene.begin(), scene.begin()].map(Option::unwrap_or_default),
        ["hot", "hot"]
    );
    let granted = [scene.granted("hot"), scene.granted("cold"), scene.granted("hot")];
    assert_eq!(granted, [Some(2), Some(4), Some(3)]);
    assert!(scene.is_empty());
}

#[test]
fn the_server_wait_of_a_caller_that_is_gone_serves_the_next_caller() {
    let mut scene = Scene::new(2);
    let callers = [scene.come("k"), scene.come("k"), scene.come("k")];
    scene.begin();
    scene.begin();
    assert_eq!(callers[2].told(), WaitsFor::Connection { ahead: 2 });
    callers[0].go();
    let late = scene.come("k");
    assert_eq!(callers[2].told(), WaitsFor::Turn, "the caller behind it is covered now");
    assert_eq!(late.told(), WaitsFor::Connection { ahead: 1 });
    callers[1].go();
    assert_eq!([scene.granted("k"), scene.granted("k")], [Some(2), Some(3)]);
    assert!(scene.is_empty());
}

#[test]
fn a_grant_without_a_caller_is_not_claimed() {
    let mut scene = Scene::new(2);
    let caller = scene.come("k");
    scene.begin();
    caller.go();
    assert_eq!(scene.granted("k"), None);
    assert!(scene.is_empty());
}

#[test]
fn a_refusal_goes_to_the_first_caller_without_a_server_wait() {
    let mut scene = Scene::new(2);
    for _ in 0..3 {
        scene.come("k");
    }
    scene.begin();
    scene.begin();
    assert_eq!(scene.refused("k"), Some(1), "the first caller still has a server wait");
    let gone = scene.come("other");
    scene.begin();
    scene.begin();
    gone.go();
    assert_eq!(scene.refused("other"), None);
    assert_eq!([scene.granted("k"), scene.granted("k")], [Some(0), Some(2)]);
    assert!(scene.is_empty());
}

#[test]
fn callers_with_different_limits_are_separate() {
    let mut scene = Scene::new(2);
    let slots = |limit| (Target::Semaphore(Limit::new(limit).unwrap()), Key::new("s").unwrap());
    for limit in [3, 5] {
        let wait = Wait::new(limit);
        scene.waits.push(slots(limit), wait, false, false, scene.now);
    }
    scene.begin();
    assert!(scene.waits.claim(&slots(4), scene.now).is_none());
    let claimed = scene.waits.claim(&slots(5), scene.now).unwrap();
    assert_eq!(claimed.0.number, 5);
}

#[test]
fn keys_of_callers_that_hold_other_leases_come_first_and_keys_held_by_this_client_last() {
    let mut scene = Scene::new(4);
    scene.come_as("ours", false, true);
    scene.come("hot");
    scene.come("hot");
    scene.come("cold");
    scene.come_as("second", true, false);
    let begun: Vec<String> = std::iter::from_fn(|| scene.begin()).collect();
    assert_eq!(begun, ["second", "hot", "cold", "ours", "hot"]);
    // Within one key, the order of arrival stays.
    scene.come("mixed");
    scene.come_as("mixed", true, false);
    scene.come("plain");
    assert_eq!(scene.begin().unwrap(), "mixed");
    assert_eq!(scene.granted("mixed"), Some(5));
}

#[test]
fn a_key_that_this_client_releases_is_no_longer_late() {
    let mut scene = Scene::new(4);
    scene.come_as("ours", false, true);
    scene.come("cold");
    scene.waits.released(&key("ours"), scene.now);
    assert_eq!(scene.begin().unwrap(), "ours");
    scene.come_as("taken", false, false);
    scene.waits.mark_ours(&key("taken"), scene.now);
    assert_eq!(scene.begin().unwrap(), "cold");
    assert_eq!(scene.begin().unwrap(), "taken");
}

#[test]
fn tickets_take_connections_in_their_order() {
    let mut scene = Scene::new(2);
    scene.come("k");
    scene.waits.push_ticket(key("k"), None, Wait::new(100), scene.now);
    scene.come("k");
    assert_eq!(scene.begin().unwrap(), "k");
    let Some(Start::Ticket(ticket_key, arrival, wait)) = scene.waits.begin(scene.now) else {
        panic!("a further wait for a key comes behind its ticket");
    };
    assert_eq!(scene.begin(), None, "the key has the maximum number of connections");
    // The ticket did not start after all.
    scene.waits.ended(&ticket_key, Occupant::Ticket, scene.now);
    scene.waits.push_ticket(ticket_key, Some(arrival), wait, scene.now);
    assert_eq!(scene.begin().unwrap(), "k for 100");
    scene.waits.ended(&key("k"), Occupant::Ticket, scene.now);
    assert_eq!(scene.begin().unwrap(), "k");
    assert_eq!([scene.granted("k"), scene.granted("k")], [Some(0), Some(1)]);
    assert!(scene.is_empty());
}

#[test]
fn a_grant_of_a_try_goes_to_a_ticket_that_came_first() {
    let mut scene = Scene::new(1);
    scene.waits.push_ticket(key("k"), None, Wait::new(100), scene.now);
    scene.come("k");
    scene.later(1_000);
    assert_eq!(scene.tried().unwrap(), "k");
    scene.waits.tried(&key("k"), scene.now);
    assert_eq!(
        [scene.claim("k"), scene.claim("k"), scene.claim("k")],
        [Some(100), Some(0), None]
    );
    assert!(scene.is_empty());
}

#[test]
fn keys_are_tried_only_without_a_wait_on_the_server() {
    let mut scene = Scene::new(2);
    let caller = scene.come("k");
    assert_eq!(scene.tried(), None, "a new key is tried after a pause");
    scene.later(800);
    assert_eq!(scene.tried().unwrap(), "k");
    assert_eq!(scene.tried(), None, "a try is under way");
    scene.waits.tried(&key("k"), scene.now);
    scene.begin();
    scene.later(2_000);
    assert_eq!(scene.tried(), None, "the wait on the server gets the grant");
    scene.ended("k");
    scene.later(800);
    assert_eq!(scene.tried().unwrap(), "k");
    scene.waits.tried(&key("k"), scene.now);
    // After a release by this client, the key is tried at once.
    scene.waits.released(&key("k"), scene.now);
    assert_eq!(scene.tried().unwrap(), "k");
    scene.waits.tried(&key("k"), scene.now);
    caller.go();
    scene.later(800);
    assert_eq!(scene.tried(), None, "the caller is gone");
    assert!(scene.is_empty());
}

#[test]
fn a_key_that_this_client_holds_is_not_tried() {
    let mut scene = Scene::new(2);
    scene.come_as("ours", false, true);
    scene.come("cold");
    scene.later(800);
    let ours = key("ours");
    let tried = scene.waits.take_due(scene.now, |key| *key == ours).unwrap();
    assert_eq!(tried.1.as_str(), "cold");
    assert_eq!(scene.waits.take_due(scene.now, |key| *key == ours), None);
    // This client lost its lease without a release.
    scene.later(800);
    let mut tried: Vec<String> = std::iter::from_fn(|| scene.tried()).collect();
    scene.waits.tried(&key("cold"), scene.now);
    tried.sort();
    assert_eq!(tried, ["ours"]);
}

#[test]
fn a_server_wait_is_given_up_if_it_had_no_caller_for_a_while() {
    let mut scene = Scene::new(4);
    let callers = [scene.come("k"), scene.come("k"), scene.come("k")];
    for _ in 0..3 {
        scene.begin();
    }
    callers.iter().for_each(Wait::go);
    scene.waits.clean(scene.now);
    scene.later(900);
    // Two callers come and go, so only one server wait was unwanted all the time.
    let two = [scene.come("k"), scene.come("k")];
    two.iter().for_each(Wait::go);
    scene.waits.clean(scene.now);
    scene.later(200);
    assert_eq!(scene.waits.take_unclaimed(scene.now), [(key("k"), 1)]);
    scene.ended("k");
    scene.later(2_000);
    scene.waits.clean(scene.now);
    assert_eq!(scene.waits.take_unclaimed(scene.now), [(key("k"), 2)]);
    // All server waits are wanted.
    scene.come("k");
    scene.come("k");
    assert!(scene.waits.take_unclaimed(scene.now).is_empty());
    scene.later(10_000);
    assert!(scene.waits.take_unclaimed(scene.now).is_empty());
    assert_eq!([scene.granted("k"), scene.granted("k")], [Some(5), Some(6)]);
    assert!(scene.is_empty());
}

#[test]
fn a_wait_that_was_lost_in_a_session_still_covers_its_caller() {
    let mut scene = Scene::new(2);
    let caller = scene.come("k");
    scene.begin();
    scene.ended("k");
    scene
        .waits
        .push_bound(key("k"), None, Wait::new(100), Occupant::Wait, scene.now);
    assert_eq!(scene.begin(), None, "no second server wait starts");
    assert!(scene.waits.has_bound() && caller.told() == WaitsFor::Turn);
    let bound = scene.waits.begin_bound(scene.now).unwrap();
    assert_eq!((bound.wait.0.number, bound.occupant), (100, Occupant::Wait));
    assert!(!scene.waits.check_surplus(&key("k"), scene.now) && !scene.waits.has_bound());
    caller.go();
    assert!(scene.waits.check_surplus(&key("k"), scene.now));
    // The server wait becomes a request that gives the position up.
    scene.waits.turn_into_give_up(&key("k"), scene.now);
    assert_eq!(scene.waits.at_server(), 1);
    scene.waits.ended(&key("k"), Occupant::Ticket, scene.now);
    assert!(scene.is_empty());
}

#[test]
fn callers_that_are_gone_do_not_accumulate() {
    let mut scene = Scene::new(1);
    scene.come("first");
    scene.begin();
    for number in 0..20_000 {
        let caller = scene.come(&format!("k{}", number % 5_000));
        caller.go();
    }
    assert!(scene.waits.local() <= 2 * CLEAN_AT_LEAST, "{}", scene.waits.local());
    assert!(scene.waits.keys.len() <= 2 * CLEAN_AT_LEAST);
    scene.waits.clean(scene.now);
    assert_eq!((scene.waits.local(), scene.waits.keys.len()), (0, 1));
    // No caller waits for a key whose callers are all gone.
    let gone = scene.come("gone");
    scene.waits.refused(&key("gone"), scene.now);
    let fresh = scene.waits.refused_at(&key("gone"), scene.now);
    assert_eq!(fresh, Some(scene.now));
    gone.go();
    assert_eq!(scene.waits.refused_at(&key("gone"), scene.now), None);
}

#[test]
fn the_answer_of_a_server_counts_while_an_uncovered_caller_waits() {
    let mut scene = Scene::new(1);
    scene.come("k");
    scene.waits.refused(&key("k"), scene.now);
    let said = scene.now;
    scene.later(10_000);
    assert_eq!(scene.waits.refused_at(&key("k"), scene.now), Some(said));
    scene.begin();
    assert_eq!(
        scene.waits.refused_at(&key("k"), scene.now),
        None,
        "the answer is old, and no caller waits without a server wait"
    );
    scene.come("k");
    assert_eq!(scene.waits.refused_at(&key("k"), scene.now), Some(said));
}

#[test]
fn callers_are_told_why_they_have_no_connection() {
    let mut scene = Scene::new(1);
    let (first, second, other) = (scene.come("k"), scene.come("k"), scene.come("other"));
    assert_eq!(first.told(), WaitsFor::Opening);
    scene.waits.lacks(Lack::Full);
    assert_eq!([&first, &other].map(Wait::told), [WaitsFor::Full; 2]);
    assert_eq!(
        second.told(),
        WaitsFor::Connection { ahead: 1 },
        "another caller of the key comes first"
    );
    scene.begin();
    assert_eq!(first.told(), WaitsFor::Turn);
    scene.waits.lacks(Lack::InUse);
    assert_eq!(second.told(), WaitsFor::Connection { ahead: 1 });
    assert_eq!(other.told(), WaitsFor::Connection { ahead: 2 });
    scene.waits.lacks(Lack::NotEstablished);
    // The key has the maximum number of connections.
    assert_eq!(second.told(), WaitsFor::Connection { ahead: 1 });
    assert_eq!(other.told(), WaitsFor::Opening);
    scene.ended("k");
    assert_eq!(first.told(), WaitsFor::Opening, "the server wait has ended");
}

#[test]
fn draining_returns_waits_without_a_position_in_order_of_arrival() {
    let mut scene = Scene::new(1);
    for name in ["a", "b", "a"] {
        scene.come(name);
    }
    scene.begin();
    scene.waits.push_ticket(key("c"), None, Wait::new(100), scene.now);
    scene
        .waits
        .push_bound(key("d"), None, Wait::new(101), Occupant::Wait, scene.now);
    let drained = |waits: Vec<Wait>| waits.iter().map(|wait| wait.0.number).collect::<Vec<_>>();
    let now = scene.now;
    assert_eq!(drained(scene.waits.drain(now)), [1, 2, 100, 101]);
    assert_eq!(drained(scene.waits.drain_all(now)), [0]);
    scene.ended("a");
    assert!(scene.is_empty());
}

/// Random events in random order: the callers of a key are served in order of arrival, each caller is served, and the
/// sums are right.
#[test]
fn callers_are_served_in_order_even_if_connections_and_callers_come_and_go() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut scene = Scene::new(3);
        let mut waiting: HashMap<&str, Vec<Wait>> = HashMap::new();
        let mut on_server: HashMap<&str, usize> = HashMap::new();
        const NAMES: [&str; 3] = ["a", "b", "c"];
        for _ in 0..300 {
            let name = NAMES[random.usize(..3)];
            let callers = waiting.entry(name).or_default();
            let server_waits = on_server.entry(name).or_default();
            match random.usize(..8) {
                0..=2 => callers.push(scene.come_as(name, random.bool(), random.bool())),
                3 if !callers.is_empty() => {
                    let index = random.usize(..callers.len());
                    callers.remove(index).go();
                }
                4 => {
                    if let Some(begun) = scene.begin() {
                        let begun = NAMES.into_iter().find(|name| *name == begun).unwrap();
                        *on_server.entry(begun).or_default() += 1;
                    }
                }
                5 if *server_waits > 0 => {
                    *server_waits -= 1;
                    let first = (!callers.is_empty()).then(|| callers.remove(0).0.number);
                    assert_eq!(scene.granted(name), first, "seed {seed}");
                }
                6 if *server_waits > 0 => {
                    *server_waits -= 1;
                    let refused = (callers.len() > *server_waits).then(|| callers.remove(*server_waits).0.number);
                    assert_eq!(scene.refused(name), refused, "seed {seed}");
                }
                _ => {
                    scene.later(random.u64(..400));
                    scene.waits.clean(scene.now);
                    while let Some(tried) = scene.tried() {
                        let tried = NAMES.into_iter().find(|name| *name == tried).unwrap();
                        assert_eq!(on_server.get(tried).copied().unwrap_or_default(), 0, "seed {seed}");
                        assert!(!waiting[tried].is_empty(), "seed {seed}");
                        scene.waits.tried(&key(tried), scene.now);
                    }
                }
            }
            for name in NAMES {
                let server_waits = on_server.get(name).copied().unwrap_or_default();
                assert!(server_waits <= 3, "seed {seed}");
                for (index, caller) in waiting.get(name).into_iter().flatten().enumerate() {
                    // A covered caller may not have been told yet, because the waits have not noticed that a caller
                    // before it is gone.
                    let is_covered = caller.told() == WaitsFor::Turn;
                    assert!(!is_covered || index < server_waits, "seed {seed}");
                }
            }
        }
        scene.waits.clean(scene.now);
        for name in NAMES {
            for _ in 0..on_server.get(name).copied().unwrap_or_default() {
                scene.ended(name);
            }
            while let Some(number) = scene.claim(name) {
                assert_eq!(waiting.get_mut(name).unwrap().remove(0).0.number, number, "seed {seed}");
            }
        }
        assert!(waiting.values().all(Vec::is_empty) && scene.is_empty(), "seed {seed}");
    }
}
