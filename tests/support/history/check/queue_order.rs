//! Grants come in the order of the queue: at each server, for each key, a grant goes to the first waiter, and to a newcomer only if no
//! caller waits.
//!
//! At one server this has no exception, as servers promise: an orphan keeps its turn, a reclaimed queue position keeps its number, and the
//! limit of a semaphore does not change who is next. Not judged, since it is promised nowhere: the order between servers (each has its
//! own queue, and a position does not move), between tries (they do not queue), and between callers of one client.

use std::collections::{BTreeSet, HashMap};

use super::super::record::{Entry, Kind, Name, What};
use super::super::shortened::Subject;
use super::super::verdict::Rule;
use super::Findings;

/// The positions that wait, and the last one that was taken.
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
        (!waited(self)).then(|| format!("nothing waits at place {place}"))
    }
}
