//! Runs `dflock`, and looks at its processes.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dflockd_client::server::{Event, EventKind, Server, ServerBuilder};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use rustix::termios::tcgetpgrp;

/// Returns the command `dflock`, without the settings in the environment of this process.
pub fn dflock() -> Command {
    clean(ignoring_no_signal(env!("CARGO_BIN_EXE_dflock")))
}

/// Returns the command of a program that runs `dflock`.
pub fn around(program: &str) -> Command {
    clean(ignoring_no_signal(program))
}

/// Returns the command of a program that ignores no signal. Processes inherit ignored signals: HUP under `nohup`, INT
/// and QUIT in the background of a shell. `dflock` keeps ignoring the signals that were ignored at its start.
#[cfg(target_os = "linux")]
fn ignoring_no_signal(program: &str) -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal", program]);
    command
}

#[cfg(not(target_os = "linux"))]
fn ignoring_no_signal(program: &str) -> Command {
    Command::new(program)
}

fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DFLOCK") {
            command.env_remove(name);
        }
    }
    command
        .env("HOME", "/nonexistent")
        .env_remove("XDG_CONFIG_HOME")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null());
    command
}

/// Runs `dflock` to its end.
pub fn output(arguments: &[&str]) -> Output {
    dflock().args(arguments).output().unwrap()
}

pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("no code: {output:?}"))
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A running `dflock`. It is killed when this is dropped. Its output is read line by line.
pub struct Running {
    pub child: Child,
    out: BufReader<ChildStdout>,
    err: BufReader<ChildStderr>,
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let err = BufReader::new(child.stderr.take().unwrap());
        Self { child, out, err }
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "it ended: {}", self.errors());
        line.trim_end().to_owned()
    }

    pub fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        rest
    }

    /// Returns the next line on standard error.
    pub fn error(&mut self) -> String {
        let mut line = String::new();
        self.err.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Returns the rest of standard error, up to its end.
    pub fn errors(&mut self) -> String {
        let mut errors = String::new();
        self.err.read_to_string(&mut errors).unwrap();
        errors
    }

    /// Returns its children, each with its first argument: the name of the helper or subcommand if it is a `dflock`.
    pub fn children(&self) -> Vec<(i32, String)> {
        let id = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        let children = children.split_whitespace().map(|child| child.parse().unwrap());
        children
            .map(|child: i32| {
                let line = std::fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
                (child, line.split('\0').nth(1).unwrap_or_default().to_owned())
            })
            .collect()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(id(&self.child), signal).unwrap();
    }

    /// Waits for its end, and returns the exit code.
    pub fn code(&mut self) -> i32 {
        self.child.wait().unwrap().code().expect("it ends with a code")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub fn id(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap()).unwrap()
}

/// A process group whose number a command printed.
#[derive(Clone, Copy, Debug)]
pub struct Group(i32);

impl Group {
    pub fn read(line: &str) -> Self {
        Self(line.trim().parse().unwrap_or_else(|_| panic!("no number: {line:?}")))
    }

    pub fn number(self) -> i32 {
        self.0
    }

    /// Returns its processes that have not ended, each with the letter of its state.
    pub fn alive(self) -> Vec<(i32, char)> {
        let processes = std::fs::read_dir("/proc").unwrap();
        let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        ids.filter_map(|id| {
            // After the name in parentheses follow the state, the parent and the group.
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
            let mut fields = stat.rsplit_once(") ")?.1.split(' ');
            let state = fields.next()?.chars().next()?;
            let group: i32 = fields.nth(1)?.parse().ok()?;
            (group == self.0 && !"ZX".contains(state)).then_some((id, state))
        })
        .collect()
    }

    /// Returns whether the group is in the foreground of a terminal.
    pub fn has(self, terminal: impl AsFd) -> bool {
        tcgetpgrp(terminal).is_ok_and(|group| group.as_raw_nonzero().get() == self.0)
    }

    pub fn signal(self, signal: Signal) {
        kill_process_group(Pid::from_raw(self.0).unwrap(), signal).unwrap();
    }
}

/// A record of a server's grants. When the server grants a key to the next holder, no process of the groups that held
/// the key before may be alive.
pub struct Witness {
    watched: Arc<Mutex<Vec<(String, Group)>>>,
    faults: Arc<Mutex<Vec<String>>>,
    grants: Arc<Mutex<Vec<String>>>,
    checks_releases: Arc<AtomicBool>,
}

impl Witness {
    pub fn new() -> Self {
        Self {
            watched: Arc::default(),
            faults: Arc::default(),
            grants: Arc::default(),
            checks_releases: Arc::default(),
        }
    }

    /// Requires from now on that a group is gone before its lease is released, too.
    pub fn check_releases(&self) {
        self.checks_releases.store(true, Ordering::SeqCst);
    }

    pub async fn server(&self, port: u16) -> Server {
        self.describe().port(port).start().await.unwrap()
    }

    pub fn describe(&self) -> ServerBuilder {
        let (watched, faults, grants) = (
            Arc::clone(&self.watched),
            Arc::clone(&self.faults),
            Arc::clone(&self.grants),
        );
        let checks_releases = Arc::clone(&self.checks_releases);
        Server::builder()
            .lease_sweep_interval(Duration::from_millis(20))
            .on_event(move |event: &Event| {
                let is_release = event.kind == EventKind::Released && checks_releases.load(Ordering::SeqCst);
                if event.kind != EventKind::Granted && !is_release {
                    return;
                }
                for (key, group) in watched.lock().unwrap().iter() {
                    let alive = group.alive();
                    if event.key.as_str() == key && !alive.is_empty() {
                        let fault = format!("{:?} of {key} while {alive:?} of {group:?} are alive", event.kind);
                        faults.lock().unwrap().push(fault);
                    }
                }
                if event.kind == EventKind::Granted {
                    grants.lock().unwrap().push(event.key.as_str().to_owned());
                }
            })
    }

    /// Requires from now on that the group is gone when the server grants the key to the next holder.
    pub fn watch(&self, key: &str, group: Group) {
        self.watched.lock().unwrap().push((key.to_owned(), group));
    }

    pub fn grants(&self, key: &str) -> usize {
        self.grants
            .lock()
            .unwrap()
            .iter()
            .filter(|granted| *granted == key)
            .count()
    }

    pub fn assert_no_fault(&self) {
        let faults = self.faults.lock().unwrap();
        assert!(faults.is_empty(), "{faults:#?}");
    }
}
