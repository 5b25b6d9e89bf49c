//! Invariants with a time limit, and those of a client that ends.

use std::time::Duration;

use tokio::time::Instant;

use super::agenda::ClientId;
use super::callers::{SimCall, Wanted, What};
use super::client::SimClient;
use super::cluster::SimMember;
use super::lane::SimLane;
use super::network::{Network, SimWire, WireId};
use super::plan::{LONGEST_RECONNECT_PAUSE, LONGEST_STALL, LONGEST_WAIT, Plan, REQUEST_TIMEOUT};
use super::trace::grant;
use super::world::World;
use crate::lease::state::{LeaseState, LostReason};
use crate::shard::ids::LaneId;
use crate::types::{Target, Token};

impl Plan {
    /// Returns how long a client may take to notice that a server has closed a connection.
    pub(super) fn noticed_within(&self) -> Duration {
        LONGEST_WAIT + self.lanes.keepalive + self.lanes.reply_timeout + LONGEST_STALL + self.slack()
    }

    /// Returns how long a few messages may take without faults.
    pub(super) fn slack(&self) -> Duration {
        Duration::from_millis(500) + self.latency.most() * 8
    }

    /// Returns how long a key may be free while a caller waits for it, without faults.
    fn granted_within(&self) -> Duration {
        Duration::from_secs(1) + self.slack()
    }

    /// Returns how long a server may keep a grant that no caller wants, without faults.
    fn orphaned_for(&self) -> Duration {
        // Grants are checked at each sweep, so one sweep passes before this is noticed.
        self.slack() + self.terms.lease_sweep_interval
    }

    /// Returns how long a server may keep such a grant with faults, given that the client does not renew the grant.
    fn orphaned_at_most(&self) -> Duration {
        // A confirmation may be in flight when the last caller leaves.
        self.longest_lease() * 2 + self.terms.lease_sweep_interval + LONGEST_STALL
    }

    /// Returns how long a dropped call may keep its permit, without faults. A dropped call that had no queue position of
    /// its own is soon forgotten, because its wait belongs to no single caller. Otherwise the wait at the queue position
    /// must run out, and before that the call may wait for a connection.
    fn room_back_within(&self, had_no_place: bool) -> Duration {
        if had_no_place {
            return Duration::from_secs(2) + self.slack();
        }
        LONGEST_WAIT * 3 + REQUEST_TIMEOUT + self.slack()
    }
}

/// Returns since when a client has had no faults, if it has none.
fn calm_since(clients: &[SimClient], network: &Network, id: ClientId) -> Option<Instant> {
    let client = clients.get(id.index)?;
    let is_there = client.id == id && !client.is_over && client.closing.is_none();
    let is_hurt = |lane: &SimLane| {
        let wire = lane.wire.and_then(|wire| network.get(wire));
        lane.wire.is_some() && wire.is_none_or(SimWire::is_hurt)
    };
    let is_calm = is_there && client.health.is_connected() && !client.lanes.values().any(is_hurt);
    is_calm.then_some(client.calm_since)
}

impl World {
    /// Notes that a client's shard has learned of the end of a connection.
    pub(super) fn told_of_end(&mut self, index: usize, lane: LaneId) {
        let now = self.now();
        let client = &self.clients[index];
        let survives = self.plan.survives_disconnect;
        let has_wire_up_to = |server: u32| {
            let mut wires = client.lanes.values().filter_map(|lane| lane.wire);
            wires.any(|wire| wire.server <= server)
        };
        self.book.note_loss_told(now, |given_up| match given_up.owner {
            Some((owner, _)) if survives => owner == client.id && !has_wire_up_to(given_up.server),
            owner => owner.is_none_or(|owner| owner == (client.id, lane)),
        });
    }

    /// Checks a lease that has expired. If no caller had it, the client should have released it, unless there were
    /// faults.
    pub(super) fn check_left(&mut self, token: Token) {
        let now = self.now();
        if !self.is_cluster() {
            return;
        }
        let Some(granted) = self.book.grants.iter().find(|granted| granted.token == token) else {
            return;
        };
        if self.callers.has_in_hands(granted) {
            return;
        }
        if self.book.may_be_unreachable(granted.connection) {
            self.book.left.out_of_reach += 1;
            return;
        }
        let since = granted
            .owner
            .map(|(client, _)| (client, calm_since(&self.clients, &self.network, client)));
        let name = (grant(token), granted.key.clone(), granted.owner);
        let released_by = match since {
            Some((client, Some(since))) if self.is_alive(client) => {
                since.max(granted.in_hands_at) + self.plan.orphaned_for()
            }
            Some((client, None)) if self.is_alive(client) => {
                self.book.left.disturbed += 1;
                return;
            }
            _ => {
                self.book.left.client_over += 1;
                return;
            }
        };
        if released_by >= now {
            self.book.left.disturbed += 1;
            return;
        }
        let turned_away_at = self.book.turned_away_at(granted.connection);
        if turned_away_at.is_some_and(|at| at + LONGEST_RECONNECT_PAUSE + self.plan.orphaned_for() >= now) {
            self.book.left.turned_away += 1;
            return;
        }
        self.broken(|| format!("{name:?} was left to its TTL, and no caller had it"));
    }

