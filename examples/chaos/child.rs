//! Processes that were started, and what is done to them.

use std::error::Error;
use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::job::Job;

pub(crate) struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts this program again.
    pub(crate) fn start(job: &Job) -> Result<Self, Box<dyn Error>> {
        // A group of its own: a group that its shell leaves behind while one of its processes is stopped is ended by the system.
        let mut child = Command::new(std::env::current_exe()?)
            .process_group(0)
            .args(["--job", &serde_json::to_string(job)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or("its output is piped")?;
        Ok(Self {
            child,
            input,
            output: BufReader::new(output).lines(),
        })
    }

    /// The next line that it prints. Waits for it.
    pub(crate) fn says(&mut self) -> Result<String, Box<dyn Error>> {
        let line = self.output.next().ok_or("the process has ended")?;
        Ok(line?)
    }

    /// Tells it something, as one line.
    pub(crate) fn tell(&mut self, what: &impl serde::Serialize) -> Result<(), Box<dyn Error>> {
        let input = self.input.as_mut().ok_or("it was told to end")?;
        writeln!(input, "{}", serde_json::to_string(what)?)?;
        Ok(())
    }

    /// Stops it where it is, until it is thawed.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends it where it is. When this returns, it is no more.
    pub(crate) fn kill(&mut self) -> std::io::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Tells it to end in order.
    pub(crate) fn end(&mut self) {
        self.input = None;
    }

    /// How it has ended; `None` if it has not, in that time.
    pub(crate) async fn ended(&mut self, within: Duration) -> Result<Option<ExitStatus>, Box<dyn Error>> {
        let give_up = Instant::now() + within;
        loop {
            let status = self.child.try_wait()?;
            if status.is_some() || Instant::now() > give_up {
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn signal(&self, signal: Signal) {
        // What has ended by itself is found later, by how it ended.
        kill_process(Pid::from_child(&self.child), signal).ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.thaw();
        drop(self.kill());
    }
}
