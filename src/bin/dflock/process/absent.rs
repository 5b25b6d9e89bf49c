//! Systems without process groups.

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
