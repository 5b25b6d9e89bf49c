//! The command as a process group.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use dflockd_client::tokio::time::Instant;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process_group, test_kill_process_group, wait};
use rustix::termios::Termios;

use super::watch::Watch;
use super::{child, own_group, shell, terminal, this_program};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::holding::About;
use crate::tell;

/// A started command.
pub(super) struct Job {
    /// The command, and the group that it leads.
    leader: Pid,
    ended: Option<Exit>,
    watch: Watch,
    /// The terminal's previous modes, if the group got the terminal.
    modes: Option<Termios>,
}

/// A change of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// The command was stopped by this signal.
    Stopped(i32),
    /// No relevant change.
    Nothing,
}

impl Job {
    /// Starts a command in its own group. The watch kills the group at `until`, unless a later call changes that time.
    pub(super) fn start(command: &[OsString], about: &About, until: Option<Instant>) -> Result<Self, Failure> {
        adopt_orphans();
        // The watch starts before the group exists, because this process may be stopped as soon as the group exists.
        let mut watch = Watch::start(None, until).map_err(|error| not_started(&error))?;
        let takes_terminal = terminal::is_ours();
        let modes = takes_terminal.then(terminal::modes).flatten();
        let mut start: Command = this_program(child::NAME).map_err(|error| not_started(&error))?;
        start
            .arg(std::process::id().to_string())
            .arg(if takes_terminal {
                child::FOREGROUND
            } else {
                child::BACKGROUND
            })
            .args(command)
            .env("DFLOCK_KEY", &about.key)
            .env("DFLOCK_SERVER", &about.server)
            .process_group(0);
        match &about.fence {
            Some(fence) => start.env("DFLOCK_FENCE", fence),
            // A variable from an enclosing dflock command describes another lease.
            None => start.env_remove("DFLOCK_FENCE"),
        };
        let child = start.spawn().map_err(|error| not_started(&error))?;
        let leader = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let leader =
            leader.ok_or_else(|| Failure::new(Exit::SOFTWARE, "the id of the started process is not valid"))?;
        watch.guard(leader);
        Ok(Self {
            leader,
            ended: None,
            watch,
            modes,
        })
    }

    pub(super) fn watch(&mut self) -> &mut Watch {
        &mut self.watch
    }

    /// Starts the watch again if it was killed.
    pub(super) fn ensure_watch(&mut self) {
        if let Err(error) = self.watch.mend() {
            tell::warn(&format!(
                "dflock __watch cannot be started, so processes of the command may run on if dflock is killed: {error}"
            ));
        }
    }

    /// Returns the exit code of the command, if it has ended.
    pub(super) fn ended(&self) -> Option<Exit> {
        self.ended
    }

    /// Returns whether any process of the group is left, including zombies.
    pub(super) fn is_alive(&self) -> bool {
        self.ended.is_none() || test_kill_process_group(self.leader) != Err(Errno::SRCH)
    }

    /// Returns whether any process of the group still runs: zombies that their parents do not reap do not count.
    pub(super) fn still_runs(&self) -> bool {
        self.is_alive() && living(self.leader)
    }

    /// Returns whether the group is in the foreground of the terminal.
    pub(super) fn has_terminal(&self) -> bool {
        terminal::foreground() == Some(self.leader)
    }

    /// Sends a signal to all processes of the group.
    pub(super) fn signal(&self, signal: Signal) {
        // There may be no process left, or some may belong to another user.
        let _ = kill_process_group(self.leader, signal);
    }

    /// Notes changes of children, and reaps those that have ended: the command, and orphans.
    pub(super) fn look(&mut self) -> News {
        let mut news = News::Nothing;
        let options = WaitOptions::NOHANG | WaitOptions::UNTRACED;
        while let Ok(Some((process, status))) = wait(options) {
            if process == self.leader {
                match status.stopping_signal() {
                    Some(signal) => news = News::Stopped(signal),
                    None => self.ended = Some(exit_of(status)),
                }
            } else if self.watch.is(process) && !status.stopped() {
                self.watch.take_end(status.exit_status() == Some(0));
            }
        }
        news
    }

    /// Gives the terminal to the group again, if this process has it.
    pub(super) fn give_terminal(&mut self) {
        if terminal::is_ours() {
            self.modes = self.modes.take().or_else(terminal::modes);
            terminal::give_to(self.leader);
        }
    }

    /// Takes the terminal back, if the group has it.
    fn take_terminal(&self) {
        if self.has_terminal() {
            own_group().into_iter().for_each(terminal::give_to);
        }
    }

    /// Stops this process and its group after the command was stopped, so that the shell sees a stopped job. Returns
    /// true when the shell continues the job, or false at once if no shell can do that.
    pub(super) fn stop_with_it(&self) -> bool {
        self.take_terminal();
        shell::stop()
    }

    /// Restores the terminal after the end of the group.
    pub(super) fn close(mut self, was_killed: bool) {
        self.take_terminal();
        if let Some(modes) = self.modes.take().filter(|_| was_killed && terminal::is_ours()) {
            terminal::restore(modes);
        }
        self.watch.dismiss();
    }
}

/// Makes this process the parent of the group's orphans, so that it learns of their ends.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn adopt_orphans() {
    // If this fails, process 1 becomes their parent, and polling shows the end of the group.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn adopt_orphans() {}

/// Returns whether a process of the group still runs; true if the system does not report it.
fn living(group: Pid) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return true;
    };
    let mut is_told = false;
    for process in processes.flatten() {
        let Ok(stat) = std::fs::read_to_string(process.path().join("stat")) else {
            continue;
        };
        // After the name in parentheses follow the state, the parent and the group.
        let mut fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ');
        let (state, of) = (fields.next(), fields.nth(1).and_then(|of| of.parse::<i32>().ok()));
        is_told |= of.is_some();
        if of == Some(group.as_raw_nonzero().get()) && !matches!(state, Some("Z" | "X")) {
            return true;
        }
    }
    !is_told
}

fn exit_of(status: WaitStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::of_program(code),
        (None, Some(signal)) => Exit::by_signal(signal),
        (None, None) => Exit::SOFTWARE,
    }
}

fn not_started(error: &std::io::Error) -> Failure {
    Failure::new(Exit::SYSTEM, format!("no process can be started: {error}"))
}
