//! Child processes of the comparison. [`Child`] starts a process, reads the lines that it prints, and ends it.

use std::io::{BufRead, BufReader, Read};
use std::process::{self, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(5);

/// How long this program waits for a child process to end, after the process's standard input or output has ended.
const PATIENCE: Duration = Duration::from_secs(5);

/// The maximum number of bytes of a process's standard error in an error message. The message contains the last bytes.
const ERROR_BYTES: usize = 2000;

/// A child process. Dropping this value ends the process. The process must end when its standard input ends, so that it
/// ends even if this program is killed. A program that ignores its standard input must run under
/// [`guarded`](super::guard::guarded).
pub(crate) struct Child {
    name: String,
    child: process::Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Option<JoinHandle<String>>,
}

impl Child {
    /// Starts the command. Error messages call its process `name`.
    pub(crate) fn start(name: &str, command: &mut Command) -> Result<Self, String> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{name} cannot be started: {error}"))?;
        let (tell, lines) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    // Sending fails after the receiver was dropped. This thread reads on, because a closed pipe would
                    // make the next print of the process fail.
                    drop(tell.send(line));
                }
            });
        }
        let errors = child.stderr.take().map(|mut stderr| {
            std::thread::spawn(move || {
                let mut all = Vec::new();
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = stderr.read(&mut buffer) {
                    all.extend_from_slice(&buffer[..read]);
                    let unwanted = all.len().saturating_sub(ERROR_BYTES);
                    all.drain(..unwanted);
                }
                String::from_utf8_lossy(&all).trim().to_owned()
            })
        });
        Ok(Self {
            name: name.to_owned(),
            stdin: child.stdin.take(),
            child,
            lines,
            errors,
        })
    }

    /// Returns the next line that the process prints. Returns an error if no line comes within `patience`, or if the
    /// process has ended.
    pub(crate) fn line(&mut self, patience: Duration) -> Result<String, String> {
        match self.lines.recv_timeout(patience) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => Err(format!(
                "{} printed nothing for {:.0} s",
                self.name,
                patience.as_secs_f64()
            )),
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.wait(PATIENCE)?;
                Err(self.ended(status))
            }
        }
    }

    /// Waits until the process ends. Returns an error if the process fails, or does not end within `patience`.
    pub(crate) fn succeed(&mut self, patience: Duration) -> Result<(), String> {
        match self.wait(patience)? {
            status if status.success() => Ok(()),
            status => Err(self.ended(status)),
        }
    }

    /// Returns an error if the process has ended.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.ended(status)),
            Err(error) => Err(format!("{}: {error}", self.name)),
        }
    }

    fn wait(&mut self, patience: Duration) -> Result<ExitStatus, String> {
        let give_up = Instant::now() + patience;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if Instant::now() >= give_up => {
                    return Err(format!("{} did not end in {:.0} s", self.name, patience.as_secs_f64()));
                }
                Ok(None) => std::thread::sleep(PAUSE),
                Err(error) => return Err(format!("{}: {error}", self.name)),
            }
        }
    }

    /// Describes the exit status of the process, and the end of its standard error.
    fn ended(&mut self, status: ExitStatus) -> String {
        let said = self.errors.take().and_then(|errors| errors.join().ok());
        match said.unwrap_or_default() {
            said if said.is_empty() => format!("{} ended: {status}", self.name),
            said => format!("{} ended: {status}: {said}", self.name),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.stdin.take());
        if self.wait(PATIENCE).is_err() {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}
