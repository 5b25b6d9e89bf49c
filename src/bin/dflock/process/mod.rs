//! A command in its own process group: how it is started, stopped and observed.
//!
//!     dflock run ─┬─ dflock __watch        kills the group when `dflock run` is gone, or does not act before the lease ends
//!                 └─ dflock __child ─exec─► the command, leader of its group

#[cfg(feature = "server")]
mod attached;
mod child;
mod job;
mod shell;
mod signals;
mod supervise;
mod terminal;
mod watch;

use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::Pid;

#[cfg(feature = "server")]
pub(crate) use self::attached::Attached;
pub(crate) use self::shell::stop;
pub(crate) use self::signals::{Signals, TerminalSignal};
pub(crate) use self::supervise::{Ending, Policy, supervise};
pub(crate) use self::terminal::stdin_may_be_read;
use crate::exit::Exit;

/// Runs this process as a helper, if it was started as one.
pub(crate) fn helper() -> Option<Exit> {
    let mut arguments = std::env::args_os().skip(1);
    let name = arguments.next()?;
    match name.to_str()? {
        child::NAME => Some(child::run(arguments)),
        watch::NAME => Some(watch::run(arguments)),
        _ => None,
    }
}

/// Returns the process group of this process; `None` if it is outside this PID namespace.
fn own_group() -> Option<Pid> {
    Pid::from_raw(nix::unistd::getpgrp().as_raw())
}

/// Returns a command that starts this program as a helper.
fn this_program(helper: &str) -> std::io::Result<Command> {
    // As long as this process lives, this path leads to its program, even if the file was replaced.
    let of_process = std::path::Path::new("/proc/self/exe");
    let mut command = match of_process.exists() {
        true => Command::new(of_process),
        false => Command::new(std::env::current_exe()?),
    };
    command.arg0("dflock").arg(helper);
    Ok(command)
}
