//! Begins and ends the faults of a world.

use super::history::record::{Name, Trouble, What as Recorded};
use super::net::{Cut, SECOND, Time, Where};
use super::plan::{Fault, What};
use super::world::World;

impl World {
    pub(super) fn begin_fault(&mut self, number: usize, fault: &Fault, now: Time) {
        self.trace.note(
            now,
            format_args!("fault {number}: {:?} until {:.3}", fault.what, fault.until as f64 / 1e6),
        );
        self.note(now, Recorded::TroubleBegun(trouble(number, fault)));
        let is_first = !self.is_under_way(fault.what);
        self.under_way.insert(number, fault.what);
        if self.apply(fault.what, is_first, now) {
            *self.faults.entry(fault.what.name()).or_default() += 1;
        }
    }

    /// Returns whether a lasting fault with the same victim is under way.
    fn is_under_way(&self, what: What) -> bool {
        let victim = what.victim();
        victim.is_some() && self.under_way.values().any(|other| other.victim() == victim)
    }

    /// Applies a fault. Returns whether it took effect. For example, a fault has no effect on a host that is down.
    fn apply(&mut self, what: What, is_first: bool, now: Time) -> bool {
        match what {
            What::Partition { client, shard, .. }
            | What::PartitionUp { client, shard, .. }
            | What::PartitionDown { client, shard, .. }
            | What::Delay { client, shard, .. }
            | What::Narrow { client, shard, .. }
            | What::ReorderConnects { client, shard }
            | What::RefuseConnects { client, shard, .. }
            | What::HangConnects { client, shard, .. } => return self.set_links(client, shard),
            What::Cut {
                client,
                shard,
                member,
                place,
                cut,
            } => {
                let address = self.servers[shard].addresses[member];
                let host = self.clients[client].id();
                let is_cut = self.network.cut(host, address, place, cut);
                // A cut at `Bytes(0)` happens now and counts here. The network counts all other cuts when they happen.
                return is_cut && matches!(place, Where::Bytes(0));
            }
            What::KillServer { shard } => {
                let was_up = self.servers[shard].is_up();
                self.servers[shard].end(now);
                return was_up;
            }
            What::LoseServer { shard } => {
                let was_up = self.servers[shard].is_up();
                self.network.take_down(self.servers[shard].id());
                self.servers[shard].end(now);
                return was_up;
            }
            What::DrainServer { shard } => return self.servers[shard].drain(),
            What::FreezeServer { shard } => {
                let Some(host) = self.servers[shard].host() else {
                    return false;
                };
                host.freeze();
            }
            What::KillMember { shard, member } => self.spawn_with_cluster(shard, move |cluster| async move {
                drop(cluster.stop(member).await);
            }),
            What::DrainMember { shard, member } => self.spawn_with_cluster(shard, move |cluster| async move {
                drop(cluster.shutdown(member).await);
            }),
            What::MoveLeader { shard, member } => {
                let moved = self.servers[shard]
                    .with_cluster(|cluster| cluster.leader() != Some(member) && cluster.move_leader(member).is_ok());
                return moved == Some(true);
            }
            What::MoveLeaderInFlight { shard, member } => {
                let moves = self.servers[shard].with_cluster(|cluster| {
                    let leader = cluster.leader();
                    let moves = leader.is_some() && leader != Some(member);
                    moves && cluster.move_leader_in_flight(Some(member)).is_ok()
                });
                return moves == Some(true);
            }
            What::Depose { shard } => {
                let deposed = self.servers[shard].with_cluster(|cluster| {
                    let led = cluster.leader().is_some();
                    cluster.depose();
                    led
                });
                return deposed == Some(true);
            }
            What::IsolateLeader { shard } => {
                let isolated = self.servers[shard].with_cluster(|cluster| {
                    let leader = cluster.leader()?;
                    cluster.isolate(leader).ok()?;
                    cluster.move_leader((leader + 1) % 3).ok()
                });
                return isolated.flatten().is_some();
            }
            What::FreezeClient { client } => {
                let was_up = self.clients[client].is_up();
                self.clients[client].freeze(now);
                return is_first && was_up;
            }
            What::KillClient { client } => {
                let was_up = self.clients[client].is_up();
                self.clients[client].kill(now);
                return was_up;
            }
            What::LoseClient { client } => {
                let was_up = self.clients[client].is_up();
                self.network.take_down(self.clients[client].id());
                self.clients[client].kill(now);
                return was_up;
            }
            What::EndRuntime { client } => {
                let was_up = self.clients[client].is_up();
                self.violations.extend(self.clients[client].end_runtime(now));
                return was_up;
            }
            What::ShutDownClient { client } => return self.clients[client].shut_down(),
        }
        is_first
    }

    pub(super) fn end_fault(&mut self, number: usize, fault: &Fault, now: Time) {
        self.trace.note(now, format_args!("end of fault {number}"));
        self.under_way.remove(&number);
        // While another fault with the same victim is under way, the victim stays disabled.
        if !self.is_under_way(fault.what) {
            self.undo(fault.what, now);
        }
        self.lingering
            .push((now + self.lingers(fault.what), trouble(number, fault)));
    }

    /// Returns how long a fault may have effects after its end.
    fn lingers(&self, what: What) -> Time {
        match what {
            // Within this time, the client closes the silent connection.
            What::Cut {
                client,
                cut: Cut::Silence,
                ..
            } => self.silence(client) + SECOND / 2,
            // Within 2 s, the TCP keepalive of the peers detects that the machine has lost its connections.
            What::LoseServer { .. } | What::LoseClient { .. } => 3 * SECOND,
            // The graceful shutdown takes up to 3 s, and the server restarts only after it.
            What::DrainServer { .. } => 4 * SECOND,
            _ => 0,
        }
    }

