//! A world: its hosts, its network, and the loop that moves its clock in slices.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dflockd_client::server::Cluster;
use fastrand::Rng;

use super::clients::{ClientProcess, Settings};
use super::history::record::{ConnectionId, HalfOpen, Line, Name, Trouble, What as Recorded};
use super::net::{Link, MS, Network, SECOND, Time};
use super::outcome::{Outcome, Report};
use super::panics;
use super::plan::{CUT_AFTER_A_LINE, CUT_IN_A_LINE, Plan, What};
use super::programs::Program;
use super::servers::Servers;
use super::trace::Trace;
use super::verdict;

pub(super) struct World {
    pub(super) network: Network,
    pub(super) trace: Trace,
    pub(super) base: Link,
    pub(super) servers: Vec<Servers>,
    pub(super) clients: Vec<ClientProcess>,
    /// The number of faults of each kind that took effect.
    pub(super) faults: BTreeMap<&'static str, u64>,
    /// The faults that have begun and not ended, by their index in the plan.
    pub(super) under_way: BTreeMap<usize, What>,
    /// Shards whose servers have been full in the last 5 s ([`FULL`]), and the last time at which they were full.
    full: BTreeMap<usize, Time>,
    /// The troubles whose faults have ended but may still have effects. A trouble is the record of a fault in the
    /// history. The time is the end of the effects.
    pub(super) lingering: Vec<(Time, Trouble)>,
    lines: Vec<Line>,
    random: Rng,
    /// Shards whose servers were still shutting down gracefully when their restart was due. The world restarts these
    /// servers after the shutdown.
    pub(super) draining: BTreeSet<usize>,
    plan: Plan,
    pub(super) now: Time,
    pub(super) violations: Vec<String>,
}

/// All programs and clients must end within this time after the plan's `programs_end`. It covers the longest wait of a
/// call, the shutdown of a client, and a margin.
const PATIENCE: Time = 60 * SECOND;

/// If leases end with their connections, all keys must be free within this time after the clients' connections have
/// closed. Most leases last longer than this, so their expiry alone would not free the keys in time.
const QUIET: Time = 2 * SECOND;

/// If leases outlive their connections, all keys must be free within this time. It covers the longest lease of a server
/// (33 s) and a margin. The history checker detects leases without a holder earlier.
const QUIET_AFTER_LEASES: Time = 60 * SECOND;

/// If a full server refuses a connection, the client tries again within this time.
const FULL: Time = 5 * SECOND;

/// If queue positions may outlive their clients, all keys must be free within this time. The server grants such queue
/// positions one after the other, and each grant lasts for a TTL.
const QUIET_AFTER_POSITIONS: Time = 10 * QUIET_AFTER_LEASES;

impl World {
    pub(super) fn new(seed: u64, keeps_trace: bool, planted: Option<Program>) -> Self {
        // The client draws its jitter from the generator of this thread.
        fastrand::seed(seed);
        panics::watch();
        let mut plan = Plan::draw(seed);
        plan.clients[0].programs.extend(planted);
        let mut random = Rng::with_seed(seed ^ 0x5eed);
        let trace = Trace::new(keeps_trace);
        trace.note(0, format_args!("{plan:?}"));
        let network = Network::new(random.fork(), trace.clone(), plan.base);
        let mut servers: Vec<Servers> = plan
            .shards
            .iter()
            .enumerate()
            .map(|(number, shard)| Servers::new(number, number, shard.clone(), plan.read_timeout, &network))
            .collect();
        servers.iter_mut().for_each(|servers| servers.start(0));
        let settings = Settings {
            keys: plan.keys,
            read_timeout: plan.read_timeout,
            survives_disconnect: plan.survives_disconnect(),
            programs_end: plan.programs_end,
        };
        let clients = plan.clients.iter().enumerate().map(|(number, client)| {
            let shards = servers.iter().map(Servers::shard).collect();
            let id = servers.len() + number;
            ClientProcess::new(
                number,
                id,
                client.clone(),
                shards,
                settings.clone(),
                &network,
                random.fork(),
            )
        });
        let mut clients: Vec<ClientProcess> = clients.collect();
        clients.iter_mut().for_each(|client| client.start(0));
        Self {
            network,
            trace,
            base: plan.base,
            servers,
            clients,
            faults: BTreeMap::new(),
            under_way: BTreeMap::new(),
            full: BTreeMap::new(),
            lingering: Vec::new(),
            lines: Vec::new(),
            random,
            draining: BTreeSet::new(),
            plan,
            now: 0,
            violations: Vec::new(),
        }
    }

