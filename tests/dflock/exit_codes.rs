//! The table of exit codes in the documentation: these tests reach each of its codes, and no others.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Output, Stdio};

use dflockd_client::Client;
use dflockd_client::server::{Server, ServerBuilder};
use rustix::process::Signal;

use crate::support::process::free_port;
use crate::support::proxy::Proxy;
use crate::support::until;
use crate::tool::{Running, Witness, around, code, dflock, text};

const DOCUMENT: &str = "docs/guide/src/command-reference.md";
/// The row of the codes for signals that end a command.
const BY_SIGNAL: &str = "128 + n";

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the codes of the table. A row may have several.
fn documented() -> BTreeSet<String> {
    let document = read(DOCUMENT);
    let table = document.lines().skip_while(|line| *line != "## Exit codes").skip(1);
    let rows = table
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| line.strip_prefix("| "))
        .filter(|row| row.starts_with(|c: char| c.is_ascii_digit()));
    let codes = rows.flat_map(|row| row.split(" |").next().unwrap().split(", "));
    codes.map(str::to_owned).collect()
}

/// Returns the row of a code.
fn row(code: i32) -> String {
    match code {
        129.. => BY_SIGNAL.to_owned(),
        code => code.to_string(),
    }
}

#[test]
fn the_table_has_the_codes_of_the_source() {
    let source = read("src/bin/dflock/exit.rs");
    let constants = source
        .lines()
        .filter(|line| line.trim_start().starts_with("pub(crate) const "))
        .map(|line| line.split(['(', ')']).nth(3).unwrap().parse().unwrap());
    let mut codes: BTreeSet<String> = constants.map(row).collect();
    assert!(codes.len() > 10, "{codes:?}");
    codes.insert(BY_SIGNAL.to_owned());
    assert_eq!(codes, documented());
}

/// The codes that were reached.
#[derive(Default)]
struct Reached(BTreeSet<String>);

impl Reached {
    /// Takes an exit code of the command, about which `dflock` prints nothing.
    fn of_command(&mut self, expected: i32, ended: &Output) {
        assert_eq!(code(ended), expected, "{ended:?}");
        assert_eq!(text(&ended.stderr), "");
        if expected > 128 {
            self.0.insert(row(expected));
        }
    }

    /// Takes an exit code of `dflock`, which prints the reason for a failure.
    fn own(&mut self, expected: i32, ended: &Output) {
        assert_eq!(code(ended), expected, "{ended:?}");
        assert_eq!(ended.stderr.is_empty(), expected == 0, "{ended:?}");
        self.0.insert(row(expected));
    }

    /// Takes the exit code of a `dflock` that is still running.
    fn own_of(&mut self, expected: i32, running: &mut Running) {
        assert_eq!(running.code(), expected, "{}", running.errors());
        self.0.insert(row(expected));
    }
}

async fn start(builder: ServerBuilder) -> (Server, String) {
    let server = builder.port(0).start().await.unwrap();
    let address = server.local_addr().to_string();
    (server, address)
}

/// The time for a command that gets its key, or is refused at once, however slow the machine is.
const AMPLE: &str = "60s";
/// The time for a command whose server cannot be reached.
const NO_SERVER: &str = "300ms";
/// The time for a command that reaches its server, and then waits in vain.
const VAIN: &str = "2s";

fn run(server: &str, arguments: &[&str]) -> Output {
    run_key("key", AMPLE, server, arguments)
}

fn run_key(key: &str, timeout: &str, server: &str, arguments: &[&str]) -> Output {
    let whole = [&["run", key, "--timeout", timeout, "--servers", server], arguments].concat();
    dflock().args(whole).output().unwrap()
}

/// Reaches the codes that depend on the command line, the settings and the command itself.
fn commands_and_settings(reached: &mut Reached, address: &str) {
    reached.of_command(0, &run(address, &["--", "true"]));
    reached.of_command(1, &run(address, &["--", "false"]));
    reached.of_command(77, &run(address, &["--", "sh", "-c", "exit 77"]));
    reached.of_command(137, &run(address, &["--", "sh", "-c", "kill -KILL $$"]));
    reached.of_command(143, &run(address, &["--", "sh", "-c", "kill -TERM $$"]));
    reached.own(127, &run(address, &["--", "no-such-program"]));
    reached.own(126, &run(address, &["--", "/etc/passwd"]));
    for wrong in [
        &[][..],
        &["--grace", "20s", "--", "true"],
        &["--ttl", "10", "--", "true"],
        &["--on-loss", "kill", "--grace", "10000000000000000000s", "--", "true"],
        &["--set", "lease=10s", "--", "true"],
    ] {
        reached.own(64, &run(address, wrong));
    }
    reached.own(64, &run("127.0.0.1:port", &["--", "true"]));
    let mut command = dflock();
    command.args(["run", "key", "--servers", address, "--", "true"]);
    reached.own(78, &command.env("DFLOCKD_CLIENT_LEASE_TTL", "3").output().unwrap());
    let none = dflock().args(["config", "--config", "/nonexistent"]).output().unwrap();
    reached.own(78, &none);
    // Standard input has ended already.
    let lock = dflock().args(["lock", "key", "--servers", address]).output().unwrap();
    reached.own(0, &lock);
}

