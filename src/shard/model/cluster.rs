//! The members of a cluster, which share one state: which of them run, which is the leader, and their faults.

use std::time::Duration;

use super::agenda::SimEvent;
use super::plan::MEMBERS;
use super::world::World;

/// A member of a cluster.
#[derive(Clone, Copy, Debug)]
pub(super) struct SimMember {
    /// Whether its process runs.
    is_up: bool,
    /// Whether it is shutting down.
    drains: bool,
    /// Whether it is isolated from the others.
    is_cut_off: bool,
    /// A number that is new for each start.
    process: u32,
}

impl SimMember {
    fn new(process: u32) -> Self {
        Self {
            is_up: true,
            drains: false,
            is_cut_off: false,
            process,
        }
    }

    pub(super) fn process(&self) -> u32 {
        self.process
    }

    /// Returns whether it is shutting down, which ends the queue positions of requests that block there.
    pub(super) fn drains(&self) -> bool {
        self.drains
    }

    /// Returns whether it accepts connections.
    pub(super) fn admits(&self) -> bool {
        self.is_up && !self.drains
    }
}

impl World {
    pub(super) fn is_cluster(&self) -> bool {
        self.plan.terms.cluster.is_some()
    }

    /// Starts the members of a cluster.
    pub(super) fn start_all_members(&mut self) {
        if self.is_cluster() {
            self.members = (0..u32::from(MEMBERS)).map(SimMember::new).collect();
            self.led_by = self.leader();
            self.note_leader();
        }
    }

    /// Returns the leader.
    pub(super) fn leader(&self) -> Option<usize> {
        self.server.as_ref()?.leader()
    }

    /// Causes a fault of a member or of the leadership.
    pub(super) fn cluster_fault(&mut self) {
        match self.rng.u8(0..14) {
            0..=2 => self.move_leader(),
            3 => self.lead(None),
            4 | 5 => {
                let member = self.leader().filter(|_| self.rng.u8(0..4) > 0);
                let member = member.unwrap_or_else(|| self.rng.usize(0..self.members.len()));
                let is_silent = self.rng.u8(0..4) == 0;
                self.crash(member, is_silent);
            }
            6 => self.misdirect(),
            7 | 8 => {
                let member = self.leader().unwrap_or_default();
                self.drain_member(member);
            }
            9 | 10 => {
                if let Some(server) = &mut self.server {
                    server.fall_in_flight();
                }
            }
            11 | 12 => {
                let member = self.leader().filter(|_| self.rng.u8(0..4) > 0);
                let member = member.unwrap_or_else(|| self.rng.usize(0..self.members.len()));
                self.isolate(member);
            }
            _ => {}
        }
    }

    /// Isolates a member for a while.
    fn isolate(&mut self, member: usize) {
        let now = self.now();
        let Some(server) = &mut self.server else { return };
        if !self.members[member].admits() || self.members.iter().any(|member| member.is_cut_off) {
            return;
        }
        self.trace.log(now, "member is cut off", &[member as u64], String::new);
        self.members[member].is_cut_off = true;
        server.isolate(member);
        self.after_server();
        self.add_in(Duration::from_secs(8), SimEvent::Rejoin(member));
    }

    pub(super) fn rejoin(&mut self, member: usize) -> bool {
        let now = self.now();
        let (Some(server), Some(at)) = (&mut self.server, self.members.get_mut(member)) else {
            return false;
        };
        if !std::mem::take(&mut at.is_cut_off) {
            return false;
        }
        self.trace.log(now, "member rejoins", &[member as u64], String::new);
        server.rejoin(member);
        self.after_server();
        true
    }

    /// Makes a member report a wrong leader, or none.
    fn misdirect(&mut self) {
        let member = self.rng.usize(0..self.members.len());
        let to = match self.rng.u8(0..3) {
            0 => Some("elsewhere:1".into()),
            1 => {
                let endpoints = self.plan.endpoints();
                let which = self.rng.usize(0..endpoints.len());
                Some(endpoints[which].shared_text().as_ref().into())
            }
            _ => None,
        };
        if let Some(server) = &mut self.server {
            server.redirect(member, to);
        }
    }

    fn move_leader(&mut self) {
        let others: Vec<usize> = self
            .candidates()
            .filter(|member| Some(*member) != self.leader())
            .collect();
        if !others.is_empty() {
            let to = others[self.rng.usize(0..others.len())];
            self.lead(Some(to));
        }
    }

    /// Returns the members that may become the leader.
    fn candidates(&self) -> impl Iterator<Item = usize> {
        let members = self.members.iter().enumerate();
        let candidates: Vec<usize> = members
            .filter(|(_, member)| member.admits() && !member.is_cut_off)
            .map(|(member, _)| member)
            .collect();
        candidates.into_iter()
    }

