//! Judges servers by their own records: that no lock was ever granted to two holders at once, no semaphore to more than its
//! limit, and, where asked, that grants came in the order of the queue.
//!
//! A grant is held until the record says that it ended: released, expired, given up with its connection, forgotten. The
//! records of several servers, or of clusters, are judged together: what one has granted, no other may. Within a record its
//! own order counts, since its clock was read before the lock was taken that makes the order; between records, the clock of
//! the process.
//!
//! What clients saw can be judged in the same way: a record is made of [`Step`]s, and not of events only.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt;

use dflockd_client::server::{Event, EventKind};
use dflockd_client::{Kind, Token};
use tokio::time::Instant;

/// One line of a record.
#[derive(Clone, Debug)]
pub struct Step {
    pub at: Instant,
    pub kind: EventKind,
    pub namespace: Kind,
    pub key: String,
    pub limit: u64,
    pub token: Option<Token>,
    pub place: Option<u64>,
    pub connection: u64,
}

impl From<Event> for Step {
    fn from(event: Event) -> Self {
        Self {
            at: event.at,
            kind: event.kind,
            namespace: event.namespace,
            key: event.key.to_string(),
            limit: event.limit,
            token: event.token,
            place: event.place,
            connection: event.connection,
        }
    }
}

impl Step {
    fn ends_a_lease(&self) -> bool {
        matches!(
            self.kind,
            EventKind::Released | EventKind::Disconnected | EventKind::Expired | EventKind::Forgotten
        )
    }
}

/// Records that are judged together.
#[derive(Default)]
pub struct Checker {
    records: Vec<(String, Vec<Step>)>,
    in_order: bool,
}

/// What was judged, so that a test can see that it was not nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How many grants there were.
    pub grants: usize,
    /// How many of them went to somebody who had waited.
    pub from_queues: usize,
    /// How many keys were granted.
    pub keys: usize,
    /// How many leases were held at the end.
    pub held: usize,
}

/// Everything that is wrong, in order.
#[derive(Debug)]
pub struct Violations(pub Vec<String>);

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 10;
        writeln!(f, "{} violations", self.0.len())?;
        for violation in self.0.iter().take(SHOWN) {
            writeln!(f, "  {violation}")?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => writeln!(f, "  and {more} more"),
        }
    }
}

impl Checker {
    /// Adds a record.
    #[must_use]
    pub fn record<S: Into<Step>>(mut self, name: &str, steps: impl IntoIterator<Item = S>) -> Self {
        let steps = steps.into_iter().map(Into::into);
        self.records.push((name.to_owned(), steps.collect()));
        self
    }

    /// Judges the order of grants, too: each record by itself.
    #[must_use]
    pub fn in_order(mut self) -> Self {
        self.in_order = true;
        self
    }

    /// Judges.
    pub fn check(&self) -> Result<Verdict, Violations> {
        let mut court = Court {
            names: self.records.iter().map(|(name, _)| name.as_str()).collect(),
            start: self
                .records
                .iter()
                .filter_map(|(_, steps)| steps.first())
                .map(|step| step.at)
                .min(),
            in_order: self.in_order,
            ..Court::default()
        };
        let mut rest: Vec<VecDeque<&Step>> = self.records.iter().map(|(_, steps)| steps.iter().collect()).collect();
        while let Some(record) = earliest(&rest) {
            if let Some(step) = rest[record].pop_front() {
                court.judge(record, step);
            }
        }
        court.verdict()
    }

    /// Judges, and fails with what is wrong.
    pub fn assert(&self) -> Verdict {
        self.check().unwrap_or_else(|violations| panic!("{violations}"))
    }
}

/// The record whose next step comes first. Of those that come together, an end goes before what may follow from it. A step
/// whose clock is behind that of the one before it comes at once after that one: a clock that is read before a lock is
/// waited for may be late.
fn earliest(rest: &[VecDeque<&Step>]) -> Option<usize> {
    let next = rest
        .iter()
        .enumerate()
        .filter_map(|(record, steps)| Some((record, *steps.front()?)));
    next.min_by_key(|(record, step)| (step.at, !step.ends_a_lease(), *record))
        .map(|(record, _)| record)
}

type Subject = (Kind, String);

#[derive(Default)]
struct Court<'a> {
    names: Vec<&'a str>,
    start: Option<Instant>,
    in_order: bool,
    held: HashMap<Subject, Vec<Holder>>,
    /// Who waits at which server, by place.
    queues: HashMap<(usize, Subject), BTreeSet<u64>>,
    granted: HashSet<Token>,
    keys: HashSet<Subject>,
    verdict: Verdict,
    violations: Vec<String>,
}

#[derive(Clone)]
struct Holder {
    record: usize,
    token: Token,
    since: Instant,
    connection: u64,
}

