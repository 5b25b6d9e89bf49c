//! The shard's connections, and what each of them is doing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use tokio::time::Instant;

pub(super) use super::connection::{Connection, Work};
use super::connection::{LaneCount, Standing};
use super::effect::{Effect, Opening, Role, Turn};
use super::ids::{LaneId, WaitKey};
use super::request::{Pending, Wait};
use super::waits::Bound;
use crate::net::connect::Purpose;
use crate::protocol::Request;
use crate::types::Key;

/// All connections of a shard.
pub(super) struct Connections {
    all: BTreeMap<LaneId, Connection>,
    last: LaneId,
    counts: [LaneCount; Role::ALL.len()],
    /// The pipelined connections: those that are up and serve, or are being established.
    slots: Box<[Option<LaneId>]>,
    /// How many of them are up.
    serving: usize,
    /// How many requests are not answered yet on the pipelined connections, and on those that were such before.
    in_flight_pipelined: usize,
    /// The disposable connection.
    disposable: Option<LaneId>,
    idle: Idle,
}

/// The exclusive connections by what they may be used for.
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

/// A connection that may be changed. What it may be used for is looked at when this is dropped.
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

/// What opening a connection needs to know.
pub(super) struct Opened {
    pub(super) role: Role,
    pub(super) work: Work,
    pub(super) pause: Duration,
    pub(super) give_up_at: Option<Instant>,
    pub(super) endpoint: usize,
    pub(super) purpose: Purpose,
}

impl Connections {
    /// Creates the books of a shard with so many pipelined connections.
    pub(super) fn new(pipelined: usize) -> Self {
        Self {
            all: BTreeMap::new(),
            last: 0,
            counts: Default::default(),
            slots: vec![None; pipelined.max(1)].into(),
            serving: 0,
            in_flight_pipelined: 0,
            disposable: None,
            idle: Idle::default(),
        }
    }

    /// Begins to establish a connection.
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

    /// The connection is established.
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

    /// The connection has ended, or could not be established.
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

    /// Ends a connection whose end is no news.
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

    /// How many connections of a role there are.
    pub(super) fn count(&self, role: Role) -> LaneCount {
        self.counts[role as usize]
    }

    // Pipelined connections.

    /// Whether any pipelined connection is up and serves.
    pub(super) fn is_serving(&self) -> bool {
        self.serving > 0
    }

    /// Whether this is a pipelined connection that serves, or is being established to.
    pub(super) fn has_slot(&self, id: LaneId) -> bool {
        self.slots.contains(&Some(id))
    }

    /// Whether a pipelined connection may be opened.
    pub(super) fn has_vacancy(&self) -> bool {
        self.slots.contains(&None)
    }

