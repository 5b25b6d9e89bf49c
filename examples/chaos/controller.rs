//! The controller of a run. It starts all processes, causes faults, shuts all processes down, and checks the records.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::task::block_in_place;

use crate::child::Process;
use crate::faults::{self, Tally};
use crate::history::record::{self, What};
use crate::history::writer::Writer;
use crate::job::{ClientJob, ClusterJob, Job, Record, ServerJob};
use crate::network::{Addresses, Network};
use crate::resource::Resource;
use crate::{Arguments, judge, panics, witness};

/// All processes of a run, and the proxies between them.
pub(crate) struct World {
    directory: PathBuf,
    pub(crate) record: Writer,
    pub(crate) network: Network,
    pub(crate) clients: Vec<Mutex<ClientSlot>>,
    /// The standalone servers for locks, then the server for signals.
    pub(crate) servers: Vec<Mutex<ServerSlot>>,
    pub(crate) cluster: Mutex<ClusterSlot>,
    pub(crate) tally: Tally,
    /// Unexpected ends and panics of processes, and faults that could not be caused.
    wrong: std::sync::Mutex<Vec<String>>,
}

/// A client process. After the controller has killed it, a new process takes its place.
pub(crate) struct ClientSlot {
    number: usize,
    restarts: u64,
    seed: u64,
    pub(crate) process: Process,
    pub(crate) name: String,
}

/// A server process. After the controller has killed it, a new process takes its place on the same port.
pub(crate) struct ServerSlot {
    letter: char,
    restarts: u64,
    job: ServerJob,
    pub(crate) process: Process,
}

pub(crate) struct ClusterSlot {
    pub(crate) process: Process,
    pub(crate) leader: usize,
}

/// The number of standalone servers for locks. The server for signals does not count.
pub(crate) const SINGLES: usize = 2;
pub(crate) const MEMBERS: usize = 3;
const WITH_FENCES: &str = "2.1";
const WITH_SIGNALS: &str = "1.16";

pub(crate) async fn run(arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let chosen = arguments.output.clone();
    let directory =
        chosen.unwrap_or_else(|| std::env::temp_dir().join(format!("dflockd-chaos-{}", std::process::id())));
    fs::create_dir_all(&directory)?;
    println!(
        "seed {seed}, {} clients, records in {}",
        arguments.clients,
        directory.display()
    );
    panics::end_the_process(&record_of(&directory, "controller".to_owned()));
    let world = Arc::new(World::start(&directory, arguments.clients, seed).await?);

    let began = Instant::now();
    tokio::select! {
        () = faults::cause_faults(&world, seed, Duration::from_secs_f64(arguments.minutes * 60.0)) => {}
        // Dropping `world` thaws and kills all processes. A stopped process would not end by itself.
        interrupted = tokio::signal::ctrl_c() => return Err(interrupted.map_or_else(Into::into, |()| "interrupted".into())),
    }
    println!("{}\nthey took {:.0?}", world.tally, began.elapsed());
    let mut wrong = world.end().await?;
    let world = Arc::into_inner(world).ok_or("a fault has not ended")?;
    world.record.finish()?;
    drop(world);

    wrong.extend(judge::judge(&directory)?);
    if wrong.is_empty() {
        println!("no violation");
        if arguments.output.is_none() {
            fs::remove_dir_all(&directory)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    for violation in wrong.iter().take(20) {
        println!("VIOLATION: {violation}");
    }
    println!(
        "{} violations; seed {seed}; the records are in {}",
        wrong.len(),
        directory.display()
    );
    Ok(ExitCode::FAILURE)
}

impl World {
    async fn start(directory: &Path, clients: usize, seed: u64) -> Result<Self, Box<dyn Error>> {
        let record = witness::record(&record_of(directory, "controller".to_owned()))?;
        // This creates the resource. The client processes, which start later, only open it.
        drop(Resource::open(directory)?);
        let mut servers = Vec::new();
        for number in 0..=SINGLES {
            let (letter, release) = match number {
                SINGLES => ('s', WITH_SIGNALS),
                _ => ((b'a' + number as u8) as char, WITH_FENCES),
            };
            servers.push(ServerSlot::start(letter, release, directory, &record)?);
        }
        let (cluster, members) = ClusterSlot::start(directory, &record)?;
        let of = |server: &ServerSlot| format!("127.0.0.1:{}", server.job.port);
        let addresses = Addresses {
            singles: servers[..SINGLES].iter().map(of).collect(),
            members,
            signals: of(&servers[SINGLES]),
        };
        let network = Network::start(clients, &addresses).await;
        let mut world = Self {
            directory: directory.to_owned(),
            record,
            network,
            clients: Vec::new(),
            servers: servers.into_iter().map(Mutex::new).collect(),
            cluster: Mutex::new(cluster),
            tally: Tally::default(),
            wrong: std::sync::Mutex::default(),
        };
        for number in 0..clients {
            let seed = seed.wrapping_mul(1000).wrapping_add(number as u64);
            let slot = ClientSlot {
                number,
                restarts: 0,
                seed,
                name: format!("client-{number}-0"),
                process: Process::start(&world.client_job(number, 0, seed))?,
            };
            world.clients.push(Mutex::new(slot));
        }
        Ok(world)
    }

    fn client_job(&self, number: usize, restarts: u64, seed: u64) -> Job {
        Job::Client(ClientJob {
            record: record_of(&self.directory, format!("client-{number}-{restarts}")),
            seed: seed.wrapping_add(restarts.wrapping_mul(100)),
            ways: self.network.ways_of(number),
        })
    }

    pub(crate) fn kill_client(&self, slot: &mut ClientSlot) -> Result<(), Box<dyn Error>> {
        let wrong = block_in_place(|| slot.process.kill())?;
        self.add_problems(wrong);
        let process = slot.name.as_str().into();
        self.record.note(What::ProcessKilled(record::Process { process }));
        Ok(())
    }

    /// Starts a new client process in the place of the killed one.
    pub(crate) fn start_client(&self, slot: &mut ClientSlot) -> Result<(), Box<dyn Error>> {
        slot.restarts += 1;
        slot.name = format!("client-{}-{}", slot.number, slot.restarts);
        let job = self.client_job(slot.number, slot.restarts, slot.seed);
        slot.process = block_in_place(|| Process::start(&job))?;
        Ok(())
    }

    /// Keeps problems for the report at the end of the run.
    pub(crate) fn add_problems(&self, problems: impl IntoIterator<Item = String>) {
        self.wrong
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(problems);
    }

    /// Shuts all processes down, first the clients. Returns all problems so far.
    async fn end(&self) -> Result<Vec<String>, Box<dyn Error>> {
        let mut under_way = Vec::new();
        for slot in &self.clients {
            let mut slot = slot.lock().await;
            match slot.process.end()? {
                Some(wrong) => self.add_problems([wrong]),
                None => under_way.push(slot),
            }
        }
        for mut slot in under_way {
            self.add_problems(slot.process.ended().await?);
        }
        for slot in &self.servers {
            self.add_problems(end_at_once(&mut slot.lock().await.process).await?);
        }
        self.add_problems(end_at_once(&mut self.cluster.lock().await.process).await?);
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut wrong))
    }
}