impl Court<'_> {
    fn judge(&mut self, record: usize, step: &Step) {
        match step.kind {
            EventKind::Granted => self.grant(record, step),
            EventKind::Queued => self.queue(record, step),
            EventKind::Left => {
                self.leave(record, step);
            }
            _ if step.ends_a_lease() => self.end(record, step),
            _ => self.touch(record, step),
        }
    }

    fn grant(&mut self, record: usize, step: &Step) {
        let Some(token) = step.token else {
            return self.violation(record, step, "names no token");
        };
        self.verdict.grants += 1;
        self.keys.insert(subject(step));
        if !self.granted.insert(token) {
            self.violation(record, step, "was granted before");
        }
        self.grant_in_order(record, step);
        let limit = match step.namespace {
            Kind::Lock => 1,
            Kind::Semaphore => step.limit as usize,
        };
        let holders = self.held.entry(subject(step)).or_default();
        let others = holders.clone();
        holders.push(Holder {
            record,
            token,
            since: step.at,
            connection: step.connection,
        });
        if others.len() >= limit {
            let others: Vec<String> = others.iter().map(|holder| self.holder(holder)).collect();
            let of = if limit == 1 {
                String::new()
            } else {
                format!(", and no more than {limit} may")
            };
            let what = format!("while it is held by {}{of}", others.join(" and by "));
            self.violation(record, step, &what);
        }
    }

    fn grant_in_order(&mut self, record: usize, step: &Step) {
        let queue = self.queues.entry((record, subject(step))).or_default();
        let first = queue.first().copied();
        let waited = step.place.map(|place| queue.remove(&place));
        let wrong = match (waited, step.place, first) {
            (Some(true), Some(place), Some(first)) if first < place => {
                Some(format!("from place {place}, before the one at place {first}"))
            }
            (Some(true), ..) | (None, _, None) => None,
            (Some(false), Some(place), _) => Some(format!("from place {place}, where nobody waited")),
            (_, _, Some(first)) => Some(format!("to a newcomer, before the one at place {first}")),
            (Some(false), None, None) => None,
        };
        self.verdict.from_queues += usize::from(step.place.is_some());
        if let Some(wrong) = wrong.filter(|_| self.in_order) {
            self.violation(record, step, &wrong);
        }
    }

    fn queue(&mut self, record: usize, step: &Step) {
        let Some(place) = step.place else {
            return self.violation(record, step, "names no place");
        };
        let queue = self.queues.entry((record, subject(step))).or_default();
        let last = queue.last().copied();
        queue.insert(place);
        if let Some(last) = last.filter(|last| *last >= place) {
            self.violation(record, step, &format!("at place {place}, behind place {last}"));
        }
    }

    fn leave(&mut self, record: usize, step: &Step) {
        let queue = self.queues.entry((record, subject(step))).or_default();
        if !step.place.is_some_and(|place| queue.remove(&place)) {
            self.violation(record, step, "a place where nobody waited");
        }
    }

    fn end(&mut self, record: usize, step: &Step) {
        let holders = self.held.entry(subject(step)).or_default();
        let held = holders.iter().position(|holder| holder.is(record, step));
        match held {
            Some(index) => {
                holders.remove(index);
            }
            None => self.violation(record, step, "was not held"),
        }
    }

    /// What changes neither holder nor queue must be about what there is.
    fn touch(&mut self, record: usize, step: &Step) {
        let queue = self.queues.get(&(record, subject(step)));
        let waits = step
            .place
            .is_some_and(|place| queue.is_some_and(|queue| queue.contains(&place)));
        let holders = self.held.get(&subject(step)).map_or(&[][..], Vec::as_slice);
        let held = holders.iter().any(|holder| holder.is(record, step));
        if !waits && !held {
            self.violation(record, step, "was neither held nor waited for");
        }
    }

    fn holder(&self, holder: &Holder) -> String {
        format!(
            "grant {} (connection {} of {:?}, since {})",
            holder.token.first_half(),
            holder.connection,
            self.names[holder.record],
            self.time(holder.since)
        )
    }

    fn violation(&mut self, record: usize, step: &Step, what: &str) {
        let grant = step
            .token
            .map(|token| format!(" grant {}", token.first_half()))
            .unwrap_or_default();
        let place = step.place.map(|place| format!(" place {place}")).unwrap_or_default();
        self.violations.push(format!(
            "{} {:?}: {:?}{grant}{place} (connection {} of {:?}) at {}: {what}",
            step.namespace.as_str(),
            step.key,
            step.kind,
            step.connection,
            self.names[record],
            self.time(step.at),
        ));
    }

    fn time(&self, at: Instant) -> String {
        let start = self.start.unwrap_or(at);
        format!("+{:.6} s", at.saturating_duration_since(start).as_secs_f64())
    }

    fn verdict(self) -> Result<Verdict, Violations> {
        if !self.violations.is_empty() {
            return Err(Violations(self.violations));
        }
        Ok(Verdict {
            keys: self.keys.len(),
            held: self.held.values().map(Vec::len).sum(),
            ..self.verdict
        })
    }
}

impl Holder {
    fn is(&self, record: usize, step: &Step) -> bool {
        self.record == record && Some(self.token) == step.token
    }
}

fn subject(step: &Step) -> Subject {
    (step.namespace, step.key.clone())
}