    /// Checks a queue position that was given up. A position that has outlived a change of the leader must not be
    /// given up over a working connection while waiting callers need it. Clients with tickets for the key are not
    /// checked, because the positions of tickets cannot be distinguished from others.
    pub(super) fn check_left_place(&mut self, place: u64, connection: u64) {
        let now = self.now();
        let Some(left) = self.book.unqueued(place) else { return };
        let calm_since = calm_since(&self.clients, &self.network, left.client);
        let number = WireId {
            server: self.servers,
            number: connection,
        };
        let stands = self.network.get(number).is_some_and(|wire| !wire.is_hurt());
        let drains = self.members.iter().any(SimMember::drains);
        let is_calm = calm_since.is_some() && stands && !drains;
        // A wait is repeated as often as the client follows redirects.
        let has_outlived = (1..=2).contains(&left.outlived);
        if !self.is_alive(left.client) || !is_calm || !has_outlived || !self.book.has_no_tickets(&left) {
            return;
        }
        let needs_it = |call: &&SimCall| {
            let waits = matches!(&call.what, What::Wait(..));
            let same = |wanted: &Wanted| wanted.target.kind() == left.kind && wanted.key == left.key;
            let is_old = call.client == left.client && call.since <= left.at && call.until > now + self.plan.slack();
            waits && is_old && call.what.acquires().is_some_and(same)
        };
        let callers = self.callers.calls.values().filter(needs_it).count();
        let places = self
            .book
            .places_before(left.client, left.kind, &left.key, self.led_since);
        if callers > places {
            self.broken(|| {
                format!("place {place} of {:?} was given up, though {callers} callers of client {} wait for it with {places} places", left.key, left.client.index)
            });
        }
    }

    /// Checks that grants that no caller wants are released.
    pub(super) fn check_orphans(&mut self) {
        let now = self.now();
        let mut broken = None;
        // Without a leader, nothing can be released.
        let is_without_leader = self.is_cluster() && self.leader().is_none();
        let grants = self.book.grants.iter();
        let out_of_reach: Vec<bool> = grants
            .map(|granted| self.book.may_be_unreachable(granted.connection))
            .collect();
        for (granted, is_out_of_reach) in self.book.grants.iter_mut().zip(out_of_reach) {
            let held = self.callers.held.iter().find(|held| held.token == granted.token);
            if self.callers.has_in_hands(granted) {
                granted.in_hands_at = now;
            }
            let is_wanted = is_without_leader
                || held.is_some_and(|held| held.is_believed(now))
                || granted
                    .owner
                    .is_some_and(|(client, _)| self.callers.is_wanted(client, granted.kind, &granted.key));
            if is_wanted {
                granted.wanted_at = now;
                continue;
            }
            // A lease that only expired locally is released when its guard is dropped.
            let has_guard = held.is_some_and(|held| held.state(now) == LeaseState::Lost(LostReason::Expired));
            let bound = match granted.owner {
                Some((client, lane)) if !has_guard && !is_out_of_reach => {
                    match calm_since(&self.clients, &self.network, client) {
                        Some(since) if self.clients[client.index].lanes.contains_key(&lane) => {
                            (granted.wanted_at.max(since), self.plan.orphaned_for())
                        }
                        _ => (granted.wanted_at, self.plan.orphaned_at_most()),
                    }
                }
                _ => (granted.wanted_at, self.plan.orphaned_at_most()),
            };
            if now.saturating_duration_since(bound.0) > bound.1 {
                broken = Some((grant(granted.token), granted.key.clone(), now - granted.wanted_at));
            }
        }
        if let Some((token, key, time)) = broken {
            self.broken(|| format!("the server has {token} of {key:?}, and no caller has wanted it for {time:?}"));
        }
        let forget_before = self.plan.noticed_within() * 2;
        self.book
            .given_up
            .retain(|given_up| now.saturating_duration_since(given_up.at) < forget_before);
    }

