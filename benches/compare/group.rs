//! The process of a command, and the processes that it starts.

use std::io;
use std::process::ExitStatus;

use tokio::process::{Child, Command};

/// On Unix, a process group: the process of a command, and its descendants. On other systems, the process of the
/// command alone. Dropping this value kills these processes.
pub(crate) struct Group {
    leader: Child,
    #[cfg(unix)]
    id: Option<rustix::process::Pid>,
}

impl Group {
    /// Starts the command in a new process group.
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

    /// Waits until the process of the command ends. Its descendants may still run. Cancel safe.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.leader.wait().await
    }

    /// Kills all processes of the group, and waits until the process of the command has ended.
    pub(crate) async fn kill(&mut self) -> io::Result<()> {
        self.kill_all();
        self.leader.wait().await.map(drop)
    }

    #[cfg(unix)]
    fn kill_all(&mut self) {
        // Kills only once, because the system may later give the id to another group.
        if let Some(id) = self.id.take() {
            // An error means that all processes of the group have ended.
            let _ = rustix::process::kill_process_group(id, rustix::process::Signal::KILL);
        }
    }

    #[cfg(not(unix))]
    fn kill_all(&mut self) {
        // An error means that the process has ended.
        drop(self.leader.start_kill());
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill_all();
    }
}
