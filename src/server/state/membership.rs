//! Several servers on one state: who leads, what the others say, and what becomes of things when that changes.
//!
//! A change of leaders is the end of all connections as far as leases and queues are concerned, though they stay open: a
//! new leader knows none of them. What each had is left to a client that is absent (see [`orphans`](super::orphans)).

use std::net::SocketAddr;

use tokio::time::Instant;

use super::entry::Absence;
use super::report::Report;
use super::{ConnectionId, Peer, State};
use crate::clock::after;
use crate::protocol::{RawRequest, Response, Status};
use crate::server::event::EventKind;
use crate::server::ids::in_term;
use crate::stats::ClusterStats;

/// What members know of each other.
pub(in crate::server) struct MemberTable {
    leader: Option<usize>,
    /// How many leaders there were before.
    term: u64,
    addresses: Vec<Box<str>>,
    /// What each member says in place of the leader's address, if it was told to.
    redirects: Vec<Option<Box<str>>>,
    forgets_refs: bool,
    forgets_tokens: bool,
}

impl MemberTable {
    pub(super) fn new(addresses: Vec<SocketAddr>) -> Self {
        Self {
            leader: Some(0),
            term: 0,
            redirects: vec![None; addresses.len()],
            addresses: addresses.iter().map(|address| address.to_string().into()).collect(),
            forgets_refs: false,
            forgets_tokens: false,
        }
    }

    /// Where a member says that the leader is.
    fn leader_according_to(&self, member: usize) -> Option<&str> {
        let told = self.redirects.get(member).and_then(Option::as_ref);
        let leads = self.leader.and_then(|leader| self.addresses.get(leader));
        match self.leader {
            Some(leader) if leader == member => leads,
            _ => told.or(leads),
        }
        .map(|address| &**address)
    }

    /// What a member says of the cluster in its `stats`. There is no log here, so the indexes are 0.
    fn seen_by(&self, member: usize) -> ClusterStats {
        ClusterStats {
            node_id: node_id(member),
            role: if self.leader == Some(member) {
                "leader"
            } else {
                "follower"
            }
            .to_owned(),
            term: self.term + 1,
            leader_id: self.leader.map(node_id).unwrap_or_default(),
            leader_addr: self.leader_according_to(member).map(str::to_owned),
            voters: (0..self.addresses.len()).map(node_id).collect(),
            ..ClusterStats::default()
        }
    }

    fn refusal_of(&self, member: usize) -> Response {
        Response::Refused(Status::NotLeader(self.leader_according_to(member).map(Box::from)))
    }

    /// What a member says in place of the leader's address.
    pub(in crate::server) fn redirect(&mut self, member: usize, to: Option<Box<str>>) {
        if let Some(redirect) = self.redirects.get_mut(member) {
            *redirect = to;
        }
    }

    pub(in crate::server) fn forget_refs(&mut self, forgets: bool) {
        self.forgets_refs = forgets;
    }

    pub(in crate::server) fn forget_tokens(&mut self, forgets: bool) {
        self.forgets_tokens = forgets;
    }
}

impl State {
    /// For tests that give orders to a cluster.
    pub(in crate::server) fn membership(&mut self) -> Option<&mut MemberTable> {
        self.membership.as_mut()
    }

    /// Which member leads.
    pub(in crate::server) fn leader(&self) -> Option<usize> {
        self.membership.as_ref()?.leader
    }

    /// Whether there is somebody who may change the state.
    pub(super) fn is_led(&self) -> bool {
        self.membership.is_none() || self.leader().is_some()
    }

    /// How many connections are open.
    pub(super) fn connections(&self) -> usize {
        self.clients.len() - self.sessions.absent()
    }

    /// How many connections to one member are open.
    pub(super) fn connections_to(&self, member: usize) -> usize {
        if self.membership.is_none() {
            return self.connections();
        }
        let clients = self.clients.values();
        clients
            .filter(|client| client.member == member && client.absent.is_none())
            .count()
    }

    /// What a member that does not lead answers to a request that is the leader's to answer. And notes that something was
    /// asked for, whoever is to answer.
    pub(super) fn refused_by_member(&mut self, connection: ConnectionId, request: &RawRequest<'_>) -> Option<Response> {
        let client = self.clients.get_mut(&connection)?;
        client.has_asked |= matches!(request, RawRequest::Acquire { .. } | RawRequest::Enqueue { .. });
        let membership = self.membership.as_ref()?;
        let refused = is_the_leaders(request) && membership.leader != Some(client.member);
        refused.then(|| membership.refusal_of(client.member))
    }

    /// Adds what the member says that a connection leads to.
    pub(super) fn seen_by_member(&self, membership: &MemberTable, connection: ConnectionId, report: &mut Report) {
        let member = self.clients.get(&connection).map_or(0, |client| client.member);
        report.connections = self.connections_to(member) as u64;
        report.cluster = Some(Box::new(membership.seen_by(member)));
    }

