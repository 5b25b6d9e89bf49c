//! Processes that tests start: servers, examples, and the test itself once more.

use std::io::{BufRead, BufReader, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

/// A server in its own process. Dropping this value kills the process.
pub struct ServerProcess {
    child: Child,
    pub address: String,
}

impl ServerProcess {
    /// Starts `command` with `--host` and `--port` after its arguments. Waits until the server accepts connections.
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
        // Waits until the server has closed the probe, because some servers accept only one connection at a time.
        drop(probe.shutdown(Shutdown::Write));
        drop(probe.set_read_timeout(Some(Duration::from_secs(30))));
        drop((&probe).read(&mut [0]));
        // Another server with the same port may have accepted the probe. In that case, the new process has ended.
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

/// Returns a port that is free now. Each call in this process tries other ports.
///
/// The port is below the range from which systems take ports for outgoing connections. So no connection of a test can
/// take the port before the server does.
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // Processes with different ids begin with different ports.
    let start = std::process::id().wrapping_mul(131);
    loop {
        let number = start.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + number % COUNT).unwrap();
        if is_free(port) {
            return port;
        }
    }
}

/// Returns whether the port can be bound.
///
/// This function does not listen on the port. If another thread starts a process at this moment, that process inherits
/// the socket until it executes its program. If the socket listened, it would accept connections in place of the
/// server.
fn is_free(port: u16) -> bool {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // With this option, the server can bind the port while another process still has the socket. The `bind` below still
    // fails if a server listens on the port.
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into()).is_ok()
}

/// Returns the first line of the process's output that begins with `prefix`, without the prefix.
pub fn first_line(child: &mut Child, prefix: &str) -> String {
    let stdout = child.stdout.take().expect("its output is piped");
    BufReader::new(stdout)
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix(prefix).map(str::to_owned))
        .unwrap_or_else(|| panic!("it never printed {prefix:?}"))
}

/// Returns the path of an example of this package. A plain `cargo test` builds the examples, but `cargo test --test
/// NAME` does not. So after the latter, an example may be missing or outdated.
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

/// Runs a test again in a new process with these environment variables. In the process of all tests, the variables
/// would affect other tests, too.
///
/// Returns true in the new process, where the test must continue. Returns false in the old process after the new
/// process has succeeded, so the test is done.
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
