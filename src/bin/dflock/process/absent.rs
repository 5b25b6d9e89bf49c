//! Systems without process groups.

use crate::exit::Exit;
use crate::failure::Failure;

/// Returns `None`: there are no helper processes.
pub(crate) fn helper() -> Option<Exit> {
    None
}

/// The signal that ends this process: Ctrl-C.
pub(crate) struct Signals(());

impl Signals {
    pub(crate) fn that_end() -> Result<Self, Failure> {
        Ok(Self(()))
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
