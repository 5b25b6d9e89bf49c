//! No process outlives the one that wants it: each has a pipe as its standard input, which ends with the process that holds the other end, however
//! that one ended.

use std::error::Error;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use tokio::io::{AsyncRead, AsyncReadExt};

/// Ends this process once its standard input has ended.
pub(crate) fn end_with_the_input() {
    std::thread::spawn(|| {
        drop(io::copy(&mut io::stdin().lock(), &mut io::sink()));
        std::process::exit(1);
    });
}

/// A command that runs `program` under a guard: for programs that take no notice of their standard input.
pub(crate) fn guarded(program: &Path) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("guard").arg("--").arg(program);
    Ok(command)
}

/// Is the guard: runs the command until it ends, or until the standard input of this process does.
pub(crate) fn main(command: Vec<OsString>) -> Result<ExitCode, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(run(&command, tokio::io::stdin()));
    // Does not wait for the thread that still reads.
    runtime.shutdown_background();
    match ended? {
        Some(status) if status.success() => Ok(ExitCode::SUCCESS),
        _ => Ok(ExitCode::FAILURE),
    }
}

/// Runs the command and returns its status. If `input` ends first, the command is killed, and there is none.
pub(crate) async fn run(command: &[OsString], mut input: impl AsyncRead + Unpin) -> io::Result<Option<ExitStatus>> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(io::Error::other("there is nothing to run"));
    };
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut ignored = [0; 64];
    loop {
        tokio::select! {
            status = child.wait() => return status.map(Some),
            read = input.read(&mut ignored) => if matches!(read, Ok(0) | Err(_)) {
                child.kill().await?;
                return Ok(None);
            },
        }
    }
}
