//! Runs seeds.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::book::Left;
use super::world::World;

/// The number of seeds.
const SEEDS: u64 = 2_000;

/// The number of steps of each seed.
const STEPS: u64 = 2_000;

/// The outcome of a run.
#[derive(Debug)]
struct RunOutcome {
    hash: u64,
    steps: u64,
    violation: Option<String>,
    left: Left,
    history: String,
}

/// Runs a seed and keeps the last `lines` lines of its history.
fn run(seed: u64, steps: u64, lines: usize) -> RunOutcome {
    let mut world = World::new(seed, lines > 0);
    let run = catch_unwind(AssertUnwindSafe(|| {
        let mut taken = 0;
        while taken < steps && world.violation().is_none() {
            taken += u64::from(world.step());
        }
        if world.violation().is_none() {
            world.settle();
        }
        taken
    }));
    let (taken, panic) = match run {
        Ok(taken) => (taken, None),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            (0, Some(format!("a panic: {}", text.unwrap_or_default())))
        }
    };
    RunOutcome {
        hash: world.trace.hash(),
        steps: taken,
        left: world.book.left,
        violation: panic.or_else(|| world.violation().map(str::to_owned)),
        history: world.trace.text(lines),
    }
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn steps() -> u64 {
    from_environment("MODEL_STEPS").unwrap_or(STEPS)
}

/// Runs a failed seed again with its history, and returns the report.
fn report(seed: u64, steps: u64, lines: usize) -> String {
    let RunOutcome { violation, history, .. } = run(seed, steps, lines);
    let what = violation.unwrap_or_else(|| "a failure that another run did not reproduce".to_owned());
    format!("seed {seed}: {what}\n{history}MODEL_SEED={seed} runs it alone")
}

#[test]
fn the_invariants_hold_for_all_seeds() {
    let steps = steps();
    if let Some(seed) = from_environment("MODEL_SEED") {
        let outcome = run(seed, steps, usize::MAX);
        println!("{}", outcome.history);
        assert_eq!(outcome.violation, None, "seed {seed}");
        return;
    }
    let first = from_environment("MODEL_FROM").unwrap_or(0);
    let last = first + from_environment("MODEL_SEEDS").unwrap_or(SEEDS);
    let (next, failed, taken) = (AtomicU64::new(first), AtomicU64::new(u64::MAX), AtomicU64::new(0));
    let left = Mutex::new(Left::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= last || failed.load(Ordering::Relaxed) != u64::MAX {
                        return;
                    }
                    let outcome = run(seed, steps, 0);
                    taken.fetch_add(outcome.steps, Ordering::Relaxed);
                    left.lock().unwrap().add(outcome.left);
                    if outcome.violation.is_some() {
                        failed.fetch_min(seed, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    assert!(failed == u64::MAX, "{}", report(failed, steps, 120));
    println!("grants without a caller that expired: {:?}", left.into_inner().unwrap());
    // A run in which nothing happens would prove nothing.
    assert_eq!(taken.into_inner(), (last - first) * steps);
}

#[test]
fn a_seed_determines_its_history() {
    for seed in 0..20 {
        let (once, twice, with_text) = (run(seed, 500, 0), run(seed, 500, 0), run(seed, 500, 1));
        assert_eq!(
            (once.hash, once.violation),
            (twice.hash, twice.violation),
            "seed {seed}"
        );
        assert_eq!(once.hash, with_text.hash, "seed {seed}");
    }
    assert_ne!(run(0, 500, 0).hash, run(1, 500, 0).hash);
}
