//! The work of the sides that use this crate. The programs in the folder `sides` do the same with other clients.
//! `sides/measure.py` describes the arguments of all sides.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use dflockd_client::{Client, VERSION};

use crate::results::Keys;
use crate::run::Measured;

/// After this time, the warm-up no longer waits until there are as many pairs as workers.
const LONGEST_WARM_UP: Duration = Duration::from_secs(5);

const PAUSE: Duration = Duration::from_millis(20);

type Failure = Box<dyn Error + Send + Sync>;

/// The kind of client and of workers that a side uses.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Kind {
    /// Tasks that share one async client.
    Tasks,
    /// Threads that share one blocking client.
    Threads,
}

/// The arguments of a side's program. `sides/measure.py` describes them.
#[derive(Args, Clone)]
pub(crate) struct Work {
    pub(crate) host: IpAddr,
    pub(crate) port: u16,
    pub(crate) keys: Keys,
    pub(crate) prefix: String,
    pub(crate) workers: usize,
    pub(crate) warm: f64,
    pub(crate) seconds: f64,
}

/// The number of pairs of one worker. The alignment gives each count a cache line of its own, so that workers do not
/// slow each other down.
#[derive(Default)]
#[repr(align(64))]
struct Count(AtomicU64);

impl Count {
    fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Work {
    /// Returns the arguments in the order of the command line.
    pub(crate) fn arguments(&self) -> [String; 7] {
        [
            self.host.to_string(),
            self.port.to_string(),
            self.keys.to_string(),
            self.prefix.clone(),
            self.workers.to_string(),
            self.warm.to_string(),
            self.seconds.to_string(),
        ]
    }

    /// Starts the workers, measures them, prints the result and ends this process. Returns only if this fails.
    pub(crate) fn run(&self, kind: Kind) -> Result<(), Box<dyn Error>> {
        let (fail, failures) = mpsc::channel();
        let counts: Vec<Arc<Count>> = (0..self.workers).map(|_| Arc::default()).collect();
        // The runtime has to exist until the process ends, because the tasks run on it.
        let runtime = tokio::runtime::Runtime::new()?;
        match kind {
            Kind::Tasks => runtime.block_on(self.in_tasks(&counts, &fail)),
            Kind::Threads => self.in_threads(&counts, &fail),
        }
        .map_err(|failure| failure.to_string())?;
        let measured = measure(self, &counts, &failures)?;
        println!("{}", serde_json::to_string(&measured)?);
        // The workers still run, so this ends the whole process.
        std::process::exit(0)
    }

    async fn in_tasks(&self, counts: &[Arc<Count>], fail: &mpsc::Sender<Failure>) -> Result<(), Failure> {
        let client = Client::builder().servers([self.address()]).connect().await?;
        for (worker, count) in counts.iter().enumerate() {
            let (lock, count, fail) = (client.lock(self.key(worker))?, count.clone(), fail.clone());
            tokio::spawn(async move {
                let pairs = async {
                    loop {
                        lock.acquire().await?.release().await?;
                        count.add_one();
                    }
                };
                let ended: Result<(), dflockd_client::Error> = pairs.await;
                drop(ended.map_err(|failure| fail.send(failure.into())));
            });
        }
        Ok(())
    }

    fn in_threads(&self, counts: &[Arc<Count>], fail: &mpsc::Sender<Failure>) -> Result<(), Failure> {
        let client = Client::builder().servers([self.address()]).connect_blocking()?;
        for (worker, count) in counts.iter().enumerate() {
            let (lock, count, fail) = (client.lock(self.key(worker))?, count.clone(), fail.clone());
            let pairs = move || -> Result<(), dflockd_client::Error> {
                loop {
                    lock.acquire()?.release()?;
                    count.add_one();
                }
            };
            std::thread::Builder::new().spawn(move || drop(pairs().map_err(|failure| fail.send(failure.into()))))?;
        }
        Ok(())
    }

    fn address(&self) -> String {
        SocketAddr::from((self.host, self.port)).to_string()
    }

    fn key(&self, worker: usize) -> String {
        match self.keys {
            Keys::Own => format!("{}/{worker}", self.prefix),
            Keys::One => format!("{}/one", self.prefix),
        }
    }
}

/// Waits until the warm-up is over, and then counts the pairs of the next `work.seconds` seconds.
fn measure(work: &Work, counts: &[Arc<Count>], failures: &mpsc::Receiver<Failure>) -> Result<Measured, Box<dyn Error>> {
    let pairs = || counts.iter().map(|count| count.0.load(Ordering::Relaxed)).sum::<u64>();
    let started = Instant::now();
    loop {
        let warmed = started.elapsed();
        let has_pairs = pairs() >= work.workers as u64;
        if warmed.as_secs_f64() >= work.warm && (has_pairs || warmed >= LONGEST_WARM_UP) {
            break;
        }
        wait_for(PAUSE, failures)?;
    }
    let (began, before) = (Instant::now(), pairs());
    wait_for(Duration::from_secs_f64(work.seconds), failures)?;
    Ok(Measured {
        pairs: pairs() - before,
        seconds: began.elapsed().as_secs_f64(),
        version: VERSION.to_owned(),
    })
}

/// Waits for this time. Returns an error if a worker fails during it.
fn wait_for(time: Duration, failures: &mpsc::Receiver<Failure>) -> Result<(), Box<dyn Error>> {
    match failures.recv_timeout(time) {
        Ok(failure) => Err(failure.to_string().into()),
        Err(mpsc::RecvTimeoutError::Timeout) => Ok(()),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err("all workers ended".into()),
    }
}
