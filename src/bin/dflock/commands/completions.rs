//! `dflock completions`: prints a completion script for a shell.

use std::io::Write;

use crate::args::{Arguments, CompletionsArguments};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::unwritten;

pub(super) fn completions(of: &CompletionsArguments) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(of.shell, &mut Arguments::description(), "dflock", &mut script);
    std::io::stdout().lock().write_all(&script).map_err(unwritten)?;
    Ok(Exit::SUCCESS)
}
