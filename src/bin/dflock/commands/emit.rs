//! `dflock emit`: publishes a signal.

use std::io::Read;

use serde::Serialize;

use crate::args::{EmitArguments, SourceFlags};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::sources::Sources;

/// The output of `--json`.
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

/// The maximum length of a line of the protocol, and so of a payload.
const MOST: usize = 65_536;

/// The length of the longest line break. Line breaks at the end are not part of the payload.
const LINE_BREAK: usize = 2;

/// Reads standard input, without the line breaks at its end. A payload that is too long is an error and is never
/// truncated.
fn from_stdin() -> Result<String, Failure> {
    let unread = |why: &dyn std::fmt::Display| Failure::new(Exit::IO, format!("the payload cannot be read: {why}"));
    let mut bytes = Vec::new();
    let mut input = std::io::stdin().lock().take((MOST + LINE_BREAK + 1) as u64);
    input.read_to_end(&mut bytes).map_err(|error| unread(&error))?;
    if bytes.len() > MOST + LINE_BREAK {
        return Err(Failure::new(
            Exit::USAGE,
            format!("the payload is too long: it has more than {MOST} bytes"),
        ));
    }
    let mut text = String::from_utf8(bytes).map_err(|error| unread(&error.utf8_error()))?;
    let end = text.trim_end_matches(['\n', '\r']).len();
    text.truncate(end);
    Ok(text)
}
