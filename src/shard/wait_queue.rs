//! Who waits for an exclusive connection, and whose turn it is. Pure.
//!
//! Waits start in the order in which they came, with one exception: a key may occupy only so many connections at once,
//! and while it does, its further waits are passed over by those for other keys. So one hot key cannot keep the waiters
//! of all others out, and within a key the order is always first come, first served.

use std::collections::{BTreeMap, HashMap, VecDeque};

use tokio::time::Instant;

use super::ids::{Arrival, WaitKey};
use super::progress::is_fresh;
use crate::net::lane::Caller;

/// The waits that have no connection yet, and how many of each key have one.
#[derive(Debug)]
pub(crate) struct WaitQueue<W> {
    subjects: HashMap<WaitKey, SubjectQueue<W>>,
    /// Of each subject that may occupy one more connection: the place of its first wait.
    ready: BTreeMap<Arrival, WaitKey>,
    next_place: Arrival,
    most_per_subject: usize,
    /// How many are in all queues together, and how many have a connection.
    queued: usize,
    running: usize,
}

#[derive(Debug)]
struct SubjectQueue<W> {
    waiting: VecDeque<(Arrival, W)>,
    running: usize,
    /// When a server last said that it is held.
    refused_at: Option<Instant>,
    /// The length at which waits whose callers are gone are thrown out: twice what was left the last time, so that
    /// they never outnumber the living for long, at a cost that is constant per wait.
    clean_at: usize,
}

const CLEAN_AT_LEAST: usize = 32;

impl<W: Caller> WaitQueue<W> {
    pub(crate) fn new(most_per_subject: usize) -> Self {
        Self {
            subjects: HashMap::new(),
            ready: BTreeMap::new(),
            next_place: 0,
            most_per_subject: most_per_subject.max(1),
            queued: 0,
            running: 0,
        }
    }

    /// Queues a wait behind all others.
    pub(crate) fn push(&mut self, subject: WaitKey, wait: W) {
        let place = self.next_place;
        self.next_place += 1;
        let queue = self.subjects.entry(subject.clone()).or_insert_with(|| SubjectQueue {
            waiting: VecDeque::new(),
            running: 0,
            refused_at: None,
            clean_at: CLEAN_AT_LEAST,
        });
        queue.waiting.push_back((place, wait));
        self.queued += 1;
        if queue.waiting.len() >= queue.clean_at {
            if let Some((first, _)) = queue.waiting.front() {
                self.ready.remove(first);
            }
            self.queued -= queue.waiting.len();
            queue.waiting.retain(|(_, wait)| !wait.is_gone());
            self.queued += queue.waiting.len();
            queue.clean_at = (queue.waiting.len() * 2).max(CLEAN_AT_LEAST);
        }
        self.refresh(&subject);
    }

    /// Puts a wait that [`pop`](Self::pop) gave out back to its place: it has not begun after all.
    pub(crate) fn put_back(&mut self, subject: WaitKey, place: Arrival, wait: W) {
        if let Some(queue) = self.subjects.get_mut(&subject) {
            if let Some((first, _)) = queue.waiting.front() {
                self.ready.remove(first);
            }
            let index = queue.waiting.partition_point(|(other, _)| *other < place);
            queue.waiting.insert(index, (place, wait));
            self.queued += 1;
        }
        self.finished(&subject);
    }

    /// The wait whose turn it is; it occupies a connection from now on, until [`finished`](Self::finished).
    pub(crate) fn pop(&mut self) -> Option<(WaitKey, Arrival, W)> {
        loop {
            let (_, subject) = self.ready.pop_first()?;
            let Some(queue) = self.subjects.get_mut(&subject) else {
                continue;
            };
            let next = queue.waiting.pop_front();
            self.queued -= usize::from(next.is_some());
            match next {
                Some((place, wait)) if !wait.is_gone() => {
                    queue.running += 1;
                    self.running += 1;
                    self.refresh(&subject);
                    return Some((subject, place, wait));
                }
                _ => self.refresh(&subject),
            }
        }
    }

    /// Whether anybody waits whose turn could come.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// A wait for this subject is over.
    pub(crate) fn finished(&mut self, subject: &WaitKey) {
        if let Some(queue) = self.subjects.get_mut(subject) {
            if queue.running > 0 {
                queue.running -= 1;
                self.running -= 1;
            }
        }
        self.refresh(subject);
    }

    /// A server has said that a key is held. That is of interest while a caller waits for the key.
    pub(crate) fn refused(&mut self, subject: &WaitKey, at: Instant) {
        if let Some(queue) = self.subjects.get_mut(subject) {
            queue.refused_at = queue.refused_at.max(Some(at));
        }
    }

