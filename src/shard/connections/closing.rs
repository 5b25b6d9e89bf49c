//! Connections that are to end: retired, cut, idle for too long, or all of them.

use tokio::time::Instant;

use super::Connections;
use crate::shard::connection::{Connection, Standing, Work};
use crate::shard::effect::{Effect, Turn};
use crate::shard::ids::{LaneId, TicketId};

impl Connections {
    /// Another endpoint serves. What is on its way is answered; nothing more is sent. It stands until the server counts no lease to it:
    /// a member that leads again would take its end for that of its leases.
    pub(in crate::shard) fn retire(&mut self, id: LaneId, turn: &mut Turn<'_>) {
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
    pub(super) fn finish_if_free(&mut self, id: LaneId, turn: &mut Turn<'_>) {
        let is_free = |connection: &Connection| connection.retired && !connection.finishing && connection.owns == 0;
        if self.get(id).is_some_and(is_free) {
            self.finish(id, turn);
        }
    }

    /// Ends a connection when all is answered.
    pub(in crate::shard) fn finish(&mut self, id: LaneId, turn: &mut Turn<'_>) {
        if let Some(mut connection) = self.get_mut(id) {
            connection.finishing = true;
            turn.push(Effect::Finish(id));
        }
    }

    /// The connections that are retired, and stand for the sake of what they own; and how much that is.
    pub(in crate::shard) fn kept_for_leases(&self) -> Vec<(LaneId, usize)> {
        let ids = self
            .ids_of(|connection| connection.retired && !connection.finishing)
            .into_iter();
        ids.filter_map(|id| Some((id, self.get(id)?.owns))).collect()
    }

    /// Hangs up everything that leads elsewhere than to this endpoint, but what is only finishing. `keep_owners`: what is idle and owns
    /// leases is retired.
    pub(in crate::shard) fn hang_up_elsewhere(&mut self, endpoint: usize, keep_owners: bool, turn: &mut Turn<'_>) {
        for id in self.ids_of(|connection| connection.endpoint != endpoint && !connection.retired) {
            let owns = |connection: &Connection| connection.standing() == Standing::Owning;
            if keep_owners && self.get(id).is_some_and(owns) {
                self.retire(id, turn);
                continue;
            }
            self.hang_up(id, turn);
        }
    }

    /// Ends a connection, whatever is on its way. What was not answered comes back with its end.
    pub(in crate::shard) fn hang_up(&mut self, id: LaneId, turn: &mut Turn<'_>) {
        let was_up = self.get_mut(id).is_some_and(|mut connection| {
            connection.retired = true;
            connection.is_up()
        });
        self.vacate(id, was_up);
        turn.push(Effect::HangUp(id));
    }

    /// How many requests are not answered yet, and how many leases are counted to connections.
    #[cfg(test)]
    pub(in crate::shard) fn in_flight_and_owned(&self) -> (usize, usize) {
        let all = self.all.values();
        all.fold((0, 0), |sum, connection| {
            (sum.0 + connection.in_flight, sum.1 + connection.owns)
        })
    }

    /// Ends a connection to give up its wait. What was not answered comes back with its end.
    pub(in crate::shard) fn cut(&mut self, id: LaneId, turn: &mut Turn<'_>) {
        if let Some(mut connection) = self.get_mut(id) {
            connection.cut = true;
            turn.push(Effect::HangUp(id));
        }
    }

    /// Closes what has been idle since `before` and owns nothing, at most so many. Returns whether idle connections are left.
    pub(in crate::shard) fn close_idle(&mut self, before: Instant, most: usize, turn: &mut Turn<'_>) -> bool {
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
    pub(in crate::shard) fn has_idle_of_any_role(&self) -> bool {
        self.all.values().any(Connection::is_idle)
    }

    /// Closes what waits on the server, or is about to, and owns nothing; or all of it, whatever it owns. `keep_leaving`: but not that over
    /// which a place is being given up, or will be. Returns what that was.
    pub(in crate::shard) fn close_waiting(
        &mut self,
        whatever_it_owns: bool,
        keep_leaving: bool,
        turn: &mut Turn<'_>,
    ) -> Vec<Connection> {
        let waits = |connection: &Connection| {
            !matches!(connection.work, Work::Idle(_) | Work::Repeating | Work::Ending)
                && (connection.owns == 0 || whatever_it_owns)
                && !(connection.leaving && keep_leaving)
        };
        let ids = self.ids_of(waits);
        ids.into_iter().filter_map(|id| self.close(id, turn)).collect()
    }

    /// The tickets whose places are on connections over which nothing is in flight.
    pub(in crate::shard) fn idle_tickets(&self) -> Vec<TicketId> {
        let connections = self.all.values().filter(|connection| connection.in_flight == 0);
        let tickets = connections.filter_map(|connection| match connection.work {
            Work::Ticket(_, _, ticket) => Some(ticket),
            _ => None,
        });
        tickets.collect()
    }

    /// What places in flight are answered with is given up or given back, too.
    pub(in crate::shard) fn leave_asked(&mut self) {
        for id in self.ids_of(|connection| matches!(connection.work, Work::Asking(..))) {
            if let Some(mut connection) = self.get_mut(id) {
                connection.leaving = true;
            }
        }
    }

    /// Whether a place is being given up over any of them, or will be.
    pub(in crate::shard) fn is_any_leaving(&self) -> bool {
        self.all.values().any(|connection| connection.leaving)
    }

    /// Closes all connections.
    pub(in crate::shard) fn close_all(&mut self, turn: &mut Turn<'_>) {
        for id in self.ids_of(|_| true) {
            self.close(id, turn);
        }
    }
}
