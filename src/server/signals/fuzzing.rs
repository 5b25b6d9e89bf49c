//! Fuzzes subscriptions and deliveries, and compares them with a search through all subscriptions.

use arbitrary::{Arbitrary, Unstructured};
use bytes::BytesMut;

use super::pattern::tokens;
use super::{Inbox, RawGroup, RawPattern, SignalHub, has_wildcards};
use crate::protocol::{Channel, Pattern};
use crate::types::check_word;

/// An action of a connection. Names are made of [tokens](token).
#[derive(Arbitrary, Debug)]
enum Act<'a> {
    Listen(u8, u8, &'a [u8]),
    Unlisten(u8, u8, &'a [u8]),
    Publish(&'a [u8]),
    Leave(u8),
}

const CONNECTIONS: usize = 4;

/// More than the number of subscriptions that one signal can reach.
const BUFFER: usize = 256;

/// Performs the actions in the input on a hub of signals and on a list of subscriptions.
pub(crate) fn patterns(data: &[u8]) {
    let mut bytes = Unstructured::new(data);
    let mut bench = Bench {
        hub: SignalHub::new(BUFFER, 0),
        subscriptions: Vec::new(),
        turns: Vec::new(),
        inboxes: [const { None }; CONNECTIONS],
        last_id: 0,
    };
    for _ in 0..128 {
        let Ok(act) = Act::arbitrary(&mut bytes) else { break };
        match act {
            Act::Listen(who, group, name) => bench.listen(connection(who), group_name(group), &text(name)),
            Act::Unlisten(who, group, name) => bench.unlisten(connection(who), group_name(group), &text(name)),
            Act::Publish(name) => bench.publish(&text(name)),
            Act::Leave(who) => bench.leave(connection(who)),
        }
    }
    for who in 0..CONNECTIONS {
        bench.leave(who);
    }
    assert!(bench.hub.audiences.is_empty() && bench.hub.wild.is_empty() && bench.hub.subscribers.is_empty());
}

fn connection(who: u8) -> usize {
    usize::from(who) % CONNECTIONS
}

fn group_name(choice: u8) -> Option<RawGroup> {
    match choice % 4 {
        0 | 1 => None,
        2 => Some(b"g".as_slice().into()),
        _ => Some(b"h".as_slice().into()),
    }
}

/// Makes a name of tokens that are likely to recur.
fn text(choices: &[u8]) -> Vec<u8> {
    let tokens: Vec<&[u8]> = choices.iter().take(9).map(token).collect();
    tokens.join(&b'.')
}

fn token(choice: &u8) -> &[u8] {
    match choice % 16 {
        0..=4 => b"a",
        5..=6 => b"b",
        7..=9 => b"*",
        10..=11 => b">",
        12 => b"",
        13 => b"a*",
        14 => b"ab",
        _ => std::slice::from_ref(choice),
    }
}

struct Subscription {
    connection: usize,
    pattern: Vec<u8>,
    group: Option<RawGroup>,
    id: u64,
}

struct Bench {
    hub: SignalHub,
    /// In the order of subscribing.
    subscriptions: Vec<Subscription>,
    /// For each pattern and group: the member that got the last signal. The entry is removed when the group is empty.
    turns: Vec<(Vec<u8>, RawGroup, u64)>,
    inboxes: [Option<Inbox>; CONNECTIONS],
    last_id: u64,
}

impl Bench {
    fn listen(&mut self, who: usize, group: Option<RawGroup>, name: &[u8]) {
        let Some(pattern) = checked(name) else { return };
        let opened = self.hub.listen(who as u64, pattern, group.clone());
        match opened {
            Ok(Some(inbox)) => assert!(
                self.inboxes[who].replace(inbox).is_none(),
                "the connection has an inbox already"
            ),
            Ok(None) => assert!(self.inboxes[who].is_some(), "the first subscription opens an inbox"),
            Err(_) => panic!("the hub refused a subscription"),
        }
        if !self
            .subscriptions
            .iter()
            .any(|subscription| subscription.is(who, &group, name))
        {
            self.last_id += 1;
            self.subscriptions.push(Subscription {
                connection: who,
                pattern: name.to_vec(),
                group,
                id: self.last_id,
            });
        }
    }

    fn unlisten(&mut self, who: usize, group: Option<RawGroup>, name: &[u8]) {
        let Some(pattern) = checked(name) else { return };
        self.hub.unlisten(who as u64, pattern, group.clone());
        self.subscriptions
            .retain(|subscription| !subscription.is(who, &group, name));
        self.forget_empty_groups();
    }

    fn leave(&mut self, who: usize) {
        self.hub.disconnect(who as u64);
        self.inboxes[who] = None;
        self.subscriptions.retain(|subscription| subscription.connection != who);
        self.forget_empty_groups();
    }

    fn forget_empty_groups(&mut self) {
        let subscriptions = &self.subscriptions;
        self.turns
            .retain(|(pattern, group, _)| subscriptions.iter().any(|s| s.is_of(pattern, group)));
    }

    fn publish(&mut self, channel: &[u8]) {
        let is_channel = !has_wildcards(channel);
        if let Ok(channel) = std::str::from_utf8(channel) {
            let is_valid = is_channel && check_word("channel", channel).is_ok();
            assert_eq!(Channel::new(channel).is_ok(), is_valid, "{channel:?}");
        }
        if !is_channel {
            return;
        }
        let expected = self.receivers(channel);
        let count = self.hub.publish(channel, b"x");
        assert_eq!(count, expected.iter().sum::<usize>() as u64, "{channel:?}");
        let line = [b"sig ", channel, b" x\n"].concat();
        for (inbox, expected) in self.inboxes.iter_mut().zip(expected) {
            let mut out = BytesMut::new();
            if let Some(inbox) = inbox {
                inbox.take(&mut out);
            }
            assert_eq!(out, line.repeat(expected), "{channel:?}");
        }
    }

    /// Returns how often each connection gets a signal.
    fn receivers(&mut self, channel: &[u8]) -> [usize; CONNECTIONS] {
        let mut times = [0; CONNECTIONS];
        let matching = || self.subscriptions.iter().filter(|s| matches(&s.pattern, channel));
        let mut groups: Vec<(&[u8], &RawGroup)> = Vec::new();
        for subscription in matching() {
            match &subscription.group {
                None => times[subscription.connection] = 1,
                Some(group) if !groups.contains(&(&subscription.pattern, group)) => {
                    groups.push((&subscription.pattern, group));
                }
                Some(_) => {}
            }
        }
        for (pattern, group) in groups {
            let turn = self.turns.iter_mut().find(|(p, g, _)| p == pattern && g == group);
            let last = turn.as_ref().map_or(0, |turn| turn.2);
            let members = || self.subscriptions.iter().filter(|s| s.is_of(pattern, group));
            let next = members()
                .find(|member| member.id > last)
                .or_else(|| members().next())
                .unwrap();
            times[next.connection] += 1;
            match turn {
                Some(turn) => turn.2 = next.id,
                None => self.turns.push((pattern.to_vec(), group.clone(), next.id)),
            }
        }
        times
    }
}

impl Subscription {
    fn is(&self, connection: usize, group: &Option<RawGroup>, pattern: &[u8]) -> bool {
        self.connection == connection && self.group == *group && self.pattern == pattern
    }

    fn is_of(&self, pattern: &[u8], group: &RawGroup) -> bool {
        self.group.as_ref() == Some(group) && self.pattern == pattern
    }
}

/// Reads a pattern, and compares the result with the rules of the server and of the client.
fn checked(name: &[u8]) -> Option<RawPattern> {
    let all: Vec<&[u8]> = tokens(name).collect();
    let is_valid = all.iter().enumerate().all(|(index, token)| match *token {
        b"*" => true,
        b">" => index + 1 == all.len(),
        token => !has_wildcards(token),
    });
    let read = RawPattern::read(name);
    assert_eq!(read.is_some(), is_valid, "{name:?}");
    if let Ok(text) = std::str::from_utf8(name) {
        let is_valid = is_valid && check_word("pattern", text).is_ok();
        let pattern = Pattern::new(text);
        assert_eq!(pattern.is_ok(), is_valid, "{text:?}");
        assert!(pattern.is_ok_and(|pattern| pattern.has_wildcards() == has_wildcards(name)) || !is_valid);
    }
    read
}

/// Matches token by token, directly by the rules.
fn matches(pattern: &[u8], channel: &[u8]) -> bool {
    fn all(pattern: &[&[u8]], channel: &[&[u8]]) -> bool {
        match (pattern, channel) {
            ([], []) => true,
            ([b">"], [_, ..]) => true,
            ([b"*", pattern @ ..], [_, channel @ ..]) => all(pattern, channel),
            ([token, pattern @ ..], [same, channel @ ..]) => token == same && all(pattern, channel),
            _ => false,
        }
    }
    let (pattern, channel): (Vec<&[u8]>, Vec<&[u8]>) = (tokens(pattern).collect(), tokens(channel).collect());
    all(&pattern, &channel)
}
