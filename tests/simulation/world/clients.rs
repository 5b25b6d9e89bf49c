//! A client process: a host that runs one client and the programs that call it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dflockd_client::{Client, Fencing, OnUnavailable, Shard};
use fastrand::Rng;

use super::caller::Process;
use super::history::record::{self, Line, Name, What};
use super::history::writer::Writer;
use super::host::Host;
use super::net::{HostId, Network, Time};
use super::plan::ClientPlan;
use super::stream::SimConnector;

pub struct ClientProcess {
    number: usize,
    id: HostId,
    plan: ClientPlan,
    network: Network,
    shards: Vec<Shard>,
    settings: Settings,
    random: Rng,
    host: Option<Host>,
    process: Option<Arc<Process>>,
    writer: Option<Arc<Writer>>,
    /// Whether all programs have ended and the client has shut down.
    has_finished: Arc<AtomicBool>,
    starts: u64,
    name: Name,
    lines: Vec<Line>,
    operations: Arc<AtomicU64>,
}

/// The settings that all clients of a world share.
#[derive(Clone)]
pub struct Settings {
    pub keys: u64,
    pub read_timeout: Duration,
    pub survives_disconnect: bool,
    pub programs_end: Time,
}

impl ClientProcess {
    pub fn new(
        number: usize,
        id: HostId,
        plan: ClientPlan,
        shards: Vec<Shard>,
        settings: Settings,
        network: &Network,
        random: Rng,
    ) -> Self {
        Self {
            number,
            id,
            plan,
            network: network.clone(),
            shards,
            settings,
            random,
            host: None,
            process: None,
            writer: None,
            has_finished: Arc::default(),
            starts: 0,
            name: Name::from(""),
            lines: Vec::new(),
            operations: Arc::default(),
        }
    }

    pub fn id(&self) -> HostId {
        self.id
    }

    pub fn name(&self) -> &Name {
        &self.name
    }

    pub fn host(&mut self) -> Option<&mut Host> {
        self.host.as_mut()
    }

    pub fn is_up(&self) -> bool {
        self.host.is_some()
    }

    /// Returns whether all programs have ended and the client has shut down. Also true if the process is down.
    pub fn has_finished(&self) -> bool {
        self.host.is_none() || self.has_finished.load(Ordering::Relaxed)
    }

    fn client(&self) -> Client {
        let (plan, settings) = (&self.plan, &self.settings);
        let mut builder = Client::builder()
            .shards(self.shards.clone())
            .connector(SimConnector::new(&self.network, self.id))
            .acquire_timeout(plan.acquire_timeout)
            .request_timeout(plan.request_timeout)
            .connect_timeout(plan.connect_timeout)
            .renew_ratio(plan.renew_ratio)
            .keepalive(plan.keepalive)
            .reply_timeout(plan.reply_timeout)
            .server_read_timeout(settings.read_timeout)
            .survives_disconnect(settings.survives_disconnect)
            .pipelined_connections(plan.pipelined_connections)
            .exclusive_connections(plan.exclusive_connections)
            .exclusive_connections_per_key(plan.exclusive_connections_per_key)
            .idle_connection_timeout(plan.idle_connection_timeout)
            .max_in_flight(plan.max_in_flight)
            .max_waiters(plan.max_waiters)
            .max_redirects(plan.max_redirects);
        if let Some(ttl) = plan.lease_ttl {
            builder = builder.lease_ttl(ttl);
        }
        if plan.fails_fast {
            builder = builder.on_unavailable(OnUnavailable::FailFast);
        }
        if !plan.knows_fences {
            builder = builder.fencing(Fencing::Off);
        }
        builder.build().expect("the settings of a client are refused")
    }

    pub fn start(&mut self, now: Time) {
        let host = Host::begin(now);
        let clock = host.clock();
        self.starts += 1;
        self.name = Name::from(format!("c{}.{}", self.number, self.starts));
        self.process_line(now, What::ProcessStarted);
        let writer = Arc::new(Writer::in_memory(move || clock.now()));
        let client = {
            let _inside = host.enter();
            self.client()
        };
        let process = Arc::new(Process {
            name: self.name.clone(),
            client,
            writer: Arc::clone(&writer),
            stops_at: self.settings.programs_end,
            cancels_one_in: self.plan.cancels_one_in,
            acquire_timeout: self.plan.acquire_timeout,
            request_timeout: self.plan.request_timeout,
            operations: Arc::clone(&self.operations),
            is_over: AtomicBool::new(false),
        });
        self.has_finished = Arc::new(AtomicBool::new(false));
        let programs: Vec<_> = self
            .plan
            .programs
            .iter()
            .enumerate()
            .map(|(number, program)| {
                let random = self.random.fork();
                program.run(Arc::clone(&process), number as u64, random, self.settings.keys)
            })
            .collect();
        let (finished, running) = (Arc::clone(&self.has_finished), Arc::clone(&process));
        host.spawn(async move {
            let tasks: Vec<_> = programs.into_iter().map(tokio::spawn).collect();
            for task in tasks {
                // The panic hook records panics.
                drop(task.await);
            }
            running.client.shutdown(Duration::from_secs(5)).await;
            drop(running);
            finished.store(true, Ordering::Relaxed);
        });
        self.process = Some(process);
        self.writer = Some(writer);
        self.host = Some(host);
    }

