//! A process of this program in the background, which does not outlive this one.

use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Stdio};

use rustix::process::Pid;

use super::watch::Watch;
use super::{child, this_program};

/// The process. It is killed when this is dropped, and when this process is killed, as the command of `dflock run` is.
pub(crate) struct Attached {
    child: Child,
    watch: Option<Watch>,
}

impl Attached {
    /// Starts this program with arguments, in a process group of its own, so that signals from the terminal do not
    /// reach it. Call this on the main thread: the system kills the process when the thread that started it ends.
    pub(crate) fn start(arguments: &[&str]) -> std::io::Result<Self> {
        let mut watch = Watch::start(None, None)?;
        let mut command = this_program(child::NAME)?;
        for name in crate::sources::variables() {
            command.env_remove(name);
        }
        let child = command
            .arg(std::process::id().to_string())
            .arg(child::BACKGROUND)
            .arg(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            watch.guard(group);
        }
        Ok(Self {
            child,
            watch: Some(watch),
        })
    }

    /// Takes its standard output.
    pub(crate) fn take_output(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // If the process has ended already, it does not matter whether these fail.
        drop(self.child.kill());
        drop(self.child.wait());
        if let Some(watch) = self.watch.take() {
            watch.dismiss();
        }
    }
}
