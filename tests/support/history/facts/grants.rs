//! The grants that servers recorded.

use std::collections::HashMap;

use super::super::record::{Entry, Kind, Name, Token, What};

/// Why a grant ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Released,
    Disconnected,
    Expired,
    Forgotten,
    /// The server of the grant ended.
    ServerEnded,
}

impl Ending {
    /// Returns whether the client may be unaware of this end for some time.
    pub fn may_be_unnoticed(self) -> bool {
        matches!(self, Self::Disconnected | Self::Forgotten | Self::ServerEnded)
    }
}

#[derive(Clone, Debug)]
pub struct Grant {
    pub server: Name,
    pub kind: Kind,
    pub key: Name,
    pub limit: u64,
    pub token: Token,
    pub fence: Option<u64>,
    /// The index of the `granted` line.
    pub line: usize,
    pub at: u64,
    pub end: Option<End>,
    /// When the lease expires, according to the last line of the server that says this.
    pub lease_end: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
pub struct End {
    pub line: usize,
    pub at: u64,
    pub why: Ending,
}

/// All grants, in the order of their `granted` lines.
#[derive(Debug, Default)]
pub struct Grants {
    pub all: Vec<Grant>,
    by_token: HashMap<Token, usize>,
    held_at: HashMap<Name, Vec<usize>>,
    servers_ended: HashMap<Name, u64>,
}

impl Grants {
    pub fn of(&self, token: Token) -> Option<&Grant> {
        self.all.get(*self.by_token.get(&token)?)
    }

    /// Returns when a server ended.
    pub fn server_ended(&self, server: &Name) -> Option<u64> {
        self.servers_ended.get(server).copied()
    }

    pub fn see(&mut self, line: usize, at: u64, what: &What) {
        match what {
            What::Granted(entry) => self.begin(line, at, entry),
            What::Renewed(entry) | What::Reclaimed(entry) | What::Collected(entry) => {
                if let Some(grant) = self.held(entry).filter(|_| entry.ends.is_some()) {
                    grant.lease_end = entry.ends;
                }
            }
            What::Released(entry) => self.end(line, at, entry, Ending::Released),
            What::Disconnected(entry) => self.end(line, at, entry, Ending::Disconnected),
            What::Expired(entry) => self.end(line, at, entry, Ending::Expired),
            What::Forgotten(entry) => self.end(line, at, entry, Ending::Forgotten),
            What::ServerEnded(server) => {
                let why = Ending::ServerEnded;
                self.servers_ended.entry(server.server.clone()).or_insert(at);
                for held in self.held_at.remove(&server.server).unwrap_or_default() {
                    self.all[held].end.get_or_insert(End { line, at, why });
                }
            }
            _ => {}
        }
    }

    fn begin(&mut self, line: usize, at: u64, entry: &Entry) {
        let Some(token) = entry.token else { return };
        let number = self.all.len();
        self.by_token.insert(token, number);
        self.held_at.entry(entry.server.clone()).or_default().push(number);
        self.all.push(Grant {
            server: entry.server.clone(),
            kind: entry.kind,
            key: entry.key.clone(),
            limit: entry.limit,
            token,
            fence: entry.fence,
            line,
            at,
            end: None,
            lease_end: entry.ends,
        });
    }

    fn end(&mut self, line: usize, at: u64, entry: &Entry, why: Ending) {
        if let Some(grant) = self.held(entry) {
            grant.end = Some(End { line, at, why });
        }
    }

    /// Returns the grant with the token of an entry. `None` if the entry's server does not hold that grant now.
    fn held(&mut self, entry: &Entry) -> Option<&mut Grant> {
        let number = *self.by_token.get(&entry.token?)?;
        let grant = self.all.get_mut(number)?;
        (grant.end.is_none() && grant.server == entry.server).then_some(grant)
    }
}

impl Grant {
    /// Returns when the grant ended, or `end` if it has not ended.
    pub fn until(&self, end: u64) -> u64 {
        self.end.map_or(end, |end| end.at)
    }

    /// Returns how many callers may hold the key at once.
    pub fn most(&self) -> u64 {
        match self.kind {
            Kind::Lock => 1,
            Kind::Semaphore => self.limit,
        }
    }
}
