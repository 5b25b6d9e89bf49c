//! Tests of subscriptions and deliveries, without real connections.

use std::collections::BTreeMap;

use super::*;

/// The subscriptions, and the inbox of each connection.
struct Bench {
    signals: SignalHub,
    inboxes: BTreeMap<ConnectionId, Inbox>,
}

fn pattern(name: &str) -> RawPattern {
    RawPattern::read(name.as_bytes()).unwrap()
}

/// Returns `None` for an empty name.
fn group(name: &str) -> Option<RawGroup> {
    (!name.is_empty()).then(|| name.as_bytes().into())
}

impl Bench {
    fn new(buffer: usize, max_per_connection: usize) -> Self {
        Self {
            signals: SignalHub::new(buffer, max_per_connection),
            inboxes: BTreeMap::new(),
        }
    }

    /// Returns false if the server refuses the subscription.
    fn listen(&mut self, connection: ConnectionId, name: &str, of: &str) -> bool {
        match self.signals.listen(connection, pattern(name), group(of)) {
            Ok(Some(inbox)) => {
                assert!(
                    self.inboxes.insert(connection, inbox).is_none(),
                    "the connection has an inbox already"
                );
                true
            }
            Ok(None) => true,
            Err(NoRoom) => false,
        }
    }

    fn unlisten(&mut self, connection: ConnectionId, name: &str, of: &str) {
        self.signals.unlisten(connection, pattern(name), group(of));
    }

    fn publish(&mut self, name: &str, payload: &str) -> u64 {
        self.signals.publish(name.as_bytes(), payload.as_bytes())
    }

