//! Decides when the client tries a key for callers whose waits have no connection. The tries use a pipelined
//! connection. Pure: the caller provides the time.
//!
//! Each key has its own times, and one try at a time. After this client has released the key, the key is tried at once.
//! Otherwise it is tried after a pause of random length, so that the tries of many keys and many clients are spread
//! over time. Two limits protect the server: one on the rate of tries, and one on the number of unanswered tries, so
//! that a slow server gets fewer tries.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::rate::TokenBucket;
use crate::shard::ids::WaitKey;

/// The minimum pause between two tries of a key. It is long enough that ten thousand keys do not flood a server, and
/// short enough that a free key is acquired within a second.
const PAUSE: Duration = Duration::from_millis(400);

/// The maximum random time that is added to the pause.
const JITTER: Duration = Duration::from_millis(400);

/// Tries that become due within this time of each other are sent together.
const TRY_BATCHING: Duration = Duration::from_millis(10);

/// The maximum number of a shard's unanswered tries.
const MOST_IN_FLIGHT: usize = 256;

/// The maximum number of a shard's tries per second.
const MOST_PER_SECOND: u32 = 20_000;

/// The maximum number of tries that are sent together.
const MOST_TOGETHER: u32 = 512;

/// The times at which keys are tried.
#[derive(Debug)]
pub(crate) struct TryTimes {
    keys: HashMap<WaitKey, TryState>,
    due: BTreeMap<(Instant, u64), WaitKey>,
    /// Distinguishes entries that are due at the same instant.
    last: u64,
    in_flight: usize,
    rate: TokenBucket,
    random: fastrand::Rng,
}

#[derive(Clone, Copy, Debug)]
enum TryState {
    Due(Instant, u64),
    InFlight {
        /// Whether the key is tried again after this try.
        wanted: bool,
        /// Whether it is tried again at once, because the key was released meanwhile.
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

    /// Begins to try a key, until it is [unwanted](Self::unwant).
    pub(crate) fn want(&mut self, key: &WaitKey, now: Instant) {
        match self.keys.get_mut(key) {
            Some(TryState::InFlight { wanted, .. }) => *wanted = true,
            Some(TryState::Due(..)) => {}
            None => self.put_off(key.clone(), now),
        }
    }

    /// Stops trying a key.
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

    /// Makes a key due at once, because it was released.
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

    /// Returns a key that is due, if a try is permitted now. The try is in flight until [`ended`](Self::ended) is
    /// called. A key whose try would be `futile` is skipped until its next time.
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

    /// Ends the try of a key. The next try comes after a pause, or at once if the key was released meanwhile.
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

    /// Returns the next time, later than now, at which [`take`](Self::take) may return a key.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Instant> {
        // At the limit of unanswered tries, only an answer permits the next one.
        if self.in_flight >= MOST_IN_FLIGHT {
            return None;
        }
        let ((when, _), _) = self.due.first_key_value()?;
        let together = when.max(&now).checked_add(TRY_BATCHING)?;
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

    /// Runs the clock in steps of a millisecond and answers each try after `latency` milliseconds. Returns the times of
    /// all tries, by key.
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
    fn each_of_ten_thousand_keys_is_tried_every_second_and_at_random_times() {
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
        // Each answer takes half a second, so the limit on unanswered tries limits the number of tries.
        let tried = run(&mut times, start, 5_000, 500);
        let all: usize = tried.values().map(Vec::len).sum();
        assert!(all <= 10 * MOST_IN_FLIGHT, "{all}");
        assert_eq!(times.next_due(start), None, "the next answer comes first");
    }

    #[test]
    fn a_released_key_is_tried_at_once_even_after_a_try_in_flight() {
        let start = Instant::now();
        let mut times = TryTimes::new(1);
        let key = key(0);
        times.want(&key, start);
        assert_eq!(take(&mut times, start), None, "a new key is tried after a pause");
        times.hurry(&key, start);
        assert_eq!(take(&mut times, start), Some(key.clone()));
        assert_eq!(take(&mut times, start), None, "a try is in flight");
        times.hurry(&key, start);
        times.ended(&key, start);
        assert_eq!(take(&mut times, start), Some(key.clone()));
        times.ended(&key, start);
        assert_eq!(take(&mut times, start), None);
        assert!(times.next_due(start).unwrap() >= start + PAUSE);
    }

    #[test]
    fn a_key_that_is_not_wanted_is_forgotten() {
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
    fn a_futile_try_is_skipped_and_does_not_count_toward_the_limits() {
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
            "each key has its next time"
        );
    }
}
