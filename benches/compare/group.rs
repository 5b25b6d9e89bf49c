//! A command and all processes that it starts.

use std::io;
use std::process::ExitStatus;

use tokio::process::{Child, Command};

/// A process and its descendants: on Unix, all of its process group. Dropping it kills them.
pub(crate) struct Group {
    leader: Child,
    #[cfg(unix)]
    id: Option<rustix::process::Pid>,
}

impl Group {
    /// Starts the command, in a process group of its own.
    #[cfg(unix)]
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        let leader = command.process_group(0).kill_on_drop(true).spawn()?;
        let id = leader.id().and_then(|id| i32::try_from(id).ok());
        Ok(Self {
            leader,
            id: id.and_then(rustix::process::Pid::from_raw),
        })
    }

    #[cfg(not(unix))]
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        let leader = command.kill_on_drop(true).spawn()?;
        Ok(Self { leader })
    }

    /// Waits until the command ends; its descendants may go on. Cancel safe.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.leader.wait().await
    }

    /// Kills all, and waits until the command has ended.
    pub(crate) async fn kill(&mut self) -> io::Result<()> {
        self.kill_all();
        self.leader.wait().await.map(drop)
    }

    #[cfg(unix)]
    fn kill_all(&mut self) {
        // Only once: later the id may belong to another group.
        if let Some(id) = self.id.take() {
            // An error means that all have ended.
            let _ = rustix::process::kill_process_group(id, rustix::process::Signal::KILL);
        }
    }

    #[cfg(not(unix))]
    fn kill_all(&mut self) {
        // An error means that it has ended.
        drop(self.leader.start_kill());
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill_all();
    }
}
