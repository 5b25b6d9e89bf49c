//! The signals that this process handles.

use std::future::poll_fn;
use std::task::Poll;

use rustix::process::Signal;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use super::shell;
use crate::exit::Exit;
use crate::failure::Failure;

/// The signals that end a process that waits or holds.
const ENDING: [Signal; 4] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM];

/// The other signals that are forwarded to a command.
const FORWARDED: [Signal; 5] = [Signal::USR1, Signal::USR2, Signal::WINCH, Signal::CONT, Signal::TSTP];

/// What signals tell a program that uses the whole terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TerminalSignal {
    /// To end with this exit code.
    End(Exit),
    /// To stop, as at Ctrl-Z.
    Stop,
    /// That it runs again after a stop.
    Continue,
}

/// Streams of signals.
pub(crate) struct Signals {
    streams: Vec<(Signal, Stream)>,
}

impl Signals {
    /// Handles the signals that end this process, except those that were ignored at its start. Read the settings before
    /// this call: reading a file may block for long, and meanwhile this process would handle no signal.
    pub(crate) fn that_end() -> Result<Self, Failure> {
        let mut signals = Self { streams: Vec::new() };
        signals.add(&ENDING)?;
        Ok(signals)
    }

    /// Also handles the signals that concern a command, and those about children.
    pub(super) fn add_commands(&mut self) -> Result<(), Failure> {
        if self.takes(Signal::CHILD) {
            return Ok(());
        }
        self.add(&FORWARDED)?;
        self.streams.push((Signal::CHILD, signal(SignalKind::child())?));
        Ok(())
    }

    /// Also handles the signals that stop and continue a program that uses the whole terminal.
    pub(crate) fn add_terminal(&mut self) -> Result<(), Failure> {
        self.add(&[Signal::TSTP, Signal::CONT])
    }

    fn takes(&self, wanted: Signal) -> bool {
        self.streams.iter().any(|(signal, _)| *signal == wanted)
    }

    fn add(&mut self, wanted: &[Signal]) -> Result<(), Failure> {
        let ignored = ignored();
        for wanted in wanted {
            // An ignored signal, such as HUP under `nohup`, stays ignored, and the command inherits that.
            if ignored & (1 << (wanted.as_raw() - 1)) == 0 {
                let stream = signal(SignalKind::from_raw(wanted.as_raw()))?;
                self.streams.push((*wanted, stream));
            }
        }
        Ok(())
    }

    /// Waits for the next signal.
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

    /// Waits for the next signal that concerns a program that uses the whole terminal.
    ///
    /// Cancel safe.
    pub(crate) async fn next_of_terminal(&mut self) -> TerminalSignal {
        loop {
            match self.next().await {
                Signal::TSTP => return TerminalSignal::Stop,
                Signal::CONT => return TerminalSignal::Continue,
                signal if ENDING.contains(&signal) => return TerminalSignal::End(Exit::by_signal(signal.as_raw())),
                _ => {}
            }
        }
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
            // Between two commands, this signal stops this process as usual.
            if signal == Signal::TSTP {
                shell::stop();
            }
        }
    }
}

/// Returns the signals that were ignored at the start of this process, one bit each; zero if the system does not
/// report them.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default()
}
