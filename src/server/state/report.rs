//! The reports of a server about itself: `stats` and events.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::entry::KeyEntry;
use super::{ConnectionId, KeyId, NamedKey, Place, State};
use crate::protocol::{Response, Status};
use crate::server::event::{Event, EventKind};
use crate::server::ids::QualifiedKey;
use crate::server::signals::SignalHub;
use crate::stats::{ClusterStats, IdleStats, LockStats, SemaphoreStats, SignalChannelStats, Stats};
use crate::types::{Fence, Key, Kind, Token};
use crate::unwind::catch;

/// The subject of an event.
pub(super) enum About {
    /// A grant, and the queue position of its waiter if it had one.
    Grant(Token, Option<Place>),
    /// A lease that starts again.
    Anew(Token),
    Lease(Token),
    Place(Place),
}

/// The answer to `stats`, with the names, the order and the fractions of seconds of the real server.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) connections: u64,
    locks: Vec<LockReport>,
    semaphores: Vec<SemaphoreStats>,
    idle_locks: Vec<IdleReport>,
    idle_semaphores: Vec<IdleReport>,
    /// The inner `None` is written as `null`: some releases write that for an empty list.
    #[serde(skip_serializing_if = "Option::is_none")]
    signal_channels: Option<Option<Vec<SignalChannelStats>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cluster: Option<Box<ClusterStats>>,
}

#[derive(Serialize)]
struct LockReport {
    key: String,
    owner_conn_id: u64,
    lease_expires_in_s: f64,
    waiters: u64,
}

#[derive(Serialize)]
struct IdleReport {
    key: String,
    idle_s: f64,
}

impl From<Report> for Stats {
    fn from(report: Report) -> Self {
        let locks = report.locks.into_iter().map(|lock| LockStats {
            key: lock.key,
            owner_conn_id: lock.owner_conn_id,
            lease_expires_in_s: lock.lease_expires_in_s as u64,
            waiters: lock.waiters,
        });
        let idle = |list: Vec<IdleReport>| {
            let idle = list.into_iter().map(|idle| IdleStats {
                key: idle.key,
                idle_s: idle.idle_s as u64,
            });
            idle.collect()
        };
        Self {
            connections: report.connections,
            locks: locks.collect(),
            semaphores: report.semaphores,
            idle_locks: idle(report.idle_locks),
            idle_semaphores: idle(report.idle_semaphores),
            signal_channels: report.signal_channels.flatten().unwrap_or_default(),
            cluster: report.cluster,
        }
    }
}

impl State {
    /// Returns the answer to `stats`.
    pub(super) fn report(&self, connection: ConnectionId, now: Instant) -> Response {
        let mut report = self.make_report(now);
        if let Some(membership) = &self.membership {
            self.seen_by_member(membership, connection, &mut report);
        }
        let json = serde_json::to_string(&report);
        json.map_or(Response::Refused(Status::Error), |json| Response::Json(json.into()))
    }

    /// Returns the content of `stats` for the whole state, independent of the member.
    pub(in crate::server) fn stats(&self, now: Instant) -> Stats {
        self.make_report(now).into()
    }

    fn make_report(&self, now: Instant) -> Report {
        let mut report = Report {
            connections: self.clients.len() as u64,
            locks: Vec::new(),
            semaphores: Vec::new(),
            idle_locks: Vec::new(),
            idle_semaphores: Vec::new(),
            signal_channels: self.signals.as_ref().map(|signals| self.listeners(signals)),
            cluster: None,
        };
        let mut entries: Vec<&KeyEntry> = self.entries.iter().map(|(_, entry)| entry).collect();
        entries.sort_unstable_by_key(|entry| (self.shard(entry.key()), entry.key()));
        for entry in entries {
            let key = entry.key().1.to_string();
            let waiters = entry.waiters.len() as u64;
            // In `stats`, every release lists a semaphore of limit 1 as a lock.
            match entry.limit {
                1 if entry.is_idle() => report.idle_locks.push(idle(key, entry, now)),
                _ if entry.is_idle() => report.idle_semaphores.push(idle(key, entry, now)),
                1 => {
                    let holder = entry.holders.first();
                    report.locks.push(LockReport {
                        key,
                        owner_conn_id: holder.map_or(0, |holder| holder.connection),
                        lease_expires_in_s: holder
                            .map_or(Duration::ZERO, |holder| holder.ends.saturating_duration_since(now))
                            .as_secs_f64(),
                        waiters,
                    });
                }
                limit => report.semaphores.push(SemaphoreStats {
                    key,
                    limit,
                    holders: entry.holders.len() as u64,
                    waiters,
                }),
            }
        }
        report
    }

