//! Several servers on one state: who leads, what the others say, and what becomes of things when that changes.
//!
//! A change of leaders changes nothing of what is held and waited for. Connections to the former leader stay open, and go on owning
//! what they have; requests that block there may still be granted, since every member sees every grant.

use std::net::SocketAddr;

use tokio::time::Instant;

use super::entry::Blocked;
use super::partition::Partition;
use super::report::Report;
use super::trouble::Trouble;
use super::{ConnectionId, KeyId, State};
use crate::protocol::{RawRequest, Response, Status};
use crate::server::event::EventKind;
use crate::stats::ClusterStats;

/// What members know of each other.
pub(in crate::server) struct MemberTable {
    leader: Option<usize>,
    /// How many leaders there were before.
    term: u64,
    /// How many entries the log has.
    entries: u64,
    addresses: Vec<Box<str>>,
    /// The process that each member is now.
    processes: Vec<u64>,
    /// The members that are shutting down.
    draining: Vec<usize>,
    /// What each member says in place of the leader's address, if it was told to.
    redirects: Vec<Option<Box<str>>>,
    pub(in crate::server) trouble: Trouble,
    pub(super) partition: Partition,
}

/// What a member is to those who ask it.
pub(super) enum Standing {
    Leads,
    Follows,
    /// It leads no more, and cannot know it.
    BelievesToLead,
}

impl MemberTable {
    pub(super) fn new(addresses: Vec<SocketAddr>) -> Self {
        Self {
            leader: Some(0),
            term: 0,
            entries: 0,
            redirects: vec![None; addresses.len()],
            processes: (0..addresses.len() as u64).collect(),
            draining: Vec::new(),
            addresses: addresses.iter().map(|address| address.to_string().into()).collect(),
            trouble: Trouble::default(),
            partition: Partition::default(),
        }
    }

    pub(super) fn standing(&self, member: usize) -> Standing {
        match self.leader {
            Some(leader) if leader == member => Standing::Leads,
            _ if self.partition.term_of_belief(member).is_some() => Standing::BelievesToLead,
            _ => Standing::Follows,
        }
    }

    /// The leader that a member knows of.
    fn leader_known_to(&self, member: usize) -> Option<usize> {
        match self.partition.cuts_off(member) {
            true => self.partition.term_of_belief(member).map(|_| member),
            false => self.leader,
        }
    }

    /// Where a member says that the leader is.
    fn leader_according_to(&self, member: usize) -> Option<&str> {
        let told = self.redirects.get(member).and_then(Option::as_ref);
        let known = self.leader_known_to(member);
        let leads = known.and_then(|leader| self.addresses.get(leader));
        match known {
            Some(leader) if leader == member => leads,
            _ => told.or(leads),
        }
        .map(|address| &**address)
    }

    /// What a member says of the cluster in its `stats`. It has no snapshots.
    fn seen_by(&self, member: usize) -> ClusterStats {
        let known = self.leader_known_to(member);
        let role = match known {
            Some(leader) if leader == member => "leader",
            None if self.partition.cuts_off(member) => "pre-candidate",
            _ => "follower",
        };
        ClusterStats {
            node_id: node_id(member),
            role: role.to_owned(),
            term: self.partition.term_of_belief(member).unwrap_or(self.term) + 1,
            leader_id: known.map(node_id).unwrap_or_default(),
            leader_addr: self.leader_according_to(member).map(str::to_owned),
            commit_index: self.entries,
            last_log_index: self.entries,
            voters: (0..self.addresses.len()).map(node_id).collect(),
            ..ClusterStats::default()
        }
    }

    pub(super) fn refusal_of(&self, member: usize) -> Response {
        Response::Refused(Status::NotLeader(self.leader_according_to(member).map(Box::from)))
    }

    /// What a member says in place of the leader's address.
    pub(in crate::server) fn redirect(&mut self, member: usize, to: Option<Box<str>>) {
        if let Some(redirect) = self.redirects.get_mut(member) {
            *redirect = to;
        }
    }

    /// Whether a member reaches the others.
    pub(in crate::server) fn reaches(&self, member: usize) -> bool {
        !self.partition.cuts_off(member)
    }

    /// A member starts again: what its connections had is another process's.
    pub(in crate::server) fn begin_process(&mut self, member: usize) {
        let next = self.processes.iter().max().map_or(0, |last| last + 1);
        if let Some(process) = self.processes.get_mut(member) {
            *process = next;
        }
        self.draining.retain(|draining| *draining != member);
    }

    pub(super) fn process(&self, member: usize) -> u64 {
        self.processes.get(member).copied().unwrap_or_default()
    }

    pub(super) fn append(&mut self) {
        self.entries += 1;
    }