    /// Records the end of each trouble that can no longer have effects.
    pub(super) fn end_troubles(&mut self) {
        let now = self.now;
        let (over, lingering) = std::mem::take(&mut self.lingering)
            .into_iter()
            .partition(|(until, _)| *until <= now);
        self.lingering = lingering;
        for (_, trouble) in over {
            self.note(now, Recorded::TroubleEnded(trouble));
        }
    }

    fn undo(&mut self, what: What, now: Time) {
        match what {
            What::Partition { client, shard, .. }
            | What::PartitionUp { client, shard, .. }
            | What::PartitionDown { client, shard, .. }
            | What::Delay { client, shard, .. }
            | What::Narrow { client, shard, .. }
            | What::ReorderConnects { client, shard }
            | What::RefuseConnects { client, shard, .. }
            | What::HangConnects { client, shard, .. } => {
                self.set_links(client, shard);
            }
            What::Cut {
                client, shard, member, ..
            } => {
                let address = self.servers[shard].addresses[member];
                self.network.call_off_cuts(self.clients[client].id(), address);
            }
            What::MoveLeader { .. } | What::MoveLeaderInFlight { .. } | What::ShutDownClient { .. } => {}
            What::KillServer { shard } | What::LoseServer { shard } | What::DrainServer { shard } => {
                self.restart(shard, now);
            }
            What::FreezeServer { shard } => {
                let host = self.servers[shard].host();
                if let Some(host) = host.filter(|host| host.is_frozen()) {
                    host.thaw(now);
                }
            }
            What::KillMember { shard, member } | What::DrainMember { shard, member } => {
                self.spawn_with_cluster(shard, move |cluster| async move {
                    drop(cluster.start(member).await);
                });
                self.ensure_leader(shard);
            }
            What::Depose { shard } => self.ensure_leader(shard),
            What::IsolateLeader { shard } => {
                self.servers[shard].with_cluster(|cluster| (0..3).for_each(|member| drop(cluster.rejoin(member))));
                self.ensure_leader(shard);
            }
            What::FreezeClient { client } => self.clients[client].thaw(now),
            What::KillClient { client } | What::LoseClient { client } | What::EndRuntime { client } => {
                self.network.bring_up(self.clients[client].id());
                if !self.clients[client].is_up() {
                    self.clients[client].start(now);
                }
            }
        }
    }

    /// Restarts the servers of a shard if they have ended. If they are still draining, schedules the restart.
    fn restart(&mut self, shard: usize, now: Time) {
        let servers = &mut self.servers[shard];
        if !servers.has_ended() {
            // The servers are still draining, or they are already running again.
            if servers.is_draining() {
                self.draining.insert(shard);
            }
            return;
        }
        self.draining.remove(&shard);
        self.network.bring_up(servers.id());
        servers.end(now);
        servers.start(now);
    }

    /// Restarts the servers whose restart is scheduled and which have finished draining.
    pub(super) fn restart_drained(&mut self, now: Time) {
        for shard in self.draining.clone() {
            self.restart(shard, now);
        }
    }

    /// Makes a member the leader if the cluster has no leader.
    pub(super) fn ensure_leader(&mut self, shard: usize) {
        self.servers[shard].with_cluster(|cluster| {
            if cluster.leader().is_none() {
                (0..3).find(|member| cluster.move_leader(*member).is_ok());
            }
        });
    }

    /// Ends all effects of faults. No fault begins after this.
    pub(super) fn end_all_faults(&mut self, now: Time) {
        self.network.heal();
        for shard in 0..self.servers.len() {
            let host = self.servers[shard].host();
            if let Some(host) = host.filter(|host| host.is_frozen()) {
                host.thaw(now);
            }
            self.restart_all(shard, now);
        }
        for client in 0..self.clients.len() {
            self.clients[client].thaw(now);
            self.network.bring_up(self.clients[client].id());
            if !self.clients[client].is_up() {
                self.clients[client].start(now);
            }
        }
    }

    /// Restarts the servers of a shard that have ended. In a cluster, also ends the isolation of members.
    fn restart_all(&mut self, shard: usize, now: Time) {
        if !self.servers[shard].is_cluster() {
            return self.restart(shard, now);
        }
        self.spawn_with_cluster(shard, |cluster| async move {
            for member in 0..3 {
                drop(cluster.start(member).await);
                drop(cluster.rejoin(member));
            }
        });
        self.ensure_leader(shard);
    }

    /// Sets the links of a client to a shard according to the faults under way. Returns whether a link changed.
    fn set_links(&mut self, client: usize, shard: usize) -> bool {
        let host = self.clients[client].id();
        let mut has_changed = false;
        for (member, address) in self.servers[shard].addresses.iter().enumerate() {
            let mut link = self.base;
            for what in self.under_way.values() {
                what.apply_to_link(&mut link, (client, shard, member));
            }
            has_changed |= self.network.link(host, *address) != link;
            self.network.set(host, *address, link);
        }
        has_changed
    }
}

fn trouble(number: usize, fault: &Fault) -> Trouble {
    Trouble {
        trouble: Name::from(format!("{number}: {}", fault.what.name())),
        server: None,
    }
}
