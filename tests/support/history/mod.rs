//! Records of clients and servers, and their judge, which knows neither the client nor the server: only the lines of a record.
//!
//! `docs/testing.md` describes the form of the lines and the rules.
#![allow(dead_code, unreachable_pub, missing_docs)]

pub mod bounds;
mod check;
mod facts;
pub mod reader;
pub mod record;
mod shortened;
pub mod verdict;
pub mod writer;

use std::collections::HashMap;

use self::bounds::Bounds;
use self::check::Findings;
use self::facts::Facts;
use self::record::{Line, Name};
use self::verdict::Verdict;

/// Lines that are judged together.
#[derive(Clone, Debug, Default)]
pub struct History {
    lines: Vec<Line>,
}

impl History {
    /// Adds lines. The lines of one server must come in its order, in one piece or several; others may come in any order.
    #[must_use]
    pub fn with(mut self, lines: impl IntoIterator<Item = Line>) -> Self {
        self.lines.extend(lines);
        self
    }

    /// Returns the lines in the order in which they are judged: by their times. Lines of one server keep their order:
    /// the server reads its clock before it takes the lock that determines the order, so a line may have an earlier
    /// time than the line before it, and then counts as of the same time.
    pub fn in_order(&self) -> Vec<Line> {
        let mut lines = self.lines.clone();
        let mut last: HashMap<Name, u64> = HashMap::new();
        for line in &mut lines {
            let Some(server) = line.what.server() else { continue };
            match last.get_mut(server) {
                Some(last) => *last = line.at.max(*last),
                None => drop(last.insert(server.clone(), line.at)),
            }
            line.at = line.at.max(last[server]);
        }
        lines.sort_by_key(|line| line.at);
        lines
    }

    /// Judges the lines.
    pub fn judge(&self, bounds: &Bounds) -> Verdict {
        let lines = self.in_order();
        let facts = Facts::gather(&lines);
        let mut findings = Findings::new(&facts, *bounds);
        check::all(&mut findings);
        findings.verdict()
    }
}
