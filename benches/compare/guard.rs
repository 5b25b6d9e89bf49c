//! Guards, which ensure that no process outlives its owner. Each process has a pipe as its standard input, which ends
//! when the process at the other end of the pipe ends, for whatever reason. A guard runs programs that ignore their
//! standard input: it kills them, and all that they started, when the input ends. On systems other than Unix a guard
//! kills only the program that it started itself.

use std::error::Error;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use tokio::io::{AsyncRead, AsyncReadExt};

use super::group::Group;

/// Ends this process once its standard input has ended.
pub(crate) fn end_with_the_input() {
    std::thread::spawn(|| {
        drop(io::copy(&mut io::stdin().lock(), &mut io::sink()));
        std::process::exit(1);
    });
}

/// Returns a command that runs `program` under a guard, for programs that ignore their standard input or start others. The guard does not
/// get signals of the terminal, because it must live until it has killed the rest.
pub(crate) fn guarded(program: &Path) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.arg("guard").arg("--").arg(program);
    Ok(command)
}

/// Runs as the guard: runs the command until it ends, or until the standard input of this process does, and then kills what is left of its
/// processes.
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

/// Runs the command and returns its status, or `None` if `input` ends first. In both cases its descendants are killed.
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
