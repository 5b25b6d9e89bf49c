//! The end of a server, announced or sudden.

use tokio::time::Instant;

use super::entry::Waiter;
use super::report::About;
use super::{ConnectionId, KeyId, Place, State};
use crate::protocol::{Response, Status};
use crate::server::event::EventKind;

impl State {
    /// Starts the shutdown of a server: requests that block are answered with `error`, and further requests cannot
    /// wait.
    pub(in crate::server) fn drain(&mut self, member: usize, now: Instant) {
        if self.membership.is_some() {
            self.drain_member(member, now);
            return;
        }
        self.draining = true;
        let mut waits: Vec<(ConnectionId, KeyId, Place)> = self
            .clients
            .iter_mut()
            .filter_map(|(connection, client)| {
                let blocked = client.waits.take()?;
                Some((*connection, blocked.subject, blocked.place))
            })
            .collect();
        // In queue order, so that equal histories have equal outcomes.
        waits.sort_unstable_by_key(|(connection, _, place)| (*place, *connection));
        for (connection, subject, place) in waits {
            let entry = self.entries.get_mut(subject);
            let Some(waiter) = entry.and_then(|entry| entry.remove_waiter(place)) else {
                continue;
            };
            if let Some(client) = self.clients.get_mut(&connection) {
                client.places.remove(&place);
            }
            for (_, reply) in waiter.replies {
                drop(reply.send(Response::Refused(Status::Error)));
            }
            self.record(EventKind::Left, subject, About::Place(place), connection, now);
        }
    }

    /// Ends the server at once: no request is answered, and no waiter is granted a key whose lease ends this way.
    pub(in crate::server) fn kill(&mut self, now: Instant) {
        self.killed = true;
        let entries = self.entries.iter_mut();
        let mut waiters: Vec<(Place, Waiter)> = entries
            .flat_map(|(_, entry)| std::mem::take(&mut entry.waiters))
            .collect();
        // Dropping a waiter wakes its connection, so waiters are dropped in queue order, too.
        waiters.sort_unstable_by_key(|(place, _)| *place);
        waiters.into_iter().for_each(drop);
        for ((_, lease), subject) in self.ends.clone() {
            self.end_lease(subject, lease, EventKind::Disconnected, now);
        }
        self.clients.clear();
    }

    /// Returns whether the server answers every request of this connection with `error_draining` and closes the
    /// connection.
    pub(in crate::server) fn turns_requests_away(&self, connection: ConnectionId) -> bool {
        let drains = self.draining || self.is_at_draining_member(connection);
        drains && self.options.release.turns_requests_away()
    }

    /// Returns whether the requests of a connection are not answered any more.
    pub(in crate::server) fn answers_no_more(&self, connection: ConnectionId) -> bool {
        self.killed || self.faults.has_cut(connection)
    }
}