    /// Returns when a server said that a key is held, if a caller waits for it here and another may take that for an answer of
    /// its own: for a short while, or as long as a caller waits for a connection, whom the other must not overtake.
    pub(crate) fn refused_at(&self, subject: &WaitKey, now: Instant) -> Option<Instant> {
        let queue = self.subjects.get(subject)?;
        let waits_here = || queue.waiting.iter().any(|(_, wait)| !wait.is_gone());
        queue.refused_at.filter(|at| is_fresh(*at, now) || waits_here())
    }

    /// How many wait for a connection, those included whose callers are gone and who were not thrown out yet.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// How many have a connection.
    pub(crate) fn running(&self) -> usize {
        self.running
    }

    /// Takes all that wait for a connection.
    pub(crate) fn drain(&mut self) -> Vec<W> {
        self.ready.clear();
        self.queued = 0;
        let mut all: Vec<(Arrival, W)> = Vec::new();
        self.subjects.retain(|_, queue| {
            all.extend(queue.waiting.drain(..));
            queue.running > 0
        });
        all.sort_by_key(|(place, _)| *place);
        all.into_iter().map(|(_, wait)| wait).collect()
    }

    /// Makes `ready` say the truth about a subject, and forgets it if there is nothing to say.
    fn refresh(&mut self, subject: &WaitKey) {
        let Some(queue) = self.subjects.get(subject) else {
            return;
        };
        match queue.waiting.front() {
            Some((place, _)) if queue.running < self.most_per_subject => {
                self.ready.insert(*place, subject.clone());
            }
            Some((place, _)) => {
                self.ready.remove(place);
            }
            None if queue.running == 0 => {
                self.subjects.remove(subject);
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;
    use std::task::{Context, Poll};

    use super::*;
    use crate::types::{Key, Kind};

    #[derive(Debug)]
    struct Wait(u32, Rc<Cell<bool>>);

    impl Caller for Wait {
        fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
            if self.1.get() { Poll::Ready(()) } else { Poll::Pending }
        }

        fn is_gone(&self) -> bool {
            self.1.get()
        }
    }

    fn wait(number: u32) -> Wait {
        Wait(number, Rc::new(Cell::new(false)))
    }

    fn subject(key: &str) -> WaitKey {
        (Kind::Lock, Key::new(key).unwrap())
    }

    fn pop(queue: &mut WaitQueue<Wait>) -> Option<u32> {
        queue.pop().map(|(_, _, wait)| wait.0)
    }

    #[test]
    fn first_come_first_served_but_a_hot_key_lets_others_pass() {
        let mut queue = WaitQueue::new(2);
        for number in 0..5 {
            queue.push(subject("hot"), wait(number));
        }
        queue.push(subject("other"), wait(5));
        assert_eq!(
            [pop(&mut queue), pop(&mut queue), pop(&mut queue)],
            [Some(0), Some(1), Some(5)]
        );
        assert_eq!(pop(&mut queue), None);
        assert_eq!((queue.queued(), queue.running()), (3, 3));
        queue.finished(&subject("hot"));
        assert_eq!([pop(&mut queue), pop(&mut queue)], [Some(2), None]);
        assert_eq!((queue.queued(), queue.running()), (2, 3));
    }

    #[test]
    fn a_wait_that_did_not_begin_gets_its_place_back() {
        let mut queue = WaitQueue::new(1);
        for number in 0..3 {
            queue.push(subject("k"), wait(number));
        }
        let (key, place, first) = queue.pop().unwrap();
        assert_eq!((first.0, pop(&mut queue)), (0, None));
        queue.put_back(key, place, first);
        assert_eq!([pop(&mut queue), pop(&mut queue)], [Some(0), None]);
    }

    #[test]
    fn the_gone_are_passed_over_and_do_not_pile_up() {
        let mut queue = WaitQueue::new(1);
        queue.push(subject("k"), wait(0));
        assert_eq!(pop(&mut queue), Some(0));
        for number in 1..10_000 {
            let wait = wait(number);
            wait.1.set(number != 5_000);
            queue.push(subject("k"), wait);
        }
        assert!(queue.queued() <= 2 * CLEAN_AT_LEAST, "{}", queue.queued());
        queue.finished(&subject("k"));
        assert_eq!(pop(&mut queue), Some(5_000));
        queue.finished(&subject("k"));
        assert_eq!(pop(&mut queue), None);
        assert!(
            queue.subjects.is_empty() && queue.ready.is_empty(),
            "nothing is left behind"
        );
        assert_eq!((queue.queued(), queue.running()), (0, 0));
    }

    #[test]
    fn drained_in_order_of_arrival() {
        let mut queue = WaitQueue::new(1);
        for (number, key) in ["a", "b", "a"].into_iter().enumerate() {
            queue.push(subject(key), wait(number as u32));
        }
        let drained: Vec<u32> = queue.drain().into_iter().map(|wait| wait.0).collect();
        assert_eq!((drained, queue.pop().is_none()), (vec![0, 1, 2], true));
    }
}
