//! The process of the servers, with a proxy before each, and what goes wrong there now and then.

#[path = "../../tests/support/proxy.rs"]
#[allow(dead_code, unreachable_pub, clippy::unwrap_used, missing_docs)]
mod proxy;

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dflockd_client::server::{Cluster, Server};
use tokio::io::AsyncReadExt;
use tokio::time::sleep;

use self::proxy::Proxy;
use crate::load::KEPT;

/// Where the client finds what.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addresses {
    /// One server by itself.
    pub(crate) single: String,
    /// The members of a cluster.
    pub(crate) members: Vec<String>,
    /// A server of a release that has signals.
    pub(crate) signals: String,
    /// A server that only answers the probe, behind no proxy.
    pub(crate) control: String,
}

/// The process, as the client's sees it. It ends with what it is told through.
pub(crate) struct ServersProcess {
    child: Child,
    addresses: Addresses,
    faults: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl ServersProcess {
    /// Starts this program again, as the process of the servers.
    pub(crate) fn start(leases: usize) -> Result<Self, Box<dyn Error>> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--servers", "--leases", &leases.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("its output is piped")?).lines();
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
        let counted = Arc::clone(&faults);
        std::thread::spawn(move || {
            for fault in lines.map_while(Result::ok) {
                *counted
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .entry(fault)
                    .or_default() += 1;
            }
        });
        Ok(Self {
            child,
            addresses,
            faults,
        })
    }

    pub(crate) fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How often went wrong what.
    pub(crate) fn faults(&self) -> String {
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let told: Vec<String> = faults.iter().map(|(fault, count)| format!("{fault} {count}")).collect();
        told.join(", ")
    }
}

impl Drop for ServersProcess {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What is before the servers.
struct Ways {
    single: Proxy,
    members: Vec<Proxy>,
    signals: Proxy,
}

/// Is the process of the servers: until its standard input ends.
pub(crate) async fn serve(leases: usize) -> Result<(), Box<dyn Error>> {
    let each = Server::builder().port(0).max_locks(leases * 10 + 10_000);
    let control = Server::builder().port(0).start().await?;
    let single = each.clone().start().await?;
    let cluster = Cluster::builder()
        .options(each.clone().orphan_ttl(KEPT))
        .start()
        .await?;
    let signals = each.release("1.16")?.start().await?;
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
    // Nothing is written there: it ends with the process at its other end.
    let (mut input, mut nothing) = (tokio::io::stdin(), [0; 16]);
    tokio::select! {
        _ = input.read(&mut nothing) => Ok(()),
        outcome = trouble(&cluster, &ways) => outcome,
    }
}

/// Something goes wrong every few seconds, in turn.
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
                ways.single.change(|weather| weather.stall_down = true);
                sleep(STALL).await;
                ways.single.change(|weather| weather.stall_down = false);
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

/// The others name the way to the leader, not its own address.
fn lead(cluster: &Cluster, ways: &Ways, leader: usize) -> Result<(), dflockd_client::Error> {
    cluster.redirects_to(Some(&ways.members[leader].address));
    cluster.move_leader(leader)
}

fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
