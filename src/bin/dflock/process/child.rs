//! The helper that becomes the command: it asks the system to kill it with its parent, takes the terminal, and
//! executes the command in its own place.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::process::{getpid, getppid};

use super::terminal;
use crate::exit::Exit;
use crate::tell;

/// The name of this helper.
pub(super) const NAME: &str = "__child";

/// The argument that asks for the terminal.
pub(super) const FOREGROUND: &str = "foreground";

/// The argument that leaves the terminal where it is.
pub(super) const BACKGROUND: &str = "background";

/// Runs `__child PARENT foreground|background COMMAND…`. Returns only on failure.
pub(super) fn run(mut arguments: impl Iterator<Item = OsString>) -> Exit {
    let parent = arguments.next().and_then(|id| id.to_str()?.parse::<i32>().ok());
    let takes_terminal = arguments.next().is_some_and(|word| word == FOREGROUND);
    let (Some(parent), Some(program)) = (parent, arguments.next()) else {
        tell::complain(&format!("{NAME} is for dflock itself"));
        return Exit::USAGE;
    };
    die_with_parent();
    // The parent may have ended before this request.
    if getppid().map(|id| id.as_raw_nonzero().get()) != Some(parent) {
        return Exit::SYSTEM;
    }
    if takes_terminal {
        // This process leads its group.
        terminal::give_to(getpid());
    }
    let error = Command::new(&program).args(arguments).exec();
    let name = program.to_string_lossy();
    match error.kind() {
        // The system does not search for a path with a slash. So the file exists, and its interpreter does not.
        ErrorKind::NotFound if name.contains('/') && Path::new(&program).exists() => {
            tell::complain(&format!(
                "cannot run {name}: the interpreter that it names does not exist"
            ));
            Exit::NOT_EXECUTABLE
        }
        ErrorKind::NotFound => {
            tell::complain(&format!("cannot run {name}: {error}"));
            Exit::NOT_FOUND
        }
        _ => {
            tell::complain(&format!("cannot run {name}: {error}"));
            Exit::NOT_EXECUTABLE
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
fn die_with_parent() {
    // If the system refuses this, the watch still protects the lease.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
fn die_with_parent() {}
