//! The result of the rules: how much they checked, and which violations they found.

use std::fmt;

/// How much was checked. Tests assert that these numbers are large enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub lines: usize,
    pub operations: usize,
    /// Operations with a timeout.
    pub deadlines: usize,
    /// Guards and permits of callers.
    pub holders: usize,
    /// Beliefs: uses of a holder for which `is_held` returned true.
    pub beliefs: usize,
    /// Holders with a belief after the end of the grant, if a fault may have hidden the end from the client.
    pub stale: usize,
    /// Holders whose caller learnt of the loss of the lease.
    pub losses: usize,
    pub grants: usize,
    /// Grants to waiters.
    pub from_queues: usize,
    /// Keys that were granted.
    pub keys: usize,
    /// Grants that were held at the end of the record.
    pub held: usize,
    /// Fences that were compared with an earlier fence of the same key.
    pub fences: usize,
    /// Grants for which the time without an owner was checked. The rule `owners` exempts the other grants.
    pub owned: usize,
    /// Grants whose release was acknowledged.
    pub releases: usize,
    /// Signals that were emitted.
    pub signals: usize,
    /// Signals that subscriptions received.
    pub received: usize,
    /// Signals that were missing at a subscription or a group, and that a gap covers.
    pub in_gaps: usize,
    /// Signals that were missing at a group while the server had a half-open connection in the group.
    pub half_open: usize,
}

/// The rules. `docs/testing.md` describes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    Record,
    Believers,
    BeliefInGrant,
    Fences,
    QueueOrder,
    Deadlines,
    Owners,
    Renewals,
    Signals,
    Losses,
    Servers,
}

impl Rule {
    /// Returns the name of the rule and what the rule requires.
    pub fn says(self) -> &'static str {
        match self {
            Self::Record => "record: each line is possible after the lines before it",
            Self::Believers => "believers: never more than the limit",
            Self::BeliefInGrant => "belief in grant: a belief needs a grant that has not ended",
            Self::Fences => "fences: grow with each grant of a key",
            Self::QueueOrder => "queue order: grants come in the order of the queue",
            Self::Deadlines => "deadlines: operations return in time",
            Self::Owners => "owners: no grant lacks an owner for long",
            Self::Renewals => "renewals: no renewal follows an acknowledged release",
            Self::Signals => "signals: once, in order, gaps reported, none made up",
            Self::Losses => "losses: reported in time, and final",
            Self::Servers => "servers: the records of the servers agree with each other",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: Rule,
    /// Nanoseconds since the start that all lines share.
    pub at: u64,
    /// The index of the line that shows the violation.
    pub line: usize,
    pub what: String,
    /// Lines of the record that help to explain the violation, as JSON.
    pub history: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.at as f64 / 1e9;
        writeln!(f, "+{seconds:.6} s: {}\n    {}", self.rule.says(), self.what)?;
        for line in &self.history {
            writeln!(f, "      {line}")?;
        }
        Ok(())
    }
}

#[derive(Clone, Debug, Default)]
pub struct Verdict {
    pub counts: Counts,
    /// Sorted by time.
    pub violations: Vec<Violation>,
}

impl Verdict {
    pub fn is_valid(&self) -> bool {
        self.violations.is_empty()
    }

    /// Returns the counts. If there are violations, panics with a list of them.
    #[track_caller]
    pub fn assert(self) -> Counts {
        assert!(self.is_valid(), "{self}");
        self.counts
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 10;
        writeln!(f, "{} violations; judged: {:?}", self.violations.len(), self.counts)?;
        for violation in self.violations.iter().take(SHOWN) {
            write!(f, "  {violation}")?;
        }
        match self.violations.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => writeln!(f, "  and {more} more"),
        }
    }
}
