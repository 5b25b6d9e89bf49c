//! The samples: measurements of this process, the process of the servers, the load and the machine.

use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dflockd_client::protocol::functions::{Wire, acquire, release};
use dflockd_client::{Key, WaitSecs};
use hdrhistogram::Histogram;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::sleep;

use crate::meter::{LONGEST, Latency, Meter, Timed};
use crate::servers::{ServersHave, ServersProcess};

/// The resources that a process uses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    /// The resident memory in KiB.
    pub(crate) resident: u64,
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
    /// The tasks of tokio.
    pub(crate) tasks: u64,
}

impl Process {
    /// Returns the resources of this process.
    pub(crate) fn here() -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            resident: resident("self")?,
            descriptors: descriptors()?,
            threads: fs::read_dir("/proc/self/task")?.count() as u64,
            tasks: Handle::current().metrics().num_alive_tasks() as u64,
        })
    }

    /// Waits until the numbers of descriptors and of tasks are at most those of `before`, but for 30 s at most. Then
    /// returns the resources of this process.
    pub(crate) async fn settled_to(before: &Self) -> Result<Self, Box<dyn Error>> {
        let give_up = Instant::now() + Duration::from_secs(30);
        loop {
            let now = Self::here()?;
            let settled = now.descriptors <= before.descriptors && now.tasks <= before.tasks;
            if settled || Instant::now() > give_up {
                return Ok(now);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Returns the number of descriptors that this process has open. Does not count the descriptor that `read_dir` uses for
/// the directory itself.
pub(crate) fn descriptors() -> std::io::Result<u64> {
    Ok(fs::read_dir("/proc/self/fd")?.count().saturating_sub(1) as u64)
}

/// Returns the resident memory of a process in KiB.
fn resident(process: &str) -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    Ok(kilobytes.ok_or("the system does not report VmRSS")?.parse()?)
}

/// Acquires and releases a key about every 20 ms, over a bare socket without the client. The server has no other load,
/// so the latencies show the current speed of the machine.
pub(crate) struct Probe {
    latencies: Arc<Mutex<Histogram<u64>>>,
}

impl Probe {
    pub(crate) async fn start(address: &str) -> Result<Self, Box<dyn Error>> {
        const PAUSE: Duration = Duration::from_millis(20);
        let latencies = Arc::new(Mutex::new(Histogram::new_with_bounds(1, LONGEST, 3)?));
        let told = Arc::clone(&latencies);
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (mut wire, key) = (Wire::new(stream), Key::new("probe")?);
        tokio::spawn(async move {
            loop {
                sleep(PAUSE).await;
                let began = Instant::now();
                let Ok(grant) = acquire(&mut wire, &key, WaitSecs::TRY, None).await else {
                    return;
                };
                if release(&mut wire, &key, &grant.token).await.is_err() {
                    return;
                }
                let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                told.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .saturating_record(micros);
            }
        });
        Ok(Self { latencies })
    }

    fn take(&self) -> Latency {
        let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        let latency = Latency::of(&latencies);
        latencies.reset();
        latency
    }
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    pub(crate) client: Process,
    /// The resident memory of the process of the servers, in KiB.
    pub(crate) servers_resident: u64,
    pub(crate) servers: ServersHave,
    /// How many operations have succeeded and failed since the beginning of the run.
    pub(crate) operations: (u64, u64),
    pub(crate) pair: Latency,
    pub(crate) wait: Latency,
    /// The latency of the [`Probe`].
    pub(crate) bare: Latency,
    /// The load average of the machine over the last minute.
    pub(crate) machine: f64,
}

impl Sample {
    pub(crate) fn take(
        at: Duration,
        meter: &Meter,
        probe: &Probe,
        servers: &ServersProcess,
    ) -> Result<Self, Box<dyn Error>> {
        let load = fs::read_to_string("/proc/loadavg")?;
        Ok(Self {
            at,
            client: Process::here()?,
            servers_resident: resident(&servers.id().to_string())?,
            servers: servers.have(),
            operations: meter.totals(),
            pair: meter.take(Timed::Pair),
            wait: meter.take(Timed::Wait),
            bare: probe.take(),
            machine: load.split_whitespace().next().unwrap_or_default().parse()?,
        })
    }
}

/// All samples. Each sample is printed and written to the file when it is added.
pub(crate) struct Table {
    samples: Vec<Sample>,
    file: Option<File>,
}

const HEADINGS: [&str; 18] = [
    "seconds",
    "rss_kib",
    "fds",
    "tasks",
    "threads",
    "server_rss",
    "server_keys",
    "server_fds",
    "server_tasks",
    "done",
    "failed",
    "pairs",
    "pair_p50",
    "pair_p99",
    "wait_p50",
    "wait_p99",
    "bare_p50",
    "bare_p99",
];

impl Table {
    pub(crate) fn new(output: Option<&Path>) -> Result<Self, Box<dyn Error>> {
        let file = match output {
            Some(directory) => {
                fs::create_dir_all(directory)?;
                let mut file = File::create(directory.join("samples.csv"))?;
                writeln!(file, "{},load", HEADINGS.join(","))?;
                Some(file)
            }
            None => None,
        };
        println!(
            "latencies in microseconds; bare: a pair over a socket without the client, to a server that does nothing else"
        );
        println!("{}  load", HEADINGS.map(|heading| format!("{heading:>12}")).join(" "));
        Ok(Self {
            samples: Vec::new(),
            file,
        })
    }

    pub(crate) fn add(&mut self, sample: Sample) -> std::io::Result<()> {
        let numbers: [u64; HEADINGS.len()] = [
            sample.at.as_secs(),
            sample.client.resident,
            sample.client.descriptors,
            sample.client.tasks,
            sample.client.threads,
            sample.servers_resident,
            sample.servers.keys,
            sample.servers.descriptors,
            sample.servers.tasks,
            sample.operations.0,
            sample.operations.1,
            sample.pair.count,
            sample.pair.p50,
            sample.pair.p99,
            sample.wait.p50,
            sample.wait.p99,
            sample.bare.p50,
            sample.bare.p99,
        ];
        let load = sample.machine;
        println!("{} {load:>5}", numbers.map(|number| format!("{number:>12}")).join(" "));
        if let Some(file) = &mut self.file {
            writeln!(file, "{},{load}", numbers.map(|number| number.to_string()).join(","))?;
        }
        self.samples.push(sample);
        Ok(())
    }

    pub(crate) fn samples(&self) -> &[Sample] {
        &self.samples
    }
}
