//! Ends the process if no world begins or ends for 120 s of wall time, and prints the seeds of the running worlds. The
//! wall time is necessary, because the clock of a world that loops forever does not move.

use std::collections::BTreeSet;
use std::process;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The longest wall time in which no world begins or ends. The longest world takes about two seconds.
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

/// Marks a world as running until this value is dropped.
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
