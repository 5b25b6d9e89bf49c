//! Rates of events between two looks, as far as the states show them. Servers report their state and count no events;
//! only members of clusters count the entries of their log.

use std::collections::HashMap;
use std::time::Duration;

use dflockd_client::{LockStats, Stats};

/// A time that has moved by no more than this many seconds may only have been rounded: servers report whole seconds,
/// and looks take time.
const ROUNDING: f64 = 1.5;

/// Events per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    /// A lower bound of the grants. Leases that are granted and released between two looks do not show. But if a key is
    /// idle at both looks and was used in between, all its grants count as one.
    pub(super) grants: f64,
    /// Leases of locks that end later than before, at the same connection: renewals, and new grants to that
    /// connection.
    pub(super) extensions: f64,
    /// Entries that a cluster committed.
    pub(super) commits: Option<f64>,
}

/// Returns the rates between two states of one server.
pub(super) fn between(before: &Stats, now: &Stats, elapsed: Duration) -> Rates {
    let seconds = elapsed.as_secs_f64();
    if seconds <= 0.0 {
        return Rates::default();
    }
    let held: HashMap<&str, &LockStats> = before.locks.iter().map(|lock| (lock.key.as_str(), lock)).collect();
    let (mut grants, mut extensions) = (0, 0);
    for lock in &now.locks {
        match held.get(lock.key.as_str()) {
            Some(before) if before.owner_conn_id == lock.owner_conn_id => {
                let moved = lock.lease_expires_in_s as f64 - before.lease_expires_in_s as f64 + seconds;
                extensions += u64::from(moved > ROUNDING);
            }
            _ => grants += 1,
        }
    }
    let slots: HashMap<&str, u64> = before
        .semaphores
        .iter()
        .map(|semaphore| (semaphore.key.as_str(), semaphore.holders))
        .collect();
    for semaphore in &now.semaphores {
        let before = slots.get(semaphore.key.as_str()).copied().unwrap_or_default();
        grants += semaphore.holders.saturating_sub(before);
    }
    grants += used(before, now, seconds);
    Rates {
        grants: grants as f64 / seconds,
        extensions: extensions as f64 / seconds,
        commits: commits(before, now).map(|commits| commits as f64 / seconds),
    }
}

/// Counts the keys that are idle in both states and were used in between: their idle time grew by less than the time
/// that has passed.
fn used(before: &Stats, now: &Stats, seconds: f64) -> u64 {
    let lists = [
        (&before.idle_locks, &now.idle_locks),
        (&before.idle_semaphores, &now.idle_semaphores),
    ];
    let used = lists.into_iter().flat_map(|(before, now)| {
        let idle: HashMap<&str, u64> = before.iter().map(|key| (key.key.as_str(), key.idle_s)).collect();
        now.iter().filter(move |key| {
            let before = idle.get(key.key.as_str());
            before.is_some_and(|before| *before as f64 + seconds - key.idle_s as f64 > ROUNDING)
        })
    });
    used.count() as u64
}

/// Returns how many entries were committed in between; `None` if another member answers now, or if the index went
/// back.
fn commits(before: &Stats, now: &Stats) -> Option<u64> {
    let (before, now) = (before.cluster.as_ref()?, now.cluster.as_ref()?);
    let same = before.node_id == now.node_id;
    same.then(|| now.commit_index.checked_sub(before.commit_index))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(before: &str, now: &str, seconds: u64) -> Rates {
        let read = |json: &str| serde_json::from_str(json).unwrap_or_else(|e| panic!("{json}: {e}"));
        between(&read(before), &read(now), Duration::from_secs(seconds))
    }

    #[test]
    fn a_lock_at_another_connection_was_granted() {
        let held = |owner: u64, key: &str| {
            format!(r#"{{"locks":[{{"key":"{key}","owner_conn_id":{owner},"lease_expires_in_s":9}}]}}"#)
        };
        for (now, grants) in [(held(1, "a"), 0.0), (held(2, "a"), 0.5), (held(1, "b"), 0.5)] {
            assert_eq!(rates(&held(1, "a"), &now, 2).grants, grants, "{now}");
        }
        assert_eq!(rates("{}", &held(1, "a"), 2).grants, 0.5);
        assert_eq!(rates(&held(1, "a"), "{}", 2), Rates::default());
    }

    #[test]
    fn each_further_holder_of_a_semaphore_is_a_grant() {
        let held = |holders: u64| format!(r#"{{"semaphores":[{{"key":"s","limit":9,"holders":{holders}}}]}}"#);
        assert_eq!(rates(&held(1), &held(4), 1).grants, 3.0);
        assert_eq!(rates(&held(4), &held(1), 1).grants, 0.0);
        assert_eq!(rates("{}", &held(2), 1).grants, 2.0);
    }

    #[test]
    fn a_key_whose_idle_time_grew_by_less_than_the_elapsed_time_was_used() {
        let idle = |seconds: u64| format!(r#"{{"idle_locks":[{{"key":"i","idle_s":{seconds}}}]}}"#);
        assert_eq!(rates(&idle(10), &idle(1), 4).grants, 0.25);
        for rounded in [13, 14, 15] {
            assert_eq!(rates(&idle(10), &idle(rounded), 4).grants, 0.0, "{rounded}");
        }
        // A key that was not idle at the earlier look may have been held at that look, so its grant was counted already.
        assert_eq!(rates("{}", &idle(1), 4).grants, 0.0);
    }

    #[test]
    fn a_lease_that_ends_later_was_extended() {
        let ends = |seconds: u64| format!(r#"{{"locks":[{{"key":"a","lease_expires_in_s":{seconds}}}]}}"#);
        assert_eq!(rates(&ends(20), &ends(30), 2).extensions, 0.5);
        for rounded in [17, 18, 19] {
            assert_eq!(rates(&ends(20), &ends(rounded), 2).extensions, 0.0, "{rounded}");
        }
    }

    #[test]
    fn commits_are_counted_at_one_member() {
        let at = |node: &str, index: u64| format!(r#"{{"cluster":{{"node_id":"{node}","commit_index":{index}}}}}"#);
        for (now, commits) in [
            (at("a", 30), Some(10.0)),
            (at("b", 30), None),
            (at("a", 3), None),
            ("{}".to_owned(), None),
        ] {
            assert_eq!(rates(&at("a", 10), &now, 2).commits, commits, "{now}");
        }
    }

    #[test]
    fn there_are_no_rates_without_time_between_two_states() {
        assert_eq!(rates("{}", r#"{"locks":[{"key":"a"}]}"#, 0), Rates::default());
    }
}
