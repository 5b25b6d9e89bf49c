//! The shard's connections, and what each of them is doing.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::effect::{Effect, Opening, Role, Turn};
use super::ids::{Arrival, LaneId, TicketId, WaitKey};
use super::request::Pending;
use crate::net::connect::Purpose;
use crate::net::lane::OnAbandon;
use crate::protocol::{Request, StableRef};
use crate::types::{Key, Target};

/// How many connections of a role there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LaneCount {
    /// Those being established included.
    pub(crate) all: usize,
    pub(crate) up: usize,
}

/// What a connection is doing.
pub(super) enum Work {
    /// Nothing, since then.
    Idle(Instant),
    /// It is being established for this wait.
    Opening(WaitKey, Arrival, Pending),
    /// It waits on the server.
    Waiting(WaitKey, Arrival),
    /// It has a place in a queue, whose ticket a caller holds.
    Ticket(WaitKey, Arrival, TicketId),
}

/// One connection.
pub(super) struct Connection {
    pub(super) role: Role,
    pub(super) work: Work,
    /// Its server said that it is shutting down.
    pub(super) draining: bool,
    /// Which of the shard's endpoints it leads to.
    pub(super) endpoint: usize,
    /// The name of its session, by which another member of the cluster would know it again.
    pub(super) session: Option<StableRef>,
    /// What it waits for, or did last, in its session.
    pub(super) target: Option<Target>,
    /// All that it has waited for, in its session.
    asked_for: HashSet<WaitKey>,
    /// Nothing more is sent over it, and its end is no news.
    retired: bool,
    /// It has brought an answer.
    has_answered: bool,
    /// How many leases the server counts to it.
    owns: usize,
    up_since: Option<Instant>,
    /// Sent and not answered yet.
    in_flight: usize,
}

impl Connection {
    pub(super) fn is_up(&self) -> bool {
        self.up_since.is_some()
    }

    pub(super) fn up_since(&self) -> Option<Instant> {
        self.up_since
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired
    }

    pub(super) fn has_answered(&self) -> bool {
        self.has_answered
    }

    pub(super) fn owns(&self) -> usize {
        self.owns
    }

    fn is_idle(&self) -> bool {
        let may_be_used = self.is_up() && !self.retired && self.role != Role::Pipelined;
        may_be_used && self.in_flight == 0 && matches!(self.work, Work::Idle(_))
    }

    /// Its wait has a place in the queue, whose ticket a caller holds.
    pub(super) fn hold_ticket(&mut self, id: TicketId, now: Instant) {
        self.work = match std::mem::replace(&mut self.work, Work::Idle(now)) {
            Work::Waiting(key, arrival) => Work::Ticket(key, arrival, id),
            other => other,
        };
    }

    /// The ticket of its place is used: what is sent next ends its wait.
    pub(super) fn leave_ticket(&mut self, now: Instant) {
        self.work = match std::mem::replace(&mut self.work, Work::Idle(now)) {
            Work::Ticket(key, arrival, _) => Work::Waiting(key, arrival),
            other => other,
        };
    }

    /// Its wait, or the ticket whose place it has, is over as far as this connection goes.
    pub(super) fn stop_waiting(&mut self, now: Instant) -> Option<(WaitKey, Arrival)> {
        match std::mem::replace(&mut self.work, Work::Idle(now)) {
            Work::Waiting(key, arrival) | Work::Ticket(key, arrival, _) => Some((key, arrival)),
            other => {
                self.work = other;
                None
            }
        }
    }
}

/// All connections of a shard.
pub(super) struct Connections {
    all: HashMap<LaneId, Connection>,
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
            all: HashMap::new(),
            last: 0,
            counts: Default::default(),
            slots: vec![None; pipelined.max(1)].into(),
            serving: 0,
            in_flight_pipelined: 0,
            disposable: None,
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
        let connection = Connection {
            role,
            work,
            draining: false,
            endpoint,
            session,
            target: None,
            asked_for: HashSet::new(),
            retired: false,
            has_answered: false,
            owns: 0,
            up_since: None,
            in_flight: 0,
        };
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

    pub(super) fn get_mut(&mut self, id: LaneId) -> Option<&mut Connection> {
        self.all.get_mut(&id)
    }

