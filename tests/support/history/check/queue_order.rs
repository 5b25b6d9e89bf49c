//! Grants come in the order of the queue. For each key at each server, a grant goes to the waiter with the first queue
//! position. A caller without a queue position (a newcomer) gets a grant only if no caller waits.
//!
//! Servers promise this order without exceptions. A queue position keeps its turn after its connection has ended
//! (`orphaned`). A queue position that a session reclaims keeps its number. The limit of a semaphore does not change
//! the order.
//!
//! The rule does not judge orders that the documentation does not promise:
//! - the order between servers, because each server has its own queue;
//! - the order between tries, because tries do not queue;
//! - the order between callers of one client.

use std::collections::{BTreeSet, HashMap};

use super::super::record::{Entry, Kind, Name, What};
use super::super::shortened::Subject;
use super::super::verdict::Rule;
use super::Findings;

/// The queue positions that wait, and the queue position that was taken last.
#[derive(Default)]
struct Queue {
    waiting: BTreeSet<u64>,
    last: Option<u64>,
}

pub fn check(findings: &mut Findings<'_>) {
    let facts = findings.facts;
    let mut queues: HashMap<(&Name, Kind, &Name), Queue> = HashMap::new();
    for (number, line) in facts.lines.iter().enumerate() {
        if let What::ServerEnded(ended) = &line.what {
            queues.retain(|(server, ..), _| **server != ended.server);
        }
        let Some(entry) = line.what.entry() else { continue };
        let queue = queues.entry((&entry.server, entry.kind, &entry.key)).or_default();
        findings.counts.from_queues += usize::from(matches!(line.what, What::Granted(_)) && entry.place.is_some());
        if let Some(wrong) = queue.see(&line.what, entry) {
            let what = format!("{} {:?} of server {:?}: {wrong}", entry.kind, entry.key, entry.server);
            let subject = Subject::Key(entry.kind, entry.key.clone());
            findings.violation(Rule::QueueOrder, number, subject, what);
        }
    }
}

impl Queue {
    fn see(&mut self, what: &What, entry: &Entry) -> Option<String> {
        match (what, entry.place) {
            (What::Granted(_), place) => self.grant(place),
            (What::Queued(_), None) => Some("a place without a number".to_owned()),
            (What::Queued(_), Some(place)) => {
                self.waiting.insert(place);
                let last = self.last.replace(place).filter(|last| *last >= place)?;
                Some(format!("place {place} was taken after place {last}"))
            }
            (What::Left(_), Some(place)) => self.must(place, |queue| queue.waiting.remove(&place)),
            (What::Orphaned(_) | What::Reclaimed(_), Some(place)) => {
                self.must(place, |queue| queue.waiting.contains(&place))
            }
            _ => None,
        }
    }

    fn grant(&mut self, place: Option<u64>) -> Option<String> {
        let first = self.waiting.first().copied();
        match (place, first) {
            (Some(place), first) => {
                let waited = self.must(place, |queue| queue.waiting.remove(&place));
                waited.or_else(|| {
                    let first = first.filter(|first| *first < place)?;
                    Some(format!("place {place} was granted before place {first}"))
                })
            }
            (None, Some(first)) => Some(format!("a newcomer was granted before place {first}")),
            (None, None) => None,
        }
    }

    fn must(&mut self, place: u64, waited: impl FnOnce(&mut Self) -> bool) -> Option<String> {
        (!waited(self)).then(|| format!("no caller waits at place {place}"))
    }
}