    /// Runs the world to its end, and judges its history.
    pub(super) fn run(mut self) -> Report {
        self.run_faults();
        self.run_to_the_end();
        self.judge()
    }

    fn run_faults(&mut self) {
        let faults = self.plan.faults.clone();
        let mut begins = 0;
        while self.now < self.plan.faults_end {
            while faults.get(begins).is_some_and(|fault| fault.at <= self.now) {
                self.begin_fault(begins, &faults[begins], self.now);
                begins += 1;
            }
            let now = self.now;
            let under_way = self.under_way.keys().copied();
            let over: Vec<usize> = under_way.filter(|number| faults[*number].until <= now).collect();
            for number in over {
                self.end_fault(number, &faults[number], now);
            }
            self.restart_drained(self.now);
            self.step(self.plan.slice);
        }
        for number in self.under_way.keys().copied().collect::<Vec<usize>>() {
            self.end_fault(number, &faults[number], self.now);
        }
        self.end_all_faults(self.now);
    }

    /// Runs the world without faults until all programs and clients have ended. Then checks that no task, no connection
    /// and no lease is left.
    fn run_to_the_end(&mut self) {
        let faults_end = self.now;
        let give_up = self.plan.programs_end + PATIENCE;
        while !self.clients.iter().all(ClientProcess::has_finished) {
            // When the faults end, a server may still be shutting down gracefully.
            if self.now < faults_end + 10 * SECOND {
                (0..self.servers.len()).for_each(|shard| self.ensure_leader(shard));
                self.restart_drained(self.now);
            }
            if self.now > give_up {
                let busy = self.clients.iter().filter(|client| !client.has_finished());
                let busy: Vec<String> = busy.map(|client| client.name().to_string()).collect();
                self.violations
                    .push(format!("clients {busy:?}: a program or the shutdown has not ended"));
                return;
            }
            self.step(self.plan.slice);
        }
        self.expect("the tasks of clients end", 5 * SECOND, |world| {
            let tasks: Vec<usize> = world
                .clients
                .iter_mut()
                .map(ClientProcess::tasks_without_client)
                .collect();
            match tasks.iter().all(|tasks| *tasks == 0) {
                true => Ok(()),
                false => Err(format!("{tasks:?} tasks are left")),
            }
        });
        self.expect("connections of clients are closed", 5 * SECOND, |world| {
            let clients = world.clients.iter();
            let open: Vec<usize> = clients
                .map(|client| world.network.connections_of(client.id()))
                .collect();
            match open.iter().all(|open| *open == 0) {
                true => Ok(()),
                false => Err(format!("{open:?} connections are open")),
            }
        });
        let quiet = match self.plan.positions_may_outlive_clients() {
            true => QUIET_AFTER_POSITIONS,
            false if self.plan.survives_disconnect() => QUIET_AFTER_LEASES,
            false => QUIET,
        };
        self.expect("servers are free", quiet, |world| {
            for servers in &world.servers {
                let Some(stats) = servers.stats() else { continue };
                if !stats.locks.is_empty() || !stats.semaphores.is_empty() {
                    return Err(format!("{:?} {:?}", stats.locks, stats.semaphores));
                }
            }
            Ok(())
        });
    }

    /// Runs the world until `is_so` returns `Ok`. If that takes longer than `within`, records a violation.
    fn expect(&mut self, what: &str, within: Time, is_so: impl Fn(&mut Self) -> Result<(), String>) {
        let give_up = self.now + within;
        while let Err(problem) = is_so(self) {
            if self.now > give_up {
                self.violations
                    .push(format!("{what}: not within {} s: {problem}", within / SECOND));
                return;
            }
            self.step(20 * MS);
        }
    }

