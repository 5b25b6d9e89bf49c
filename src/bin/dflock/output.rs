//! Standard output, for programs and people.

use std::fmt::Display;
use std::io::Write;

use serde::Serialize;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::plain::plain;

/// Prints a line.
pub(crate) fn line(text: impl Display) -> Result<(), Failure> {
    let mut to = std::io::stdout().lock();
    writeln!(to, "{text}").and_then(|()| to.flush()).map_err(unwritten)
}

/// Prints a value as one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|error| Failure::new(Exit::SOFTWARE, error.to_string()))?;
    line(text)
}

pub(crate) fn unwritten(error: std::io::Error) -> Failure {
    Failure::new(Exit::IO, format!("the output cannot be written: {error}"))
}

/// [Plain](plain) text in columns that are as wide as their longest entry.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(heads: [&str; N]) -> Self {
        Self {
            rows: vec![heads.map(str::to_owned).to_vec()],
        }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.iter().map(|cell| plain(cell)).collect());
    }

    pub(crate) fn print(&self) -> Result<(), Failure> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            line(cells.join("  ").trim_end())?;
        }
        Ok(())
    }
}
