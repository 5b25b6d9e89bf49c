//! The process of the servers. It causes a fault every few seconds. A proxy in front of
//! each server causes the faults of its connections. Only the server `control` has no proxy, because it has no faults.

#[path = "../../tests/support/proxy.rs"]
#[allow(dead_code, unreachable_pub, clippy::unwrap_used, missing_docs)]
mod proxy;

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dflockd_client::Stats;
use dflockd_client::server::{Cluster, Server};
use tokio::io::AsyncReadExt;
use tokio::runtime::Handle;
use tokio::time::sleep;

use self::proxy::Proxy;
use crate::load::KEPT;
use crate::sample::descriptors;

/// The addresses that the client's process uses. All except `control` are addresses of proxies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addresses {
    /// A single server.
    pub(crate) single: String,
    /// The members of a cluster.
    pub(crate) members: Vec<String>,
    /// A server of a release that has signals.
    pub(crate) signals: String,
    /// A server that only answers the probe.
    pub(crate) control: String,
}

/// The resources that the process of the servers reports.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ServersHave {
    /// The keys that the servers know: held keys, and free keys that they have not forgotten yet.
    pub(crate) keys: u64,
    pub(crate) descriptors: u64,
    /// The tasks of tokio, including the tasks of the proxies.
    pub(crate) tasks: u64,
}

/// The process of the servers, as the client's process sees it. Dropping this value kills the process.
pub(crate) struct ServersProcess {
    child: Child,
    addresses: Addresses,
    faults: Arc<Mutex<BTreeMap<String, u64>>>,
    have: Arc<Mutex<ServersHave>>,
}

impl ServersProcess {
    /// Starts this program again, as the process of the servers.
    pub(crate) fn start(leases: usize) -> Result<Self, Box<dyn Error>> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--servers", "--leases", &leases.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("the output of the process is not piped")?).lines();
        let mut addresses = Addresses::default();
        for line in lines.by_ref() {
            let line = line?;
            let (what, address) = line.split_once(' ').unwrap_or((&line, ""));
            let address = address.to_owned();
            match what {
                "single" => addresses.single = address,
                "member" => addresses.members.push(address),
                "signals" => addresses.signals = address,
                "control" => addresses.control = address,
                _ => break,
            }
        }
        let faults: Arc<Mutex<BTreeMap<String, u64>>> = Arc::default();
        let have: Arc<Mutex<ServersHave>> = Arc::default();
        let (counted, told) = (Arc::clone(&faults), Arc::clone(&have));
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                match line.strip_prefix(HAVE) {
                    Some(numbers) => *told.lock().unwrap_or_else(PoisonError::into_inner) = ServersHave::read(numbers),
                    None => {
                        let mut counted = counted.lock().unwrap_or_else(PoisonError::into_inner);
                        *counted.entry(line).or_default() += 1;
                    }
                }
            }
        });
        Ok(Self {
            child,
            addresses,
            faults,
            have,
        })
    }

    pub(crate) fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the last report of the process.
    pub(crate) fn have(&self) -> ServersHave {
        *self.have.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Describes how many faults of each kind occurred.
    pub(crate) fn faults(&self) -> String {
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let told: Vec<String> = faults.iter().map(|(fault, count)| format!("{fault} {count}")).collect();
        told.join(", ")
    }
}

/// The first word of a line that reports resources. Three numbers follow.
const HAVE: &str = "have ";

impl ServersHave {
    fn read(numbers: &str) -> Self {
        let mut numbers = numbers.split(' ').map(|number| number.parse().unwrap_or_default());
        let mut next = || numbers.next().unwrap_or_default();
        Self {
            keys: next(),
            descriptors: next(),
            tasks: next(),
        }
    }

    fn of(all: [Stats; 3]) -> std::io::Result<Self> {
        let keys = |stats: &Stats| {
            stats.locks.len() + stats.semaphores.len() + stats.idle_locks.len() + stats.idle_semaphores.len()
        };
        Ok(Self {
            keys: all.iter().map(keys).sum::<usize>() as u64,
            descriptors: descriptors()?,
            tasks: Handle::current().metrics().num_alive_tasks() as u64,
        })
    }
}

impl Drop for ServersProcess {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The proxies in front of the servers.
struct Ways {
    single: Proxy,
    members: Vec<Proxy>,
    signals: Proxy,
}

/// Runs the servers, their proxies and the faults until standard input ends.
pub(crate) async fn serve(leases: usize) -> Result<(), Box<dyn Error>> {
    let each = Server::builder().port(0).max_locks(leases * 10 + 10_000);
    let control = Server::builder().port(0).start().await?;
    let single = each.clone().start().await?;
    let cluster = Cluster::builder()
        .options(each.clone().orphan_ttl(KEPT))
        .start()
        .await?;
    let signals = each.release("1.16").start().await?;
    let mut members = Vec::new();
    for address in cluster.addresses() {
        members.push(Proxy::start(&address).await);
    }
    let ways = Ways {
        single: Proxy::start(&single.local_addr().to_string()).await,
        members,
        signals: Proxy::start(&signals.local_addr().to_string()).await,
    };
    say(&format!("single {}", ways.single.address))?;
    for member in &ways.members {
        say(&format!("member {}", member.address))?;
    }
    say(&format!("signals {}", ways.signals.address))?;
    say(&format!("control {}", control.local_addr()))?;
    say("ready")?;
    // The client's process writes nothing to this standard input. The read returns when that process ends.
    let (mut input, mut nothing) = (tokio::io::stdin(), [0; 16]);
    tokio::select! {
        _ = input.read(&mut nothing) => Ok(()),
        outcome = trouble(&cluster, &ways) => outcome,
        outcome = tell(|| ServersHave::of([single.stats(), cluster.stats(), signals.stats()])) => outcome,
    }
}

/// Prints the resources every 3 s.
async fn tell(have: impl Fn() -> std::io::Result<ServersHave>) -> Result<(), Box<dyn Error>> {
    const PAUSE: Duration = Duration::from_secs(3);
    loop {
        let have = have()?;
        say(&format!("{HAVE}{} {} {}", have.keys, have.descriptors, have.tasks))?;
        sleep(PAUSE).await;
    }
}

/// Causes a fault every 4 s. The kinds of faults take turns.
async fn trouble(cluster: &Cluster, ways: &Ways) -> Result<(), Box<dyn Error>> {
    const PAUSE: Duration = Duration::from_secs(4);
    const STALL: Duration = Duration::from_millis(300);
    let mut leader = 0;
    lead(cluster, ways, leader)?;
    for turn in 0.. {
        sleep(PAUSE).await;
        match turn % 6 {
            0 | 3 => {
                leader = (leader + 1) % ways.members.len();
                lead(cluster, ways, leader)?;
                say("new leader")?;
            }
            1 => {
                ways.members[leader].cut();
                say("leader cut off")?;
            }
            2 => {
                ways.signals.cut();
                say("signals cut off")?;
            }
            4 => {
                ways.single.change(|treatment| treatment.stall_down = true);
                sleep(STALL).await;
                ways.single.change(|treatment| treatment.stall_down = false);
                say("stall")?;
            }
            _ => {
                ways.single.cut();
                say("server cut off")?;
            }
        }
    }
    Ok(())
}

/// Makes a member the leader. When the other members reject a request, they name the proxy of the leader, not the
/// leader's own address.
fn lead(cluster: &Cluster, ways: &Ways, leader: usize) -> Result<(), dflockd_client::Error> {
    cluster.redirects_to(Some(&ways.members[leader].address));
    cluster.move_leader(leader)
}

fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
