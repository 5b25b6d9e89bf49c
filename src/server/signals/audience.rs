//! The listeners of one pattern.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use super::ConnectionId;
use super::pattern::RawGroup;

/// The number of a subscription, in the order of subscribing.
pub(super) type SubscriptionId = u64;

/// The subscriptions to one pattern.
#[derive(Default)]
pub(super) struct Audience {
    alone: BTreeMap<SubscriptionId, ConnectionId>,
    /// The groups, ordered by name. A signal is offered to the groups in this order. No group is empty.
    groups: BTreeMap<RawGroup, Members>,
}

/// The members of a group. Each signal goes to one of them.
#[derive(Default)]
pub(super) struct Members {
    by_id: BTreeMap<SubscriptionId, ConnectionId>,
    /// The member that took the last signal. It may have left since.
    last: SubscriptionId,
}

impl Audience {
    pub(super) fn join(&mut self, connection: ConnectionId, group: Option<&RawGroup>, id: SubscriptionId) {
        let members = match group {
            None => &mut self.alone,
            Some(group) => &mut self.groups.entry(group.clone()).or_default().by_id,
        };
        members.insert(id, connection);
    }

    pub(super) fn leave(&mut self, group: Option<&RawGroup>, id: SubscriptionId) {
        let Some(group) = group else {
            self.alone.remove(&id);
            return;
        };
        if let Some(members) = self.groups.get_mut(group) {
            members.by_id.remove(&id);
            if members.by_id.is_empty() {
                self.groups.remove(group);
            }
        }
    }

    /// Returns the connections that are subscribed without a group.
    pub(super) fn alone(&self) -> impl Iterator<Item = ConnectionId> {
        self.alone.values().copied()
    }

    pub(super) fn groups(&mut self) -> impl Iterator<Item = &mut Members> {
        self.groups.values_mut()
    }

    /// Returns the size of each group, and the number of listeners without a group.
    pub(super) fn sizes(&self) -> impl Iterator<Item = (Option<&RawGroup>, usize)> {
        let alone = (!self.alone.is_empty()).then_some((None, self.alone.len()));
        let groups = self
            .groups
            .iter()
            .map(|(group, members)| (Some(group), members.by_id.len()));
        alone.into_iter().chain(groups)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.alone.is_empty() && self.groups.is_empty()
    }
}

impl Members {
    /// Offers a signal to the members, in order of arrival, until one takes it. Starts with the member after the one
    /// that took the last signal.
    pub(super) fn pass_on(&mut self, mut offer: impl FnMut(ConnectionId) -> bool) {
        let behind = self.by_id.range((Excluded(self.last), Unbounded));
        let round = behind.chain(self.by_id.range(..=self.last));
        for (id, connection) in round {
            if offer(*connection) {
                self.last = *id;
                return;
            }
        }
    }
}
