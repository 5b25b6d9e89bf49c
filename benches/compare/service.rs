//! Starts the servers that the sides use.

use std::error::Error;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use dflockd_client::server::Server;

use crate::child::Child;
use crate::guard::guarded;
use crate::places;
use crate::process::free_port;

const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);

/// The maximum number of attempts to start a server. An attempt fails if another process takes the port first.
const TRIES: usize = 3;

/// The embedded server prints this text and its address.
const LISTENS: &str = "listening on ";

/// The kind of server that a side uses.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum System {
    Dflockd,
    Redis,
    Etcd,
}

/// A server in a process of its own. Dropping this value ends the process.
pub(crate) struct Service {
    _child: Child,
    pub(crate) address: SocketAddr,
}

impl Service {
    pub(crate) fn start(system: System) -> Result<Self, String> {
        match system {
            System::Dflockd => embedded(),
            System::Redis => on_free_ports(redis),
            System::Etcd => on_free_ports(etcd),
        }
    }
}

/// Runs the embedded server until this process ends.
pub(crate) fn serve() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Runtime::new()?;
    let server = runtime.block_on(Server::builder().port(0).max_locks(10_000_000).start())?;
    println!("{LISTENS}{}", server.local_addr());
    io::stdout().flush()?;
    runtime.block_on(std::future::pending())
}

fn embedded() -> Result<Service, String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut child = Child::start("the embedded server", Command::new(this).arg("serve"))?;
    let line = child.line(PATIENCE)?;
    let address = line.strip_prefix(LISTENS).and_then(|address| address.parse().ok());
    match address {
        Some(address) => Ok(Service { _child: child, address }),
        None => Err(format!("the embedded server printed {line:?}")),
    }
}

fn on_free_ports(start: fn([u16; 2]) -> Result<Service, String>) -> Result<Service, String> {
    let mut started = Err(String::new());
    for _ in 0..TRIES {
        started = start([free_port(), free_port()]);
        if started.is_ok() {
            break;
        }
    }
    started
}

/// Starts Redis, which keeps everything in memory and writes nothing to the disk.
fn redis([port, _]: [u16; 2]) -> Result<Service, String> {
    let folder = empty_folder("redis-data")?;
    let mut command = command("redis-server")?;
    command
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"])
        .arg(port.to_string())
        .arg("--dir")
        .arg(folder);
    listening(Child::start("redis-server", &mut command)?, port)
}

/// Starts etcd as a cluster of one member. The member writes each change to the disk before it answers.
fn etcd([port, peers]: [u16; 2]) -> Result<Service, String> {
    let folder = empty_folder("etcd-data")?;
    let (clients, peers) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peers}"));
    let mut command = command("etcd")?;
    command
        .args(["--log-level", "error", "--listen-client-urls", &clients])
        .args(["--advertise-client-urls", &clients, "--listen-peer-urls", &peers])
        .args(["--initial-advertise-peer-urls", &peers])
        .args(["--initial-cluster", &format!("default={peers}")])
        .arg("--data-dir")
        .arg(folder);
    listening(Child::start("etcd", &mut command)?, port)
}

fn command(name: &str) -> Result<Command, String> {
    let program = places::program(name).ok_or_else(|| format!("no {name} in PATH"))?;
    guarded(&program).map_err(|error| error.to_string())
}

fn empty_folder(name: &str) -> Result<std::path::PathBuf, String> {
    let make = |folder: &Path| {
        if folder.exists() {
            std::fs::remove_dir_all(folder)?;
        }
        std::fs::create_dir_all(folder)
    };
    let folder = places::compare().map_err(|error| error.to_string())?.join(name);
    make(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(folder)
}

/// Waits until the server accepts connections.
fn listening(mut child: Child, port: u16) -> Result<Service, String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let give_up = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_err() {
        child.check()?;
        if Instant::now() >= give_up {
            return Err(format!("nothing listens at {address} after {} s", PATIENCE.as_secs()));
        }
        std::thread::sleep(PAUSE);
    }
    // If `child` has ended, another program has the port and accepted the connection.
    child.check()?;
    Ok(Service { _child: child, address })
}
