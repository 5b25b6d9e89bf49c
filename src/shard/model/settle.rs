//! The end of a run: all faults end, callers release everything, and the tables of clients and servers must agree.

use std::time::Duration;

use super::agenda::SimEvent;
use super::plan::LONGEST_WAIT;
use super::world::World;
use crate::shard::ShardMachine;
use crate::shard::effect::Role;

/// The sizes of a shard's tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::shard) struct Books {
    pub(in crate::shard) leases: usize,
    pub(in crate::shard) held_by_key: usize,
    pub(in crate::shard) releases: usize,
    pub(in crate::shard) repeats: usize,
    pub(in crate::shard) waits_here: usize,
    pub(in crate::shard) waits_at_server: usize,
    pub(in crate::shard) has_waits: bool,
    pub(in crate::shard) places: usize,
    pub(in crate::shard) parked: usize,
    pub(in crate::shard) in_flight: usize,
    pub(in crate::shard) owned: usize,
    /// By role: the number of all connections, and of those that are up.
    pub(in crate::shard) connections: [(usize, usize); Role::ALL.len()],
}

impl ShardMachine {
    /// Returns the sizes.
    pub(super) fn books(&self) -> Books {
        let mut books = Books {
            leases: self.leases.ids().count(),
            held_by_key: self.leases.held_by_key(),
            releases: self.releases.under_way(),
            repeats: self.repeats.waiting(),
            waits_here: self.waits.local(),
            waits_at_server: self.waits.at_server(),
            has_waits: !self.waits.is_empty(),
            places: self.positions.len(),
            parked: self.parked.count(),
            ..Books::default()
        };
        (books.in_flight, books.owned) = self.connections.in_flight_and_owned();
        books.connections = Role::ALL.map(|role| {
            let count = self.connections.count(role);
            (count.all, count.up)
        });
        books
    }
}

impl World {
    /// Ends all faults. Then all clients are shut down, or all callers release what they have; after that, the tables
    /// must agree.
    pub(super) fn settle(&mut self) {
        self.heal();
        if self.rng.u8(0..3) == 0 {
            for index in 0..self.clients.len() {
                self.shut_down(index, Duration::from_secs(5));
            }
            let until = self.now() + Duration::from_secs(6);
            self.run_until(until, |world| world.clients.iter().all(|client| client.is_over));
            self.check_callers();
            self.let_go();
        } else {
            self.let_go();
        }
        let time = self.plan.kept_for()
            + self.plan.terms.read_timeout
            + self.plan.noticed_within()
            + self.plan.longest_lease() * 2;
        let until = self.now() + time + LONGEST_WAIT + self.plan.idle_timeout;
        self.run_until(until, |world| world.unsettled().is_none());
        if let Some(what) = self.unsettled() {
            return self.broken(|| format!("all faults have ended, but {what}"));
        }
        // By now, clients send only keepalives, so they end at once when they are shut down.
        for index in 0..self.clients.len() {
            self.shut_down(index, Duration::from_secs(5));
        }
        let is_over = |world: &Self| world.clients.iter().all(|client| client.is_over);
        let until = self.now() + self.plan.slack();
        self.run_until(until, is_over);
        if !is_over(self) {
            return self.broken(|| "clients that hold nothing were shut down, but did not end at once".to_owned());
        }
        // Over a wire that loses all data, the server does not learn of the end of a client.
        let until = self.now() + self.plan.slack() + self.plan.terms.read_timeout;
        let connections = |world: &Self| world.server.as_ref().map_or(0, |server| server.population().0);
        self.run_until(until, |world| connections(world) == 0);
        if connections(self) > 0 {
            self.broken(|| "all clients have ended, but the server has connections".to_owned());
        }
    }

    fn run_until(&mut self, until: tokio::time::Instant, mut is_enough: impl FnMut(&Self) -> bool) {
        let mut steps = 0_u32;
        while self.violation().is_none() && self.agenda.next_at().is_some_and(|at| at <= until) {
            self.step();
            steps += 1;
            if steps % 16 == 0 {
                self.callers.tidy();
                if is_enough(self) {
                    return;
                }
            }
        }
    }

    /// Makes all callers release everything.
    fn let_go(&mut self) {
        let now = self.now();
        let ids: Vec<_> = self.callers.calls.keys().copied().collect();
        for id in ids {
            self.add(now, SimEvent::Call(id));
            if let Some(call) = self.callers.calls.get_mut(&id) {
                call.until = now;
            }
        }
        self.callers.held.clear();
        self.callers.tickets.clear();
        self.notice_inputs();
    }

    /// Returns a description of the first disagreement, if there is one.
    fn unsettled(&self) -> Option<String> {
        if !self.callers.calls.is_empty() || !self.callers.abandoned.is_empty() || !self.callers.held.is_empty() {
            let calls: Vec<_> = self.callers.abandoned.iter().map(|abandoned| abandoned.call).collect();
            return Some(format!("callers wait, or have permits: {calls:?}"));
        }
        let (connections, leases, waiters) = self.server.as_ref()?.population();
        if leases + waiters > 0 {
            return Some(format!("the server has {leases} leases and {waiters} waiters"));
        }
        let mut up = 0;
        for client in self.clients.iter().filter(|client| !client.is_over) {
            let pipelined = self.plan.pipelined;
            let mut expected = Books::default();
            expected.connections[Role::Pipelined as usize] = (pipelined, pipelined);
            let books = client.books();
            if books != expected {
                return Some(format!("client {} has {books:?}", client.id.index));
            }
            if client.lanes.len() != pipelined {
                return Some(format!(
                    "client {} has {} connections",
                    client.id.index,
                    client.lanes.len()
                ));
            }
            up += pipelined;
        }
        (connections != up).then(|| format!("the server has {connections} connections, and its clients {up}"))
    }
}