    /// Delivers the bytes that are due. Then runs every host for a slice of time, in a random order.
    fn step(&mut self, slice: Time) {
        self.network.advance(self.now);
        let until = self.now + slice;
        let servers = self.servers.len();
        let mut order: Vec<usize> = (0..servers + self.clients.len()).collect();
        self.random.shuffle(&mut order);
        for host in order {
            let host = match host.checked_sub(servers) {
                None => self.servers[host].host(),
                Some(client) => self.clients[client].host(),
            };
            if let Some(host) = host {
                host.run_until(until);
            }
        }
        self.now = until;
        self.watch_full_servers();
        self.end_troubles();
        if self.now / SECOND > (until - slice) / SECOND {
            self.violations
                .extend(self.clients.iter().filter_map(ClientProcess::is_too_large));
        }
    }

    /// Returns how long a client waits until it closes a connection over which nothing arrives.
    pub(super) fn silence(&self, client: usize) -> Time {
        let plan = &self.plan.clients[client];
        (plan.keepalive + plan.reply_timeout).as_nanos() as Time
    }

    /// Begins a trouble when a server is full. A full server refuses connections, and clients wait before they try
    /// again. So the trouble ends when the server has had room for the time [`FULL`].
    fn watch_full_servers(&mut self) {
        let trouble = |shard: usize| Trouble {
            trouble: Name::from(format!("server {shard} is full")),
            // The name of the first server at this address stands for all servers at this address.
            server: Some(Name::from(format!("s{shard}.1"))),
        };
        for shard in 0..self.servers.len() {
            if self.servers[shard].are_full() {
                if self.full.insert(shard, self.now).is_none() {
                    self.note(self.now, Recorded::TroubleBegun(trouble(shard)));
                }
            } else if self.full.get(&shard).is_some_and(|last| self.now - last > FULL) {
                self.full.remove(&shard);
                self.note(self.now, Recorded::TroubleEnded(trouble(shard)));
            }
        }
    }

    pub(super) fn note(&mut self, at: Time, what: Recorded) {
        self.lines.push(Line { at, what });
    }

    /// Spawns the future that `call` returns, in the runtime of the cluster's host. Does nothing if no cluster runs.
    pub(super) fn spawn_with_cluster<F>(&mut self, shard: usize, call: impl FnOnce(Arc<Cluster>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let servers = &mut self.servers[shard];
        if let (Some(cluster), Some(host)) = (servers.cluster(), servers.host()) {
            host.spawn(call(cluster));
        }
    }

    /// Returns the lines of the history about half-open connections.
    fn half_open_lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        for half_open in self.network.take_half_open() {
            let connection = half_open.connection;
            lines.extend(half_open.groups.into_iter().map(|(at, pattern, group)| {
                let what = Recorded::HalfOpenBegun(HalfOpen {
                    connection,
                    pattern: Name::from(pattern.as_str()),
                    group: Name::from(group.as_str()),
                    read_timeout: self.plan.read_timeout.as_nanos() as Time,
                });
                Line { at, what }
            }));
            let what = Recorded::HalfOpenEnded(ConnectionId { connection });
            lines.extend(half_open.until.map(|at| Line { at, what }));
        }
        lines
    }

    fn judge(mut self) -> Report {
        let mut lines = Vec::new();
        for servers in &mut self.servers {
            servers.end(self.now);
            lines.extend(servers.take_lines());
        }
        for client in &mut self.clients {
            client.kill(self.now);
            lines.extend(client.take_lines());
        }
        lines.append(&mut self.lines);
        lines.extend(self.half_open_lines());
        lines.sort_by_key(|line| line.at);
        for line in &lines {
            self.trace.note(line.at, format_args!("{:?}", line.what));
        }
        let verdict = verdict::judge(&self.plan, lines.clone());
        if !verdict.is_valid() {
            self.violations.push(verdict.to_string());
        }
        let panics = panics::seen().into_iter().map(|panic| format!("panic: {panic}"));
        self.violations.extend(panics);
        let traffic = self.network.traffic();
        for (fault, cuts) in [
            (CUT_IN_A_LINE, traffic.cuts_in_a_line),
            (CUT_AFTER_A_LINE, traffic.cuts_after_a_line),
        ] {
            *self.faults.entry(fault).or_default() += cuts;
        }
        Report {
            sum: self.trace.sum(),
            trace: self.trace.text(),
            violations: self.violations,
            outcome: Outcome {
                seeds: 1,
                time: self.now,
                operations: self.clients.iter().map(|client| client.operations()).sum(),
                counts: verdict.counts,
                connections: traffic.connections,
                segments: traffic.segments,
                faults: self.faults,
            },
            lines,
        }
    }
}
