//! `dflock`: locks, semaphores, elections and signals of dflockd servers, for shells.
//! `docs/guide/src/command-reference.md` describes it.

mod args;
mod colors;
mod commands;
mod exit;
mod failure;
mod grace;
mod holding;
mod output;
mod plain;
#[cfg(unix)]
mod process;
#[cfg(not(unix))]
#[path = "process/absent.rs"]
mod process;
mod sources;
mod survey;
mod tell;
mod utc;
mod words;

use self::args::Arguments;
use self::exit::Exit;
use self::failure::Failure;

fn main() -> std::process::ExitCode {
    let exit = std::panic::catch_unwind(run).unwrap_or_else(|_| {
        // The panic hook has printed the message of the panic.
        Failure::new(Exit::SOFTWARE, "a fault of this program has ended it")
            .remedy("report it, with the message above")
            .tell()
    });
    exit.into()
}

fn run() -> Exit {
    // Helper processes of `run`, `elect` and `bench --embedded`.
    if let Some(exit) = process::helper() {
        return exit;
    }
    let done = match Arguments::read() {
        Ok(arguments) => commands::run(arguments),
        Err(refused) => explain(refused),
    };
    done.unwrap_or_else(|failure| failure.tell())
}

/// Prints the help or the version that was asked for, or what is wrong with the command line.
fn explain(mut refused: clap::Error) -> Result<Exit, Failure> {
    args::advise(&mut refused);
    #[cfg(feature = "server")]
    if let Some(said) = args::unsupported(&refused) {
        return Err(Failure::new(Exit::USAGE, said).remedy("leave it out"));
    }
    let printed = refused.print();
    match refused.use_stderr() {
        // If standard error is closed, the message is lost.
        true => Ok(Exit::USAGE),
        false => printed.map(|()| Exit::SUCCESS).map_err(output::unwritten),
    }
}
