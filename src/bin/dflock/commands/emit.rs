//! `dflock emit`: publishes a signal.

use std::io::Read;

use serde::Serialize;

use crate::args::{EmitArguments, SourceFlags};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::sources::Sources;

/// What `--json` tells.
#[derive(Serialize)]
struct Emitted {
    delivered: u64,
}

pub(super) async fn emit(flags: &SourceFlags, of: &EmitArguments) -> Result<Exit, Failure> {
    let payload = match of.payload.as_str() {
        "-" => from_stdin()?,
        payload => payload.to_owned(),
    };
    let client = Sources::read(flags, &[], &[])?.client()?;
    let delivered = client.emit(&of.channel, payload).await?;
    match of.json {
        true => output::json(&Emitted { delivered })?,
        false => output::line(delivered)?,
    }
    Ok(Exit::SUCCESS)
}

/// The longest payload that servers take, and one byte more to see that there is more.
const MOST: u64 = 65_537;

/// All of standard input, without the line break at its end.
fn from_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().lock().take(MOST).read_to_string(&mut text);
    read.map_err(|error| Failure::new(Exit::IO, format!("the payload cannot be read: {error}")))?;
    let end = text.trim_end_matches(['\n', '\r']).len();
    text.truncate(end);
    Ok(text)
}
