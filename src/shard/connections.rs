//! The shard's connections and the work of each.

mod closing;
mod exclusive;
mod pipelined;
mod spread;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use tokio::time::Instant;

pub(super) use self::pipelined::request_key;
use self::spread::LastRequests;
pub(super) use super::connection::{Connection, Work};
use super::connection::{LaneCount, Standing};
use super::effect::{Effect, Opening, Role, Turn};
use super::ids::LaneId;
use super::request::Pending;
use crate::net::connect::Purpose;
use crate::protocol::Request;
use crate::types::Token;

/// All connections of a shard.
pub(super) struct Connections {
    all: BTreeMap<LaneId, Connection>,
    last: LaneId,
    counts: [LaneCount; Role::ALL.len()],
    /// The slots of the pipelined connections. Each slot is free, or has a connection that serves or is opening.
    slots: Box<[Option<LaneId>]>,
    /// The number of slots whose connection is up.
    serving: usize,
    last_requests: LastRequests,
    /// The number of unanswered requests on connections that are or were pipelined.
    in_flight_pipelined: usize,
    /// The disposable connection.
    disposable: Option<LaneId>,
    idle: Idle,
}

/// The exclusive connections, grouped by whether they can carry a wait.
#[derive(Default)]
struct Idle {
    clean: BTreeSet<LaneId>,
    owning: BTreeSet<LaneId>,
    opening: usize,
}

impl Idle {
    fn enter(&mut self, id: LaneId, standing: Standing) {
        match standing {
            Standing::Clean => drop(self.clean.insert(id)),
            Standing::Owning => drop(self.owning.insert(id)),
            Standing::Opening => self.opening += 1,
            Standing::NotForWaits | Standing::InUse => {}
        }
    }

    fn leave(&mut self, id: LaneId, standing: Standing) {
        match standing {
            Standing::Clean => drop(self.clean.remove(&id)),
            Standing::Owning => drop(self.owning.remove(&id)),
            Standing::Opening => self.opening -= 1,
            Standing::NotForWaits | Standing::InUse => {}
        }
    }
}

/// Mutable access to a connection. When it is dropped, the connection's group is updated.
pub(super) struct ConnectionMut<'a> {
    id: LaneId,
    connection: &'a mut Connection,
    before: Standing,
    idle: &'a mut Idle,
}

impl Deref for ConnectionMut<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

impl DerefMut for ConnectionMut<'_> {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection
    }
}

impl Drop for ConnectionMut<'_> {
    fn drop(&mut self) {
        let after = self.connection.standing();
        if self.before != after {
            self.idle.leave(self.id, self.before);
            self.idle.enter(self.id, after);
        }
    }
}

/// The parameters of a connection to open.
pub(super) struct Opened {
    pub(super) role: Role,
    pub(super) work: Work,
    pub(super) pause: Duration,
    pub(super) give_up_at: Option<Instant>,
    pub(super) endpoint: usize,
    pub(super) purpose: Purpose,
}

impl Connections {
    /// Creates an empty set with this number of slots for pipelined connections.
    pub(super) fn new(pipelined: usize) -> Self {
        Self {
            all: BTreeMap::new(),
            last: 0,
            counts: Default::default(),
            slots: vec![None; pipelined.max(1)].into(),
            serving: 0,
            last_requests: LastRequests::new(pipelined),
            in_flight_pipelined: 0,
            disposable: None,
            idle: Idle::default(),
        }
    }

    /// Begins to open a connection.
    pub(super) fn open(&mut self, opened: Opened, turn: &mut Turn<'_>) -> LaneId {
        let Opened {
            role,
            work,
            pause,
            give_up_at,
            endpoint,
            purpose,
        } = opened;
        self.last += 1;
        let id = self.last;
        let session = match &purpose {
            Purpose::Session(reference) => Some(reference.clone()),
            _ => None,
        };
        let mut connection = Connection::new(role, work, endpoint, session);
        if let Purpose::Leading(name) = &purpose {
            connection.name = Some(name.clone());
        }
        self.idle.enter(id, connection.standing());
        self.counts[role as usize].all += 1;
        self.all.insert(id, connection);
        if role == Role::Disposable {
            self.disposable = Some(id);
        }
        let opening = Opening {
            role,
            pause,
            give_up_at,
            endpoint,
            purpose,
        };
        turn.push(Effect::Open(id, Box::new(opening)));
        id
    }

