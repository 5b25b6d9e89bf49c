//! One connection, and its current work.

use std::collections::HashSet;

use tokio::time::Instant;

use super::effect::Role;
use super::ids::{Arrival, TicketId, WaitKey};
use super::numbers::RequestNumbers;
use super::request::Wait;
use super::waits::{Bound, Occupant};
use crate::protocol::StableRef;
use crate::types::{Key, Kind, Target, Token};

/// The number of connections of one role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LaneCount {
    /// All of them, including those that are still opening.
    pub(crate) all: usize,
    pub(crate) up: usize,
}

/// What a connection is doing.
pub(super) enum Work {
    /// Nothing, since this instant.
    Idle(Instant),
    /// It is opening for this wait. With `None`, it carries the next wait once it is up.
    Opening(Option<Box<Bound<Wait>>>),
    /// It waits on the server for a grant.
    Waiting(WaitKey),
    /// It carries a request about a ticket's queue position, which the server answers at once.
    Asking(WaitKey, Arrival),
    /// It owns a queue position that belongs to a ticket.
    Ticket(WaitKey, Arrival, TicketId),
    /// It carries tries that are sent again under its name.
    Repeating,
    /// It has ended, and the report of its end is on its way.
    Ending,
}

/// Whether, and how, a connection can carry waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It carries no waits.
    NotForWaits,
    /// It is opening for the next wait.
    Opening,
    /// It is in use, or must not be used any more.
    InUse,
    /// It is idle and owns no lease.
    Clean,
    /// It is idle and owns leases.
    Owning,
}

/// One connection.
pub(super) struct Connection {
    pub(super) role: Role,
    pub(super) work: Work,
    /// When the server ends the wait in flight by itself.
    pub(super) waits_until: Option<Instant>,
    /// Whether the shard gives up a ticket's queue position over it, either now or after the answer to the `e`. The
    /// server may have granted the position already.
    pub(super) leaving: bool,
    /// Whether its server has said that the server is shutting down.
    pub(super) draining: bool,
    /// The index of its endpoint.
    pub(super) endpoint: usize,
    /// The name of its session, by which another member of the cluster recognizes it.
    pub(super) session: Option<StableRef>,
    /// The name that it presented as a pipelined connection, if its server remembers names. Grants whose answers were
    /// lost can be found under this name.
    pub(super) name: Option<StableRef>,
    /// The target of its current or last wait in its session.
    pub(super) target: Option<Target>,
    /// The keys for which it has waited in its session. Emptied when a wait begins while the connection owns no lease.
    asked_for: HashSet<(Kind, Key)>,
    /// For a connection that repeats tries: the tokens of leases that already have a caller or are released. The server
    /// may still return these tokens under the connection's name.
    pub(super) found: Vec<Token>,
    /// Whether nothing more may be sent over it.
    pub(super) retired: bool,
    /// Whether it ends as soon as every request is answered.
    pub(super) finishing: bool,
    /// Whether it was closed to give up its wait. Later answers do not count.
    pub(super) cut: bool,
    /// Whether it has delivered an answer.
    pub(super) has_answered: bool,
    /// The number of leases that the server attributes to it.
    pub(super) owns: usize,
    pub(super) up_since: Option<Instant>,
    /// The number of requests that were sent and not yet answered.
    pub(super) in_flight: usize,
    /// The number of requests that were sent, and which of them are over.
    pub(super) numbers: RequestNumbers,
}

impl Connection {
    /// Creates a connection that is about to open.
    pub(super) fn new(role: Role, work: Work, endpoint: usize, session: Option<StableRef>) -> Self {
        Self {
            role,
            work,
            waits_until: None,
            leaving: false,
            draining: false,
            endpoint,
            session,
            name: None,
            target: None,
            asked_for: HashSet::new(),
            found: Vec::new(),
            retired: false,
            finishing: false,
            cut: false,
            has_answered: false,
            owns: 0,
            up_since: None,
            in_flight: 0,
            numbers: RequestNumbers::default(),
        }
    }

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

    pub(super) fn is_idle(&self) -> bool {
        let may_be_used = self.is_up() && !self.retired && !self.cut && self.role != Role::Pipelined;
        may_be_used && self.in_flight == 0 && matches!(self.work, Work::Idle(_))
    }

