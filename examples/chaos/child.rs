//! The processes that the controller starts, and how the controller stops, continues, kills and ends them.

use std::error::Error;
use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::task::block_in_place;

use crate::job::{Job, Record};
use crate::panics;

pub(crate) struct Process {
    record: Record,
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts this program again, as the process of a job.
    pub(crate) fn start(job: &Job) -> Result<Self, Box<dyn Error>> {
        // The process gets its own process group, because it would otherwise be in the controller's group. If that
        // group becomes orphaned while a process of the group is stopped, the system sends SIGHUP to all its processes.
        let mut child = Command::new(std::env::current_exe()?)
            .process_group(0)
            .args(["--job", &serde_json::to_string(job)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or("the output of the process is not piped")?;
        Ok(Self {
            record: job.record().clone(),
            child,
            input,
            output: BufReader::new(output).lines(),
        })
    }

    /// Waits for the next line that the process prints.
    pub(crate) fn read_line(&mut self) -> Result<String, Box<dyn Error>> {
        let line = self.output.next().ok_or("the process has ended")?;
        Ok(line?)
    }

    /// Writes a value as one line to the standard input of the process.
    pub(crate) fn write_line(&mut self, what: &impl serde::Serialize) -> Result<(), Box<dyn Error>> {
        let input = self.input.as_mut().ok_or("the process was told to end")?;
        writeln!(input, "{}", serde_json::to_string(what)?)?;
        Ok(())
    }

    /// Stops the process (SIGSTOP) until `thaw`. When this function returns, the process has stopped or ended.
    pub(crate) fn freeze(&self) -> std::io::Result<()> {
        self.signal(Signal::STOP);
        let either = WaitIdOptions::STOPPED | WaitIdOptions::EXITED;
        let itself = WaitId::Pid(Pid::from_child(&self.child));
        // With NOWAIT, the exit status of a process that has ended stays available to `kill`, `end` and `ended`.
        block_in_place(|| waitid(itself, either | WaitIdOptions::NOWAIT))?;
        Ok(())
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills the process and waits for its end. Returns a problem if the process had ended before, or had panicked.
    pub(crate) fn kill(&mut self) -> std::io::Result<Option<String>> {
        let before = self.child.try_wait()?;
        self.child.kill()?;
        let status = self.child.wait()?;
        let is_killed = before.is_none() && status.signal() == Some(Signal::KILL.as_raw());
        let wrong = !is_killed || panics::message(&self.record).is_some();
        Ok(wrong.then(|| format!("{} by itself", self.how_it_ended(status))))
    }

    /// Closes the standard input of the process, which makes the process shut down. Returns a problem if the process
    /// had ended before.
    pub(crate) fn end(&mut self) -> std::io::Result<Option<String>> {
        let before = self.child.try_wait()?;
        self.input = None;
        Ok(before.map(|status| format!("{} by itself", self.how_it_ended(status))))
    }

    /// Waits for the end of the process. Returns a problem if its exit status is not success, or if it does not end.
    pub(crate) async fn ended(&mut self) -> std::io::Result<Option<String>> {
        const PATIENCE: Duration = Duration::from_secs(60);
        let give_up = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(None),
                Some(status) => return Ok(Some(self.how_it_ended(status))),
                None if Instant::now() > give_up => {
                    return Ok(Some(format!("{} did not end within {PATIENCE:?}", self.record.name)));
                }
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    fn how_it_ended(&self, status: ExitStatus) -> String {
        let name = &self.record.name;
        match panics::message(&self.record) {
            Some(message) => format!("{name} panicked ({message}) and ended with {status}"),
            None => format!("{name} ended with {status}"),
        }
    }

    fn signal(&self, signal: Signal) {
        // The signal can fail because the process has ended. `kill`, `end` or `ended` reports this later.
        kill_process(Pid::from_child(&self.child), signal).ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.thaw();
        drop(self.kill());
    }
}
