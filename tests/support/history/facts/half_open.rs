//! When servers had half-open connections, and in which signal groups. [`What`](super::super::record::What) explains
//! half-open connections.

use std::collections::HashMap;

use super::super::record::{HalfOpen, Name};
use super::windows::Windows;

/// A pattern, and the name of a group of subscribers to that pattern.
pub type Group = (Name, Name);

/// For each group, the times at which a server had a half-open connection in that group.
#[derive(Debug, Default)]
pub struct HalfOpens {
    of_groups: HashMap<Group, Windows>,
    none: Windows,
}

impl HalfOpens {
    /// Returns the times at which a server had a half-open connection in this group.
    pub fn of(&self, pattern: &Name, group: &Name) -> &Windows {
        let group = (pattern.clone(), group.clone());
        self.of_groups.get(&group).unwrap_or(&self.none)
    }
}

/// A half-open connection that has not ended: one of its groups, when it became half open, and when it must have ended.
type Open = (Group, u64, u64);

/// Builds [`HalfOpens`] from the lines of a record.
#[derive(Default)]
pub struct Gathered {
    /// By the number of the connection.
    open: HashMap<u64, Vec<Open>>,
    over: HashMap<Group, Vec<(u64, u64)>>,
}

impl Gathered {
    /// Returns false if the connection is already half open in this group.
    pub fn begin(&mut self, at: u64, half_open: &HalfOpen) -> bool {
        let group = (half_open.pattern.clone(), half_open.group.clone());
        let latest = at.saturating_add(half_open.read_timeout);
        let of_connection = self.open.entry(half_open.connection).or_default();
        let is_new = of_connection.iter().all(|(other, ..)| *other != group);
        if is_new {
            of_connection.push((group, at, latest));
        }
        is_new
    }

    /// Returns false if the connection is not half open.
    pub fn end(&mut self, at: u64, connection: u64) -> bool {
        let Some(ended) = self.open.remove(&connection) else {
            return false;
        };
        for (group, since, _) in ended {
            self.over.entry(group).or_default().push((since, at));
        }
        true
    }

    pub fn collect(self) -> HalfOpens {
        let Self { open, mut over } = self;
        for (group, since, latest) in open.into_values().flatten() {
            over.entry(group).or_default().push((since, latest));
        }
        let of_groups = over.into_iter();
        HalfOpens {
            of_groups: of_groups.map(|(group, all)| (group, Windows::of(all))).collect(),
            none: Windows::default(),
        }
    }
}
