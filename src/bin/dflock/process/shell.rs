//! The shell of which this process is a job.

use rustix::process::{Pid, Signal, getppid, kill_current_process_group};

use super::own_group;

/// Stops this process and its group, as Ctrl-Z does, and returns when the shell continues them. Returns false at once
/// if there is no such shell.
pub(crate) fn stop() -> bool {
    let is_there = is_there();
    if is_there {
        let _ = kill_current_process_group(Signal::STOP);
    }
    is_there
}

/// Returns whether there is a shell that can continue this group: an ancestor of this process in the same session, in
/// another group, that is the parent of a process of this group. A group without such a shell is orphaned, and no
/// process would continue it.
fn is_there() -> bool {
    let (Ok(session), Some(group)) = (nix::unistd::getsid(None), own_group()) else {
        return false;
    };
    let mut parent = getppid();
    while let Some(process) = parent {
        let other = Some(nix::unistd::Pid::from_raw(process.as_raw_nonzero().get()));
        if nix::unistd::getsid(other) != Ok(session) {
            return false;
        }
        match nix::unistd::getpgid(other) {
            Ok(other) if other.as_raw() == group.as_raw_nonzero().get() => parent = parent_of(process),
            Ok(_) => return true,
            Err(_) => return false,
        }
    }
    false
}

/// Returns the parent of another process; `None` if the system does not report it.
fn parent_of(process: Pid) -> Option<Pid> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.as_raw_nonzero())).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    Pid::from_raw(parent.trim().parse().ok()?)
}
