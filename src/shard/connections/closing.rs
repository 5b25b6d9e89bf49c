//! Ends connections: retired ones, those whose wait is given up, idle ones, or all.

use tokio::time::Instant;

use super::Connections;
use crate::shard::connection::{Connection, Standing, Work};
use crate::shard::effect::{Effect, Turn};
use crate::shard::ids::{LaneId, TicketId};

impl Connections {
    /// Retires a connection, for example because another endpoint serves: requests under way are answered, and no more
    /// are sent. The connection stays open until the server attributes no lease to it. Otherwise its member, if it
    /// leads again, would release the leases of the ended connection.
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

    /// Finishes a retired connection that owns no lease.
    pub(super) fn finish_if_free(&mut self, id: LaneId, turn: &mut Turn<'_>) {
        let is_free = |connection: &Connection| connection.retired && !connection.finishing && connection.owns == 0;
        if self.get(id).is_some_and(is_free) {
            self.finish(id, turn);
        }
    }

    /// Ends a connection as soon as every request is answered.
    pub(in crate::shard) fn finish(&mut self, id: LaneId, turn: &mut Turn<'_>) {
        if let Some(mut connection) = self.get_mut(id) {
            connection.finishing = true;
            turn.push(Effect::Finish(id));
        }
    }

    /// Returns the retired connections that stay open only because they own leases, each with the number of its leases.
    pub(in crate::shard) fn kept_for_leases(&self) -> Vec<(LaneId, usize)> {
        let ids = self
            .ids_of(|connection| connection.retired && !connection.finishing)
            .into_iter();
        ids.filter_map(|id| Some((id, self.get(id)?.owns))).collect()
    }

    /// Hangs up connections to other endpoints, except retired ones. With `keep_owners`, idle connections that own
    /// leases are retired instead.
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

    /// Ends a connection at once. The report of its end returns the unanswered requests.
    pub(in crate::shard) fn hang_up(&mut self, id: LaneId, turn: &mut Turn<'_>) {
        let was_up = self.get_mut(id).is_some_and(|mut connection| {
            connection.retired = true;
            connection.is_up()
        });
        self.vacate(id, was_up);
        turn.push(Effect::HangUp(id));
    }

    /// Returns the number of unanswered requests, and the number of leases attributed to connections.
    #[cfg(test)]
    pub(in crate::shard) fn in_flight_and_owned(&self) -> (usize, usize) {
        let all = self.all.values();
        all.fold((0, 0), |sum, connection| {
            (sum.0 + connection.in_flight, sum.1 + connection.owns)
        })
    }

    /// Ends a connection to give up its wait. The report of its end returns the unanswered requests.
    pub(in crate::shard) fn cut(&mut self, id: LaneId, turn: &mut Turn<'_>) {
        if let Some(mut connection) = self.get_mut(id) {
            connection.cut = true;
            turn.push(Effect::HangUp(id));
        }
    }

    /// Closes up to `most` connections that own no lease and have been idle since `before`. Returns whether idle
    /// connections remain.
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

    /// Whether any exclusive or disposable connection is idle.
    pub(in crate::shard) fn has_idle_of_any_role(&self) -> bool {
        self.all.values().any(Connection::is_idle)
    }

    /// Closes the connections that wait on the server, or will wait, and own no lease. With `with_leases`, also closes
    /// those that own leases. With `keep_leaving`, keeps the connections whose queue position the shard gives up or
    /// will give up. Returns the closed connections.
    pub(in crate::shard) fn close_waiting(
        &mut self,
        with_leases: bool,
        keep_leaving: bool,
        turn: &mut Turn<'_>,
    ) -> Vec<Connection> {
        let waits = |connection: &Connection| {
            !matches!(connection.work, Work::Idle(_) | Work::Repeating | Work::Ending)
                && (connection.owns == 0 || with_leases)
                && !(connection.leaving && keep_leaving)
        };
        let ids = self.ids_of(waits);
        ids.into_iter().filter_map(|id| self.close(id, turn)).collect()
    }

    /// Returns the tickets whose queue positions are on connections without requests under way.
    pub(in crate::shard) fn idle_tickets(&self) -> Vec<TicketId> {
        let connections = self.all.values().filter(|connection| connection.in_flight == 0);
        let tickets = connections.filter_map(|connection| match connection.work {
            Work::Ticket(_, _, ticket) => Some(ticket),
            _ => None,
        });
        tickets.collect()
    }

    /// Marks all connections that ask for a queue position. The shard then gives up the position, or releases the
    /// grant, that the answer brings.
    pub(in crate::shard) fn leave_asked(&mut self) {
        for id in self.ids_of(|connection| matches!(connection.work, Work::Asking(..))) {
            if let Some(mut connection) = self.get_mut(id) {
                connection.leaving = true;
            }
        }
    }

    /// Whether the shard gives up, or will give up, the queue position of any connection.
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
