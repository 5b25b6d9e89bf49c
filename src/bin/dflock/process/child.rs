//! What becomes the command: it has itself killed with its parent, takes the terminal, and executes the command in its place.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{getpid, getppid};

use super::terminal;
use crate::exit::Exit;
use crate::tell;

/// How this helper is called.
pub(super) const NAME: &str = "__child";

/// The argument that asks for the terminal.
pub(super) const FOREGROUND: &str = "foreground";

/// `__child PARENT foreground|background COMMAND…`. Returns only where that fails.
pub(super) fn run(mut arguments: impl Iterator<Item = OsString>) -> Exit {
    let parent = arguments.next().and_then(|id| id.to_str()?.parse::<i32>().ok());
    let takes_terminal = arguments.next().is_some_and(|word| word == FOREGROUND);
    let (Some(parent), Some(program)) = (parent, arguments.next()) else {
        tell::complain(&format!("{NAME} is for dflock itself"));
        return Exit::USAGE;
    };
    die_with_parent();
    // It may have gone before that was asked for.
    if getppid().map(|id| id.as_raw_nonzero().get()) != Some(parent) {
        return Exit::SYSTEM;
    }
    if takes_terminal {
        // It leads its group.
        terminal::give_to(getpid());
    }
    let error = Command::new(&program).args(arguments).exec();
    tell::complain(&format!("cannot run {}: {error}", program.to_string_lossy()));
    match error.kind() {
        ErrorKind::NotFound => Exit::NOT_FOUND,
        _ => Exit::NOT_EXECUTABLE,
    }
}

#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
fn die_with_parent() {
    // Where the system refuses this, the watch is left.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
fn die_with_parent() {}
