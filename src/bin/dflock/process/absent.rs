//! Replacements for systems without process groups.

#[cfg(feature = "server")]
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::exit::Exit;
use crate::failure::Failure;

/// Returns `None`: there are no helper processes.
pub(crate) fn helper() -> Option<Exit> {
    None
}

/// What signals tell a program that uses the whole terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TerminalSignal {
    /// To end with this exit code.
    End(Exit),
    /// To stop, as at Ctrl-Z. Never happens here.
    #[allow(dead_code)]
    Stop,
    /// That it runs again after a stop. Never happens here.
    #[allow(dead_code)]
    Continue,
}

/// Returns false: there is no shell that could continue a stopped process.
pub(crate) fn stop() -> bool {
    false
}

/// The signal that ends this process: Ctrl-C.
pub(crate) struct Signals(());

impl Signals {
    pub(crate) fn that_end() -> Result<Self, Failure> {
        Ok(Self(()))
    }

    /// Adds nothing: there are no other signals here.
    pub(crate) fn add_terminal(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    /// Waits for the next signal that concerns a program that uses the whole terminal.
    pub(crate) async fn next_of_terminal(&mut self) -> TerminalSignal {
        TerminalSignal::End(self.ended().await)
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

/// A process of this program in the background. It is killed when this is dropped. It outlives this process if this
/// process is killed.
#[cfg(feature = "server")]
pub(crate) struct Attached(Child);

#[cfg(feature = "server")]
impl Attached {
    pub(crate) fn start(arguments: &[&str]) -> std::io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        for name in crate::sources::variables() {
            command.env_remove(name);
        }
        command
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
        // If the process has ended already, it does not matter whether these fail.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
