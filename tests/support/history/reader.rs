//! Reads records from text.

use std::fmt;
use std::io::{self, BufRead};

use super::record::Line;

#[derive(Debug)]
pub enum ReadError {
    Io(io::Error),
    /// The line with this number, counted from 1, is not a line of a record.
    Line(usize, serde_json::Error),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Line(number, error) => write!(f, "line {number}: {error}"),
        }
    }
}

impl std::error::Error for ReadError {}

/// Reads a record. Ignores a last line without a newline, because the recorder was killed while it wrote that line.
pub fn read(mut record: impl BufRead) -> Result<Vec<Line>, ReadError> {
    let mut lines = Vec::new();
    let mut text = Vec::new();
    for number in 1.. {
        text.clear();
        record.read_until(b'\n', &mut text).map_err(ReadError::Io)?;
        if !text.ends_with(b"\n") {
            break;
        }
        if text.trim_ascii().is_empty() {
            continue;
        }
        lines.push(serde_json::from_slice(&text).map_err(|error| ReadError::Line(number, error))?);
    }
    Ok(lines)
}
