//! `limits`: how near a server is to its caps. A server does not report its caps, so they are unknown unless flags
//! name them.

use dflockd_client::Stats;

use super::report::{Check, Finding};
use crate::exit::Exit;
use crate::failure::Failure;

/// A server that uses at least this part of a cap is near it, in percent.
const NEAR: u64 = 80;

/// The cap on keys of a server that was started without `--max-locks`.
const DEFAULT_MAX_LOCKS: u64 = 1024;

/// The caps that the user names.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Caps {
    pub(super) max_locks: Option<u64>,
    pub(super) max_connections: Option<u64>,
}

/// Judges the state that a server reports. `is_full` says that it has just refused a new key.
pub(super) fn judge(stats: &Stats, caps: Caps, is_full: bool) -> Finding {
    let keys = [
        stats.locks.len(),
        stats.semaphores.len(),
        stats.idle_locks.len(),
        stats.idle_semaphores.len(),
    ];
    let keys: u64 = keys.into_iter().map(|count| count as u64).sum();
    let waiters = stats.locks.iter().map(|lock| lock.waiters);
    let waiters = waiters.chain(stats.semaphores.iter().map(|semaphore| semaphore.waiters));
    let waiters = waiters.max().unwrap_or_default();
    let (of_keys, near_keys) = used(keys, caps.max_locks, "--max-locks");
    let (of_connections, near_connections) = used(stats.connections, caps.max_connections, "--max-connections");
    let what = format!(
        "keys: {keys} ({of_keys}), connections: {} ({of_connections}), waiters in the longest queue: {waiters}",
        stats.connections
    );
    let seems_near = caps.max_locks.is_none() && (near(DEFAULT_MAX_LOCKS)..=DEFAULT_MAX_LOCKS).contains(&keys);
    let finding = if is_full {
        Finding::fail(
            Check::Limits,
            Failure::new(Exit::NOT_IN_TIME, format!("{what}: the server refuses new keys")).remedy(
                "raise --max-locks of the server, or use fewer keys: a key counts until a minute after its last use",
            ),
        )
    } else if near_keys || near_connections {
        Finding::warn(
            Check::Limits,
            what,
            "raise the cap of the server before it refuses clients; `dflock stats` shows what is held",
        )
    } else if seems_near {
        Finding::warn(
            Check::Limits,
            format!("{what}: near {DEFAULT_MAX_LOCKS}, the cap on keys if the server was started without --max-locks"),
            "give the cap with --max-locks here, and raise it at the server if it is the default",
        )
    } else {
        Finding::ok(Check::Limits, what)
    };
    finding
        .fact("keys", keys)
        .fact("max_locks", caps.max_locks)
        .fact("connections", stats.connections)
        .fact("max_connections", caps.max_connections)
        .fact("most_waiters", waiters)
}

/// Returns the text about a cap, and whether the count is near the cap.
fn used(count: u64, cap: Option<u64>, flag: &str) -> (String, bool) {
    match cap {
        None => (format!("{flag} is unknown"), false),
        Some(cap) => (format!("of {cap}"), count >= near(cap)),
    }
}

fn near(cap: u64) -> u64 {
    cap.saturating_mul(NEAR).div_ceil(100)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::commands::doctor::report::Verdict;

    fn stats(keys: usize) -> Stats {
        let locks: Vec<_> = (0..keys - 1)
            .map(|n| json!({"key": format!("k{n}"), "waiters": n % 7}))
            .collect();
        serde_json::from_value(json!({"connections": 9, "locks": locks, "idle_locks": [{"key": "idle"}]})).unwrap()
    }

    #[test]
    fn limits_without_a_flag_are_unknown() {
        let told = serde_json::to_value(judge(&stats(10), Caps::default(), false)).unwrap();
        assert_eq!(told["verdict"], "ok");
        assert_eq!(
            told["what"],
            "keys: 10 (--max-locks is unknown), connections: 9 (--max-connections is unknown), waiters in the longest queue: 6"
        );
        assert_eq!(
            told["facts"],
            json!({"keys": 10, "max_locks": null, "connections": 9, "max_connections": null, "most_waiters": 6})
        );
    }

    #[test]
    fn a_count_near_a_cap_is_a_warning_and_a_refused_key_a_failure() {
        let caps = |max_locks, max_connections| Caps {
            max_locks,
            max_connections,
        };
        for (keys, caps, is_full, verdict) in [
            (79, caps(Some(100), None), false, Verdict::Ok),
            (80, caps(Some(100), None), false, Verdict::Warn),
            (10, caps(None, Some(12)), false, Verdict::Ok),
            (10, caps(None, Some(11)), false, Verdict::Warn),
            (10, caps(None, None), true, Verdict::Fail),
            (819, caps(None, None), false, Verdict::Ok),
            (820, caps(None, None), false, Verdict::Warn),
            // The server has a higher cap than the default.
            (1025, caps(None, None), false, Verdict::Ok),
            (900, caps(Some(100_000), None), false, Verdict::Ok),
        ] {
            assert_eq!(judge(&stats(keys), caps, is_full).verdict, verdict, "{keys} {caps:?}");
        }
    }
}