    /// Takes leadership from whichever member has it.
    fn take_leadership(&mut self) {
        self.term += u64::from(self.leader.take().is_some());
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

    /// Whether there is a member that may change the state.
    pub(super) fn is_led(&self) -> bool {
        self.membership.is_none() || self.leader().is_some()
    }

    /// How many connections to one member are open.
    pub(super) fn connections_to(&self, member: usize) -> usize {
        if self.membership.is_none() {
            return self.clients.len();
        }
        let clients = self.clients.values();
        clients.filter(|client| client.member == member).count()
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
        if membership.leader == Some(to) {
            return;
        }
        membership.take_leadership();
        membership.leader = Some(to);
        // It begins with an entry of its own.
        membership.append();
        self.take_over(now);
    }

    /// From now on no member leads.
    pub(in crate::server) fn depose(&mut self) {
        if let Some(membership) = &mut self.membership {
            membership.take_leadership();
        }
    }

    /// A member is to end at once. If it leads, no member does from now on.
    pub(in crate::server) fn crash(&mut self, member: usize) {
        if let Some(membership) = self.membership.as_mut().filter(|table| table.leader == Some(member)) {
            membership.take_leadership();
        }
    }

    /// A member loses sight of the others. If it leads, it goes on believing so.
    pub(in crate::server) fn isolate(&mut self, member: usize) {
        let Some(membership) = &mut self.membership else { return };
        let term = membership.term;
        let led = membership.leader == Some(member);
        if led {
            membership.take_leadership();
        }
        membership.partition.cut_off(member, led.then_some(term));
    }

    /// A member sees the others again: it learns who leads, and which grants were made meanwhile.
    pub(in crate::server) fn rejoin(&mut self, member: usize) {
        let Some(membership) = &mut self.membership else { return };
        let healed = membership.partition.heal(member);
        let refusal = membership.refusal_of(member);
        for told in healed.hung {
            drop(told.send(refusal.clone()));
        }
        for (told, grant) in healed.grants {
            drop(told.send(grant));
        }
    }

    /// A member shuts down: requests that block there are answered with `error`, and what comes next is turned away.
    pub(super) fn drain_member(&mut self, member: usize, now: Instant) {
        let Some(membership) = &mut self.membership else { return };
        membership.draining.push(member);
        for (connection, blocked) in self.blocked_at(member) {
            if let Some(client) = self.clients.get_mut(&connection) {
                client.waits = None;
            }
            self.tell(member, &blocked, &Response::Refused(Status::Error));
            self.cancel(connection, &blocked, now);
        }
    }

    /// Whether a connection leads to a member that is shutting down.
    pub(super) fn is_at_draining_member(&self, connection: ConnectionId) -> bool {
        let (members, client) = (&self.membership, self.clients.get(&connection));
        let member = client.map(|client| client.member);
        members
            .as_ref()
            .zip(member)
            .is_some_and(|(members, member)| members.draining.contains(&member))
    }

    /// The requests that block at a member, in the order of their places.
    fn blocked_at(&self, member: usize) -> Vec<(ConnectionId, Blocked)> {
        let clients = self.clients.iter().filter(|(_, client)| client.member == member);
        let blocked = clients.filter_map(|(connection, client)| Some((*connection, client.waits.clone()?)));
        let mut blocked: Vec<(ConnectionId, Blocked)> = blocked.collect();
        blocked.sort_unstable_by_key(|(connection, blocked)| (blocked.place, *connection));
        blocked
    }

    /// Answers the requests that block at a place, by one member. The place stays.
    fn tell(&mut self, member: usize, blocked: &Blocked, response: &Response) {
        let entry = self.entries.get_mut(blocked.subject);
        let Some(waiter) = entry.and_then(|entry| entry.waiters.get_mut(&blocked.place)) else {
            return;
        };
        for (at, told) in std::mem::take(&mut waiter.told) {
            match at == member {
                true => drop(told.send(response.clone())),
                false => waiter.told.push((at, told)),
            }
        }
    }

    /// A new leader begins.
    fn take_over(&mut self, now: Instant) {
        let Some(membership) = &self.membership else { return };
        let (refs, tokens) = membership.trouble.forgets();
        if refs {
            self.forget_refs(now);
        }
        if tokens {
            for ((_, lease), subject) in self.ends.clone() {
                self.end_lease(subject, lease, EventKind::Forgotten, now);
            }
        }
        // Time went on while no member led.
        self.expire(now);
    }

    /// No session is known any more: places are given up, and leases run on until their TTL.
    fn forget_refs(&mut self, now: Instant) {
        for client in self.clients.values_mut() {
            client.holds.clear();
            client.tickets.clear();
        }
        let mut places: Vec<(KeyId, u64, ConnectionId)> = Vec::new();
        for (subject, entry) in self.entries.iter_mut() {
            for holder in &mut entry.holders {
                holder.claim.forget();
            }
            let waiters = entry.waiters.iter();
            places.extend(waiters.map(|(place, waiter)| (subject, *place, waiter.connection)));
        }
        places.sort_unstable_by_key(|(_, place, _)| *place);
        for (subject, place, connection) in places {
            self.leave(connection, subject, place, now);
        }
    }
}

/// The name of a member.
fn node_id(member: usize) -> String {
    format!("n{member}")
}

/// Whether a request may change the state, or must see all changes.
pub(super) fn is_the_leaders(request: &RawRequest<'_>) -> bool {
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
