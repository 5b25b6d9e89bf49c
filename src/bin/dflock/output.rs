//! What stands on standard output, for programs and people.

use std::fmt::Display;
use std::io::Write;
use std::time::Duration;

use serde::Serialize;

use crate::exit::Exit;
use crate::failure::Failure;

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

/// A duration for people, rounded to three digits.
pub(crate) fn human(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let mut step = 1;
    while step < 1_000_000_000 && nanos / step >= 1_000 {
        step *= 10;
    }
    let rounded = (nanos + step / 2) / step * step;
    format!("{:?}", Duration::from_nanos(u64::try_from(rounded).unwrap_or(u64::MAX)))
}

/// Text in columns, as wide as what stands in them.
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
        self.rows.push(cells.to_vec());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_rounded_for_people() {
        for (nanos, said) in [
            (0, "0ns"),
            (999_997_106, "1s"),
            (2_500_000_000, "2.5s"),
            (22_949_000_000, "22.9s"),
        ] {
            assert_eq!(human(Duration::from_nanos(nanos)), said);
        }
    }
}
