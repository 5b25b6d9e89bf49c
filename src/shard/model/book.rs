//! The servers' book as their events tell it, beside what clients have been told.

use std::collections::HashMap;

use tokio::time::Instant;

use super::agenda::ClientId;
use crate::shard::ids::LaneId;
use crate::types::{Key, Kind, Token};

/// What is granted at this moment, and what was given up with a connection whose client may not know that.
#[derive(Default)]
pub(super) struct Book {
    pub(super) grants: Vec<GrantRecord>,
    pub(super) given_up: Vec<GivenUp>,
    /// When a grant of a key last ended.
    ended_at: HashMap<(Kind, Key), Instant>,
}

/// A grant that a server has in its book.
pub(super) struct GrantRecord {
    pub(super) token: Token,
    pub(super) kind: Kind,
    pub(super) key: Key,
    /// The client of the connection that it was granted to, and the name of that connection there.
    pub(super) owner: Option<(ClientId, LaneId)>,
    /// When a caller last had it, or waited for it.
    pub(super) wanted_at: Instant,
}

/// A grant that a server gave up because its connection ended, or with itself.
pub(super) struct GivenUp {
    pub(super) token: Token,
    pub(super) owner: Option<(ClientId, LaneId)>,
    /// Which server.
    pub(super) server: u32,
    pub(super) at: Instant,
    /// When the client's shard had heard of the end of that connection; or where leases survive their connections, of all that it
    /// had to that server.
    pub(super) told_at: Option<Instant>,
}

impl Book {
    /// A server has granted it. Returns how many have the key now.
    pub(super) fn granted(&mut self, granted: GrantRecord) -> usize {
        let (kind, key) = (granted.kind, granted.key.clone());
        self.grants.push(granted);
        let same = |grant: &&GrantRecord| grant.kind == kind && grant.key == key;
        self.grants.iter().filter(same).count()
    }

    pub(super) fn has(&self, token: Token) -> bool {
        self.grants.iter().any(|grant| grant.token == token)
    }

    /// It is granted no more.
    pub(super) fn ended(&mut self, token: Token, now: Instant) -> Option<GrantRecord> {
        let index = self.grants.iter().position(|grant| grant.token == token)?;
        let granted = self.grants.swap_remove(index);
        self.ended_at.insert((granted.kind, granted.key.clone()), now);
        Some(granted)
    }

    /// Whether fewer than `limit` have the key.
    pub(super) fn is_free(&self, kind: Kind, key: &Key, limit: usize) -> bool {
        let same = |grant: &&GrantRecord| grant.kind == kind && grant.key == *key;
        self.grants.iter().filter(same).count() < limit
    }

    /// When a grant of the key last ended.
    pub(super) fn last_ended(&self, kind: Kind, key: &Key) -> Option<Instant> {
        self.ended_at.get(&(kind, key.clone())).copied()
    }

    /// A client has heard of ends of connections: it was told of what `is_it` says.
    pub(super) fn told(&mut self, now: Instant, is_it: impl Fn(&GivenUp) -> bool) {
        for given_up in &mut self.given_up {
            if given_up.told_at.is_none() && is_it(given_up) {
                given_up.told_at = Some(now);
            }
        }
    }

    pub(super) fn given_up(&self, token: Token) -> Option<&GivenUp> {
        self.given_up.iter().find(|given_up| given_up.token == token)
    }
}