    /// Checks that a caller gets a free key, regardless of other waits.
    pub(super) fn check_free_keys(&mut self) {
        let is_without_leader = self.is_cluster() && self.leader().is_none();
        if self.server.is_none() || self.draining || is_without_leader {
            return;
        }
        let now = self.now();
        let calm_since = |client: &SimClient| calm_since(&self.clients, &self.network, client.id);
        let calm: Vec<_> = self.clients.iter().map(calm_since).collect();
        let mut broken = None;
        for (id, call) in &self.callers.calls {
            let (Some(wanted), Some(calm_since)) = (call.what.acquires(), calm[call.client.index]) else {
                continue;
            };
            let limit = match wanted.target {
                Target::Lock => 1,
                // The limit that the server uses is not known.
                Target::Semaphore(_) if self.plan.wrong_limits => continue,
                Target::Semaphore(limit) => limit.get() as usize,
            };
            let kind = wanted.target.kind();
            let is_free = self.is_alive(call.client) && self.book.is_free(kind, &wanted.key, limit);
            let ended = self.book.last_ended(kind, &wanted.key).unwrap_or(call.since);
            let since = call.since.max(calm_since).max(ended);
            let waited = now.saturating_duration_since(since);
            if is_free && waited > self.plan.granted_within() {
                broken = Some((*id, wanted.key.clone(), waited));
            }
        }
        if let Some((call, key, waited)) = broken {
            self.broken(|| format!("call {call} has wanted {key:?} for {waited:?}, and it is free"));
        }
    }

    /// Checks that dropped calls return their permits, and that clients that were shut down end.
    pub(super) fn check_callers(&mut self) {
        self.callers.tidy();
        let now = self.now();
        let mut broken = None;
        for abandoned in &self.callers.abandoned {
            let client = &self.clients[abandoned.client.index];
            if client.id != abandoned.client || client.is_over {
                broken = Some(format!(
                    "call {} has a permit of a shard that has ended",
                    abandoned.call
                ));
            } else if let Some(calm_since) = calm_since(&self.clients, &self.network, abandoned.client) {
                let since = abandoned.at.max(calm_since);
                if now.saturating_duration_since(since) > self.plan.room_back_within(abandoned.had_no_place) {
                    broken = Some(format!(
                        "call {} still has its permit, {:?} after its caller left",
                        abandoned.call,
                        now - abandoned.at
                    ));
                }
            }
        }
        for client in &self.clients {
            let late = |until: Instant| until.max(client.stalled_until) + Duration::from_millis(100) < now;
            if client.closing.as_ref().is_some_and(|closing| late(closing.until)) && !client.is_over {
                broken = Some(format!(
                    "client {} has not ended after the time of its shutdown",
                    client.id.index
                ));
            }
        }
        if let Some(what) = broken {
            self.broken(|| what);
        }
    }

    /// Checks that a client's shutdown has released the leases that its callers held, except those whose keys its
    /// report names as unreleased, and that the report counts all of them.
    pub(super) fn check_end(&mut self, index: usize) {
        let Some(closing) = self.clients[index].closing.as_mut() else {
            return;
        };
        let tokens = std::mem::take(&mut closing.tokens);
        let Ok(report) = closing.report.try_recv() else {
            return self.broken(|| format!("client {index} has ended without a report"));
        };
        let is_unreleased = |granted: &super::book::GrantRecord| report.unreleased.contains(&granted.key);
        let left = self
            .book
            .grants
            .iter()
            .find(|granted| tokens.contains(&granted.token) && !is_unreleased(granted));
        let left = left.map(|granted| (grant(granted.token), granted.key.clone()));
        if let Some((token, key)) = left {
            self.broken(|| {
                format!("client {index} has reported {token} of {key:?} as released, but it is in the book")
            });
        }
        let held = tokens.len();
        let counted = report.released + report.unreleased.len();
        if counted < held {
            self.broken(|| format!("client {index} had {held} leases, but its report counts {counted}"));
        }
    }

    /// Checks the invariants of each lease that a caller holds.
    pub(super) fn check_believers(&mut self) {
        let now = self.now();
        let mut broken = None;
        for held in &self.callers.held {
            let is_alive = self.is_alive(held.client);
            if held.in_book && is_alive {
                continue;
            }
            let state = held.state(now);
            if !matches!(state, LeaseState::Held | LeaseState::Suspect) {
                continue;
            }
            if !is_alive {
                broken = Some((grant(held.token), held.client.index, state, "its shard has ended"));
                break;
            }
            let excuse = self.book.given_up(held.token);
            let is_excused = excuse.is_some_and(|given_up| match given_up.told_at {
                None => {
                    // A stopped process learns nothing until it continues.
                    let could_hear_at = given_up.at.max(self.clients[held.client.index].stalled_until);
                    now <= could_hear_at + self.plan.noticed_within()
                }
                // The shard knows that the connection has ended, so the lease may only be suspect.
                Some(_) => state == LeaseState::Suspect && self.plan.survives_disconnect,
            });
            if !is_excused {
                broken = Some((
                    grant(held.token),
                    held.client.index,
                    state,
                    "its grant is not in the book",
                ));
                break;
            }
        }
        if let Some((token, client, state, but)) = broken {
            self.broken(|| format!("{token} is {state:?} for client {client}, but {but}"));
        }
    }
}