    pub(super) fn standing(&self) -> Standing {
        match self.work {
            _ if self.role != Role::Exclusive => Standing::NotForWaits,
            Work::Opening(None) => Standing::Opening,
            _ if !self.is_idle() => Standing::InUse,
            _ if self.owns == 0 => Standing::Clean,
            _ => Standing::Owning,
        }
    }

    /// Whether its wait may be given up by closing it: the connection owns no lease, and the wait does not end by
    /// itself before `soon`.
    pub(super) fn is_closable(&self, soon: Instant) -> bool {
        self.owns == 0 && !self.cut && !self.retired && self.waits_until.is_some_and(|until| until > soon)
    }

    /// Begins a wait.
    pub(super) fn begin(&mut self, work: Work, key: &WaitKey, until: Option<Instant>) {
        if self.session.is_some() {
            // The server returns only leases that the session still owns.
            if self.owns == 0 {
                self.asked_for.clear();
            }
            self.target = Some(key.0);
            self.asked_for.insert((key.0.kind(), key.1.clone()));
        }
        self.work = work;
        self.waits_until = until;
    }

    /// Whether its session may have had this key. If so, the server could answer another request with the old grant.
    pub(super) fn may_have_had(&self, key: &WaitKey) -> bool {
        self.session.is_some() && self.asked_for.contains(&(key.0.kind(), key.1.clone()))
    }

    /// Notes a lease that has a caller or is released. The server may still answer a repeated try with this lease.
    pub(super) fn note_found(&mut self, token: Token) {
        if let Work::Repeating = self.work {
            self.found.push(token);
        }
    }

    /// Notes that the wait has a queue position, which belongs to a ticket.
    pub(super) fn hold_ticket(&mut self, id: TicketId, now: Instant) {
        self.work = match std::mem::replace(&mut self.work, Work::Idle(now)) {
            Work::Asking(key, arrival) => Work::Ticket(key, arrival, id),
            other => other,
        };
    }

    /// Notes that the ticket is gone. The next request gives up its queue position.
    pub(super) fn leave_ticket(&mut self, now: Instant) {
        self.work = match std::mem::replace(&mut self.work, Work::Idle(now)) {
            Work::Ticket(key, arrival, _) => {
                self.leaving = true;
                Work::Asking(key, arrival)
            }
            other => other,
        };
    }

