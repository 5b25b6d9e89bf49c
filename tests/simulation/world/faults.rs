//! Brings about what goes wrong, and puts it right again.

use std::net::SocketAddr;

use super::history::record::{Name, Trouble, What as Told};
use super::net::{Connects, Link, Time};
use super::plan::{Fault, What};
use super::world::World;

impl World {
    /// It happens.
    pub(super) fn begin_fault(&mut self, number: usize, fault: &Fault, now: Time) {
        self.trace.note(
            now,
            format_args!("fault {number}: {:?} until {:.3}", fault.what, fault.until as f64 / 1e6),
        );
        *self.faults.entry(fault.what.name()).or_default() += 1;
        self.note(now, Told::TroubleBegun(trouble(number, fault)));
        match fault.what {
            What::Partition { client, shard, member } => self.link(client, shard, Some(member), |link| {
                link.up_is_cut = true;
                link.down_is_cut = true;
            }),
            What::PartitionUp { client, shard, member } => {
                self.link(client, shard, Some(member), |link| link.up_is_cut = true);
            }
            What::PartitionDown { client, shard, member } => {
                self.link(client, shard, Some(member), |link| link.down_is_cut = true);
            }
            What::Delay { client, shard, by } => self.link(client, shard, None, |link| link.latency += by),
            What::Narrow {
                client,
                shard,
                bandwidth,
            } => {
                self.link(client, shard, None, |link| link.bandwidth = bandwidth);
            }
            What::ReorderConnects { client, shard } => {
                self.link(client, shard, None, |link| link.connect_jitter = 400_000_000);
            }
            What::RefuseConnects { client, shard, member } => {
                self.link(client, shard, Some(member), |link| link.connects = Connects::Refused);
            }
            What::HangConnects { client, shard, member } => {
                self.link(client, shard, Some(member), |link| link.connects = Connects::Hang);
            }
            What::Cut {
                client,
                shard,
                member,
                place,
                cut,
            } => {
                let address = self.servers[shard].addresses[member];
                let host = self.clients[client].id();
                self.network.cut(host, address, place, cut);
            }
            What::KillServer { shard } => self.servers[shard].end(now),
            What::LoseServer { shard } => {
                self.network.take_down(self.servers[shard].id());
                self.servers[shard].end(now);
            }
            What::DrainServer { shard } => self.servers[shard].drain(),
            What::FreezeServer { shard } => {
                if let Some(host) = self.servers[shard].host() {
                    host.freeze();
                }
            }
            What::StopMember { shard, member } => self.with_cluster(shard, move |cluster| async move {
                drop(cluster.stop(member).await);
            }),
            What::ShutDownMember { shard, member } => self.with_cluster(shard, move |cluster| async move {
                drop(cluster.shutdown(member).await);
            }),
            What::MoveLeader { shard, member } => {
                self.servers[shard].order(|cluster| drop(cluster.move_leader(member)));
            }
            What::MoveLeaderInFlight { shard, member } => {
                self.servers[shard].order(|cluster| drop(cluster.move_leader_in_flight(Some(member))));
            }
            What::Depose { shard } => {
                self.servers[shard].order(|cluster| cluster.depose());
            }
            What::IsolateLeader { shard } => {
                self.servers[shard].order(|cluster| {
                    if let Some(leader) = cluster.leader() {
                        drop(cluster.isolate(leader));
                        drop(cluster.move_leader((leader + 1) % 3));
                    }
                });
            }
            What::FreezeClient { client } => self.clients[client].freeze(now),
            What::KillClient { client } => self.clients[client].kill(now, false),
            What::LoseClient { client } => {
                self.network.take_down(self.clients[client].id());
                self.clients[client].kill(now, false);
            }
            What::EndRuntime { client } => self.clients[client].kill(now, true),
            What::ShutDownClient { client } => self.clients[client].shut_down(),
        }
    }

