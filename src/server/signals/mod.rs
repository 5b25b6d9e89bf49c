//! The subscriptions of all connections, and the delivery of signals, without sockets and clocks.
//!
//! Publishing a signal takes one lookup in the table of patterns, which finds the pattern without wildcards, and one
//! walk through a [trie](trie::PatternTrie) of the patterns with wildcards. Subscriptions to other channels do not slow
//! it down. The cost of ending a connection is proportional to the number of its subscriptions.

mod audience;
mod mailbox;
mod pattern;
mod trie;

use std::collections::{BTreeMap, HashMap};

use bytes::{BufMut, Bytes, BytesMut};

use self::audience::{Audience, SubscriptionId};
use self::mailbox::Outbox;
pub(super) use self::mailbox::{Cut, Inbox};
pub(super) use self::pattern::{RawGroup, RawPattern, has_wildcards};
use self::trie::PatternTrie;
use super::ids::ConnectionId;
use crate::stats::SignalChannelStats;

/// All subscriptions of a server.
pub(super) struct SignalHub {
    /// The number of signals that can wait for one connection.
    buffer: usize,
    /// The number of subscriptions that a connection can have; 0 for no limit.
    max_per_connection: usize,
    /// The listeners of each pattern. No audience is empty.
    audiences: HashMap<RawPattern, Audience>,
    /// The patterns that have wildcards.
    wild: PatternTrie,
    subscribers: HashMap<ConnectionId, Subscriber>,
    last_id: SubscriptionId,
}

/// A connection that has sent at least one `listen`.
struct Subscriber {
    /// `None` once the connection was cut: it is about to end and gets no more signals.
    outbox: Option<Outbox>,
    subscriptions: BTreeMap<Subscription, SubscriptionId>,
}

/// A pattern and a group. A connection can have each pair once.
type Subscription = (RawPattern, Option<RawGroup>);

/// Refuses a `listen`: the connection has the maximum number of subscriptions, or was cut.
pub(super) struct NoRoom;

impl SignalHub {
    pub(super) fn new(buffer: usize, max_per_connection: usize) -> Self {
        Self {
            buffer,
            max_per_connection,
            audiences: HashMap::new(),
            wild: PatternTrie::default(),
            subscribers: HashMap::new(),
            last_id: 0,
        }
    }

    /// Subscribes a connection. A repeated subscription changes nothing. The connection's first call returns the queue
    /// in which its signals arrive.
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
        if self.max_per_connection > 0 && subscriber.subscriptions.len() >= self.max_per_connection {
            return Err(NoRoom);
        }
        self.last_id += 1;
        let (pattern, group) = &subscription;
        let audience = self.audiences.entry(pattern.clone()).or_insert_with(|| {
            if pattern.has_wildcards() {
                self.wild.insert(pattern);
            }
            Audience::default()
        });
        audience.join(connection, group.as_ref(), self.last_id);
        subscriber.subscriptions.insert(subscription, self.last_id);
        Ok(opened)
    }

    /// Removes a subscription, if it exists.
    pub(super) fn unlisten(&mut self, connection: ConnectionId, pattern: RawPattern, group: Option<RawGroup>) {
        let subscription = (pattern, group);
        let subscriber = self.subscribers.get_mut(&connection);
        if let Some(id) = subscriber.and_then(|subscriber| subscriber.subscriptions.remove(&subscription)) {
            self.leave(&subscription, id);
        }
    }

    /// Delivers a signal: once to each connection that has a matching subscription without a group, and to one member
    /// of each matching group. Returns the number of deliveries.
    ///
    /// If a connection's buffer is full, its client does not read: the connection is cut and does not get the signal.
    /// In a group, the next member gets the signal instead.
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
        // The audience of a single pattern contains each connection at most once.
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

    /// Removes a connection that has ended.
    pub(super) fn disconnect(&mut self, connection: ConnectionId) {
        if let Some(subscriber) = self.subscribers.remove(&connection) {
            self.leave_all(subscriber.subscriptions);
        }
    }

    /// Returns the content of `stats` about signals, ordered by pattern and group.
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

    /// Returns the patterns that match a channel, and how many table entries and nodes were visited to find them.
    fn matching(&self, channel: &[u8]) -> (Vec<RawPattern>, usize) {
        // A channel has no wildcards, so a pattern with the same text has none either.
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

    fn leave_all(&mut self, subscriptions: BTreeMap<Subscription, SubscriptionId>) {
        for (subscription, id) in subscriptions {
            self.leave(&subscription, id);
        }
    }

    fn leave(&mut self, (pattern, group): &Subscription, id: SubscriptionId) {
        let Some(audience) = self.audiences.get_mut(pattern) else {
            return;
        };
        audience.leave(group.as_ref(), id);
        if audience.is_empty() {
            self.audiences.remove(pattern);
            if pattern.has_wildcards() {
                self.wild.remove(pattern);
            }
        }
    }
}

/// The delivery of one signal.
struct Delivery<'a> {
    line: Bytes,
    subscribers: &'a HashMap<ConnectionId, Subscriber>,
    /// The connections whose buffer was full.
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

/// Encodes a signal once for all its receivers.
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