    /// Ends the wait of this connection. Returns the key, the arrival, and the kind of wait.
    pub(super) fn stop_waiting(&mut self, now: Instant) -> Option<(WaitKey, Option<Arrival>, Occupant)> {
        self.waits_until = None;
        self.leaving = false;
        match std::mem::replace(&mut self.work, Work::Idle(now)) {
            Work::Waiting(key) => Some((key, None, Occupant::Wait)),
            Work::Asking(key, arrival) | Work::Ticket(key, arrival, _) => Some((key, Some(arrival), Occupant::Ticket)),
            other => {
                self.work = other;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::bench::{SECOND, key};
    use crate::types::Limit;

    fn lock(name: &str) -> WaitKey {
        (Target::Lock, key(name))
    }

    fn connection(role: Role, session: Option<&str>, now: Instant) -> Connection {
        let session = session.map(|name| StableRef::new(name).unwrap());
        let mut connection = Connection::new(role, Work::Idle(now), 0, session);
        connection.up_since = Some(now);
        connection
    }

    #[test]
    fn the_end_of_a_wait_returns_its_key_and_leaves_the_connection_idle() {
        let now = Instant::now();
        let mut connection = connection(Role::Exclusive, None, now);
        connection.begin(Work::Waiting(lock("k")), &lock("k"), Some(now + SECOND));
        assert!(connection.standing() == Standing::InUse && connection.is_closable(now));
        let stopped = connection.stop_waiting(now + SECOND);
        assert_eq!(stopped, Some((lock("k"), None, Occupant::Wait)));
        assert!(!connection.is_closable(now) && connection.standing() == Standing::Clean);
        assert!(matches!(connection.work, Work::Idle(since) if since == now + SECOND));
        assert_eq!(connection.stop_waiting(now + 2 * SECOND), None, "once");
        assert!(matches!(connection.work, Work::Idle(since) if since == now + SECOND));
    }

    #[test]
    fn a_queue_position_belongs_to_its_ticket_from_the_answer_until_the_ticket_is_used() {
        let now = Instant::now();
        let mut connection = connection(Role::Exclusive, None, now);
        connection.hold_ticket(9, now);
        connection.leave_ticket(now);
        assert!(connection.is_idle(), "it has no queue position");
        connection.begin(Work::Asking(lock("k"), 5), &lock("k"), None);
        connection.hold_ticket(9, now);
        assert!(matches!(&connection.work, Work::Ticket(key, 5, 9) if *key == lock("k")));
        connection.leave_ticket(now);
        assert!(matches!(&connection.work, Work::Asking(key, 5) if *key == lock("k")));
        connection.hold_ticket(9, now);
        assert_eq!(
            connection.stop_waiting(now),
            Some((lock("k"), Some(5), Occupant::Ticket))
        );
        connection.begin(Work::Asking(lock("k"), 6), &lock("k"), None);
        assert_eq!(
            connection.stop_waiting(now),
            Some((lock("k"), Some(6), Occupant::Ticket))
        );
    }

    #[test]
    fn a_session_that_owns_a_lease_remembers_its_keys_and_its_last_target() {
        let now = Instant::now();
        let slot = (Target::Semaphore(Limit::new(2).unwrap()), key("k"));
        let wider_slot = (Target::Semaphore(Limit::new(3).unwrap()), key("k"));
        for session in [Some("session"), None] {
            let mut connection = connection(Role::Exclusive, session, now);
            let first = lock("before");
            connection.begin(Work::Waiting(first.clone()), &first, None);
            connection.stop_waiting(now);
            assert_eq!(connection.may_have_had(&first), session.is_some());
            let again = lock("a");
            connection.begin(Work::Waiting(again.clone()), &again, None);
            assert!(
                !connection.may_have_had(&first),
                "the connection owned nothing in between"
            );
            connection.owns = 1;
            for wait in [lock("a"), slot.clone()] {
                connection.begin(Work::Waiting(wait.clone()), &wait, None);
                connection.stop_waiting(now);
            }
            let has_session = session.is_some();
            assert_eq!(connection.target, has_session.then_some(slot.0));
            assert_eq!(connection.may_have_had(&lock("a")), has_session);
            assert_eq!(
                connection.may_have_had(&wider_slot),
                has_session,
                "regardless of the limit"
            );
            assert!(
                !connection.may_have_had(&lock("k")),
                "a semaphore of the same name is another key"
            );
        }
    }

    #[test]
    fn the_standing_of_a_connection_follows_from_its_work_and_its_leases() {
        let now = Instant::now();
        let mut exclusive = connection(Role::Exclusive, None, now);
        assert_eq!(exclusive.standing(), Standing::Clean);
        exclusive.owns = 1;
        assert_eq!(exclusive.standing(), Standing::Owning);
        exclusive.in_flight = 1;
        assert_eq!(exclusive.standing(), Standing::InUse);
        exclusive.in_flight = 0;
        exclusive.retired = true;
        assert_eq!(exclusive.standing(), Standing::InUse);
        let opening = Connection::new(Role::Exclusive, Work::Opening(None), 0, None);
        assert_eq!(opening.standing(), Standing::Opening);
        for role in [Role::Pipelined, Role::Disposable] {
            let other = connection(role, None, now);
            assert_eq!(other.standing(), Standing::NotForWaits);
            assert_eq!(other.is_idle(), role == Role::Disposable);
        }
    }

    #[test]
    fn a_connection_is_closed_to_give_up_its_wait_only_without_leases_and_if_the_wait_is_long() {
        let now = Instant::now();
        let change = |change: fn(&mut Connection)| {
            let mut connection = connection(Role::Exclusive, None, now);
            connection.begin(Work::Waiting(lock("k")), &lock("k"), Some(now + SECOND));
            change(&mut connection);
            connection
        };
        let wait = change(|_| {});
        assert!(wait.is_closable(now) && !wait.is_closable(now + SECOND));
        assert!(!change(|connection| connection.owns = 1).is_closable(now));
        assert!(!change(|connection| connection.cut = true).is_closable(now));
        assert!(!change(|connection| connection.retired = true).is_closable(now));
        assert!(!change(|connection| connection.waits_until = None).is_closable(now));
    }
}