    fn lead(&mut self, to: Option<usize>) {
        let now = self.now();
        if self.server.is_none() {
            return;
        }
        let number = to.map_or(u64::MAX, |to| to as u64);
        self.trace.log(now, "leader", &[number], || format!("{to:?}"));
        self.note_leader();
        let Some(server) = &mut self.server else { return };
        server.lead(to, now);
        self.note_leader();
        self.after_server();
    }

    /// Records which process is the leader now.
    pub(super) fn note_leader(&mut self) {
        let now = self.now();
        if let Some(member) = self.leader().and_then(|leader| self.members.get(leader)) {
            self.book.leads(member.process, now);
        }
    }

    /// Notes that the leader may have changed.
    pub(super) fn note_change(&mut self) {
        let leader = self.leader();
        if leader == self.led_by {
            return;
        }
        self.led_by = leader;
        self.led_since = self.now();
        self.book.outlive();
        for index in 0..self.clients.len() {
            self.disturbed(index);
        }
        if leader.is_none() {
            self.add_in(Duration::from_secs(2), SimEvent::Elect);
        }
    }

    /// Elects a leader, if there is none.
    pub(super) fn elect(&mut self) -> bool {
        if self.leader().is_some() || self.server.is_none() {
            return false;
        }
        let candidates: Vec<usize> = self.candidates().collect();
        if candidates.is_empty() {
            self.add_in(Duration::from_secs(1), SimEvent::Elect);
            return true;
        }
        let to = candidates[self.rng.usize(0..candidates.len())];
        self.lead(Some(to));
        true
    }

    /// Ends a member at once. Its clients learn of it soon, or not at all.
    fn crash(&mut self, member: usize, is_silent: bool) {
        let now = self.now();
        if self.server.is_none() || !self.members[member].is_up {
            return;
        }
        self.note_leader();
        let numbers = [member as u64, u64::from(is_silent)];
        self.trace.log(now, "member ends", &numbers, String::new);
        self.members[member].is_up = false;
        let Some(server) = &mut self.server else { return };
        server.crash(member, now);
        self.wires_end(Some(member), is_silent);
        self.after_server();
        self.add_in(Duration::from_secs(4), SimEvent::StartMember(member));
    }

    /// Shuts down a member in an orderly way. If it is the leader, it stays the leader until it ends.
    fn drain_member(&mut self, member: usize) {
        let now = self.now();
        let Some(server) = &mut self.server else { return };
        if !self.members[member].admits() {
            return;
        }
        self.trace.log(now, "member drains", &[member as u64], String::new);
        self.members[member].drains = true;
        server.drain(member, now);
        self.after_server();
        for index in 0..self.clients.len() {
            self.disturbed(index);
        }
        self.add_in(Duration::from_secs(3), SimEvent::StopMember(member));
    }

    /// Ends a member that has waited for its clients.
    pub(super) fn stop_member(&mut self, member: usize) -> bool {
        let drains = self
            .members
            .get(member)
            .is_some_and(|member| member.is_up && member.drains);
        if drains {
            self.crash(member, false);
        }
        drains
    }

    pub(super) fn start_member(&mut self, member: usize) -> bool {
        let now = self.now();
        let (Some(server), Some(at)) = (&mut self.server, self.members.get_mut(member)) else {
            return false;
        };
        if at.is_up {
            return false;
        }
        *at = SimMember::new(at.process + u32::from(MEMBERS));
        server.begin(member);
        self.trace.log(now, "member starts", &[member as u64], String::new);
        true
    }

    /// Restores all members and elects a leader.
    pub(super) fn heal_cluster(&mut self) {
        for member in 0..self.members.len() {
            self.rejoin(member);
            self.stop_member(member);
            self.start_member(member);
            if let Some(server) = &mut self.server {
                server.redirect(member, None);
            }
        }
        self.elect();
    }

    /// Notes that a client's connection to a member has ended. If that member does not lead, the client had a fault
    /// until now.
    pub(super) fn left_member(&mut self, index: usize, member: usize) {
        if self.is_cluster() && self.leader() != Some(member) {
            self.disturbed(index);
        }
    }

    /// Notes a fault for each client with a connection to a member that does not lead, and for all clients while the
    /// leader shuts down.
    pub(super) fn look_at_leaders(&mut self) {
        if !self.is_cluster() {
            return;
        }
        let leader = self.leader();
        for index in 0..self.clients.len() {
            let mut wires = self.clients[index].lanes.values().filter_map(|lane| lane.wire);
            let elsewhere = |wire| self.network.get(wire).is_some_and(|wire| Some(wire.member) != leader);
            let is_about_to_end = leader.is_some_and(|leader| self.members[leader].drains);
            if is_about_to_end || wires.any(elsewhere) {
                self.disturbed(index);
            }
        }
    }
}