/// Reaches the codes that depend on servers.
async fn servers(reached: &mut Reached, address: &str) {
    let nowhere = format!("127.0.0.1:{}", free_port());
    reached.own(69, &run_key("key", NO_SERVER, &nowhere, &["--", "true"]));
    let (_guarded, closed) = start(Witness::new().describe().auth_token("sesame")).await;
    reached.own(77, &run(&closed, &["--", "true"]));
    let (_old, old) = start(Witness::new().describe().release("1.16")).await;
    reached.own(76, &run(&old, &["--fence", "--", "true"]));

    let client = Client::builder().servers([address]).connect().await.unwrap();
    let held = client.lock("held").unwrap().acquire().await.unwrap();
    reached.own(75, &run_key("held", VAIN, address, &["--", "true"]));
    let tried = dflock()
        .args(["run", "held", "--try", "--servers", address, "--", "true"])
        .output()
        .unwrap();
    reached.own(75, &tried);
    held.release().await.unwrap();
    // A semaphore has one limit for all holders.
    let slot = client.semaphore("slots", 2).unwrap().acquire().await.unwrap();
    reached.own(76, &run_key("slots", AMPLE, address, &["--limit", "3", "--", "true"]));
    slot.release().await.unwrap();
}

/// Reaches the codes for servers that have no room for another key or for another waiter.
async fn full_servers(reached: &mut Reached) {
    let (server, address) = start(Witness::new().describe().max_locks(1).max_waiters(1)).await;
    let client = Client::builder().servers([&address]).connect().await.unwrap();
    let _held = client.lock("held").unwrap().acquire().await.unwrap();
    let no_key = run_key("key", VAIN, &address, &["--", "true"]);
    reached.own(75, &no_key);
    assert!(text(&no_key.stderr).contains("--max-locks"), "{no_key:?}");

    let waiting = ["run", "held", "--timeout", "60s", "--servers", &address, "--", "true"];
    let mut waiter = Running::start(dflock().args(waiting));
    until("a command waits", || {
        server.stats().locks.iter().any(|lock| lock.waiters == 1)
    })
    .await;
    let no_place = run_key("held", VAIN, &address, &["--", "true"]);
    reached.own(75, &no_place);
    assert!(text(&no_place.stderr).contains("--max-waiters"), "{no_place:?}");

    // A signal ends the wait.
    waiter.signal(Signal::TERM);
    reached.own_of(143, &mut waiter);
}

/// Reaches the code for a lost lease: the server has seen the end of the connection, and may grant the key to another
/// holder.
async fn lost_leases(reached: &mut Reached, address: &str) {
    let proxy = Proxy::start(address).await;
    for subcommand in [
        &["run", "lost", "--", "sh", "-c", "echo started; exec sleep 1000"][..],
        &["lock", "lost", "--ignore-stdin"],
    ] {
        let mut holder = Running::start(dflock().args(["--servers", &proxy.address]).args(subcommand));
        holder.line();
        proxy.cut();
        reached.own_of(79, &mut holder);
        assert!(holder.errors().contains("the lease of \"lost\" was lost"));
    }
}

/// Reaches the codes for files that cannot be written or read.
fn files(reached: &mut Reached, address: &str) {
    let full = || Stdio::from(std::fs::File::options().write(true).open("/dev/full").unwrap());
    for writes in [
        &["lock", "key", "--servers", address][..],
        &["stats", "--servers", address],
        &["config"],
        &["--help"],
        &["run", "--help"],
        &["--version"],
    ] {
        let ended = dflock().args(writes).stdout(full()).output().unwrap();
        reached.own(74, &ended);
    }
    let folder = std::fs::File::open("/").unwrap();
    let mut emit = dflock();
    emit.args(["emit", "channel", "-", "--servers", address]);
    reached.own(74, &emit.stdin(folder).output().unwrap());
}

/// Reaches the codes for a process that may open few files: with each further file, `dflock` gets a little further.
fn few_files(reached: &mut Reached, address: &str) {
    let mut said = String::new();
    for most in 3..200 {
        let mut limited = around("sh");
        let script = format!("ulimit -n {most}; exec \"$0\" \"$@\"");
        limited.args(["-c", &script, env!("CARGO_BIN_EXE_dflock"), "run", "key"]);
        let ended = limited
            .args(["--servers", address, "--timeout", "5s", "--", "true"])
            .output()
            .unwrap();
        match code(&ended) {
            0 => {
                reached.own(0, &ended);
                assert!(said.contains("no process can be started"), "{said}");
                // The runtime panics if it cannot open the files with which it learns of signals.
                assert!(said.contains("a fault of this program"), "{said}");
                return;
            }
            // The system could not load `dflock`, so it did not start.
            127 if text(&ended.stderr).contains("shared libraries") => {}
            expected @ (69..=71) => {
                reached.own(expected, &ended);
                said.push_str(&text(&ended.stderr));
            }
            other => panic!("{other} with {most} files: {ended:?}"),
        }
    }
    panic!("nothing is enough: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_code_of_the_table_is_reached_and_no_other() {
    let (server, address) = start(Witness::new().describe()).await;
    let mut reached = Reached::default();
    commands_and_settings(&mut reached, &address);
    servers(&mut reached, &address).await;
    full_servers(&mut reached).await;
    lost_leases(&mut reached, &address).await;
    files(&mut reached, &address);
    few_files(&mut reached, &address);
    assert_eq!(reached.0, documented());
    until("nothing is held", || server.stats().locks.is_empty()).await;
}
