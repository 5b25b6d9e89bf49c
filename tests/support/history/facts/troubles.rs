//! When there was trouble, and at which servers. A trouble is a fault that no client can repair.

use std::collections::HashMap;

use super::super::record::{Name, Trouble};
use super::windows::Windows;

/// All troubles. Servers at the same address share their troubles, under the name of the first of these servers.
#[derive(Debug, Default)]
pub struct Troubles {
    /// When there was any trouble.
    pub all: Windows,
    /// When there was a trouble that names no server. It may affect every server.
    of_none: Windows,
    /// For each server: when there was a trouble that names this server or no server.
    of_servers: HashMap<Name, Windows>,
}

impl Troubles {
    /// Returns when there was trouble that may affect a server. `server` must be the first at its address.
    pub fn of(&self, server: &Name) -> &Windows {
        self.of_servers.get(server).unwrap_or(&self.of_none)
    }
}

/// Builds [`Troubles`] from the lines of a record.
#[derive(Default)]
pub struct Gathered {
    open: HashMap<Name, (u64, Option<Name>)>,
    over: Vec<(u64, u64, Option<Name>)>,
}

impl Gathered {
    /// Returns false if a trouble with this name has begun and has not ended.
    pub fn begin(&mut self, at: u64, trouble: &Trouble) -> bool {
        if self.open.contains_key(&trouble.trouble) {
            return false;
        }
        self.open.insert(trouble.trouble.clone(), (at, trouble.server.clone()));
        true
    }

    /// Returns false if no trouble with this name is under way.
    pub fn end(&mut self, at: u64, trouble: &Trouble) -> bool {
        let begun = self.open.remove(&trouble.trouble);
        self.over
            .extend(begun.clone().map(|(since, server)| (since, at, server)));
        begun.is_some()
    }

    /// `first_of` takes a server and returns the first server at the same address.
    pub fn collect(self, first_of: impl Fn(&Name) -> Name) -> Troubles {
        let Self { open, mut over } = self;
        over.extend(open.into_values().map(|(since, server)| (since, u64::MAX, server)));
        let mut of_none = Vec::new();
        let mut of_servers: HashMap<Name, Vec<(u64, u64)>> = HashMap::new();
        for (since, until, server) in &over {
            match server {
                Some(server) => of_servers.entry(first_of(server)).or_default().push((*since, *until)),
                None => of_none.push((*since, *until)),
            }
        }
        let with_others = |own: Vec<(u64, u64)>| Windows::of([own, of_none.clone()].concat());
        Troubles {
            all: Windows::of(over.iter().map(|(since, until, _)| (*since, *until)).collect()),
            of_servers: of_servers
                .into_iter()
                .map(|(server, own)| (server, with_others(own)))
                .collect(),
            of_none: Windows::of(of_none),
        }
    }
}
