//! The shell that this process is a job of.

use rustix::process::{Pid, Signal, getppid, kill_current_process_group};

use super::own_group;

/// Stops this process and its group, as Ctrl-Z does it, and returns when the shell continues them. Returns false at once where there is no
/// shell that could.
pub(super) fn stop() -> bool {
    let is_there = is_there();
    if is_there {
        let _ = kill_current_process_group(Signal::STOP);
    }
    is_there
}

/// Whether a process of this session, in a group other than this one's, is an ancestor of this process, whose children the group between
/// them are: a shell that can continue this group. A group without is an orphan, and nothing would ever continue it.
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

/// The parent of another process; none where the system does not tell.
fn parent_of(process: Pid) -> Option<Pid> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.as_raw_nonzero())).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    Pid::from_raw(parent.trim().parse().ok()?)
}