    fn listeners(&self, signals: &SignalHub) -> Option<Vec<SignalChannelStats>> {
        let listeners = signals.stats();
        let is_null = listeners.is_empty() && !self.options.release.checks_signals_strictly();
        (!is_null).then_some(listeners)
    }

    /// Returns the number of the map that contains a key. Real servers keep keys in 64 maps, by the FNV-1a hash of the
    /// key, and list one map after the other. Within a map they have no order; here the keys of a map are ordered by
    /// their bytes.
    fn shard(&self, (kind, name): &QualifiedKey) -> u32 {
        let prefix: &[u8] = match kind {
            _ if !self.options.release.separates_namespaces() => b"",
            Kind::Lock => b"lock:",
            Kind::Semaphore => b"sem:",
        };
        let bytes = prefix.iter().chain(name.as_bytes());
        let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        });
        hash % 64
    }

    pub(in crate::server) fn events(&self) -> &[Event] {
        &self.events
    }

    /// Takes the events recorded so far.
    #[cfg(test)]
    pub(in crate::server) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Returns the numbers of leases and of queue positions.
    #[cfg(any(test, fuzzing))]
    pub(in crate::server) fn leases_and_waiters(&self) -> (usize, usize) {
        let entries = self.entries.iter();
        let counts = entries.map(|(_, entry)| (entry.holders.len(), entry.waiters.len()));
        counts.fold((0, 0), |sum, (leases, waiters)| (sum.0 + leases, sum.1 + waiters))
    }

    pub(super) fn record(
        &mut self,
        kind: EventKind,
        subject: KeyId,
        about: About,
        connection: ConnectionId,
        at: Instant,
    ) {
        if !self.records_events() {
            return;
        }
        let Some(entry) = self.entries.get(subject) else {
            return;
        };
        let (namespace, name) = entry.key();
        let key = NamedKey {
            namespace: *namespace,
            key: name.as_bytes(),
            known: Some(subject),
        };
        let event = self.event(kind, key, about, connection, at);
        self.tell_event(event);
    }

    /// Records an event of a key that may be unknown.
    pub(super) fn record_of(
        &mut self,
        kind: EventKind,
        key: NamedKey<'_>,
        about: About,
        connection: ConnectionId,
        at: Instant,
    ) {
        if self.records_events() {
            let event = self.event(kind, key, about, connection, at);
            self.tell_event(event);
        }
    }

    fn records_events(&self) -> bool {
        self.options.record_events || self.options.on_event.is_some()
    }

    fn event(&self, kind: EventKind, key: NamedKey<'_>, about: About, connection: ConnectionId, at: Instant) -> Event {
        let (token, place) = match about {
            About::Grant(token, place) => (Some(token), place),
            About::Anew(token) | About::Lease(token) => (Some(token), None),
            About::Place(place) => (None, Some(place)),
        };
        let begins = match about {
            About::Grant(token, _) | About::Anew(token) => key.known.and_then(|subject| self.holder(subject, token)),
            About::Lease(_) | About::Place(_) => None,
        };
        let entry = key.known.and_then(|subject| self.entries.get(subject));
        let limit = entry.map_or(1, |entry| entry.limit);
        let namespace = match key.namespace {
            Kind::Semaphore if limit == 1 && !self.options.release.separates_namespaces() => Kind::Lock,
            kind => kind,
        };
        // A client can renew any token; a token that belongs to no grant has no fence.
        let is_of_grant = kind != EventKind::RenewalRefused;
        let granted = token.filter(|_| is_of_grant && self.options.release.makes_fences());
        Event {
            at,
            kind,
            namespace,
            key: Key::lossy(key.key),
            limit,
            token,
            fence: granted.map(|token| Fence(token.first_half())),
            place,
            ends: begins.map(|holder| holder.ends),
            connection,
        }
    }

    fn tell_event(&mut self, event: Event) {
        let options = &self.options;
        if let Some(on_event) = &options.on_event {
            if let Err(panic) = catch(|| on_event(&event)) {
                tracing::error!(%panic, "the callback for events panicked");
            }
        }
        if options.record_events {
            self.events.push(event);
        }
    }
}

fn idle(key: String, entry: &KeyEntry, now: Instant) -> IdleReport {
    let idle = now.saturating_duration_since(entry.last_used);
    IdleReport {
        key,
        idle_s: idle.as_secs_f64(),
    }
}