    /// The connection is established.
    pub(super) fn up(&mut self, id: LaneId, now: Instant) {
        let Some(connection) = self.all.get_mut(&id) else {
            return;
        };
        if connection.up_since.is_none() {
            connection.up_since = Some(now);
            self.counts[connection.role as usize].up += 1;
            self.serving += usize::from(self.slots.contains(&Some(id)));
        }
    }

    /// The connection has ended, or could not be established.
    pub(super) fn remove(&mut self, id: LaneId) -> Option<Connection> {
        let connection = self.all.remove(&id)?;
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
    pub(super) fn seat(&mut self, id: LaneId) {
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.is_none()) {
            *slot = Some(id);
        }
    }

    /// The pipelined connections that have a slot.
    pub(super) fn seated(&self) -> Vec<LaneId> {
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
    pub(super) fn send(
        &mut self,
        id: LaneId,
        request: Request,
        tag: Pending,
        on_abandon: OnAbandon,
        turn: &mut Turn<'_>,
    ) -> Option<Pending> {
        match self.all.get_mut(&id) {
            Some(connection) if !connection.retired => {
                connection.in_flight += 1;
                self.in_flight_pipelined += usize::from(connection.role == Role::Pipelined);
                turn.send(id, request, tag, on_abandon);
                None
            }
            _ => Some(tag),
        }
    }

    /// So many requests of a connection were answered, or skipped. Returns whether the answers were its first.
    pub(super) fn answered(&mut self, id: LaneId, replies: usize, skipped: usize) -> bool {
        let Some(connection) = self.all.get_mut(&id) else {
            return false;
        };
        let done = connection.in_flight.min(replies + skipped);
        connection.in_flight -= done;
        if connection.role == Role::Pipelined {
            self.in_flight_pipelined -= done;
        }
        replies > 0 && !std::mem::replace(&mut connection.has_answered, true)
    }

    // Ownership, as the server counts it.

    /// The server counts one more lease to this connection.
    pub(super) fn own(&mut self, id: LaneId) {
        if let Some(connection) = self.all.get_mut(&id) {
            connection.owns += 1;
        }
    }

    /// The server counts one lease less to this connection.
    pub(super) fn disown(&mut self, id: LaneId) {
        if let Some(connection) = self.all.get_mut(&id) {
            connection.owns = connection.owns.saturating_sub(1);
        }
    }

    /// The server counts a lease to another connection.
    pub(super) fn pass_on(&mut self, before: LaneId, by: LaneId, turn: &mut Turn<'_>) {
        self.own(by);
        self.disown(before);
        // Its session has had this key: asked for it once more, the server might say that it has it already.
        if self.get(before).is_some_and(|connection| connection.session.is_some()) {
            self.retire(before, turn);
        }
    }

    // Ending.

    /// Another endpoint serves. What is on its way is answered; nothing more is sent.
    pub(super) fn retire(&mut self, id: LaneId, turn: &mut Turn<'_>) {
        let Some(connection) = self.all.get_mut(&id) else {
            return;
        };
        let was_up = connection.is_up();
        if !std::mem::replace(&mut connection.retired, true) {
            self.vacate(id, was_up);
            turn.push(Effect::Finish(id));
        }
    }

    /// Hangs up everything that leads elsewhere than to this endpoint, but what is only finishing.
    pub(super) fn hang_up_elsewhere(&mut self, endpoint: usize, turn: &mut Turn<'_>) {
        let elsewhere = |(id, connection): (&LaneId, &Connection)| {
            (connection.endpoint != endpoint && !connection.retired).then_some(*id)
        };
        let ids: Vec<LaneId> = self.all.iter().filter_map(elsewhere).collect();
        for id in ids {
            if let Some(connection) = self.all.get_mut(&id) {
                connection.retired = true;
                let was_up = connection.is_up();
                self.vacate(id, was_up);
            }
            turn.push(Effect::HangUp(id));
        }
    }

    /// Closes what has been idle since `before` and owns nothing. Returns whether idle connections are left.
    pub(super) fn close_idle(&mut self, before: Instant, turn: &mut Turn<'_>) -> bool {
        let is_over = |connection: &Connection| {
            connection.is_idle()
                && connection.owns == 0
                && matches!(connection.work, Work::Idle(since) if since <= before)
        };
        for id in self.ids_of(is_over) {
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
            !matches!(connection.work, Work::Idle(_)) && (connection.owns == 0 || whatever_it_owns)
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

    /// An idle exclusive connection for a wait: one that owns nothing (its waits can be given up by closing it), or any. But
    /// none whose session may own just that: asked for it again, the server would say that it has it already.
    pub(super) fn idle(&self, clean: bool, key: &WaitKey) -> Option<LaneId> {
        let has_had = |connection: &Connection| connection.session.is_some() && connection.asked_for.contains(key);
        let is_fit = |connection: &Connection| connection.owns == 0 || !clean && !has_had(connection);
        self.all
            .iter()
            .filter(|(_, connection)| connection.role == Role::Exclusive && connection.is_idle() && is_fit(connection))
            .map(|(id, _)| *id)
            .min()
    }

    /// Whether any exclusive connection is idle.
    pub(super) fn has_idle(&self) -> bool {
        self.all
            .values()
            .any(|connection| connection.role == Role::Exclusive && connection.is_idle())
    }

    /// A wait begins on a connection.
    pub(super) fn begin_wait(&mut self, id: LaneId, key: WaitKey, arrival: Arrival, target: Option<Target>) {
        let Some(connection) = self.all.get_mut(&id) else {
            return;
        };
        if connection.session.is_some() {
            connection.target = target;
            connection.asked_for.insert(key.clone());
        }
        connection.work = Work::Waiting(key, arrival);
    }

    /// The wait for which a connection was opened, once that is established.
    pub(super) fn take_opening(&mut self, id: LaneId, now: Instant) -> Option<(WaitKey, Arrival, Pending)> {
        let connection = self.all.get_mut(&id)?;
        match std::mem::replace(&mut connection.work, Work::Idle(now)) {
            Work::Opening(key, arrival, wait) => Some((key, arrival, wait)),
            other => {
                connection.work = other;
                None
            }
        }
    }

    /// There is a connection for this wait. Of those for the same key whose connections are still being established the first
    /// takes it, and that one's goes to this wait: so they come to the server in their order, whichever connection is there
    /// first. A wait that goes on in its session has a connection of its own.
    pub(super) fn first_of_its_key(&mut self, key: &WaitKey, arrival: Arrival, wait: Pending) -> (Arrival, Pending) {
        if wait.session().is_some() {
            return (arrival, wait);
        }
        let before = |connection: &Connection| match &connection.work {
            Work::Opening(other, before, wait) if *before < arrival && other == key && wait.session().is_none() => {
                Some(*before)
            }
            _ => None,
        };
        let first = self
            .all
            .iter()
            .filter_map(|(id, connection)| Some((before(connection)?, *id)))
            .min();
        match first.and_then(|(_, id)| self.all.get_mut(&id)) {
            Some(Connection {
                work: Work::Opening(_, its_arrival, its_wait),
                ..
            }) => (
                std::mem::replace(its_arrival, arrival),
                std::mem::replace(its_wait, wait),
            ),
            _ => (arrival, wait),
        }
    }

    /// Gives up the exclusive connections that are being established to elsewhere than this endpoint. Returns the waits for
    /// which that was done.
    pub(super) fn stop_opening_elsewhere(
        &mut self,
        endpoint: usize,
        turn: &mut Turn<'_>,
    ) -> Vec<(WaitKey, Arrival, Pending)> {
        let is_one =
            |connection: &Connection| connection.endpoint != endpoint && matches!(connection.work, Work::Opening(..));
        let closed: Vec<Connection> = self
            .ids_of(is_one)
            .into_iter()
            .filter_map(|id| self.close(id, turn))
            .collect();
        let waits = closed.into_iter().filter_map(|connection| match connection.work {
            Work::Opening(key, arrival, wait) => Some((key, arrival, wait)),
            _ => None,
        });
        waits.collect()
    }
}

/// Spreads keys over the pipelined connections. Not as the shards spread them: all keys of one shard may have that in common.
fn spread(key: &Key, slots: usize) -> usize {
    const ODD: u32 = 0x9e37_79b1;
    (crc32fast::hash(key.as_str().as_bytes()).wrapping_mul(ODD) >> 16) as usize % slots
}
