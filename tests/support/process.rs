//! Servers that run as separate processes.

use std::io::{BufRead, BufReader, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

/// A process that is killed when it is dropped.
pub struct ServerProcess {
    child: Child,
    pub address: String,
}

impl ServerProcess {
    /// Starts `command` with `--host` and `--port` after its arguments, and waits until it accepts connections.
    pub fn start(mut command: Command) -> Self {
        let port = free_port();
        let address = format!("127.0.0.1:{port}");
        let child = command
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let mut server = Self { child, address };
        server.wait_until_it_listens();
        server
    }

    fn wait_until_it_listens(&mut self) {
        let give_up = Instant::now() + Duration::from_secs(30);
        let probe = loop {
            if let Ok(probe) = TcpStream::connect(&self.address) {
                break probe;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the server at {} ended: {status}", self.address);
            }
            assert!(Instant::now() < give_up, "no server listens at {}", self.address);
            std::thread::sleep(Duration::from_millis(20));
        };
        // Waits until the server has closed the probe: some servers have room for one connection only.
        drop(probe.shutdown(Shutdown::Write));
        drop(probe.set_read_timeout(Some(Duration::from_secs(30))));
        drop((&probe).read(&mut [0]));
        // Checks that this server answered, and not another one that had the port.
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("the server at {} ended: {status}", self.address);
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn wait(&mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Returns a port that is free now, and that this process returns only once. It is below the ports that systems use for
/// outgoing connections, so none of the many connections that tests make can take it before the server does.
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // Another process begins with another port.
    let start = std::process::id().wrapping_mul(131);
    loop {
        let number = start.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + number % COUNT).unwrap();
        if is_free(port) {
            return port;
        }
    }
}

/// Binds the port, and does not listen: a process that another thread starts at this moment inherits the socket until it executes its
/// program, and would accept a connection in the place of the server.
fn is_free(port: u16) -> bool {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // So that the server can bind the port meanwhile. A port with a listener is refused all the same.
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into()).is_ok()
}

/// Returns the first line of a process that starts with `prefix`, without the prefix.
pub fn first_line(child: &mut Child, prefix: &str) -> String {
    let stdout = child.stdout.take().expect("its output is piped");
    BufReader::new(stdout)
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix(prefix).map(str::to_owned))
        .unwrap_or_else(|| panic!("it never printed {prefix:?}"))
}

/// Returns the path of one of this package's examples. A plain `cargo test` builds them beside the tests; after `cargo test --test …`
/// alone an example may be missing or old.
pub fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test
        .parent()
        .and_then(Path::parent)
        .expect("tests are two levels below target");
    let path = profile.join("examples").join(name);
    assert!(
        path.exists(),
        "{} is missing: `cargo build --examples` makes it",
        path.display()
    );
    path
}

/// Runs a test again in a process of its own with these environment variables. If they were set in this process, its
/// other tests would see them. Returns whether this is that other process: then the test continues, otherwise it is
/// done.
pub fn is_alone_with(test: &str, variables: &[(&str, &str)]) -> bool {
    const MARK: &str = "DFLOCKD_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(MARK, "1")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    false
}