    /// Returns the signals that a connection has received since the last call.
    fn got(&mut self, connection: ConnectionId) -> Vec<String> {
        let mut out = BytesMut::new();
        self.inboxes.get_mut(&connection).unwrap().take(&mut out);
        let text = String::from_utf8(out.to_vec()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// Publishes a signal, and returns its receivers.
    fn receivers(&mut self, name: &str) -> Vec<ConnectionId> {
        let count = self.publish(name, "x");
        let connections: Vec<ConnectionId> = self.inboxes.keys().copied().collect();
        let receivers: Vec<ConnectionId> = connections
            .into_iter()
            .flat_map(|connection| self.got(connection).into_iter().map(move |_| connection))
            .collect();
        assert_eq!(receivers.len() as u64, count, "the answer counts deliveries");
        receivers
    }

    fn is_cut(&self, connection: ConnectionId) -> bool {
        self.inboxes[&connection].is_cut()
    }

    fn visited(&self, name: &str) -> usize {
        self.signals.matching(name.as_bytes()).1
    }

    fn is_empty(&self) -> bool {
        self.signals.audiences.is_empty() && self.signals.wild.is_empty()
    }
}

#[test]
fn wildcards_stand_for_whole_tokens() {
    for (pattern, matching, others) in [
        ("a.b", &["a.b"][..], &["a", "a.b.c", "a.c", "a.b.", "A.b"][..]),
        ("a.*", &["a.b", "a."], &["a", "a.b.c", "b.a", "a.."]),
        ("*", &["a", "ab"], &["a.b", "."]),
        ("*.b", &["a.b", ".b"], &["b", "a.c", "a.a.b"]),
        ("a.*.c", &["a.b.c", "a..c"], &["a.b.d", "a.c", "a.b.b.c"]),
        ("*.*", &["a.b", "."], &["a", "a.b.c"]),
        ("a.>", &["a.b", "a.b.c.d", "a."], &["a", "b.a", "ab.c"]),
        (">", &["a", "a.b.c", "."], &[]),
        ("*.>", &["a.b", "a.b.c", ".."], &["a"]),
        ("a..>", &["a..b", "a..", "a...b"], &["a.b", "a."]),
        ("a.*.>", &["a.b.c", "a..c.d"], &["a.b", "a"]),
    ] {
        let mut bench = Bench::new(64, 0);
        bench.listen(1, pattern, "");
        for name in matching {
            assert_eq!(bench.receivers(name), [1], "{pattern} matches {name}");
        }
        for name in others {
            assert_eq!(bench.receivers(name), [0; 0], "{pattern} does not match {name}");
        }
    }
}

#[test]
fn removing_a_pattern_does_not_affect_related_patterns() {
    let patterns = [
        "a.*", "a.*.c", "a.>", "a.*.>", "*.*", "*.*.c", "*", "*.>", ">", "a.b", "a.b.>",
    ];
    for gone in patterns {
        for stays in patterns.into_iter().filter(|other| *other != gone) {
            let mut bench = Bench::new(64, 0);
            bench.listen(2, stays, "");
            let names = ["a", "a.b", "a.b.c", "x.y"];
            let alone = names.map(|name| bench.receivers(name));
            bench.listen(1, gone, "");
            bench.unlisten(1, gone, "");
            assert_eq!(names.map(|name| bench.receivers(name)), alone, "{stays} without {gone}");
        }
    }
}

#[test]
fn a_group_takes_turns_in_order_of_arrival_while_members_join_and_leave() {
    let mut bench = Bench::new(64, 0);
    // The order in which they joined counts, not the numbers of the connections.
    for connection in [3, 1, 2] {
        bench.listen(connection, "jobs", "g");
    }
    assert_eq!([3, 1, 2, 3].map(|_| bench.receivers("jobs")), [[3], [1], [2], [3]]);
    // A new member queues behind all others: after 1 and 2, which are next.
    bench.listen(4, "jobs", "g");
    assert_eq!([0; 3].map(|_| bench.receivers("jobs")), [[1], [2], [4]]);
    // The next member leaves, and so does the member that got the last signal.
    bench.unlisten(3, "jobs", "g");
    bench.unlisten(4, "jobs", "g");
    assert_eq!([0; 3].map(|_| bench.receivers("jobs")), [[1], [2], [1]]);
    // A member that comes back is last in the order.
    bench.unlisten(1, "jobs", "g");
    bench.listen(1, "jobs", "g");
    assert_eq!([0; 3].map(|_| bench.receivers("jobs")), [[2], [1], [2]]);
}

#[test]
fn each_group_has_its_own_turns() {
    let mut bench = Bench::new(64, 0);
    for connection in [1, 2] {
        bench.listen(connection, "jobs", "g");
        bench.listen(connection, "*", "g");
        bench.listen(connection, "jobs", "h");
    }
    bench.unlisten(1, "*", "g");
    assert_eq!(bench.receivers("jobs"), [1, 1, 2]);
    assert_eq!(bench.receivers("jobs"), [2, 2, 2]);
    assert_eq!(bench.receivers("other"), [2]);
}

#[test]
fn a_subscriber_that_does_not_read_is_cut_and_the_next_member_of_its_group_gets_the_signal() {
    let mut bench = Bench::new(2, 0);
    bench.listen(1, "jobs", "g");
    bench.listen(1, "news", "");
    bench.listen(2, "jobs", "g");
    bench.listen(2, "news", "");
    assert_eq!([0; 2].map(|_| bench.publish("news", "x")), [2, 2]);
    assert_eq!(bench.got(2).len(), 2);
    assert!(!bench.is_cut(1), "its buffer is full, but nothing was lost yet");
    assert_eq!(bench.publish("jobs", "1's turn"), 1);
    assert_eq!(bench.got(2), ["sig jobs 1's turn"]);
    assert!(bench.is_cut(1) && !bench.is_cut(2));
    // Its subscriptions are gone, and it cannot subscribe again.
    assert_eq!(bench.signals.stats().iter().map(|s| s.listeners).sum::<u64>(), 2);
    assert_eq!(
        bench.got(1).len(),
        2,
        "the signals that were in its buffer still arrive"
    );
    assert!(!bench.listen(1, "news", ""));
    bench.unlisten(1, "news", "");
    assert_eq!(bench.receivers("news"), [2]);
    bench.signals.disconnect(1);
    assert_eq!(bench.receivers("news"), [2]);
}

#[test]
fn a_group_whose_members_do_not_read_gets_nothing_once_their_buffers_are_full() {
    let mut bench = Bench::new(1, 0);
    bench.listen(1, "jobs", "g");
    bench.listen(2, "jobs", "g");
    assert_eq!([0; 4].map(|_| bench.publish("jobs", "x")), [1, 1, 0, 0]);
    assert!(bench.is_cut(1) && bench.is_cut(2) && bench.is_empty());
}

#[test]
fn a_connection_that_has_ended_unnoticed_gets_no_delivery() {
    let mut bench = Bench::new(64, 0);
    bench.listen(1, "a", "");
    bench.inboxes.clear();
    assert_eq!(bench.publish("a", "x"), 0);
}

#[test]
fn the_cap_counts_subscriptions_not_requests() {
    let mut bench = Bench::new(64, 2);
    assert!(bench.listen(1, "a", ""));
    assert!(bench.listen(1, "a", "g"));
    assert!(bench.listen(1, "a", ""), "the connection has this subscription already");
    assert!(!bench.listen(1, "b", ""));
    assert_eq!(bench.receivers("b"), [0; 0]);
    assert!(bench.listen(2, "b", ""), "each connection has its own cap");
    bench.unlisten(1, "a", "nope");
    assert!(!bench.listen(1, "b", ""));
    bench.unlisten(1, "a", "g");
    assert!(bench.listen(1, "b", ""));
    assert_eq!(bench.receivers("b"), [1, 2]);
}

#[test]
fn stats_tell_groups_apart() {
    let mut bench = Bench::new(64, 0);
    for (connection, group) in [(1, ""), (1, "g"), (2, "g"), (3, "h")] {
        bench.listen(connection, "a.>", group);
    }
    bench.listen(1, "b", "");
    let told: Vec<(String, Option<String>, u64)> = bench
        .signals
        .stats()
        .into_iter()
        .map(|told| (told.pattern, told.group, told.listeners))
        .collect();
    let expected = [
        ("a.>", None, 1),
        ("a.>", Some("g"), 2),
        ("a.>", Some("h"), 1),
        ("b", None, 1),
    ];
    assert_eq!(told, expected.map(|(p, g, n)| (p.to_owned(), g.map(str::to_owned), n)));
}

/// Equal histories have equal outcomes, independent of the hashes in maps.
#[test]
fn stats_are_in_the_order_of_patterns_and_groups() {
    let mut bench = Bench::new(64, 0);
    let names: Vec<String> = (10..40).map(|number| format!("p{number}")).collect();
    for name in names.iter().rev() {
        for of in ["h", "", "g"] {
            bench.listen(1, name, of);
        }
    }
    let told = bench.signals.stats().into_iter().map(|told| (told.pattern, told.group));
    let expected = names
        .iter()
        .flat_map(|name| [None, Some("g"), Some("h")].map(|group| (name.clone(), group.map(str::to_owned))));
    assert!(told.eq(expected));
}

#[test]
fn groups_are_served_in_the_order_of_their_names() {
    let groups: Vec<String> = (10..40).map(|number| format!("g{number}")).collect();
    // A connection with room for one signal is first in each group. So it gets the signal of the group that is served
    // first.
    let mut bench = Bench::new(1, 0);
    for of in groups.iter().rev() {
        bench.listen(1, "jobs", of);
    }
    for (of, connection) in groups.iter().zip(2..) {
        bench.listen(connection, "jobs", of);
    }
    assert_eq!(bench.publish("jobs", "x"), 30);
    let got: Vec<usize> = (2..32).map(|connection| bench.got(connection).len()).collect();
    assert_eq!(got[0], 0, "connection 1 got the signal of the first group");
    assert!(got[1..].iter().all(|got| *got == 1));
}

#[test]
fn the_cost_of_a_signal_does_not_depend_on_other_subscriptions() {
    let costs = [10, 1_000, 20_000].map(|others| {
        let mut bench = Bench::new(64, 0);
        for (pattern, connection) in [("orders.*", 1), ("orders.new", 2), ("*.new", 3), (">", 4)] {
            bench.listen(connection, pattern, "");
        }
        for other in 0..others {
            // Patterns beside the channel, below it and above it.
            bench.listen(5, &format!("orders.{other}"), "");
            bench.listen(5, &format!("orders.new.{other}"), "");
            bench.listen(5, &format!("{other}"), "");
            if other < 1_000 {
                bench.listen(6, &format!("orders.{other}.*"), "");
                bench.listen(6, &format!("{other}.>"), "");
            }
        }
        assert_eq!(bench.receivers("orders.new"), [1, 2, 3, 4]);
        bench.visited("orders.new")
    });
    assert!(costs[0] <= 8, "{costs:?}");
    assert_eq!(costs, [costs[0]; 3]);
}

#[test]
fn ended_subscriptions_leave_nothing_behind() {
    let mut bench = Bench::new(64, 0);
    let patterns = ["a", "a.b", "a.*", "a.>", "*", ">", "*.b.>", "..", "x.*.y.*"];
    for connection in 1..=3 {
        for pattern in patterns {
            for group in ["", "g", "h"] {
                bench.listen(connection, pattern, group);
            }
        }
    }
    for pattern in patterns {
        for group in ["", "g", "h"] {
            bench.unlisten(1, pattern, group);
        }
    }
    bench.signals.disconnect(2);
    assert!(!bench.is_empty(), "connection 3 still listens");
    bench.signals.disconnect(3);
    assert!(bench.is_empty());
    bench.signals.disconnect(1);
    assert!(bench.signals.subscribers.is_empty());
}
