//! `dflock`: locks, semaphores, elections and signals of dflockd servers, for shells. `docs/guide/src/command-reference.md` describes it.

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

use clap::Parser;

use self::args::Arguments;
use self::exit::Exit;
use self::failure::Failure;

fn main() -> std::process::ExitCode {
    // Helper processes of `run` and `elect`.
    if let Some(exit) = process::helper() {
        return exit.into();
    }
    let exit = match Arguments::try_parse() {
        Ok(arguments) => commands::run(arguments),
        Err(mut refused) => {
            args::advise(&mut refused);
            #[cfg(feature = "server")]
            if let Some(said) = args::unsupported(&refused) {
                return Failure::new(Exit::USAGE, said).remedy("leave it out").tell().into();
            }
            drop(refused.print());
            return if refused.use_stderr() {
                Exit::USAGE
            } else {
                Exit::SUCCESS
            }
            .into();
        }
    };
    exit.unwrap_or_else(|failure: Failure| failure.tell()).into()
}