/// Shuts a process down and waits for its end. Returns its problems.
async fn end_at_once(process: &mut Process) -> std::io::Result<Vec<String>> {
    match process.end()? {
        Some(wrong) => Ok(vec![wrong]),
        None => Ok(process.ended().await?.into_iter().collect()),
    }
}

fn record_of(directory: &Path, name: String) -> Record {
    let directory = directory.to_owned();
    Record { directory, name }
}

/// Records the start of a server. The controller calls this before the start, because a server may grant at once.
fn begins(record: &Writer, server: &str, succeeds: Option<&str>) {
    record.note(What::ServerStarted(record::ServerStarted {
        server: server.into(),
        succeeds: succeeds.map(Into::into),
    }));
}

impl ServerSlot {
    fn start(letter: char, release: &str, directory: &Path, record: &Writer) -> Result<Self, Box<dyn Error>> {
        let name = format!("server-{letter}-0");
        begins(record, &name, None);
        let mut job = ServerJob {
            record: record_of(directory, name),
            release: release.to_owned(),
            port: 0,
        };
        let mut process = Process::start(&Job::Server(job.clone()))?;
        let address = process.read_line()?;
        job.port = address.rsplit(':').next().unwrap_or_default().parse()?;
        Ok(Self {
            letter,
            restarts: 0,
            job,
            process,
        })
    }

    fn name(&self) -> &str {
        &self.job.record.name
    }

    /// Kills the server. Returns a problem if the server had ended before, or had panicked.
    pub(crate) fn kill(&mut self, record: &Writer) -> Result<Option<String>, Box<dyn Error>> {
        let wrong = block_in_place(|| self.process.kill())?;
        let server = self.name().into();
        record.note(What::ServerEnded(record::ServerId { server }));
        Ok(wrong)
    }

    /// Starts a new server on the same port, without the state of the killed server.
    pub(crate) fn start_again(&mut self, record: &Writer) -> Result<(), Box<dyn Error>> {
        self.restarts += 1;
        let name = format!("server-{}-{}", self.letter, self.restarts);
        begins(record, &name, Some(self.name()));
        self.job.record.name = name;
        block_in_place(|| {
            self.process = Process::start(&Job::Server(self.job.clone()))?;
            self.process.read_line()?;
            Ok(())
        })
    }
}

impl ClusterSlot {
    fn start(directory: &Path, record: &Writer) -> Result<(Self, Vec<String>), Box<dyn Error>> {
        let name = "cluster".to_owned();
        begins(record, &name, None);
        let mut process = Process::start(&Job::Cluster(ClusterJob {
            record: record_of(directory, name),
            members: MEMBERS,
        }))?;
        let mut members = Vec::new();
        for _ in 0..MEMBERS {
            members.push(process.read_line()?);
        }
        Ok((Self { process, leader: 0 }, members))
    }
}
