//! The subcommands, one module each.

mod bench;
mod completions;
mod config;
mod doctor;
#[cfg(unix)]
mod elect;
mod emit;
mod listen;
mod lock;
mod man;
#[cfg(unix)]
mod run;
#[cfg(feature = "server")]
mod serve;
mod stats;
mod top;

use std::future::Future;
use std::time::Duration;

use dflockd_client::Client;

use crate::args::{Arguments, Command};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::process::Signals;
use crate::sources::warn_of_ignored_variables;

/// Runs a subcommand to its end.
pub(crate) fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let flags = arguments.sources;
    if let (Some(name), Some(flag)) = (arguments.command.without_settings(), flags.given()) {
        return Err(Failure::new(
            Exit::USAGE,
            format!("`dflock {name}` does not use the settings of clients, so {flag} does not apply to it"),
        )
        .remedy("leave it out"));
    }
    if !matches!(arguments.command, Command::Completions(_) | Command::Man(_)) {
        warn_of_ignored_variables();
    }
    match arguments.command {
        #[cfg(unix)]
        Command::Run(of) => block_on(run::run(&flags, &of)),
        #[cfg(unix)]
        Command::Elect(of) => block_on(elect::elect(&flags, &of)),
        #[cfg(not(unix))]
        Command::Run(_) | Command::Elect(_) => Err(Failure::new(
            Exit::SYSTEM,
            "this system has no process groups, which `dflock run` and `dflock elect` need",
        )
        .remedy("`dflock lock` holds a lock without a command")),
        Command::Lock(of) => block_on(lock::lock(&flags, &of)),
        Command::Listen(of) => block_on(listen::listen(&flags, &of)),
        Command::Emit(of) => block_on(emit::emit(&flags, &of)),
        Command::Stats(of) => block_on(stats::stats(&flags, &of)),
        Command::Top(of) => block_on(top::top(&flags, &of)),
        #[cfg(feature = "server")]
        Command::Serve(of) => block_on_threads(serve::serve(&of)),
        Command::Bench(of) => bench::bench(&flags, &of),
        Command::Doctor(of) => block_on(doctor::doctor(&flags, &of)),
        Command::Config(of) => config::config(&flags, &of),
        Command::Completions(of) => completions::completions(&of),
        Command::Man(of) => man::man(&of),
    }
}

/// Runs a future on this thread. The thread must stay alive, because the system kills the started processes when it
/// ends.
fn block_on(future: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let exit = runtime.block_on(future);
    // Threads that still run, for example to resolve a name, are not awaited.
    runtime.shutdown_background();
    exit
}

/// Runs a future on as many threads as there are cores: a server has many clients, and starts no processes.
#[cfg(feature = "server")]
fn block_on_threads(future: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let exit = runtime.block_on(future);
    runtime.shutdown_background();
    exit
}

/// Shuts down the client after a failure. Dropped guards are released only while the client lives, and the client ends
/// with this process.
async fn leave_on_failure(done: &Result<Exit, Failure>, client: &Client, signals: &mut Signals) {
    if done.is_err() {
        leave(client, signals).await;
    }
}

/// Shuts down the client, which ends its requests. Another signal ends the shutdown at once.
async fn leave(client: &Client, signals: &mut Signals) {
    const PATIENCE: Duration = Duration::from_secs(1);
    tokio::select! {
        biased;
        _ = signals.ended() => {}
        _ = client.shutdown(PATIENCE) => {}
    }
}
