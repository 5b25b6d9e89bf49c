//! When the keys of waits that have no connection are tried over the pipelined one. Pure: the caller brings the clock.
//!
//! Each key is tried by itself, one try at a time: at once when this client released it, otherwise after a pause that differs
//! from try to try, so that neither the keys of one client nor those of many come in step. What a server gets of it is bounded twice:
//! by a rate, and by how many tries are unanswered, so that a slow server gets fewer.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::rate::TokenBucket;
use crate::shard::ids::WaitKey;

/// The pause between two tries of a key: long enough that ten thousand keys are no flood, short enough that a key which is free is
/// had within a second.
const PAUSE: Duration = Duration::from_millis(400);

/// The longest random time on top of it.
const JITTER: Duration = Duration::from_millis(400);

/// Tries that are due within this time of each other leave together.
const TOGETHER: Duration = Duration::from_millis(10);

/// The most tries of one shard that are unanswered.
const MOST_IN_FLIGHT: usize = 256;

/// The most tries of one shard in a second.
const MOST_PER_SECOND: u32 = 20_000;

/// The most tries that leave together.
const MOST_TOGETHER: u32 = 512;

/// The times at which keys are tried.
#[derive(Debug)]
pub(crate) struct TryTimes {
    keys: HashMap<WaitKey, TryState>,
    due: BTreeMap<(Instant, u64), WaitKey>,
    /// Tells entries apart that are due at the same moment.
    last: u64,
    in_flight: usize,
    rate: TokenBucket,
    random: fastrand::Rng,
}

#[derive(Clone, Copy, Debug)]
enum TryState {
    Due(Instant, u64),
    InFlight {
        /// To be tried again when this is over.
        wanted: bool,
        /// And at once: it was released meanwhile.
        hurry: bool,
    },
}

impl TryTimes {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            keys: HashMap::new(),
            due: BTreeMap::new(),
            last: 0,
            in_flight: 0,
            rate: TokenBucket::new(MOST_TOGETHER, MOST_PER_SECOND),
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// A key is to be tried, from now on, until it is not wanted any more.
    pub(crate) fn want(&mut self, key: &WaitKey, now: Instant) {
        match self.keys.get_mut(key) {
            Some(TryState::InFlight { wanted, .. }) => *wanted = true,
            Some(TryState::Due(..)) => {}
            None => self.put_off(key.clone(), now),
        }
    }

    /// A key needs no tries any more.
    pub(crate) fn unwant(&mut self, key: &WaitKey) {
        match self.keys.get_mut(key) {
            Some(TryState::InFlight { wanted, .. }) => *wanted = false,
            Some(TryState::Due(when, number)) => {
                self.due.remove(&(*when, *number));
                self.keys.remove(key);
            }
            None => {}
        }
    }

    /// A key that is to be tried was released: it is tried at once.
    pub(crate) fn hurry(&mut self, key: &WaitKey, now: Instant) {
        match self.keys.get_mut(key) {
            Some(TryState::InFlight { hurry, .. }) => *hurry = true,
            Some(TryState::Due(when, number)) => {
                self.due.remove(&(*when, *number));
                self.set_due(key.clone(), now);
            }
            None => {}
        }
    }

    /// A key that is due, if one may be tried now. Its try is in flight until it [ended](Self::ended). A key whose try would be
    /// `futile` is passed over until its next time.
    pub(crate) fn take(&mut self, now: Instant, futile: impl Fn(&WaitKey) -> bool) -> Option<WaitKey> {
        loop {
            let entry = self.due.first_entry().filter(|entry| entry.key().0 <= now)?;
            if futile(entry.get()) {
                let key = entry.remove();
                self.put_off(key, now);
                continue;
            }
            if self.in_flight >= MOST_IN_FLIGHT || !self.rate.take(now) {
                return None;
            }
            let key = entry.remove();
            let state = TryState::InFlight {
                wanted: true,
                hurry: false,
            };
            self.keys.insert(key.clone(), state);
            self.in_flight += 1;
            return Some(key);
        }
    }

    /// The try of a key is over: the next comes after a pause, or at once if it was released meanwhile.
    pub(crate) fn ended(&mut self, key: &WaitKey, now: Instant) {
        let Some(TryState::InFlight { wanted, hurry }) = self.keys.get(key).copied() else {
            return;
        };
        self.in_flight -= 1;
        match (wanted, hurry) {
            (false, _) => drop(self.keys.remove(key)),
            (true, true) => self.set_due(key.clone(), now),
            (true, false) => self.put_off(key.clone(), now),
        }
    }

