//! What a server tells of itself.

use std::time::Duration;

use tokio::time::Instant;

use super::{Connection, Place, State, Subject};
use crate::protocol::{Response, Status};
use crate::server::event::{Event, EventKind};
use crate::server::ids::number;
use crate::server::signals::Signals;
use crate::stats::{IdleStats, LockStats, SemaphoreStats, Stats};
use crate::types::{Kind, Token};

/// What an event is about.
pub(super) enum About {
    /// A grant, to somebody who waited at that place if there is one.
    Grant(Token, Option<Place>),
    Lease(Token),
    Place(Place),
}

impl State {
    /// The answer to `stats`.
    pub(super) fn report(&self, connection: Connection, now: Instant) -> Response {
        let mut stats = self.stats(now);
        if let Some(membership) = &self.membership {
            self.seen_by_member(membership, connection, &mut stats);
        }
        let json = serde_json::to_string(&stats);
        json.map_or(Response::Refused(Status::Error), |json| Response::Json(json.into()))
    }

    /// The state: all of it, whoever is asked.
    pub(in crate::server) fn stats(&self, now: Instant) -> Stats {
        let mut stats = Stats {
            connections: self.connections() as u64,
            signal_channels: self.signals.as_ref().map(Signals::stats).unwrap_or_default(),
            ..Stats::default()
        };
        let separate = self.options.release.separates_namespaces();
        for (subject, entry) in &self.entries {
            let kind = entry.kind(subject, separate);
            let key = subject.1.to_string();
            let waiters = entry.waiters.len() as u64;
            match (kind, entry.holders.first()) {
                (_, None) if entry.waiters.is_empty() => {
                    let idle_s = now.saturating_duration_since(entry.last_used).as_secs();
                    let idle = match kind {
                        Kind::Lock => &mut stats.idle_locks,
                        Kind::Semaphore => &mut stats.idle_semaphores,
                    };
                    idle.push(IdleStats { key, idle_s });
                }
                (Kind::Lock, holder) => stats.locks.push(LockStats {
                    key,
                    owner_conn_id: holder.map_or(0, |holder| number(holder.connection)),
                    lease_expires_in_s: holder
                        .map_or(Duration::ZERO, |h| h.ends.saturating_duration_since(now))
                        .as_secs(),
                    waiters,
                }),
                (Kind::Semaphore, _) => stats.semaphores.push(SemaphoreStats {
                    key,
                    limit: u64::from(entry.limit),
                    holders: entry.holders.len() as u64,
                    waiters,
                }),
            }
        }
        stats
    }

    pub(in crate::server) fn events(&self) -> &[Event] {
        &self.events
    }

    pub(super) fn record(
        &mut self,
        kind: EventKind,
        subject: &Subject,
        about: About,
        connection: Connection,
        at: Instant,
    ) {
        if !self.options.record_events {
            return;
        }
        let (token, place) = match about {
            About::Grant(token, place) => (Some(token), place),
            About::Lease(token) => (Some(token), None),
            About::Place(place) => (None, Some(place)),
        };
        let entry = self.entries.get(subject);
        let separate = self.options.release.separates_namespaces();
        self.events.push(Event {
            at,
            kind,
            namespace: entry.map_or(subject.0, |entry| entry.kind(subject, separate)),
            key: subject.1.clone(),
            limit: entry.map_or(1, |entry| entry.limit),
            token,
            place,
            connection: number(connection),
        });
    }
}
