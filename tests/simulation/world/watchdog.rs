//! Ends the process if no world ends for a long time in real time, and prints the seeds under way: a world that loops
//! does not move its clock.

use std::collections::BTreeSet;
use std::process;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The time in which a world has to end. The longest takes a second or two.
const PATIENCE: Duration = Duration::from_secs(120);

struct Worlds {
    under_way: BTreeSet<u64>,
    /// When a world last began or ended.
    moved: Option<Instant>,
}

static WORLDS: Mutex<Worlds> = Mutex::new(Worlds {
    under_way: BTreeSet::new(),
    moved: None,
});

static STARTED: Once = Once::new();

fn worlds() -> MutexGuard<'static, Worlds> {
    WORLDS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A world that is under way, until this is dropped.
pub struct UnderWay(u64);

impl UnderWay {
    pub fn begin(seed: u64) -> Self {
        let mut worlds = worlds();
        worlds.under_way.insert(seed);
        worlds.moved = Some(Instant::now());
        STARTED.call_once(|| drop(thread::spawn(watch)));
        Self(seed)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut worlds = worlds();
        worlds.under_way.remove(&self.0);
        worlds.moved = Some(Instant::now());
    }
}

fn watch() {
    loop {
        thread::sleep(Duration::from_secs(1));
        let worlds = worlds();
        let still = worlds.moved.is_some_and(|moved| moved.elapsed() > PATIENCE);
        if still && !worlds.under_way.is_empty() {
            eprintln!(
                "no world has ended for {PATIENCE:?}; seeds under way: {:?}",
                worlds.under_way
            );
            process::abort();
        }
    }
}
