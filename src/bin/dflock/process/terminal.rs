//! The terminal, and who may read from it.

use std::io::{IsTerminal, stdin};
use std::thread;

use nix::sys::signal::{SigSet, Signal};
use rustix::process::Pid;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr, tcsetpgrp};

use super::own_group;

/// The process group in the foreground of the terminal on standard input, if that is the terminal of this session.
pub(super) fn foreground() -> Option<Pid> {
    let is_terminal = stdin().is_terminal();
    is_terminal.then(|| tcgetpgrp(stdin()).ok()).flatten()
}

/// Whether this process is in the foreground of the terminal on standard input.
pub(super) fn is_ours() -> bool {
    let group = foreground();
    group.is_some() && group == own_group()
}

/// Whether standard input can be read without being stopped for it.
pub(crate) fn stdin_may_be_read() -> bool {
    !stdin().is_terminal() || is_ours()
}

/// Puts a process group into the foreground, from the background too.
pub(super) fn give_to(group: Pid) {
    undisturbed(move || {
        let _ = tcsetpgrp(stdin(), group);
    });
}

/// The modes of the terminal.
pub(super) fn modes() -> Option<Termios> {
    tcgetattr(stdin()).ok()
}

/// Sets the modes as they were.
pub(super) fn restore(modes: Termios) {
    undisturbed(move || {
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &modes);
    });
}

/// Runs it where the signal is blocked with which a terminal stops a process of the background that changes it. In a thread, so that the
/// processes that this one starts do not have it blocked.
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
