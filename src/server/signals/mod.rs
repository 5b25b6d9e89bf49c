//! Who hears what: the subscriptions of all connections, and the way of a signal to them. No sockets, no clocks.
//!
//! A signal costs one look at the table of patterns, for those without wildcards, and a walk through a
//! [trie](trie::PatternTrie) of the others; so subscriptions to other channels do not slow it. A connection that ends
//! costs as much as it had subscriptions.

mod audience;
mod mailbox;
mod pattern;
mod trie;

use std::collections::{BTreeMap, HashMap};

use bytes::{BufMut, Bytes, BytesMut};

use self::audience::{Audience, Seat};
use self::mailbox::Outbox;
pub(super) use self::mailbox::{Cut, Inbox};
pub(super) use self::pattern::{RawGroup, RawPattern, has_wildcards};
use self::trie::PatternTrie;
use super::ids::ConnectionId;
use crate::stats::SignalChannelStats;

/// All subscriptions of a server.
pub(super) struct SignalHub {
    /// How many signals may wait for one connection.
    buffer: usize,
    /// How many subscriptions a connection may have; 0 for any number.
    most_of_one: usize,
    /// Who listens to what. None of them is empty.
    audiences: HashMap<RawPattern, Audience>,
    /// Those of the patterns that have wildcards.
    wild: PatternTrie,
    subscribers: HashMap<ConnectionId, Subscriber>,
    last_seat: Seat,
}

/// A connection that has listened at least once.
struct Subscriber {
    /// `None` once it was cut: it ends, and nothing more is for it.
    outbox: Option<Outbox>,
    subscriptions: BTreeMap<Subscription, Seat>,
}

/// What a connection may have once.
type Subscription = (RawPattern, Option<RawGroup>);

/// A `listen` that is refused: the connection has as many subscriptions as it may, or is cut.
pub(super) struct NoRoom;

impl SignalHub {
    pub(super) fn new(buffer: usize, most_of_one: usize) -> Self {
        Self {
            buffer,
            most_of_one,
            audiences: HashMap::new(),
            wild: PatternTrie::default(),
            subscribers: HashMap::new(),
            last_seat: 0,
        }
    }

    /// Subscribes a connection; what it has already is not had twice. The first time, the answer is where its signals
    /// will arrive.
    pub(super) fn listen(
        &mut self,
        connection: ConnectionId,
        pattern: RawPattern,
        group: Option<RawGroup>,
    ) -> Result<Option<Inbox>, NoRoom> {
        let mut opened = None;
        let subscriber = self.subscribers.entry(connection).or_insert_with(|| {
            let (outbox, inbox) = mailbox::open(self.buffer);
            opened = Some(inbox);
            Subscriber {
                outbox: Some(outbox),
                subscriptions: BTreeMap::new(),
            }
        });
        if subscriber.outbox.is_none() {
            return Err(NoRoom);
        }
        let subscription = (pattern, group);
        if subscriber.subscriptions.contains_key(&subscription) {
            return Ok(opened);
        }
        if self.most_of_one > 0 && subscriber.subscriptions.len() >= self.most_of_one {
            return Err(NoRoom);
        }
        self.last_seat += 1;
        let (pattern, group) = &subscription;
        let audience = self.audiences.entry(pattern.clone()).or_insert_with(|| {
            if pattern.has_wildcards() {
                self.wild.insert(pattern);
            }
            Audience::default()
        });
        audience.join(connection, group.as_ref(), self.last_seat);
        subscriber.subscriptions.insert(subscription, self.last_seat);
        Ok(opened)
    }

    /// Takes a subscription back, if there is one.
    pub(super) fn unlisten(&mut self, connection: ConnectionId, pattern: RawPattern, group: Option<RawGroup>) {
        let subscription = (pattern, group);
        let subscriber = self.subscribers.get_mut(&connection);
        if let Some(seat) = subscriber.and_then(|subscriber| subscriber.subscriptions.remove(&subscription)) {
            self.leave(&subscription, seat);
        }
    }

