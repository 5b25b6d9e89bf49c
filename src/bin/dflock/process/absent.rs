//! Where there are no process groups.

use crate::exit::Exit;
use crate::failure::Failure;

/// There are no processes that help.
pub(crate) fn helper() -> Option<Exit> {
    None
}

/// Signals that end this process: Ctrl-C.
pub(crate) struct Signals(());

impl Signals {
    pub(crate) fn that_end() -> Result<Self, Failure> {
        Ok(Self(()))
    }

    /// Resolves with the exit code at the next of them.
    pub(crate) async fn ended(&mut self) -> Exit {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Exit::INTERRUPTED,
            Err(_) => std::future::pending().await,
        }
    }
}

/// Whether the end of standard input can be waited for.
pub(crate) fn stdin_may_be_read() -> bool {
    true
}
