//! Checks records of the events at clients and servers. A record is a list of lines. Each line is one event with its
//! time.
//! The code in this folder depends on neither the client nor the server, because it sees only the lines.
//!
//! `docs/testing.md` describes the lines and the rules that they must keep.
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
    /// Adds lines. The lines of one server must be in that server's order. A line that refers to another line with the
    /// same time must come after that line: for example, a `return` after its `invoke`. Otherwise the order is free.
    #[must_use]
    pub fn with(mut self, lines: impl IntoIterator<Item = Line>) -> Self {
        self.lines.extend(lines);
        self
    }

    /// Returns the lines, sorted by time. The lines of one server keep their order.
    ///
    /// A server reads its clock before it takes the lock that determines the order of its events. So a line of a server
    /// may have an earlier time than the server's previous line. This function then gives the line the time of the
    /// previous line.
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

    /// Checks the lines against all rules.
    pub fn judge(&self, bounds: &Bounds) -> Verdict {
        let lines = self.in_order();
        let facts = Facts::gather(&lines);
        let mut findings = Findings::new(&facts, *bounds);
        check::all(&mut findings);
        findings.verdict()
    }
}
