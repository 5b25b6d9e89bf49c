//! The terminal and its foreground group.

use std::io::{IsTerminal, stdin};
use std::thread;

use nix::sys::signal::{SigSet, Signal};
use rustix::process::Pid;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr, tcsetpgrp};

use super::own_group;

/// Returns the foreground group of the terminal on standard input, if that is the terminal of this session.
pub(super) fn foreground() -> Option<Pid> {
    let is_terminal = stdin().is_terminal();
    is_terminal.then(|| tcgetpgrp(stdin()).ok()).flatten()
}

/// Returns whether this process is in the foreground of the terminal on standard input.
pub(super) fn is_ours() -> bool {
    let group = foreground();
    group.is_some() && group == own_group()
}

/// Returns whether this process can read standard input without being stopped.
pub(crate) fn stdin_may_be_read() -> bool {
    !stdin().is_terminal() || is_ours()
}

/// Puts a process group into the foreground, even if this process is in the background.
pub(super) fn give_to(group: Pid) {
    undisturbed(move || {
        let _ = tcsetpgrp(stdin(), group);
    });
}

/// Returns the modes of the terminal.
pub(super) fn modes() -> Option<Termios> {
    tcgetattr(stdin()).ok()
}

/// Restores the modes.
pub(super) fn restore(modes: Termios) {
    undisturbed(move || {
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &modes);
    });
}

/// Runs a change of the terminal with SIGTTOU blocked: the terminal would stop a background process with this signal.
/// The change runs in a thread, so that child processes do not inherit the blocked signal.
fn undisturbed(change: impl FnOnce() + Send) {
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut stops = SigSet::empty();
            stops.add(Signal::SIGTTOU);
            if stops.thread_block().is_ok() {
                change();
            }
        });
    });
}
