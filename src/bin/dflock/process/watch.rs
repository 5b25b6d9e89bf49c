//! The watch: a process that kills the command's group when `dflock` is gone, or when `dflock` is stopped or stalled
//! and does not act before the lease ends.
//!
//! It gets orders as arguments, and later ones as lines on its standard input. The end of its standard input means the
//! end of `dflock`. A watch that replaces another gets all orders as arguments, because `dflock` may be killed at any
//! moment after the start.

use std::ffi::OsString;
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

/// The name of this helper.
pub(super) const NAME: &str = "__watch";

/// The longest sleep, which limits the watch's delay after a suspend of the machine.
const NAP: Duration = Duration::from_secs(1);

/// The minimum time between the starts of two watches.
const PAUSE: Duration = Duration::from_secs(1);

/// The watch, as `dflock` sees it.
pub(super) struct Watch {
    child: Child,
    to: Option<ChildStdin>,
    group: Option<Pid>,
    until: Option<Instant>,
    started: Instant,
    /// Whether it has ended and must be replaced.
    is_missing: bool,
}

impl Watch {
    /// Starts a watch over a group, or over one that [`guard`](Self::guard) names later.
    pub(super) fn start(group: Option<Pid>, until: Option<Instant>) -> std::io::Result<Self> {
        let orders = [group.map(guard_order), until.map(until_order)];
        let mut child = this_program(NAME)?
            .args(orders.into_iter().flatten())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .env_clear()
            .process_group(0)
            .spawn()?;
        Ok(Self {
            to: child.stdin.take(),
            child,
            group,
            until,
            started: Instant::now(),
            is_missing: false,
        })
    }

    pub(super) fn is(&self, process: Pid) -> bool {
        self.child.id() == process.as_raw_nonzero().get().unsigned_abs()
    }

    /// Tells the watch which group to kill.
    pub(super) fn guard(&mut self, group: Pid) {
        self.group = Some(group);
        self.tell(&guard_order(group));
    }

    /// Tells the watch when to kill the group, unless a later call changes it.
    pub(super) fn until(&mut self, end: Instant) {
        if self.until == Some(end) {
            return;
        }
        self.until = Some(end);
        self.tell(&until_order(end));
    }

    /// Notes the end of the watch. It needs a replacement unless it has done its work.
    pub(super) fn take_end(&mut self, was_done: bool) {
        self.is_missing = !was_done;
    }

    /// If the watch has ended, starts another one with the same orders, but not soon after the start of the old one.
    pub(super) fn mend(&mut self) -> std::io::Result<()> {
        if !self.is_missing || self.started.elapsed() < PAUSE {
            return Ok(());
        }
        self.is_missing = false;
        *self = Self::start(self.group, self.until)?;
        Ok(())
    }

    /// Ends the watch after the end of the group.
    pub(super) fn dismiss(mut self) {
        self.tell("done");
    }

    fn tell(&mut self, line: &str) {
        // If the watch has died, its replacement gets the order again.
        if let Some(to) = &mut self.to {
            drop(writeln!(to, "{line}"));
        }
    }
}

/// Returns the order that names the group to kill.
fn guard_order(group: Pid) -> String {
    format!("group {}", group.as_raw_nonzero())
}

/// Returns the order to kill the group at `end`, which is not later than the end of its lease.
fn until_order(end: Instant) -> String {
    let left = end.saturating_duration_since(Instant::now());
    format!("until {}", (clock() + left).as_nanos())
}

/// Reads the clock that all processes share and that includes suspends.
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

/// The orders that a watch got.
#[derive(Debug, Default, PartialEq)]
struct Orders {
    group: Option<Pid>,
    /// The time of the kill, on the [clock] of all processes.
    until: Option<Duration>,
}

impl Orders {
    /// Takes an order. Returns whether the watch goes on.
    fn take(&mut self, order: &str) -> bool {
        match order.split_once(' ') {
            Some(("group", id)) => self.group = id.parse().ok().and_then(Pid::from_raw),
            Some(("until", nanos)) => self.until = nanos.parse().ok().map(Duration::from_nanos),
            _ => return false,
        }
        true
    }
}

/// Runs the watch.
pub(super) fn run(arguments: impl Iterator<Item = OsString>) -> Exit {
    let mut orders = Orders::default();
    for order in arguments {
        if !orders.take(&order.to_string_lossy()) {
            return Exit::USAGE;
        }
    }
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    loop {
        let left = orders.until.map(|until| until.saturating_sub(clock()));
        if left.is_some_and(|left| left.is_zero()) {
            break;
        }
        match told.recv_timeout(left.unwrap_or(NAP).min(NAP)) {
            Ok(line) if orders.take(&line) => {}
            Ok(_) => return Exit::SUCCESS,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    if let Some(group) = orders.group {
        // The watch may not be allowed to kill some processes.
        let _ = kill_process_group(group, Signal::KILL);
    }
    Exit::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_understands_the_orders_that_it_is_given() {
        let group = Pid::from_raw(4711);
        let before = clock();
        let mut orders = Orders::default();
        assert!(orders.take(&guard_order(group.unwrap())) && orders.take(&until_order(Instant::now())));
        assert_eq!(orders.group, group);
        assert!(
            orders.until >= Some(before) && orders.until <= Some(clock()),
            "{orders:?}"
        );
        assert!(!orders.take("done"));
    }
}
