//! A guard is a process that starts a program for another process, and kills the program if that process ends.
//!
//! The standard input of a guard is a pipe from the process that started the guard. The pipe ends when that process
//! ends, for whatever reason. Then the guard kills the program and all processes that the program started. On systems
//! other than Unix, the guard kills only the program. Processes of this benchmark need no guard, because they end when
//! their standard input ends.

use std::error::Error;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use tokio::io::{AsyncRead, AsyncReadExt};

use super::group::Group;

/// Starts a thread that ends this process when the standard input of this process ends.
pub(crate) fn end_with_the_input() {
    std::thread::spawn(|| {
        drop(io::copy(&mut io::stdin().lock(), &mut io::sink()));
        std::process::exit(1);
    });
}

/// Returns a command that runs `program` under a guard. A program needs a guard if it ignores its standard input or
/// starts other processes. On Unix, the guard has a process group of its own. So Ctrl-C in a terminal does not end the
/// guard before it has killed the program.
pub(crate) fn guarded(program: &Path) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.arg("guard").arg("--").arg(program);
    Ok(command)
}

/// Runs this process as the guard of the command: see [`run`]. The exit code is success if the command succeeded.
pub(crate) fn main(command: Vec<OsString>) -> Result<ExitCode, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(run(&command, tokio::io::stdin()));
    // This does not wait for the thread that still reads the standard input.
    runtime.shutdown_background();
    match ended? {
        Some(status) if status.success() => Ok(ExitCode::SUCCESS),
        _ => Ok(ExitCode::FAILURE),
    }
}

/// Runs the command, and returns its status when it ends. If `input` ends first, kills the command and returns `None`.
/// In both cases the descendants of the command are killed.
pub(crate) async fn run(command: &[OsString], mut input: impl AsyncRead + Unpin) -> io::Result<Option<ExitStatus>> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(io::Error::other("there is nothing to run"));
    };
    let mut command = tokio::process::Command::new(program);
    let mut group = Group::start(command.args(arguments).stdin(Stdio::null()))?;
    let mut ignored = [0; 64];
    loop {
        tokio::select! {
            status = group.wait() => return status.map(Some),
            read = input.read(&mut ignored) => if matches!(read, Ok(0) | Err(_)) {
                group.kill().await?;
                return Ok(None);
            },
        }
    }
}
