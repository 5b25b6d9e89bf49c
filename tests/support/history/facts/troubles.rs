//! The times of trouble, and the affected servers.

use std::collections::HashMap;

use super::super::record::{Name, Trouble};
use super::windows::Windows;

/// All troubles. A server stands for all servers at its address: it is the first of them.
#[derive(Debug, Default)]
pub struct Troubles {
    /// Troubles of any server, and those without a server.
    pub all: Windows,
    /// Troubles without a server.
    of_none: Windows,
    /// Troubles of a server, and those without a server.
    of_servers: HashMap<Name, Windows>,
}

impl Troubles {
    /// Returns the troubles that affect a server.
    pub fn of(&self, server: &Name) -> &Windows {
        self.of_servers.get(server).unwrap_or(&self.of_none)
    }
}

/// Collects troubles.
#[derive(Default)]
pub struct Gathered {
    open: HashMap<Name, (u64, Option<Name>)>,
    over: Vec<(u64, u64, Option<Name>)>,
}

impl Gathered {
    /// Returns false if it has begun already.
    pub fn begin(&mut self, at: u64, trouble: &Trouble) -> bool {
        if self.open.contains_key(&trouble.trouble) {
            return false;
        }
        self.open.insert(trouble.trouble.clone(), (at, trouble.server.clone()));
        true
    }

    /// Returns false if it has not begun.
    pub fn end(&mut self, at: u64, trouble: &Trouble) -> bool {
        let begun = self.open.remove(&trouble.trouble);
        self.over
            .extend(begun.clone().map(|(since, server)| (since, at, server)));
        begun.is_some()
    }

    /// `first_of` returns the first server at the address of a server.
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