    /// When [`take`](Self::take) is worth asking again, later than now.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Instant> {
        // With so many unanswered, the next answer is what it takes.
        if self.in_flight >= MOST_IN_FLIGHT {
            return None;
        }
        let ((when, _), _) = self.due.first_key_value()?;
        let together = when.max(&now).checked_add(TOGETHER)?;
        Some(together.max(self.rate.ready_at(now)))
    }

    fn put_off(&mut self, key: WaitKey, now: Instant) {
        let when = now + self.pause();
        self.set_due(key, when);
    }

    fn set_due(&mut self, key: WaitKey, when: Instant) {
        self.last += 1;
        self.keys.insert(key.clone(), TryState::Due(when, self.last));
        self.due.insert((when, self.last), key);
    }

    fn pause(&mut self) -> Duration {
        PAUSE + JITTER.mul_f64(self.random.f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Key, Target};

    fn key(name: usize) -> WaitKey {
        (Target::Lock, Key::new(format!("k{name}")).unwrap())
    }

    fn take(times: &mut TryTimes, now: Instant) -> Option<WaitKey> {
        times.take(now, |_| false)
    }

    /// Runs the clock in steps of a millisecond; every try is answered after `latency` of them. The times of all tries, by key.
    fn run(times: &mut TryTimes, start: Instant, millis: u64, latency: u64) -> HashMap<WaitKey, Vec<u64>> {
        let mut tried: HashMap<WaitKey, Vec<u64>> = HashMap::new();
        let mut answers: Vec<(u64, WaitKey)> = Vec::new();
        for milli in 0..millis {
            let now = start + Duration::from_millis(milli);
            answers.retain(|(at, key)| {
                let over = *at <= milli;
                if over {
                    times.ended(key, now);
                }
                !over
            });
            while let Some(key) = take(times, now) {
                tried.entry(key.clone()).or_default().push(milli);
                answers.push((milli + latency, key));
            }
        }
        tried
    }

    #[test]
    fn each_of_ten_thousand_keys_is_tried_within_a_second_and_not_in_step() {
        let start = Instant::now();
        let mut times = TryTimes::new(1);
        for name in 0..10_000 {
            times.want(&key(name), start);
        }
        let tried = run(&mut times, start, 5_000, 2);
        assert_eq!(tried.len(), 10_000);
        let mut by_second = [0_u32; 5];
        let mut by_pause = std::collections::HashSet::new();
        for times in tried.values() {
            let mut before = 0;
            for at in times {
                assert!(at - before < 1_000, "tried at {before} ms and then at {at} ms");
                assert!(at - before >= 400);
                by_pause.insert(at - before);
                by_second[(at / 1_000) as usize] += 1;
                before = *at;
            }
        }
        assert!(by_pause.len() > 200, "{} different pauses", by_pause.len());
        assert!(
            by_second.iter().all(|tries| *tries <= MOST_PER_SECOND + MOST_TOGETHER),
            "{by_second:?}"
        );
    }

    #[test]
    fn a_slow_server_is_not_flooded() {
        let start = Instant::now();
        let mut times = TryTimes::new(1);
        for name in 0..10_000 {
            times.want(&key(name), start);
        }
        // Half a second for each answer: no more than can be unanswered at a time.
        let tried = run(&mut times, start, 5_000, 500);
        let all: usize = tried.values().map(Vec::len).sum();
        assert!(all <= 10 * MOST_IN_FLIGHT, "{all}");
        assert_eq!(times.next_due(start), None, "the next answer comes first");
    }

    #[test]
    fn what_was_released_is_tried_at_once_also_behind_a_try_in_flight() {
        let start = Instant::now();
        let mut times = TryTimes::new(1);
        let key = key(0);
        times.want(&key, start);
        assert_eq!(take(&mut times, start), None, "it was refused a moment ago");
        times.hurry(&key, start);
        assert_eq!(take(&mut times, start), Some(key.clone()));
        assert_eq!(take(&mut times, start), None, "one at a time");
        times.hurry(&key, start);
        times.ended(&key, start);
        assert_eq!(take(&mut times, start), Some(key.clone()));
        times.ended(&key, start);
        assert_eq!(take(&mut times, start), None);
        assert!(times.next_due(start).unwrap() >= start + PAUSE);
    }

    #[test]
    fn what_is_not_wanted_is_forgotten() {
        let start = Instant::now();
        let mut times = TryTimes::new(1);
        let (due, flying, back) = (key(0), key(1), key(2));
        for key in [&due, &flying, &back] {
            times.want(key, start);
        }
        for key in [&flying, &back] {
            times.hurry(key, start);
            assert_eq!(take(&mut times, start).as_ref(), Some(key));
        }
        for key in [&due, &flying, &back] {
            times.unwant(key);
        }
        times.want(&back, start);
        times.ended(&flying, start);
        times.ended(&back, start);
        assert_eq!((times.keys.len(), times.due.len(), times.in_flight), (1, 1, 0));
        times.unwant(&back);
        assert!(times.keys.is_empty() && times.due.is_empty());
        assert_eq!(times.next_due(start), None);
    }

    #[test]
    fn a_try_in_vain_is_spared_and_counts_for_nothing() {
        let start = Instant::now();
        let mut times = TryTimes::new(1);
        for name in 0..20_000 {
            times.want(&key(name), start);
        }
        let later = start + Duration::from_secs(1);
        let wanted = key(19_999);
        assert_eq!(times.take(later, |key| *key != wanted).as_ref(), Some(&wanted));
        assert_eq!((times.take(later, |_| true), times.in_flight), (None, 1));
        assert!(
            times.due.first_key_value().unwrap().0.0 > later,
            "all have their next time"
        );
    }
}
