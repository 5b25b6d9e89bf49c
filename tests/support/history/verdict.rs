//! What comes of judging: how much was judged, and what is wrong.

use std::fmt;

/// How much was judged, so that a test can see that it was not nothing.
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
    /// Holders that were believed in when their server had ended them, at a moment that their client could not know.
    pub stale: usize,
    /// Losses that callers were told.
    pub losses: usize,
    /// Grants of servers.
    pub grants: usize,
    /// Of these, grants to waiters.
    pub from_queues: usize,
    /// Keys that were granted.
    pub keys: usize,
    /// Grants that were held at the end.
    pub held: usize,
    /// Fences that were compared with one before.
    pub fences: usize,
    /// Grants whose time without an owner was measured: all but those that are left to their leases.
    pub owned: usize,
    /// Acknowledged releases behind which no renewal may come.
    pub releases: usize,
    /// Signals that were emitted.
    pub signals: usize,
    /// Signals that subscriptions got.
    pub received: usize,
    /// Signals that a subscription had to get and did not, with a gap told in their place.
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
    /// Its name and what it says.
    pub fn says(self) -> &'static str {
        match self {
            Self::Record => "record: each line follows from those before it",
            Self::Believers => "believers: never more than the limit",
            Self::BeliefInGrant => "belief in grant: what is believed in is granted, and has not ended",
            Self::Fences => "fences: grow with each grant of a key",
            Self::QueueOrder => "queue order: grants come in the order of the queue",
            Self::Deadlines => "deadlines: operations return in time",
            Self::Owners => "owners: no grant is without one for long",
            Self::Renewals => "renewals: none after an acknowledged release",
            Self::Signals => "signals: once, in order, gaps told, none made up",
            Self::Losses => "losses: told in time, and for good",
            Self::Servers => "servers: their own records agree",
        }
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: Rule,
    /// Nanoseconds since the start.
    pub at: u64,
    /// The number of the line that shows it.
    pub line: usize,
    pub what: String,
    /// The lines about the same key around it, as they stand in the record.
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

    /// The counts; fails with what is wrong.
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
