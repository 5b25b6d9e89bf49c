//! The watch: a process that kills the command's group when `dflock` is gone, or when it lets the time of the lease pass because it was
//! stopped or stalled.
//!
//! It is told in lines over its standard input, and takes the end of that for the end of `dflock`.

use std::io::{BufRead, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use dflockd_client::tokio::time::Instant;
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::time::{ClockId, clock_gettime};

use super::this_program;
use crate::exit::Exit;

/// How this helper is called.
pub(super) const NAME: &str = "__watch";

/// How long it sleeps at most: after a suspend of the machine it is late by no more.
const NAP: Duration = Duration::from_secs(1);

/// From the start of one watch to the start of another in its place, at least.
const PAUSE: Duration = Duration::from_secs(1);

/// The watch, as `dflock` sees it.
pub(super) struct Watch {
    child: Child,
    to: Option<ChildStdin>,
    group: Option<Pid>,
    until: Option<Instant>,
    started: Instant,
    /// Whether another is to be started in its place.
    is_missing: bool,
}

impl Watch {
    pub(super) fn start() -> std::io::Result<Self> {
        let mut child = this_program(NAME)?
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .env_clear()
            .process_group(0)
            .spawn()?;
        Ok(Self {
            to: child.stdin.take(),
            child,
            group: None,
            until: None,
            started: Instant::now(),
            is_missing: false,
        })
    }

    pub(super) fn is(&self, process: Pid) -> bool {
        self.child.id() == process.as_raw_nonzero().get().unsigned_abs()
    }

    /// Names the group that it is there for.
    pub(super) fn guard(&mut self, group: Pid) {
        self.group = Some(group);
        self.tell(&format!("group {}", group.as_raw_nonzero()));
    }

    /// Says when the group must be gone, unless this is said anew.
    pub(super) fn until(&mut self, end: Instant) {
        if self.until == Some(end) {
            return;
        }
        self.until = Some(end);
        let left = end.saturating_duration_since(Instant::now());
        self.tell(&format!("until {}", (clock() + left).as_nanos()));
    }

    /// Takes note that it ended, by itself or not: one that has done its work is not missed.
    pub(super) fn take_end(&mut self, was_done: bool) {
        self.is_missing = !was_done;
    }

    /// Starts another in the place of one that is missing, and tells it the same; but not at once where that one has just been started.
    pub(super) fn mend(&mut self) -> std::io::Result<()> {
        if !self.is_missing || self.started.elapsed() < PAUSE {
            return Ok(());
        }
        self.is_missing = false;
        let (group, until) = (self.group, self.until);
        *self = Self::start()?;
        if let Some(group) = group {
            self.guard(group);
        }
        if let Some(until) = until {
            self.until(until);
        }
        Ok(())
    }

    /// The group is gone: the watch ends.
    pub(super) fn dismiss(mut self) {
        self.tell("done");
    }

    fn tell(&mut self, line: &str) {
        // One that has died is told again when it was started again.
        if let Some(to) = &mut self.to {
            drop(writeln!(to, "{line}"));
        }
    }
}

/// The clock that all processes share, and that runs while the machine is suspended.
fn clock() -> Duration {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let clock = ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let clock = ClockId::Monotonic;
    let time = clock_gettime(clock);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// The watch itself.
pub(super) fn run() -> Exit {
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    let mut group = None;
    let mut until = None;
    loop {
        let left = until.map(|until: Duration| until.saturating_sub(clock()));
        if left.is_some_and(|left| left.is_zero()) {
            break;
        }
        match told.recv_timeout(left.unwrap_or(NAP).min(NAP)) {
            Ok(line) => match line.split_once(' ') {
                Some(("group", id)) => group = id.parse().ok().and_then(Pid::from_raw),
                Some(("until", nanos)) => until = nanos.parse().ok().map(Duration::from_nanos),
                _ => return Exit::SUCCESS,
            },
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    if let Some(group) = group {
        // Nothing can be done about those that it may not kill.
        let _ = kill_process_group(group, Signal::KILL);
    }
    Exit::SUCCESS
}
