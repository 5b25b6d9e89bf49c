//! The result of judging: how much was judged, and the violations.

use std::fmt;

/// How much was judged, so that a test can assert that enough was judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub lines: usize,
    /// Operations of clients.
    pub operations: usize,
    /// Of these, operations that had a timeout.
    pub deadlines: usize,
    /// Guards and permits that callers had.
    pub holders: usize,
    /// Times at which a holder was used and `is_held` was true.
    pub beliefs: usize,
    /// Holders that were believed in after their server had ended them, at a moment that their client could not know.
    pub stale: usize,
    /// Losses that callers learnt of.
    pub losses: usize,
    /// Grants of servers.
    pub grants: usize,
    /// Of these, grants to waiters.
    pub from_queues: usize,
    /// Keys that were granted.
    pub keys: usize,
    /// Grants that were held at the end.
    pub held: usize,
    /// Fences that were compared with an earlier one.
    pub fences: usize,
    /// Grants whose time without an owner was measured: all that the rule does not exempt.
    pub owned: usize,
    /// Acknowledged releases, which no renewal may follow.
    pub releases: usize,
    /// Signals that were emitted.
    pub signals: usize,
    /// Signals that subscriptions got.
    pub received: usize,
    /// Signals that a subscription had to get and did not, with a gap reported in their place.
    pub in_gaps: usize,
    /// Signals that a group did not get while its server had a half-open connection of a member.
    pub half_open: usize,
}

/// The rules, and the form of the record.
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
    /// Returns the name of the rule and its sentence.
    pub fn says(self) -> &'static str {
        match self {
            Self::Record => "record: each line follows from those before it",
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

/// A violation of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: Rule,
    /// Nanoseconds since the start.
    pub at: u64,
    /// The number of the line that shows it.
    pub line: usize,
    pub what: String,
    /// The lines about the same key, operation or channel around it, as they are in the record.
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

/// The judgement.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    pub counts: Counts,
    /// In the order of their times.
    pub violations: Vec<Violation>,
}

impl Verdict {
    pub fn is_valid(&self) -> bool {
        self.violations.is_empty()
    }

    /// Returns the counts; panics with the violations if there are any.
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