    /// Delivers a signal: to each connection with a matching subscription of its own once, and to one member of each
    /// matching group. The number of deliveries.
    ///
    /// A connection whose buffer is full does not read: it is cut, and gets nothing. The turn of a group passes to its
    /// next member then.
    pub(super) fn publish(&mut self, channel: &[u8], payload: &[u8]) -> u64 {
        let (patterns, _) = self.matching(channel);
        if patterns.is_empty() {
            return 0;
        }
        let mut delivery = Delivery {
            line: line(channel, payload),
            subscribers: &self.subscribers,
            full: Vec::new(),
            count: 0,
        };
        let mut alone: Vec<ConnectionId> = Vec::new();
        for pattern in &patterns {
            let Some(audience) = self.audiences.get_mut(pattern) else {
                continue;
            };
            alone.extend(audience.alone());
            for group in audience.groups() {
                group.pass_on(|connection| delivery.offer(connection));
            }
        }
        // One pattern has a connection once only.
        if patterns.len() > 1 {
            alone.sort_unstable();
            alone.dedup();
        }
        for connection in alone {
            delivery.offer(connection);
        }
        let Delivery { full, count, .. } = delivery;
        for connection in full {
            self.cut(connection);
        }
        count
    }

    /// A connection has ended.
    pub(super) fn disconnect(&mut self, connection: ConnectionId) {
        if let Some(subscriber) = self.subscribers.remove(&connection) {
            self.leave_all(subscriber.subscriptions);
        }
    }

    /// What `stats` tells, by pattern and group.
    pub(super) fn stats(&self) -> Vec<SignalChannelStats> {
        let mut audiences: Vec<_> = self.audiences.iter().collect();
        audiences.sort_unstable_by_key(|(pattern, _)| *pattern);
        audiences
            .into_iter()
            .flat_map(|(pattern, audience)| {
                audience.sizes().map(|(group, listeners)| SignalChannelStats {
                    pattern: pattern.to_string(),
                    group: group.map(|group| String::from_utf8_lossy(group).into_owned()),
                    listeners: listeners as u64,
                })
            })
            .collect()
    }

    /// The patterns that a channel matches, and how many places were looked at to find them.
    fn matching(&self, channel: &[u8]) -> (Vec<RawPattern>, usize) {
        // A channel has no wildcards, so a pattern of the same text has none either.
        let exact = self.audiences.get_key_value(channel);
        let mut patterns: Vec<RawPattern> = exact.map(|(pattern, _)| pattern.clone()).into_iter().collect();
        let visited = self.wild.each_match(channel, |pattern| patterns.push(pattern.clone()));
        (patterns, 1 + visited)
    }

    /// Ends a connection that does not read.
    fn cut(&mut self, connection: ConnectionId) {
        if let Some(subscriber) = self.subscribers.get_mut(&connection) {
            subscriber.outbox = None;
            let subscriptions = std::mem::take(&mut subscriber.subscriptions);
            self.leave_all(subscriptions);
        }
    }

    fn leave_all(&mut self, subscriptions: BTreeMap<Subscription, Seat>) {
        for (subscription, seat) in subscriptions {
            self.leave(&subscription, seat);
        }
    }

    fn leave(&mut self, (pattern, group): &Subscription, seat: Seat) {
        let Some(audience) = self.audiences.get_mut(pattern) else {
            return;
        };
        audience.leave(group.as_ref(), seat);
        if audience.is_empty() {
            self.audiences.remove(pattern);
            if pattern.has_wildcards() {
                self.wild.remove(pattern);
            }
        }
    }
}

/// One signal on its way.
struct Delivery<'a> {
    line: Bytes,
    subscribers: &'a HashMap<ConnectionId, Subscriber>,
    /// Connections that did not take it.
    full: Vec<ConnectionId>,
    count: u64,
}

impl Delivery<'_> {
    fn offer(&mut self, connection: ConnectionId) -> bool {
        let outbox = self.subscribers.get(&connection).and_then(|s| s.outbox.as_ref());
        let taken = outbox.is_some_and(|outbox| outbox.put(self.line.clone()));
        if taken {
            self.count += 1;
        } else {
            self.full.push(connection);
        }
        taken
    }
}

/// Encoded once, shared by all who get it.
fn line(channel: &[u8], payload: &[u8]) -> Bytes {
    let mut line = BytesMut::with_capacity(channel.len() + payload.len() + 6);
    line.extend_from_slice(b"sig ");
    line.extend_from_slice(channel);
    line.put_u8(b' ');
    line.extend_from_slice(payload);
    line.put_u8(b'\n');
    line.freeze()
}

#[cfg(any(test, fuzzing))]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
pub(in crate::server) mod fuzzing;
#[cfg(test)]
mod tests;
