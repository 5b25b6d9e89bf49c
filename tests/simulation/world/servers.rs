//! The servers of a shard: a standalone server, or the members of a cluster. All servers of a shard run on one host.

use std::future::ready;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dflockd_client::server::{Cluster, Event, EventKind, Server, ServerBuilder};
use dflockd_client::{Kind as ClientKind, Shard, Stats};

use super::history::record::{Entry, Kind, Line, Name, ServerId, ServerStarted, What};
use super::host::{Host, HostClock};
use super::net::{HostId, Network, Time};
use super::plan::ShardPlan;
use super::stream::SimListener;

pub struct Servers {
    number: usize,
    id: HostId,
    plan: ShardPlan,
    read_timeout: Duration,
    network: Network,
    pub addresses: Vec<SocketAddr>,
    host: Option<Host>,
    running: Arc<Mutex<Running>>,
    starts: u64,
    name: Name,
    /// The recorded events of the servers.
    lines: Arc<Mutex<Vec<Line>>>,
}

#[derive(Default)]
enum Running {
    #[default]
    None,
    Single(Server),
    Cluster(Arc<Cluster>),
    /// The standalone server is shutting down gracefully.
    Draining,
    /// The standalone server has shut down gracefully.
    Drained,
}

impl Servers {
    pub fn new(number: usize, id: HostId, plan: ShardPlan, read_timeout: Duration, network: &Network) -> Self {
        let addresses = (0..plan.members).map(|member| {
            let ip = Ipv4Addr::new(10, 0, number as u8 + 1, member as u8 + 1);
            SocketAddr::new(IpAddr::V4(ip), 6388)
        });
        Self {
            number,
            id,
            addresses: addresses.collect(),
            plan,
            read_timeout,
            network: network.clone(),
            host: None,
            running: Arc::default(),
            starts: 0,
            name: Name::from(""),
            lines: Arc::default(),
        }
    }

    /// Returns the shard as clients configure it.
    pub fn shard(&self) -> Shard {
        let addresses = self.addresses.iter().map(SocketAddr::to_string);
        match self.plan.is_cluster {
            false => Shard::single(self.addresses[0].to_string()),
            true => match self.plan.orphan_ttl {
                None => Shard::cluster(addresses),
                Some(ttl) => Shard::cluster(addresses).orphan_ttl(ttl),
            },
        }
    }

    pub fn id(&self) -> HostId {
        self.id
    }

    /// Returns whether the host has reached the connection limit of its servers.
    pub fn are_full(&self) -> bool {
        let most = self.plan.max_connections;
        most > 0 && self.network.connections_of(self.id) >= most
    }

    pub fn is_cluster(&self) -> bool {
        self.plan.is_cluster
    }

    pub fn is_up(&self) -> bool {
        self.host.is_some()
    }

