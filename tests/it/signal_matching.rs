//! Compares the embedded server with a simple matcher: both must deliver a signal to the same listeners.

use std::collections::HashMap;
use std::time::Duration;

use crate::support::raw::{Heard, RawConnection};
use dflockd_client::server::Server;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

const CONNECTIONS: usize = 4;

const SOON: Duration = Duration::from_secs(10);

/// A pattern and the name of a group. The name is empty if the subscription belongs to no group.
type Subscription = (String, String);

#[derive(Clone, Debug)]
enum Step {
    Listen(usize, Subscription),
    Unlisten(usize, Subscription),
    /// Removes a subscription of this connection, if it has one.
    UnlistenOwn(usize, prop::sample::Index),
    /// The connection emits a signal on this channel.
    Signal(usize, String),
    /// The connection ends, and a new one takes its number.
    Replace(usize),
}

/// Generates a pattern from few names, so that many patterns match. A token of the pattern may be empty.
fn pattern() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "(a|b||\\*)(\\.(a|b||\\*)){0,2}(\\.>)?",
        1 => Just(">".to_owned()),
    ]
    .prop_filter("a pattern has text", |text| !text.is_empty())
}

fn channel() -> impl Strategy<Value = String> {
    "(a|b|)(\\.(a|b|)){0,3}".prop_filter("a channel has text", |text| !text.is_empty())
}

/// Generates a channel and a pattern that matches it. The pattern is the channel with `*` for some tokens, and in some
/// cases with `>` for the last tokens.
fn channel_and_pattern() -> impl Strategy<Value = (String, String)> {
    channel()
        .prop_flat_map(|channel| {
            let tokens = channel.split('.').count();
            let stars = prop::collection::vec(any::<bool>(), tokens);
            (Just(channel), stars, prop::option::of(0..tokens))
        })
        .prop_map(|(channel, stars, rest)| {
            let tokens = channel.split('.').zip(stars);
            let mut pattern: Vec<&str> = tokens.map(|(token, star)| if star { "*" } else { token }).collect();
            if let Some(rest) = rest {
                pattern.truncate(rest);
                pattern.push(">");
            }
            let pattern = pattern.join(".");
            (channel, pattern)
        })
}

fn subscription() -> impl Strategy<Value = Subscription> {
    (
        pattern(),
        prop_oneof![Just(""), Just("g"), Just("h")].prop_map(str::to_owned),
    )
}

fn step() -> impl Strategy<Value = Step> {
    let connection = || 0..CONNECTIONS;
    prop_oneof![
        6 => (connection(), subscription()).prop_map(|(connection, what)| Step::Listen(connection, what)),
        1 => (connection(), subscription()).prop_map(|(connection, what)| Step::Unlisten(connection, what)),
        2 => (connection(), any::<prop::sample::Index>()).prop_map(|(connection, which)| Step::UnlistenOwn(connection, which)),
        6 => (connection(), channel()).prop_map(|(from, channel)| Step::Signal(from, channel)),
        1 => connection().prop_map(Step::Replace),
    ]
}

/// The simple matcher: it applies the rules of matching to a list of subscriptions.
#[derive(Default)]
struct SimpleMatcher {
    /// Each subscription with its number and its connection, in the order of creation.
    subscriptions: Vec<(u64, usize, Subscription)>,
    /// The number of the subscription that got the last signal of each group.
    last: HashMap<Subscription, u64>,
    made: u64,
}

impl SimpleMatcher {
    fn listen(&mut self, connection: usize, what: &Subscription) {
        if self.of(connection).all(|had| had != what) {
            self.made += 1;
            self.subscriptions.push((self.made, connection, what.clone()));
        }
    }

    fn unlisten(&mut self, connection: usize, what: &Subscription) {
        self.subscriptions
            .retain(|(_, other, had)| *other != connection || had != what);
        self.forget_empty_groups();
    }

    fn disconnect(&mut self, connection: usize) {
        self.subscriptions.retain(|(_, other, _)| *other != connection);
        self.forget_empty_groups();
    }

    /// Forgets groups without members, so that a later group of the same name has no history.
    fn forget_empty_groups(&mut self) {
        let subscriptions = &self.subscriptions;
        self.last
            .retain(|group, _| subscriptions.iter().any(|(_, _, what)| what == group));
    }

    fn of(&self, connection: usize) -> impl Iterator<Item = &Subscription> {
        self.subscriptions
            .iter()
            .filter(move |(_, other, _)| *other == connection)
            .map(|(_, _, what)| what)
    }

    /// Delivers a signal. Returns how many times each connection gets it.
    fn deliver(&mut self, channel: &str) -> [usize; CONNECTIONS] {
        let mut deliveries = [0; CONNECTIONS];
        let mut groups: Vec<Subscription> = Vec::new();
        for (_, connection, (pattern, group)) in &self.subscriptions {
            if !matches(pattern, channel) {
                continue;
            }
            if group.is_empty() {
                // A connection gets the signal once, even if several of its patterns match.
                deliveries[*connection] = 1;
            } else if !groups.contains(&(pattern.clone(), group.clone())) {
                groups.push((pattern.clone(), group.clone()));
            }
        }
        for group in groups {
            let members = || self.subscriptions.iter().filter(|(_, _, what)| *what == group);
            let last = self.last.get(&group).copied().unwrap_or_default();
            let next = members().find(|(number, ..)| *number > last).or(members().next());
            let (number, connection, _) = *next.as_ref().unwrap();
            deliveries[*connection] += 1;
            self.last.insert(group, *number);
        }
        deliveries
    }
}

