//! Several servers that share one state: which member leads, what the others answer, and what a change of the leader does.
//!
//! A change of the leader does not change leases and queues. Connections to the former leader stay open and keep their
//! leases and queue positions; requests that block there can still be granted, because every member sees every grant.

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

/// The members of a cluster, and what they know of each other.
pub(in crate::server) struct MemberTable {
    leader: Option<usize>,
    /// The number of former leaders.
    term: u64,
    /// The number of entries in the log.
    entries: u64,
    addresses: Vec<Box<str>>,
    /// The number of each member's current process.
    processes: Vec<u64>,
    /// The members that are shutting down.
    draining: Vec<usize>,
    /// The address that each member names instead of the leader's, if a test has set one.
    redirects: Vec<Option<Box<str>>>,
    pub(in crate::server) trouble: Trouble,
    pub(super) partition: Partition,
}

/// The role in which a member answers requests.
pub(super) enum Standing {
    Leads,
    Follows,
    /// The member does not lead any more, but cannot know it.
    BelievesItLeads,
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
            _ if self.partition.believed_term(member).is_some() => Standing::BelievesItLeads,
            _ => Standing::Follows,
        }
    }

    /// Returns the leader that a member knows of.
    fn leader_known_to(&self, member: usize) -> Option<usize> {
        match self.partition.cuts_off(member) {
            true => self.partition.believed_term(member).map(|_| member),
            false => self.leader,
        }
    }

    /// Returns the address that a member names as the leader's.
    fn leader_according_to(&self, member: usize) -> Option<&str> {
        let redirect = self.redirects.get(member).and_then(Option::as_ref);
        let known = self.leader_known_to(member);
        let leads = known.and_then(|leader| self.addresses.get(leader));
        match known {
            Some(leader) if leader == member => leads,
            _ => redirect.or(leads),
        }
        .map(|address| &**address)
    }

    /// Returns the description of the cluster that a member sends in its `stats`. It mentions no snapshots.
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
            term: self.partition.believed_term(member).unwrap_or(self.term) + 1,
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

    /// Sets the address that a member names instead of the leader's.
    pub(in crate::server) fn redirect(&mut self, member: usize, to: Option<Box<str>>) {
        if let Some(redirect) = self.redirects.get_mut(member) {
            *redirect = to;
        }
    }

    /// Returns whether a member reaches the others.
    pub(in crate::server) fn reaches(&self, member: usize) -> bool {
        !self.partition.cuts_off(member)
    }

    /// Starts a new process of a member. Leases and queue positions of its former connections still belong to the
    /// former process, so a connection of their session to the new process can reclaim them.
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

    /// Takes leadership from the current leader, if there is one.
    fn take_leadership(&mut self) {
        self.term += u64::from(self.leader.take().is_some());
    }
}

impl State {
    /// Gives tests access to the members, to change their behaviour.
    pub(in crate::server) fn membership(&mut self) -> Option<&mut MemberTable> {
        self.membership.as_mut()
    }

    /// Returns the number of the leader.
    pub(in crate::server) fn leader(&self) -> Option<usize> {
        self.membership.as_ref()?.leader
    }

    /// Returns whether some member can change the state.
    pub(super) fn is_led(&self) -> bool {
        self.membership.is_none() || self.leader().is_some()
    }

    /// Returns the number of open connections to one member.
    pub(super) fn connections_to(&self, member: usize) -> usize {
        if self.membership.is_none() {
            return self.clients.len();
        }
        let clients = self.clients.values();
        clients.filter(|client| client.member == member).count()
    }

    /// Adds the report of the member at the other end of a connection.
    pub(super) fn seen_by_member(&self, membership: &MemberTable, connection: ConnectionId, report: &mut Report) {
        let member = self.clients.get(&connection).map_or(0, |client| client.member);
        report.connections = self.connections_to(member) as u64;
        report.cluster = Some(Box::new(membership.seen_by(member)));
    }

    /// Makes a member the leader.
    pub(in crate::server) fn lead(&mut self, to: usize, now: Instant) {
        let Some(membership) = &mut self.membership else { return };
        if membership.leader == Some(to) {
            return;
        }
        membership.take_leadership();
        membership.leader = Some(to);
        // A leader starts with an entry of its own.
        membership.append();
        self.take_over(now);
    }

    /// Leaves the cluster without a leader.
    pub(in crate::server) fn depose(&mut self) {
        if let Some(membership) = &mut self.membership {
            membership.take_leadership();
        }
    }

    /// Prepares the sudden end of a member. If it leads, the cluster has no leader from now on.
    pub(in crate::server) fn crash(&mut self, member: usize) {
        if let Some(membership) = self.membership.as_mut().filter(|table| table.leader == Some(member)) {
            membership.take_leadership();
        }
    }

    /// Cuts a member off from the others. If it leads, it continues to believe that it leads.
    pub(in crate::server) fn isolate(&mut self, member: usize) {
        let Some(membership) = &mut self.membership else { return };
        let term = membership.term;
        let led = membership.leader == Some(member);
        if led {
            membership.take_leadership();
        }
        membership.partition.cut_off(member, led.then_some(term));
    }

    /// Reconnects a member to the others: it learns which member leads, and which grants were made in the meantime.
    pub(in crate::server) fn rejoin(&mut self, member: usize) {
        let Some(membership) = &mut self.membership else { return };
        let healed = membership.partition.heal(member);
        let refusal = membership.refusal_of(member);
        for reply in healed.hung {
            drop(reply.send(refusal.clone()));
        }
        for (reply, grant) in healed.grants {
            drop(reply.send(grant));
        }
    }

    /// Shuts a member down: requests that block there are answered with `error`, and further requests are refused.
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

    /// Returns whether the member at the other end of a connection is shutting down.
    pub(super) fn is_at_draining_member(&self, connection: ConnectionId) -> bool {
        let (members, client) = (&self.membership, self.clients.get(&connection));
        let member = client.map(|client| client.member);
        members
            .as_ref()
            .zip(member)
            .is_some_and(|(members, member)| members.draining.contains(&member))
    }

    /// Returns the requests that block at a member, in the order of their queue positions.
    fn blocked_at(&self, member: usize) -> Vec<(ConnectionId, Blocked)> {
        let clients = self.clients.iter().filter(|(_, client)| client.member == member);
        let blocked = clients.filter_map(|(connection, client)| Some((*connection, client.waits.clone()?)));
        let mut blocked: Vec<(ConnectionId, Blocked)> = blocked.collect();
        blocked.sort_unstable_by_key(|(connection, blocked)| (blocked.place, *connection));
        blocked
    }

    /// Answers the requests at a queue position that this member received. The queue position stays.
    fn tell(&mut self, member: usize, blocked: &Blocked, response: &Response) {
        let entry = self.entries.get_mut(blocked.subject);
        let Some(waiter) = entry.and_then(|entry| entry.waiters.get_mut(&blocked.place)) else {
            return;
        };
        for (at, reply) in std::mem::take(&mut waiter.replies) {
            match at == member {
                true => drop(reply.send(response.clone())),
                false => waiter.replies.push((at, reply)),
            }
        }
    }

    /// Starts the work of a new leader.
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
        // Leases can have expired while the cluster had no leader.
        self.expire(now);
    }

    /// Forgets all sessions: queue positions are given up, and leases run until their TTL.
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

/// Returns the name of a member.
fn node_id(member: usize) -> String {
    format!("n{member}")
}

/// Returns whether a request can change the state or must see all changes, so that only the leader answers it.
pub(super) fn only_leader_answers(request: &RawRequest<'_>) -> bool {
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