    /// From now on this member leads.
    pub(in crate::server) fn lead(&mut self, to: usize, now: Instant) {
        let Some(membership) = &mut self.membership else { return };
        let before = membership.leader.replace(to);
        if before == Some(to) {
            return;
        }
        self.leave_behind(before, true, now);
        self.take_over(now);
    }

    /// From now on nobody leads.
    pub(in crate::server) fn depose(&mut self, now: Instant) {
        let before = self.membership.as_mut().and_then(|membership| membership.leader.take());
        self.leave_behind(before, true, now);
    }

    /// A member is to end at once: its connections get no more answers. If it leads, nobody does from now on.
    pub(in crate::server) fn crash(&mut self, member: usize, now: Instant) {
        let membership = self.membership.as_mut();
        let before = membership.and_then(|membership| membership.leader.take_if(|leader| *leader == member));
        self.leave_behind(before, false, now);
    }

    /// All that the connections to a member had is left to clients that are absent. Those that wait are told why.
    fn leave_behind(&mut self, member: Option<usize>, tell: bool, now: Instant) {
        let (Some(member), Some(membership)) = (member, &mut self.membership) else {
            return;
        };
        membership.term += 1;
        let clients = self.clients.iter();
        let connected = clients.filter(|(_, client)| client.member == member && client.absent.is_none());
        let mut connected: Vec<ConnectionId> = connected.map(|(connection, _)| *connection).collect();
        // In the same order always.
        connected.sort_unstable();
        for connection in connected {
            self.cut_off(connection, tell, now);
        }
    }

    fn cut_off(&mut self, connection: ConnectionId, tell: bool, now: Instant) {
        let (Some(membership), Some(client)) = (&self.membership, self.clients.get_mut(&connection)) else {
            return;
        };
        let name = in_term(connection, membership.term);
        let refusal = membership.refusal_of(client.member);
        let former = Peer {
            member: client.member,
            holds: std::mem::take(&mut client.holds),
            tickets: std::mem::take(&mut client.tickets),
            waits: client.waits.take(),
            session: client.session.clone(),
            has_asked: true,
            absent: Some(Absence::LeftBehind),
        };
        for (subject, lease) in &former.holds {
            let holders = self
                .entries
                .get_mut(subject)
                .into_iter()
                .flat_map(|entry| &mut entry.holders);
            for holder in holders.filter(|holder| holder.lease == *lease) {
                holder.connection = name;
            }
        }
        for (subject, place) in former.places() {
            let entry = self.entries.get_mut(&subject);
            if let Some(waiter) = entry.and_then(|entry| entry.waiters.get_mut(&place)) {
                waiter.connection = name;
                match waiter.told.take() {
                    Some(told) if tell => drop(told.send(refusal.clone())),
                    // Not told, the connection ends.
                    _ => {}
                }
            }
        }
        self.insert_former(name, former);
        if !self.orphan(name, Absence::LeftBehind, now) {
            self.give_up_all(name, now);
        }
    }

    /// A new leader begins.
    fn take_over(&mut self, now: Instant) {
        let Some(membership) = &self.membership else { return };
        let (forgets_refs, forgets_tokens) = (membership.forgets_refs, membership.forgets_tokens);
        if forgets_refs {
            for client in self.sessions.forget() {
                if let Some(client) = self.clients.get_mut(&client) {
                    client.absent = Some(Absence::LeftBehind);
                }
                self.give_up_all(client, now);
            }
        } else {
            // It has to wait as long as one that was there when they went.
            self.sessions.restart(after(now, self.options.orphan_ttl));
        }
        if forgets_tokens {
            for (_, lease, subject) in self.ends.clone() {
                self.disown(&subject, lease);
                self.end_lease(&subject, lease, EventKind::Forgotten, now);
            }
        }
        // Time went on while nobody led.
        self.expire(now);
    }
}

/// The name of a member.
fn node_id(member: usize) -> String {
    format!("n{member}")
}

/// Whether a request may change the state, or must see all changes.
fn is_the_leaders(request: &RawRequest<'_>) -> bool {
    match request {
        RawRequest::Acquire { .. }
        | RawRequest::Enqueue { .. }
        | RawRequest::Wait { .. }
        | RawRequest::Release { .. }
        | RawRequest::Renew { .. }
        | RawRequest::Barrier => true,
        RawRequest::Auth { .. }
        | RawRequest::Stats
        | RawRequest::Ping
        | RawRequest::StableRef { .. }
        | RawRequest::Listen { .. }
        | RawRequest::Unlisten { .. }
        | RawRequest::Signal { .. } => false,
    }
}

#[cfg(test)]
mod tests;