    pub fn host(&mut self) -> Option<&mut Host> {
        self.host.as_mut()
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, at: Time, what: What) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push(Line { at, what });
    }

    fn options(&self, now: Time, clock: HostClock) -> ServerBuilder {
        let plan = &self.plan;
        let (name, lines) = (self.name.clone(), Arc::clone(&self.lines));
        let builder = Server::builder()
            .max_locks(plan.max_locks)
            .max_waiters(plan.max_waiters)
            .max_connections(plan.max_connections)
            .auto_release_on_disconnect(plan.auto_release)
            .orphan_ttl(plan.orphan_ttl.unwrap_or_default())
            .signal_buffer(plan.signal_buffer)
            .read_timeout(self.read_timeout)
            .shutdown_timeout(plan.shutdown_timeout)
            .on_event(move |event| {
                let line = line(&name, clock, event);
                lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            })
            .seed((1_000_000_000_000 + now) * 4 + self.number as u64);
        builder.release(plan.release)
    }

    /// Starts the servers with empty state.
    pub fn start(&mut self, now: Time) {
        let host = Host::begin(now);
        let (network, id) = (self.network.clone(), self.id);
        self.starts += 1;
        let succeeds = (self.starts > 1).then(|| self.name.clone());
        self.name = Name::from(format!("s{}.{}", self.number, self.starts));
        let server = self.name.clone();
        self.note(now, What::ServerStarted(ServerStarted { server, succeeds }));
        let options = self.options(now, host.clock());
        let started = match self.plan.is_cluster {
            false => {
                let address = self.addresses[0];
                let listener = SimListener::bind(&network, id, address).expect("the address is taken");
                Running::Single(
                    host.block_on(options.start_on(listener, address))
                        .expect("the server does not start"),
                )
            }
            true => {
                let listen = move |address| ready(SimListener::bind(&network, id, address));
                let builder = Cluster::builder().options(options);
                let started = host.block_on(builder.start_on(self.addresses.clone(), listen));
                Running::Cluster(Arc::new(started.expect("the cluster does not start")))
            }
        };
        self.host = Some(host);
        self.running = Arc::new(Mutex::new(started));
    }

    /// Kills the servers.
    pub fn end(&mut self, now: Time) {
        let Some(host) = self.host.take() else { return };
        self.network.close_all(self.id);
        if !self.is_drained() {
            let server = self.name.clone();
            self.note(now, What::ServerEnded(ServerId { server }));
        }
        let running = std::mem::take(&mut *self.running());
        {
            let _inside = host.enter();
            drop(running);
        }
    }

    /// Begins the graceful shutdown of a standalone server. Returns whether a standalone server was running.
    pub fn drain(&self) -> bool {
        let Some(host) = &self.host else { return false };
        let slot = Arc::clone(&self.running);
        let server = {
            let mut running = self.running();
            match std::mem::replace(&mut *running, Running::Draining) {
                Running::Single(server) => server,
                other => {
                    *running = other;
                    return false;
                }
            }
        };
        let (name, lines, clock) = (self.name.clone(), Arc::clone(&self.lines), host.clock());
        host.spawn(async move {
            server.shutdown().await;
            let at = clock.now();
            let what = What::ServerEnded(ServerId { server: name });
            lines
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(Line { at, what });
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Running::Drained;
        });
        true
    }

    /// Returns whether the servers were killed, or the standalone server has shut down gracefully.
    pub fn has_ended(&self) -> bool {
        self.host.is_none() || self.is_drained()
    }

    fn is_drained(&self) -> bool {
        matches!(&*self.running(), Running::Drained)
    }

    pub fn is_draining(&self) -> bool {
        matches!(&*self.running(), Running::Draining)
    }

    pub fn cluster(&self) -> Option<Arc<Cluster>> {
        match &*self.running() {
            Running::Cluster(cluster) => Some(Arc::clone(cluster)),
            _ => None,
        }
    }

    /// Calls `call` with the cluster, in the runtime of its host. Returns `None` if no cluster runs.
    pub fn with_cluster<R>(&self, call: impl FnOnce(&Cluster) -> R) -> Option<R> {
        let host = self.host.as_ref()?;
        let _inside = host.enter();
        Some(call(&*self.cluster()?))
    }

    pub fn stats(&self) -> Option<Stats> {
        let host = self.host.as_ref()?;
        let _inside = host.enter();
        match &*self.running() {
            Running::Single(server) => Some(server.stats()),
            Running::Cluster(cluster) => Some(cluster.stats()),
            Running::None | Running::Draining | Running::Drained => None,
        }
    }

    pub fn take_lines(&mut self) -> Vec<Line> {
        std::mem::take(&mut self.lines.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn line(server: &Name, clock: HostClock, event: &Event) -> Line {
    let entry = Entry {
        server: server.clone(),
        connection: event.connection,
        kind: match event.namespace {
            ClientKind::Lock => Kind::Lock,
            ClientKind::Semaphore => Kind::Semaphore,
        },
        key: Name::from(event.key.as_str()),
        limit: event.limit,
        token: event.token.as_ref().and_then(|token| token.as_str().parse().ok()),
        fence: event.fence.map(|fence| fence.0),
        place: event.place,
        ends: event.ends.map(|ends| clock.time_of(ends)),
    };
    let what = match event.kind {
        EventKind::Queued => What::Queued(entry),
        EventKind::Left => What::Left(entry),
        EventKind::Granted => What::Granted(entry),
        EventKind::Collected => What::Collected(entry),
        EventKind::Renewed => What::Renewed(entry),
        EventKind::RenewalRefused => What::RenewalRefused(entry),
        EventKind::Released => What::Released(entry),
        EventKind::Disconnected => What::Disconnected(entry),
        EventKind::Expired => What::Expired(entry),
        EventKind::Orphaned => What::Orphaned(entry),
        EventKind::Reclaimed => What::Reclaimed(entry),
        EventKind::Forgotten => What::Forgotten(entry),
        _ => panic!("an event that the simulation does not know: {event:?}"),
    };
    Line {
        at: clock.time_of(event.at),
        what,
    }
}
