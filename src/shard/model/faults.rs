//! The faults: wires that are cut, stall or lose data, servers that end, and clients whose tasks do not run.

use std::time::Duration;

use super::agenda::SimEvent;
use super::network::WireId;
use super::plan::{LONGEST_PAUSE, LONGEST_STALL, up_to};
use super::world::World;
use crate::shard::ids::LaneId;

impl World {
    /// Causes a fault and plans the next.
    pub(super) fn fault(&mut self) -> bool {
        let Some(pause) = self.plan.fault_pause.filter(|_| self.goes_on) else {
            return false;
        };
        self.add_in(pause, SimEvent::Fault);
        match self.rng.u8(0..20) {
            0..=5 => self.cut_one(),
            6..=9 => self.stall_one(),
            10 | 11 => self.partition_one(),
            12 | 13 | 19 if self.is_cluster() => self.cluster_fault(),
            12 => {
                let is_silent = self.rng.u8(0..4) == 0;
                self.kill_server(is_silent);
                self.add_in(Duration::from_secs(3), SimEvent::Start);
            }
            13 => self.drain_server(),
            14 | 15 => self.stall_a_client(LONGEST_STALL),
            16 => {
                let index = self.rng.usize(0..self.clients.len());
                if self.rng.u8(0..4) == 0 && !self.clients[index].is_over {
                    self.die(index);
                }
            }
            17 => {
                self.unreachable_until = self.now() + up_to(Duration::from_secs(2), &mut self.rng);
                for index in 0..self.clients.len() {
                    self.disturbed(index);
                }
            }
            18 => self.stall_a_client(LONGEST_PAUSE),
            _ => {}
        }
        true
    }

    /// Breaks a connection. Both ends, one, or neither is told.
    fn cut_one(&mut self) {
        if let Some(id) = self.network.any(&mut self.rng) {
            let (client_hears, server_hears) = (self.rng.u8(0..5) > 0, self.rng.u8(0..5) > 0);
            self.cut(id, client_hears, server_hears);
        }
    }

    fn cut(&mut self, id: WireId, client_hears: bool, server_hears: bool) {
        let now = self.now();
        let most = Duration::from_millis(if self.rng.bool() { 2 } else { 400 });
        let delays = [up_to(most, &mut self.rng), up_to(most, &mut self.rng)];
        let (is_cluster, found_dead) = (self.is_cluster(), self.plan.terms.read_timeout);
        let Some(wire) = self.network.get_mut(id) else { return };
        let kept = [self.rng.usize(0..=wire.up.len()), self.rng.usize(0..=wire.down.len())];
        let (client, lane) = (wire.client, wire.lane);
        let numbers = [
            client.index as u64,
            lane,
            u64::from(client_hears),
            u64::from(server_hears),
        ];
        self.trace.log(now, "wire is cut", &numbers, String::new);
        match server_hears {
            // This connection was cut before, so the member already learns of the end.
            _ if is_cluster && wire.up.is_dead() => {}
            true => {
                if let Some(at) = wire.up.reset(kept[0], now, delays[0]) {
                    self.add(at, SimEvent::Serve(id));
                }
            }
            // A member probes silent connections, and so detects a broken one later.
            false if is_cluster => {
                if let Some(at) = wire.up.reset(kept[0], now, found_dead) {
                    self.add(at, SimEvent::Serve(id));
                }
            }
            false => wire.up.swallow(kept[0]),
        }
        let Some(wire) = self.network.get_mut(id) else { return };
        match client_hears {
            true => {
                if let Some(at) = wire.down.reset(kept[1], now, delays[1]) {
                    self.wake_lane(client, lane, at);
                }
            }
            false => wire.down.swallow(kept[1]),
        }
        self.disturbed(client.index);
    }

    /// Stalls one or both directions of a wire for a while.
    fn stall_one(&mut self) {
        if let Some(id) = self.network.any(&mut self.rng) {
            let (up, down) = [(true, false), (false, true), (true, true)][self.rng.usize(0..3)];
            let most = if self.rng.bool() { 300 } else { 3_000 };
            let time = up_to(Duration::from_millis(most), &mut self.rng);
            self.stall(id, up, down, time);
        }
    }

    fn stall(&mut self, id: WireId, up: bool, down: bool, time: Duration) {
        let now = self.now();
        let until = now + time;
        let Some(wire) = self.network.get_mut(id) else { return };
        let (client, lane) = (wire.client, wire.lane);
        if up {
            wire.up.hold(until);
        }
        if down {
            wire.down.hold(until);
        }
        let numbers = [
            client.index as u64,
            lane,
            u64::from(up),
            u64::from(down),
            time.as_micros() as u64,
        ];
        self.trace.log(now, "wire stalls", &numbers, String::new);
        self.add(until, SimEvent::Serve(id));
        self.wake_lane(client, lane, until);
        self.disturbed_until(client.index, until);
    }

    /// Cuts a client off from the server for a while, on all connections.
    fn partition_one(&mut self) {
        let index = self.rng.usize(0..self.clients.len());
        let time = up_to(Duration::from_secs(4), &mut self.rng);
        self.unreachable_until = self.unreachable_until.max(self.now() + time);
        for id in self.network.ids() {
            if self.network.get(id).is_some_and(|wire| wire.client.index == index) {
                self.stall(id, true, true, time);
            }
        }
        for index in 0..self.clients.len() {
            self.disturbed_until(index, self.unreachable_until);
        }
    }

    /// Stops a client for a while: its runtime is busy, or its process is stopped. After that, its time has jumped.
    fn stall_a_client(&mut self, longest: Duration) {
        let index = self.rng.usize(0..self.clients.len());
        let until = self.now() + up_to(longest, &mut self.rng);
        let now = self.now();
        self.trace.log(now, "client stalls", &[index as u64], String::new);
        let client = &mut self.clients[index];
        client.stalled_until = client.stalled_until.max(until);
        self.disturbed_until(index, until);
    }

    fn disturbed_until(&mut self, index: usize, until: tokio::time::Instant) {
        let client = &mut self.clients[index];
        client.calm_since = client.calm_since.max(until);
    }

    /// Schedules the turns that were delayed until the end of a stall.
    fn wake_client(&mut self, index: usize) {
        let (now, client) = (self.now(), &self.clients[index]);
        let (id, lanes): (_, Vec<LaneId>) = (client.id, client.lanes.keys().copied().collect());
        self.add(now, SimEvent::Inputs(id));
        self.add(now, SimEvent::Tick(id));
        for lane in lanes {
            self.wake_lane(id, lane, now);
        }
    }

    /// Ends all faults; lost data stays lost.
    pub(super) fn heal(&mut self) {
        let now = self.now();
        self.goes_on = false;
        self.unreachable_until = now;
        for index in 0..self.clients.len() {
            self.clients[index].stalled_until = now;
            self.clients[index].calm_since = now;
            self.wake_client(index);
        }
        for id in self.network.ids() {
            let Some(wire) = self.network.get_mut(id) else { continue };
            let (client, lane) = (wire.client, wire.lane);
            let (up, down) = (wire.up.let_go(now), wire.down.let_go(now));
            for at in up {
                self.add(at, SimEvent::Serve(id));
            }
            for at in down {
                self.wake_lane(client, lane, at);
            }
        }
        if self.draining {
            self.kill_server(false);
        }
        self.start_server();
        self.heal_cluster();
    }
}