    pub(super) fn get(&self, id: LaneId) -> Option<&Connection> {
        self.all.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: LaneId) -> Option<ConnectionMut<'_>> {
        let connection = self.all.get_mut(&id)?;
        Some(ConnectionMut {
            id,
            before: connection.standing(),
            connection,
            idle: &mut self.idle,
        })
    }

    /// Notes that a connection is up.
    pub(super) fn up(&mut self, id: LaneId, now: Instant) {
        let Some(mut connection) = self.get_mut(id) else {
            return;
        };
        if connection.up_since.is_none() {
            connection.up_since = Some(now);
            let role = connection.role;
            drop(connection);
            self.counts[role as usize].up += 1;
            self.serving += usize::from(self.slots.contains(&Some(id)));
        }
    }

    /// Removes a connection that has ended or could not be opened.
    pub(super) fn remove(&mut self, id: LaneId) -> Option<Connection> {
        let connection = self.all.remove(&id)?;
        self.idle.leave(id, connection.standing());
        let count = &mut self.counts[connection.role as usize];
        count.all -= 1;
        count.up -= usize::from(connection.is_up());
        self.vacate(id, connection.is_up());
        if connection.role == Role::Pipelined {
            self.in_flight_pipelined -= connection.in_flight;
        }
        if self.disposable == Some(id) {
            self.disposable = None;
        }
        Some(connection)
    }

    /// Closes a connection whose end need not be reported.
    pub(super) fn close(&mut self, id: LaneId, turn: &mut Turn<'_>) -> Option<Connection> {
        let connection = self.remove(id)?;
        turn.push(Effect::Close(id));
        Some(connection)
    }

    fn vacate(&mut self, id: LaneId, was_up: bool) {
        if let Some(slot) = self.slots.iter_mut().find(|slot| **slot == Some(id)) {
            *slot = None;
            self.serving -= usize::from(was_up);
        }
    }

    /// Returns the number of connections of a role.
    pub(super) fn count(&self, role: Role) -> LaneCount {
        self.counts[role as usize]
    }

    /// Returns the disposable connection.
    pub(super) fn disposable(&self) -> Option<LaneId> {
        self.disposable
    }

    /// Forgets the disposable connection, because its endpoint no longer serves. The connection finishes its requests.
    /// The shard opens another one when it needs one.
    pub(super) fn forget_disposable(&mut self) {
        self.disposable = None;
    }

    // Sending.

    /// Sends a request over a connection. Returns the request if nothing may be sent over that connection.
    pub(super) fn send(&mut self, id: LaneId, request: Request, tag: Pending, turn: &mut Turn<'_>) -> Option<Pending> {
        let connection = self.get_mut(id);
        let Some(mut connection) = connection.filter(|connection| !connection.retired && !connection.cut) else {
            return Some(tag);
        };
        connection.in_flight += 1;
        let number = connection.numbers.next();
        let is_pipelined = connection.role == Role::Pipelined;
        drop(connection);
        if is_pipelined {
            self.in_flight_pipelined += 1;
            self.note_sent(id, number, &request);
        }
        turn.send(id, request, tag);
        None
    }

    /// Notes that requests of a connection were answered or skipped. Returns whether these are its first answers.
    pub(super) fn answered(&mut self, id: LaneId, replies: usize, skipped: usize) -> bool {
        let Some(mut connection) = self.get_mut(id) else {
            return false;
        };
        let done = connection.in_flight.min(replies + skipped);
        connection.in_flight -= done;
        let in_flight = connection.in_flight;
        connection.numbers.answered(replies, in_flight);
        let is_first = replies > 0 && !std::mem::replace(&mut connection.has_answered, true);
        let is_pipelined = connection.role == Role::Pipelined;
        drop(connection);
        if is_pipelined {
            self.in_flight_pipelined -= done;
        }
        is_first
    }

    // Ownership of leases, as the server sees it.

    /// Notes that the server attributes one more lease to this connection.
    pub(super) fn own(&mut self, id: LaneId) {
        if let Some(mut connection) = self.get_mut(id) {
            connection.owns += 1;
        }
    }

    /// Notes that the server attributes one lease less to this connection.
    pub(super) fn disown(&mut self, id: LaneId, turn: &mut Turn<'_>) {
        if let Some(mut connection) = self.get_mut(id) {
            connection.owns = connection.owns.saturating_sub(1);
        }
        self.finish_if_free(id, turn);
    }

    /// Moves a lease that the server now attributes to another connection.
    pub(super) fn move_lease(&mut self, before: LaneId, by: LaneId, turn: &mut Turn<'_>) {
        self.own(by);
        self.disown(before, turn);
        // The session of the previous connection has had this key. If that session requested the key again, the server
        // could answer with the old grant.
        let had_key =
            |connection: &Connection| connection.session.is_some() && !matches!(connection.work, Work::Repeating);
        if self.get(before).is_some_and(had_key) {
            self.retire(before, turn);
        }
    }

    /// Notes a finished release on all connections.
    pub(super) fn note_released(&mut self, token: Token) {
        for connection in self.all.values_mut() {
            connection.note_found(token);
        }
    }

    fn ids_of(&self, which: impl Fn(&Connection) -> bool) -> Vec<LaneId> {
        let mut ids: Vec<LaneId> = self
            .all
            .iter()
            .filter(|(_, connection)| which(connection))
            .map(|(id, _)| *id)
            .collect();
        // Sorted, so that the same inputs produce the same effects.
        ids.sort_unstable();
        ids
    }
}

#[cfg(test)]
mod tests;
