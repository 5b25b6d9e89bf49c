//! Child processes, and the faults of processes.

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
    /// Starts this program again.
    pub(crate) fn start(job: &Job) -> Result<Self, Box<dyn Error>> {
        // A separate group, because the system ends an orphaned group that has a stopped process.
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

    /// Waits for the next line that it prints.
    pub(crate) fn says(&mut self) -> Result<String, Box<dyn Error>> {
        let line = self.output.next().ok_or("the process has ended")?;
        Ok(line?)
    }

    /// Sends it a value as one line.
    pub(crate) fn tell(&mut self, what: &impl serde::Serialize) -> Result<(), Box<dyn Error>> {
        let input = self.input.as_mut().ok_or("the process was told to end")?;
        writeln!(input, "{}", serde_json::to_string(what)?)?;
        Ok(())
    }

    /// Stops it until it is thawed. When this returns, it has stopped or ended.
    pub(crate) fn freeze(&self) -> std::io::Result<()> {
        self.signal(Signal::STOP);
        let either = WaitIdOptions::STOPPED | WaitIdOptions::EXITED;
        let itself = WaitId::Pid(Pid::from_child(&self.child));
        // This does not reap it: its exit status is reported later.
        block_in_place(|| waitid(itself, either | WaitIdOptions::NOWAIT))?;
        Ok(())
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills it and waits for its end. Returns a problem if it had already ended by itself.
    pub(crate) fn kill(&mut self) -> std::io::Result<Option<String>> {
        let before = self.child.try_wait()?;
        self.child.kill()?;
        let status = self.child.wait()?;
        let is_killed = before.is_none() && status.signal() == Some(Signal::KILL.as_raw());
        let wrong = !is_killed || panics::message(&self.record).is_some();
        Ok(wrong.then(|| format!("{} by itself", self.how_it_ended(status))))
    }

    /// Tells the process to shut down. Returns a problem if it had already ended by itself.
    pub(crate) fn end(&mut self) -> std::io::Result<Option<String>> {
        let before = self.child.try_wait()?;
        self.input = None;
        Ok(before.map(|status| format!("{} by itself", self.how_it_ended(status))))
    }

    /// Waits until the process has shut down. Returns a problem if it ended otherwise, or does not end.
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
        // A process that has ended by itself is detected later by its exit status.
        kill_process(Pid::from_child(&self.child), signal).ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.thaw();
        drop(self.kill());
    }
}