fn matches(pattern: &str, channel: &str) -> bool {
    fn tokens_match(pattern: &[&str], channel: &[&str]) -> bool {
        match (pattern, channel) {
            ([], []) => true,
            ([">"], [_, ..]) => true,
            ([first, pattern @ ..], [token, channel @ ..]) => {
                (*first == "*" || first == token) && tokens_match(pattern, channel)
            }
            _ => false,
        }
    }
    let pattern: Vec<&str> = pattern.split('.').collect();
    let channel: Vec<&str> = channel.split('.').collect();
    tokens_match(&pattern, &channel)
}

/// A server and its open connections.
struct Real {
    server: Server,
    connections: Vec<RawConnection>,
    published: usize,
}

impl Real {
    async fn start() -> Self {
        let server = Server::builder().release("1.16").port(0).start().await.unwrap();
        let mut real = Self {
            server,
            connections: Vec::new(),
            published: 0,
        };
        for _ in 0..CONNECTIONS {
            let connection = real.connect().await;
            real.connections.push(connection);
        }
        real
    }

    async fn connect(&self) -> RawConnection {
        RawConnection::open(&self.server.local_addr().to_string()).await
    }

    async fn replace(&mut self, number: usize) {
        let new = self.connect().await;
        std::mem::replace(&mut self.connections[number], new).hang_up().await;
    }

    /// Emits a signal. Returns the answer of the server, and how many times each connection gets the signal.
    async fn deliver(&mut self, from: usize, channel: &str) -> (String, [usize; CONNECTIONS]) {
        self.published += 1;
        let payload = format!("no. {}", self.published);
        let answer = self.connections[from].request("signal", channel, &payload).await;
        let mut deliveries = [0; CONNECTIONS];
        // A connection gets the signal before the answer to its later `ping`.
        for connection in &mut self.connections {
            connection.send("ping\n_\n_\n").await;
        }
        for (connection, count) in self.connections.iter_mut().zip(&mut deliveries) {
            loop {
                match connection.hear(SOON).await {
                    Heard::Line(line) if line == "ok" => break,
                    Heard::Line(line) => assert_eq!(line, format!("sig {channel} {payload}")),
                    other => panic!("{other:?}"),
                }
                *count += 1;
            }
        }
        (answer, deliveries)
    }
}

async fn play(steps: Vec<Step>) -> TestCaseResult {
    let mut real = Real::start().await;
    let mut simple = SimpleMatcher::default();
    for step in steps {
        match step {
            Step::Listen(connection, what) => {
                simple.listen(connection, &what);
                let answer = real.connections[connection].request("listen", &what.0, &what.1).await;
                prop_assert_eq!(answer, "ok");
            }
            Step::Unlisten(connection, what) => {
                simple.unlisten(connection, &what);
                let answer = real.connections[connection].request("unlisten", &what.0, &what.1).await;
                prop_assert_eq!(answer, "ok");
            }
            Step::UnlistenOwn(connection, which) => {
                let own: Vec<Subscription> = simple.of(connection).cloned().collect();
                if own.is_empty() {
                    continue;
                }
                let what = which.get(&own);
                simple.unlisten(connection, what);
                let answer = real.connections[connection].request("unlisten", &what.0, &what.1).await;
                prop_assert_eq!(answer, "ok");
            }
            Step::Signal(from, channel) => {
                let expected = simple.deliver(&channel);
                let (answer, deliveries) = real.deliver(from, &channel).await;
                prop_assert_eq!(deliveries, expected, "who gets {:?}", channel);
                prop_assert_eq!(answer, format!("ok {}", expected.iter().sum::<usize>()));
            }
            Step::Replace(connection) => {
                simple.disconnect(connection);
                real.replace(connection).await;
            }
        }
    }
    // At the end, the stats of the server must count the same number of subscriptions.
    let told: u64 = real
        .server
        .stats()
        .signal_channels
        .iter()
        .map(|told| told.listeners)
        .sum();
    prop_assert_eq!(told, simple.subscriptions.len() as u64);
    Ok(())
}

fn run(test: impl Future<Output = TestCaseResult>) -> TestCaseResult {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(test)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn the_server_delivers_as_the_simple_matcher_does(steps in prop::collection::vec(step(), 1..80)) {
        run(play(steps))?;
    }

    #[test]
    fn members_of_a_group_get_equal_shares(
        (channel, pattern) in channel_and_pattern(),
        members in 1..=CONNECTIONS,
        rounds in 1..5_usize,
    ) {
        prop_assert!(matches(&pattern, &channel));
        run(async {
            let mut real = Real::start().await;
            for connection in &mut real.connections[..members] {
                prop_assert_eq!(connection.request("listen", &pattern, "g").await, "ok");
            }
            let mut shares = [0; CONNECTIONS];
            for _ in 0..rounds * members {
                let (_, deliveries) = real.deliver(0, &channel).await;
                shares.iter_mut().zip(deliveries).for_each(|(share, count)| *share += count);
            }
            prop_assert!(shares[..members].iter().all(|share| *share == rounds), "{:?}", shares);
            prop_assert!(shares[members..].iter().all(|share| *share == 0), "{:?}", shares);
            Ok(())
        })?;
    }
}