    /// Gives a pipelined connection its slot.
    pub(super) fn fill_slot(&mut self, id: LaneId) {
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.is_none()) {
            *slot = Some(id);
        }
    }

    /// The pipelined connections that have a slot.
    pub(super) fn in_slots(&self) -> Vec<LaneId> {
        self.slots.iter().flatten().copied().collect()
    }

    /// The oldest pipelined connection that serves.
    pub(super) fn oldest_serving(&self) -> Option<LaneId> {
        let up = |id: &&LaneId| self.all.get(*id).is_some_and(Connection::is_up);
        self.slots.iter().flatten().filter(up).min().copied()
    }

    /// The pipelined connection that carries the requests for a key: always the same one while its slot is filled, so that
    /// they keep their order.
    pub(super) fn serving(&self, key: &Key) -> Option<LaneId> {
        if self.serving == 0 {
            return None;
        }
        let first = match self.slots.len() {
            1 => 0,
            slots => spread(key, slots),
        };
        let (before, from_first) = self.slots.split_at(first);
        let in_order = from_first.iter().chain(before).flatten();
        let up = |id: &&LaneId| self.all.get(*id).is_some_and(Connection::is_up);
        in_order.into_iter().find(up).copied()
    }

    /// How many requests are not answered yet, on the pipelined connections and on those that were such before.
    pub(super) fn in_flight_pipelined(&self) -> usize {
        self.in_flight_pipelined
    }

    /// The disposable connection, if there is one.
    pub(super) fn disposable(&self) -> Option<LaneId> {
        self.disposable
    }

    /// What the disposable connection leads to is no more of use: it finishes, and the next is opened when it is needed.
    pub(super) fn forget_disposable(&mut self) {
        self.disposable = None;
    }

    // Sending.

    /// Sends a request over a connection. Gives it back if nothing may be sent there.
    pub(super) fn send(&mut self, id: LaneId, request: Request, tag: Pending, turn: &mut Turn<'_>) -> Option<Pending> {
        let connection = self.get_mut(id);
        let Some(mut connection) = connection.filter(|connection| !connection.retired && !connection.cut) else {
            return Some(tag);
        };
        connection.in_flight += 1;
        let is_pipelined = connection.role == Role::Pipelined;
        drop(connection);
        self.in_flight_pipelined += usize::from(is_pipelined);
        turn.send(id, request, tag);
        None
    }

    /// So many requests of a connection were answered, or skipped. Returns whether the answers were its first.
    pub(super) fn answered(&mut self, id: LaneId, replies: usize, skipped: usize) -> bool {
        let Some(mut connection) = self.get_mut(id) else {
            return false;
        };
        let done = connection.in_flight.min(replies + skipped);
        connection.in_flight -= done;
        let is_first = replies > 0 && !std::mem::replace(&mut connection.has_answered, true);
        let is_pipelined = connection.role == Role::Pipelined;
        drop(connection);
        if is_pipelined {
            self.in_flight_pipelined -= done;
        }
        is_first
    }

    // Ownership, as the server counts it.

    /// The server counts one more lease to this connection.
    pub(super) fn own(&mut self, id: LaneId) {
        if let Some(mut connection) = self.get_mut(id) {
            connection.owns += 1;
        }
    }

    /// The server counts one lease less to this connection.
    pub(super) fn disown(&mut self, id: LaneId, turn: &mut Turn<'_>) {
        if let Some(mut connection) = self.get_mut(id) {
            connection.owns = connection.owns.saturating_sub(1);
        }
        self.finish_if_free(id, turn);
    }

    /// The server counts a lease to another connection.
    pub(super) fn pass_on(&mut self, before: LaneId, by: LaneId, turn: &mut Turn<'_>) {
        self.own(by);
        self.disown(before, turn);
        // Its session has had this key: asked for it once more, the server might say that it has it already.
        let had_it =
            |connection: &Connection| connection.session.is_some() && !matches!(connection.work, Work::Repeating);
        if self.get(before).is_some_and(had_it) {
            self.retire(before, turn);
        }
    }

    // Ending.

    /// Another endpoint serves. What is on its way is answered; nothing more is sent. It stands until the server counts no lease to it:
    /// a member that leads again would take its end for that of its leases.
    pub(super) fn retire(&mut self, id: LaneId, turn: &mut Turn<'_>) {
        let Some(mut connection) = self.get_mut(id) else {
            return;
        };
        let was_up = connection.is_up();
        let was_retired = std::mem::replace(&mut connection.retired, true);
        drop(connection);
        if !was_retired {
            self.vacate(id, was_up);
            self.finish_if_free(id, turn);
        }
    }

    /// Ends a connection that is retired and owns nothing, when all is answered.
    fn finish_if_free(&mut self, id: LaneId, turn: &mut Turn<'_>) {
        let is_free = |connection: &Connection| connection.retired && !connection.finishing && connection.owns == 0;
        if self.get(id).is_some_and(is_free) {
            self.finish(id, turn);
        }
    }

    /// Ends a connection when all is answered.
    pub(super) fn finish(&mut self, id: LaneId, turn: &mut Turn<'_>) {
        if let Some(mut connection) = self.get_mut(id) {
            connection.finishing = true;
            turn.push(Effect::Finish(id));
        }
    }

    /// The connections that are retired, and stand for the sake of what they own; and how much that is.
    pub(super) fn kept_for_leases(&self) -> Vec<(LaneId, usize)> {
        let ids = self
            .ids_of(|connection| connection.retired && !connection.finishing)
            .into_iter();
        ids.filter_map(|id| Some((id, self.get(id)?.owns))).collect()
    }

    /// Hangs up everything that leads elsewhere than to this endpoint, but what is only finishing. `keep_owners`: what is idle and owns
    /// leases is retired.
    pub(super) fn hang_up_elsewhere(&mut self, endpoint: usize, keep_owners: bool, turn: &mut Turn<'_>) {
        for id in self.ids_of(|connection| connection.endpoint != endpoint && !connection.retired) {
            let owns = |connection: &Connection| connection.standing() == Standing::Owning;
            if keep_owners && self.get(id).is_some_and(owns) {
                self.retire(id, turn);
                continue;
            }
            let was_up = self.get_mut(id).is_some_and(|mut connection| {
                connection.retired = true;
                connection.is_up()
            });
            self.vacate(id, was_up);
            turn.push(Effect::HangUp(id));
        }
    }

    /// How many requests are not answered yet, and how many leases are counted to connections.
    #[cfg(test)]
    pub(super) fn in_flight_and_owned(&self) -> (usize, usize) {
        let all = self.all.values();
        all.fold((0, 0), |sum, connection| {
            (sum.0 + connection.in_flight, sum.1 + connection.owns)
        })
    }

    /// Ends a connection to give up its wait. What was not answered comes back with its end.
    pub(super) fn cut(&mut self, id: LaneId, turn: &mut Turn<'_>) {
        if let Some(mut connection) = self.get_mut(id) {
            connection.cut = true;
            turn.push(Effect::HangUp(id));
        }
    }

    /// Closes what has been idle since `before` and owns nothing, at most so many. Returns whether idle connections are left.
    pub(super) fn close_idle(&mut self, before: Instant, most: usize, turn: &mut Turn<'_>) -> bool {
        let is_over = |connection: &Connection| {
            connection.is_idle()
                && connection.owns == 0
                && matches!(connection.work, Work::Idle(since) if since <= before)
        };
        for id in self.ids_of(is_over).into_iter().take(most) {
            self.close(id, turn);
        }
        self.has_idle_of_any_role()
    }

    /// Whether any connection that may be closed one day is idle.
    pub(super) fn has_idle_of_any_role(&self) -> bool {
        self.all.values().any(Connection::is_idle)
    }

    /// Closes what waits on the server, or is about to, and owns nothing; or all of it, whatever it owns. Returns what that was.
    pub(super) fn close_waiting(&mut self, whatever_it_owns: bool, turn: &mut Turn<'_>) -> Vec<Connection> {
        let waits = |connection: &Connection| {
            !matches!(connection.work, Work::Idle(_) | Work::Repeating | Work::Ending)
                && (connection.owns == 0 || whatever_it_owns)
        };
        let ids = self.ids_of(waits);
        ids.into_iter().filter_map(|id| self.close(id, turn)).collect()
    }

    /// Closes all connections.
    pub(super) fn close_all(&mut self, turn: &mut Turn<'_>) {
        for id in self.ids_of(|_| true) {
            self.close(id, turn);
        }
    }

    fn ids_of(&self, which: impl Fn(&Connection) -> bool) -> Vec<LaneId> {
        let mut ids: Vec<LaneId> = self
            .all
            .iter()
            .filter(|(_, connection)| which(connection))
            .map(|(id, _)| *id)
            .collect();
        // In their order, so that equal histories have equal effects.
        ids.sort_unstable();
        ids
    }

    // Waits.

    /// How many exclusive connections carry waits, or are there for them. Those that are idle and own leases do not count.
    pub(super) fn for_waits(&self) -> usize {
        self.count(Role::Exclusive).all - self.idle.owning.len()
    }

    /// How many exclusive connections are being established, for what is next when they are there.
    pub(super) fn opening(&self) -> usize {
        self.idle.opening
    }

    /// An idle exclusive connection that owns nothing: the same one again and again, so that the others are closed.
    pub(super) fn idle(&self) -> Option<LaneId> {
        self.idle.clean.first().copied()
    }

    /// An idle exclusive connection that owns leases, for a wait that then cannot be given up. But none whose session may own
    /// just that: asked for it again, the server would say that it has it already.
    pub(super) fn idle_owner(&self, key: &WaitKey) -> Option<LaneId> {
        let mut owners = self.idle.owning.iter().copied();
        owners.find(|id| self.get(*id).is_some_and(|connection| !connection.may_have_had(key)))
    }

    /// The connections whose waits for this key may be given up by closing them, the newest first. Not those whose wait the server
    /// ends before `soon`.
    pub(super) fn closable(&self, key: &WaitKey, soon: Instant) -> Vec<LaneId> {
        let waits = |connection: &Connection| matches!(&connection.work, Work::Waiting(other) if other == key);
        let mut ids = self.ids_of(|connection| waits(connection) && connection.is_closable(soon));
        ids.reverse();
        ids
    }

    /// What a connection was opened for in particular, once it is established.
    pub(super) fn take_opening(&mut self, id: LaneId, now: Instant) -> Option<Bound<Wait>> {
        let mut connection = self.get_mut(id)?;
        match std::mem::replace(&mut connection.work, Work::Idle(now)) {
            Work::Opening(bound) => bound.map(|bound| *bound),
            other => {
                connection.work = other;
                None
            }
        }
    }

    /// Gives up the exclusive connections that are being established to elsewhere than this endpoint. Returns what they were
    /// opened for in particular.
    pub(super) fn stop_opening_elsewhere(&mut self, endpoint: usize, turn: &mut Turn<'_>) -> Vec<Bound<Wait>> {
        let is_one =
            |connection: &Connection| connection.endpoint != endpoint && matches!(connection.work, Work::Opening(_));
        let ids = self.ids_of(is_one).into_iter();
        let closed: Vec<Connection> = ids.filter_map(|id| self.close(id, turn)).collect();
        let bound = closed.into_iter().filter_map(|connection| match connection.work {
            Work::Opening(bound) => bound.map(|bound| *bound),
            _ => None,
        });
        bound.collect()
    }
}

/// Spreads keys over the pipelined connections. Not as the shards spread them: all keys of one shard may have that in common.
fn spread(key: &Key, slots: usize) -> usize {
    const ODD: u32 = 0x9e37_79b1;
    (crc32fast::hash(key.as_str().as_bytes()).wrapping_mul(ODD) >> 16) as usize % slots
}