    /// It works again.
    pub(super) fn end_fault(&mut self, number: usize, fault: &Fault, now: Time) {
        self.trace.note(now, format_args!("end of fault {number}"));
        match fault.what {
            What::Partition { client, shard, member } => self.link(client, shard, Some(member), |link| {
                link.up_is_cut = false;
                link.down_is_cut = false;
            }),
            What::PartitionUp { client, shard, member } => {
                self.link(client, shard, Some(member), |link| link.up_is_cut = false);
            }
            What::PartitionDown { client, shard, member } => {
                self.link(client, shard, Some(member), |link| link.down_is_cut = false);
            }
            What::Delay { client, shard, .. } => {
                let latency = self.base.latency;
                self.link(client, shard, None, |link| link.latency = latency);
            }
            What::Narrow { client, shard, .. } => {
                let bandwidth = self.base.bandwidth;
                self.link(client, shard, None, |link| link.bandwidth = bandwidth);
            }
            What::ReorderConnects { client, shard } => self.link(client, shard, None, |link| link.connect_jitter = 0),
            What::RefuseConnects { client, shard, member } | What::HangConnects { client, shard, member } => {
                self.link(client, shard, Some(member), |link| link.connects = Connects::Served);
            }
            What::Cut { .. }
            | What::MoveLeader { .. }
            | What::MoveLeaderInFlight { .. }
            | What::ShutDownClient { .. } => {}
            What::KillServer { shard } | What::LoseServer { shard } | What::DrainServer { shard } => {
                self.restart(shard, now);
            }
            What::FreezeServer { shard } => {
                if let Some(host) = self.servers[shard].host()
                    && host.is_frozen()
                {
                    host.thaw(now);
                }
            }
            What::StopMember { shard, member } | What::ShutDownMember { shard, member } => {
                self.with_cluster(shard, move |cluster| async move {
                    drop(cluster.start(member).await);
                });
                self.lead(shard);
            }
            What::Depose { shard } => self.lead(shard),
            What::IsolateLeader { shard } => {
                self.servers[shard].order(|cluster| (0..3).for_each(|member| drop(cluster.rejoin(member))));
                self.lead(shard);
            }
            What::FreezeClient { client } => self.clients[client].thaw(now),
            What::KillClient { client } | What::LoseClient { client } | What::EndRuntime { client } => {
                self.network.bring_up(self.clients[client].id());
                if !self.clients[client].is_up() {
                    self.clients[client].start(now);
                }
            }
        }
        self.note(now, Told::TroubleEnded(trouble(number, fault)));
    }

    /// Starts servers that have ended.
    fn restart(&mut self, shard: usize, now: Time) {
        let servers = &mut self.servers[shard];
        if !servers.has_ended() {
            // It takes its time to end in order, or was started by another fault.
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

    /// Starts those servers again that took their time to end in order.
    pub(super) fn restart_drained(&mut self, now: Time) {
        for shard in self.draining.clone() {
            self.restart(shard, now);
        }
    }

    /// A member leads that can, if none does.
    pub(super) fn lead(&mut self, shard: usize) {
        self.servers[shard].order(|cluster| {
            if cluster.leader().is_none() {
                (0..3).find(|member| cluster.move_leader(*member).is_ok());
            }
        });
    }

    /// Everything works from now on.
    pub(super) fn end_all_faults(&mut self, now: Time) {
        self.network.heal();
        for shard in 0..self.servers.len() {
            if let Some(host) = self.servers[shard].host()
                && host.is_frozen()
            {
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

    /// Starts a shard's servers, or members, where they have ended.
    fn restart_all(&mut self, shard: usize, now: Time) {
        if !self.servers[shard].is_cluster() {
            return self.restart(shard, now);
        }
        self.with_cluster(shard, |cluster| async move {
            for member in 0..3 {
                drop(cluster.start(member).await);
                drop(cluster.rejoin(member));
            }
        });
        self.lead(shard);
    }

    fn link(&mut self, client: usize, shard: usize, member: Option<usize>, change: impl Fn(&mut Link)) {
        let host = self.clients[client].id();
        let addresses: Vec<SocketAddr> = match member {
            Some(member) => vec![self.servers[shard].addresses[member]],
            None => self.servers[shard].addresses.clone(),
        };
        for address in addresses {
            self.network.change(host, address, &change);
        }
    }
}

fn trouble(number: usize, fault: &Fault) -> Trouble {
    Trouble {
        trouble: Name::from(format!("{number}: {}", fault.what.name())),
        server: None,
    }
}