    fn process_line(&mut self, at: Time, what: fn(record::Process) -> What) {
        let process = self.name.clone();
        self.lines.push(Line {
            at,
            what: what(record::Process { process }),
        });
    }

    pub fn kill(&mut self, now: Time) {
        let Some((host, process)) = self.end(now) else { return };
        let inside = host.enter();
        drop(process);
        drop(inside);
        drop(host);
    }

    /// Ends the runtime of the client, and then calls the client from another runtime. The call must fail at once.
    /// Otherwise returns a description of the violation.
    pub fn end_runtime(&mut self, now: Time) -> Option<String> {
        let (host, process) = self.end(now)?;
        drop(host);
        let process = process?;
        let elsewhere = Host::begin(now);
        let call = async {
            let lock = process.client.lock("k0").expect("the simulation's keys are valid");
            tokio::time::timeout(Duration::from_millis(1), lock.acquire()).await
        };
        let answer = match elsewhere.block_on(call) {
            Ok(Err(_)) => None,
            Ok(Ok(_)) => Some("acquired a lock"),
            Err(_) => Some("waits"),
        };
        let inside = elsewhere.enter();
        drop(process);
        drop(inside);
        drop(elsewhere);
        self.network.close_all(self.id);
        answer.map(|answer| format!("{}: a call {answer} after the end of the client's runtime", self.name))
    }

    /// Closes the connections of the process, and records its end. Returns its host and its state.
    fn end(&mut self, now: Time) -> Option<(Host, Option<Arc<Process>>)> {
        let host = self.host.take()?;
        let process = self.process.take();
        self.network.close_all(self.id);
        self.collect();
        let ended: fn(record::Process) -> What = match self.has_finished.load(Ordering::Relaxed) {
            true => What::ProcessEnded,
            false => What::ProcessKilled,
        };
        self.process_line(now, ended);
        Some((host, process))
    }

    fn collect(&mut self) {
        if let Some(writer) = self.writer.take() {
            self.lines.extend(writer.finish().expect("lines in memory are kept"));
        }
    }

    pub fn freeze(&mut self, now: Time) {
        let Some(host) = &mut self.host else { return };
        if !host.is_frozen() {
            host.freeze();
            self.process_line(now, What::ProcessFrozen);
        }
    }

    pub fn thaw(&mut self, now: Time) {
        let Some(host) = &mut self.host else { return };
        if host.is_frozen() {
            host.thaw(now);
            self.process_line(now, What::ProcessThawed);
        }
    }

    /// Begins to shut the client down while the programs run. Returns `false` if the process is down or the client has
    /// been shut down before.
    pub fn shut_down(&self) -> bool {
        let (Some(host), Some(process)) = (&self.host, &self.process) else {
            return false;
        };
        let was_running = !process.is_over.load(Ordering::Relaxed);
        let process = Arc::clone(process);
        host.spawn(async move {
            process.client.shutdown(Duration::from_secs(3)).await;
            process.is_over.store(true, Ordering::Relaxed);
        });
        was_running
    }

    /// Returns a description if the process has more connections or tasks than its settings allow.
    pub fn is_too_large(&self) -> Option<String> {
        let tasks = self.host.as_ref()?.tasks();
        let connections = self.network.connections_of(self.id);
        let most = self.plan.most_connections(self.shards.len());
        // A program has at most three leases at once, and a task may watch each lease. The factor 8 leaves room for
        // other tasks.
        let most_tasks = 2 * most + 8 * self.plan.programs.len() + 16;
        let is_too_large = connections > most || tasks > most_tasks;
        is_too_large.then(|| {
            format!(
                "{}: {connections} connections of {most}, {tasks} tasks of {most_tasks}",
                self.name
            )
        })
    }

    /// Drops the client, and returns the number of tasks that have not ended.
    pub fn tasks_without_client(&mut self) -> usize {
        self.process = None;
        self.host.as_ref().map_or(0, Host::tasks)
    }

    /// Returns how many operations the programs have begun.
    pub fn operations(&self) -> u64 {
        self.operations.load(Ordering::Relaxed)
    }

    pub fn take_lines(&mut self) -> Vec<Line> {
        self.collect();
        std::mem::take(&mut self.lines)
    }
}
