//! Systems without process groups.

#[cfg(feature = "server")]
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::exit::Exit;
use crate::failure::Failure;

/// Returns `None`: there are no helper processes.
pub(crate) fn helper() -> Option<Exit> {
    None
}

/// What a program that has the whole terminal is told by signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OfTerminal {
    /// It ends, with this code.
    End(Exit),
    /// It is to stop, as by Ctrl-Z: never said here.
    #[allow(dead_code)]
    Stop,
    /// It runs again after it was stopped: never said here.
    #[allow(dead_code)]
    Continue,
}

/// There is no shell that could continue what was stopped.
pub(crate) fn stop() -> bool {
    false
}

/// The signal that ends this process: Ctrl-C.
pub(crate) struct Signals(());

impl Signals {
    pub(crate) fn that_end() -> Result<Self, Failure> {
        Ok(Self(()))
    }

    /// There are no others.
    pub(crate) fn and_of_terminal(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    /// The next one that a program with the whole terminal heeds.
    pub(crate) async fn of_terminal(&mut self) -> OfTerminal {
        OfTerminal::End(self.ended().await)
    }

    /// Resolves with the exit code at the next signal.
    pub(crate) async fn ended(&mut self) -> Exit {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Exit::INTERRUPTED,
            Err(_) => std::future::pending().await,
        }
    }
}

/// Returns whether this process may wait for the end of standard input.
pub(crate) fn stdin_may_be_read() -> bool {
    true
}

/// A process of this program in the background, killed when this is dropped. It outlives this process if that is killed.
#[cfg(feature = "server")]
pub(crate) struct Attached(Child);

#[cfg(feature = "server")]
impl Attached {
    pub(crate) fn start(arguments: &[&str]) -> std::io::Result<Self> {
        Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map(Self)
    }

    pub(crate) fn take_output(&mut self) -> Option<ChildStdout> {
        self.0.stdout.take()
    }
}

#[cfg(feature = "server")]
impl Drop for Attached {
    fn drop(&mut self) {
        // One that has ended already needs neither.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
