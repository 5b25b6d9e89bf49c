//! Signals that this process takes.

use std::future::poll_fn;
use std::task::Poll;

use rustix::process::Signal;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use super::shell;
use crate::exit::Exit;
use crate::failure::Failure;

/// What ends a process that waits or holds.
const ENDING: [Signal; 4] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM];

/// What a command is told besides.
const FORWARDED: [Signal; 5] = [Signal::USR1, Signal::USR2, Signal::WINCH, Signal::CONT, Signal::TSTP];

/// Streams of signals.
pub(crate) struct Signals {
    streams: Vec<(Signal, Stream)>,
}

impl Signals {
    /// Takes the signals that end this process, but for those that it was started to ignore.
    pub(crate) fn that_end() -> Result<Self, Failure> {
        let mut signals = Self { streams: Vec::new() };
        signals.add(&ENDING)?;
        Ok(signals)
    }

    /// Takes those, too, that concern a command, and the news of children.
    pub(super) fn and_of_commands(&mut self) -> Result<(), Failure> {
        if self.takes(Signal::CHILD) {
            return Ok(());
        }
        self.add(&FORWARDED)?;
        self.streams.push((Signal::CHILD, signal(SignalKind::child())?));
        Ok(())
    }

    fn takes(&self, wanted: Signal) -> bool {
        self.streams.iter().any(|(signal, _)| *signal == wanted)
    }

    fn add(&mut self, wanted: &[Signal]) -> Result<(), Failure> {
        let ignored = ignored();
        for wanted in wanted {
            // A command that was started with `nohup`, say, is to inherit that.
            if ignored & (1 << (wanted.as_raw() - 1)) == 0 {
                let stream = signal(SignalKind::from_raw(wanted.as_raw()))?;
                self.streams.push((*wanted, stream));
            }
        }
        Ok(())
    }

    /// The next signal.
    ///
    /// Cancel safe.
    pub(super) async fn next(&mut self) -> Signal {
        poll_fn(|cx| {
            for (signal, stream) in &mut self.streams {
                if stream.poll_recv(cx).is_ready() {
                    return Poll::Ready(*signal);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Resolves with the exit code at the next signal that ends this process.
    ///
    /// Cancel safe.
    pub(crate) async fn ended(&mut self) -> Exit {
        loop {
            let signal = self.next().await;
            if ENDING.contains(&signal) {
                return Exit::by_signal(signal.as_raw());
            }
            // Between two commands this process is stopped as any other.
            if signal == Signal::TSTP {
                shell::stop();
            }
        }
    }
}

/// The signals that this process was started to ignore, one bit each; none where the system does not tell.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default()
}
