//! Tests that run whole clients and servers in simulated worlds. A world has a network in memory, simulated clocks and
//! faults. One number, the seed of the world, determines all events in it. `docs/testing.md` describes worlds.
//!
//! `SIMULATION_SEED=7` runs only the world of seed 7. `SIMULATION_FROM` sets the first seed, and `SIMULATION_SEEDS` the
//! number of seeds. If a world breaks a rule, the test prints the end of its history.
//! `cargo run --release --example simulate -- --seeds 10000 --jobs 2` runs many worlds on two threads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod world;

use std::env;
use std::process::Command;

/// Seeds of worlds that once broke a rule. Some of these seeds may give other worlds now, because later changes of the
/// simulation changed what a seed means. `docs/testing.md` names a separate test for each bug of the client.
///
/// The first four worlds showed bugs of the client:
///
/// - 1695 and 1866: a process was frozen during an acquire. Other callers had reached the limit `max_waiters`, so the
///   acquire waited in the client until its timeout was over. Then the client began a try that had no timeout.
/// - 3261: a caller dropped a ticket. The server granted the ticket's key while the client shut down, and the client
///   did not release the key.
/// - 23221: a ticket was granted. Other waits for the same key had reached the limit `max_waiters`, so the client did
///   not send the wait of the ticket.
///
/// The other four worlds showed errors in the rules:
///
/// - 44231 and 46769: the connection of a group's member was cut in silence. Until the read timeout, the server sent
///   signals of the group over that connection.
/// - 33395: a renewal was delayed on its connection. The release used another connection and arrived earlier.
/// - 38529: the connection of a subscription was cut in silence. The subscription detected the cut later than the rule
///   allowed, because the rule did not know the separate heartbeat of signal connections.
const REGRESSIONS: [u64; 8] = [1695, 1866, 3261, 23221, 44231, 46769, 33395, 38529];

/// The number of worlds if neither `SIMULATION_SEED` nor `SIMULATION_SEEDS` is set. It does not include [`REGRESSIONS`].
const SEEDS: u64 = 40;

/// The number of worlds that [`a_world_repeats_itself`] compares.
const REPEATED: u64 = 8;

/// The seed of a world that breaks no rule without a planted bug.
const PLANTED_IN: u64 = 4;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|number| number.parse().unwrap())
}

#[test]
fn worlds_break_no_rule() {
    let seeds: Vec<u64> = match number("SIMULATION_SEED") {
        Some(seed) => vec![seed],
        None => {
            let from = number("SIMULATION_FROM").unwrap_or(0);
            let until = from + number("SIMULATION_SEEDS").unwrap_or(SEEDS);
            (from..until).chain(REGRESSIONS).collect()
        }
    };
    let mut outcome = world::Outcome::default();
    let mut failed = Vec::new();
    for seed in seeds {
        let report = world::run(seed, false);
        outcome.add(&report.outcome);
        if !report.violations.is_empty() {
            eprintln!("{}", report.description(seed));
            failed.push(seed);
        }
    }
    eprintln!("{outcome}");
    assert!(
        failed.is_empty(),
        "worlds of the seeds {failed:?} broke a rule; SIMULATION_SEED=SEED runs one of them again"
    );
    if outcome.seeds >= SEEDS {
        assert_eq!(outcome.shortfalls(), [""; 0]);
    }
}

/// Returns the checksums of the traces of the first [`REPEATED`] worlds, one per line.
fn sums() -> String {
    let sums = (0..REPEATED).map(|seed| {
        let report = world::run(seed, false);
        assert_ne!(report.sum, 0, "{:?}", report.violations);
        format!("seed {seed} comes to {:016x}\n", report.sum)
    });
    sums.collect()
}

/// The traces are equal in this process and in a child process, which has other memory addresses, hash seeds and task
/// numbers.
#[test]
fn a_world_repeats_itself() {
    let here = sums();
    if env::var_os("SIMULATION_SUMS_ONLY").is_some() {
        return println!("{here}");
    }
    assert_eq!(here, sums());
    let mut again = Command::new(env::current_exe().unwrap());
    again.args(["--exact", "a_world_repeats_itself", "--nocapture"]);
    let output = again.env("SIMULATION_SUMS_ONLY", "1").output().unwrap();
    let elsewhere = String::from_utf8(output.stdout).unwrap();
    assert!(elsewhere.contains(&here), "{here} is not in {elsewhere}");
}

/// A world breaks a rule if a program with a bug is added to it.
#[test]
fn planted_bugs_are_found() {
    let planted = [
        (world::Program::Liar, "belief in grant"),
        (world::Program::Leak, "owners"),
        (world::Program::Stuck, "has not ended"),
        (world::Program::Panics, "panic"),
    ];
    for (program, found) in planted {
        assert_eq!(world::run(PLANTED_IN, false).violations, [""; 0]);
        let violations = world::run_with(PLANTED_IN, false, Some(program)).violations;
        assert!(
            violations.iter().any(|violation| violation.contains(found)),
            "{program:?}: {violations:?}"
        );
    }
}
