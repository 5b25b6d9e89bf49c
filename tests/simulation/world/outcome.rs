//! The outcome of a world, and the sum of the outcomes of several worlds.

use std::collections::BTreeMap;
use std::fmt;

use super::history::record::Line;
use super::history::verdict::Counts;
use super::plan::FAULTS;

/// The outcome of a world.
pub struct Report {
    /// The checksum of the trace. Worlds with equal seeds have equal checksums. 0 if the world panicked.
    pub sum: u64,
    /// The text of the trace. Empty if it was not kept.
    pub trace: String,
    pub violations: Vec<String>,
    pub outcome: Outcome,
    /// The history.
    pub lines: Vec<Line>,
}

/// How many lines at the end of a history are printed.
const SHOWN_LINES: usize = 60;

impl Report {
    /// Returns the violations and the end of the history, as text.
    pub fn description(&self, seed: u64) -> String {
        let mut text = format!("seed {seed} breaks rules:\n");
        for violation in &self.violations {
            text += &format!("  {violation}\n");
        }
        let skipped = self.lines.len().saturating_sub(SHOWN_LINES);
        text += &format!("  its history, without the first {skipped} lines:\n");
        for line in &self.lines[skipped..] {
            text += &format!("  {:>10.3} ms {:?}\n", line.at as f64 / 1e6, line.what);
        }
        text
    }
}

/// Counts of what happened in one or more worlds.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub seeds: u64,
    /// Simulated nanoseconds.
    pub time: u64,
    pub operations: u64,
    /// What the history checker has judged.
    pub counts: Counts,
    pub connections: u64,
    pub segments: u64,
    /// The number of faults of each kind.
    pub faults: BTreeMap<&'static str, u64>,
}

impl Outcome {
    pub fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.time += other.time;
        self.operations += other.operations;
        add(&mut self.counts, &other.counts);
        self.connections += other.connections;
        self.segments += other.segments;
        for (fault, count) in &other.faults {
            *self.faults.entry(fault).or_default() += count;
        }
    }
}

/// A run of at least this many worlds must contain every kind of fault.
const ALL_FAULTS: u64 = 1000;

impl Outcome {
    /// Returns a text for each count below its floor, and for each kind of fault that never took effect. Each text
    /// means that the run tested less than it should.
    pub fn shortfalls(&self) -> Vec<String> {
        let counts = &self.counts;
        // The floors for a hundred worlds. Each is about a third of the usual count.
        let floors = [
            ("grants", counts.grants, 5_000),
            ("grants from queues", counts.from_queues, 700),
            ("beliefs", counts.beliefs, 25_000),
            ("losses", counts.losses, 25),
            ("fences", counts.fences, 2_000),
            ("releases", counts.releases, 3_000),
            ("owned grants", counts.owned, 5_000),
            ("deadlines", counts.deadlines, 20_000),
            ("signals received", counts.received, 5_000),
            ("signals in gaps", counts.in_gaps, 500),
        ];
        let few = floors.into_iter().filter_map(|(what, count, of_hundred)| {
            let floor = of_hundred * self.seeds / 100;
            ((count as u64) < floor).then(|| format!("{count} {what} of at least {floor}"))
        });
        let missing = FAULTS
            .iter()
            .filter(|fault| self.seeds >= ALL_FAULTS && self.faults.get(*fault).is_none_or(|count| *count == 0));
        let missing = missing.map(|fault| format!("no fault of the kind `{fault}`"));
        few.chain(missing).collect()
    }
}

fn add(sum: &mut Counts, more: &Counts) {
    sum.lines += more.lines;
    sum.operations += more.operations;
    sum.deadlines += more.deadlines;
    sum.holders += more.holders;
    sum.beliefs += more.beliefs;
    sum.stale += more.stale;
    sum.losses += more.losses;
    sum.grants += more.grants;
    sum.from_queues += more.from_queues;
    sum.keys += more.keys;
    sum.held += more.held;
    sum.fences += more.fences;
    sum.owned += more.owned;
    sum.releases += more.releases;
    sum.signals += more.signals;
    sum.received += more.received;
    sum.in_gaps += more.in_gaps;
    sum.half_open += more.half_open;
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.time as f64 / 3600e9;
        let faults: u64 = self.faults.values().sum();
        writeln!(
            f,
            "{} seeds, {hours:.2} simulated hours, {} operations, {} connections, {} segments",
            self.seeds, self.operations, self.connections, self.segments
        )?;
        writeln!(f, "judged: {:?}", self.counts)?;
        writeln!(f, "{faults} faults:")?;
        for (fault, count) in &self.faults {
            writeln!(f, "{count:>8} {fault}")?;
        }
        Ok(())
    }
}
