//! The keys of all shards in one list, in an order.

use std::fmt;

use clap::ValueEnum;
use dflockd_client::{IdleStats, LockStats, SemaphoreStats, Stats};

use super::glob::Glob;
use super::look::Look;

/// What keys are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Field {
    /// Most waiters first
    Waiters,
    /// Most holders first
    Held,
    /// Leases that end soonest first
    Lease,
    /// Longest idle first
    Idle,
    /// In the order of their characters
    Key,
    /// Locks first, then semaphores
    Kind,
    /// In the order of the shards
    Shard,
}

impl Field {
    pub(crate) const ALL: [Self; 7] = [
        Self::Waiters,
        Self::Held,
        Self::Lease,
        Self::Idle,
        Self::Key,
        Self::Kind,
        Self::Shard,
    ];
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiters => "waiters",
            Self::Held => "held",
            Self::Lease => "lease",
            Self::Idle => "idle",
            Self::Key => "key",
            Self::Kind => "kind",
            Self::Shard => "shard",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Lock,
    Semaphore,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lock => "lock",
            Self::Semaphore => "semaphore",
        })
    }
}

/// One key of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) kind: Kind,
    pub(crate) key: String,
    pub(crate) shard: usize,
    /// The number of holders.
    pub(crate) held: u64,
    /// The maximum number of holders; unknown for idle semaphores.
    pub(crate) limit: Option<u64>,
    pub(crate) waiters: u64,
    /// Seconds until the lease ends; unknown for semaphores.
    pub(crate) lease_s: Option<u64>,
    /// Seconds since it was last used, if it is free.
    pub(crate) idle_s: Option<u64>,
}

impl Row {
    fn of_lock(lock: &LockStats, shard: usize) -> Self {
        Self {
            held: 1,
            limit: Some(1),
            waiters: lock.waiters,
            lease_s: Some(lock.lease_expires_in_s),
            ..Self::free(Kind::Lock, &lock.key, shard)
        }
    }

    fn of_semaphore(semaphore: &SemaphoreStats, shard: usize) -> Self {
        Self {
            held: semaphore.holders,
            limit: Some(semaphore.limit),
            waiters: semaphore.waiters,
            ..Self::free(Kind::Semaphore, &semaphore.key, shard)
        }
    }

    fn of_idle(kind: Kind, idle: &IdleStats, shard: usize) -> Self {
        Self {
            limit: (kind == Kind::Lock).then_some(1),
            idle_s: Some(idle.idle_s),
            ..Self::free(kind, &idle.key, shard)
        }
    }

    fn free(kind: Kind, key: &str, shard: usize) -> Self {
        Self {
            kind,
            key: key.to_owned(),
            shard,
            held: 0,
            limit: None,
            waiters: 0,
            lease_s: None,
            idle_s: None,
        }
    }

    /// Returns the number of holders, and the limit if it is known.
    pub(crate) fn share(&self) -> String {
        match self.limit {
            Some(limit) => format!("{}/{limit}", self.held),
            None => self.held.to_string(),
        }
    }

    /// Returns the values that the order compares, the first before the second. The key and the shard come last, so
    /// that rows with equal values keep their order from look to look.
    fn rank(&self, by: Field) -> (u64, u64, String, usize) {
        let most = |count: u64| u64::MAX - count;
        let (first, second) = match by {
            Field::Waiters => (most(self.waiters), most(self.held)),
            Field::Held => (most(self.held), most(self.waiters)),
            Field::Lease => (self.lease_s.unwrap_or(u64::MAX), most(self.waiters)),
            Field::Idle => (self.idle_s.map_or(u64::MAX, |seconds| most(seconds) - 1), 0),
            Field::Key => (0, 0),
            Field::Kind => (self.kind as u64, 0),
            Field::Shard => (self.shard as u64, 0),
        };
        (first, second, self.key.clone(), self.shard)
    }
}

/// Returns the keys of all shards that answered, filtered and in an order.
pub(crate) fn rows<'a>(looks: impl IntoIterator<Item = &'a Look>, filter: Option<&Glob>, by: Field) -> Vec<Row> {
    let answered = looks
        .into_iter()
        .filter_map(|look| Some((look.shard, look.stats.as_ref().ok()?)));
    let mut rows: Vec<Row> = answered
        .flat_map(|(shard, stats)| of_stats(stats, shard))
        .filter(|row| filter.is_none_or(|glob| glob.fits(&row.key)))
        .collect();
    rows.sort_by_cached_key(|row| row.rank(by));
    rows
}

fn of_stats(stats: &Stats, shard: usize) -> impl Iterator<Item = Row> {
    let locks = stats.locks.iter().map(move |lock| Row::of_lock(lock, shard));
    let semaphores = stats
        .semaphores
        .iter()
        .map(move |semaphore| Row::of_semaphore(semaphore, shard));
    locks
        .chain(semaphores)
        .chain(of_idle(Kind::Lock, &stats.idle_locks, shard))
        .chain(of_idle(Kind::Semaphore, &stats.idle_semaphores, shard))
}

fn of_idle(kind: Kind, keys: &[IdleStats], shard: usize) -> impl Iterator<Item = Row> {
    keys.iter().map(move |idle| Row::of_idle(kind, idle, shard))
}

/// Filters and orders the lists of a server in the same way.
pub(crate) fn arrange(stats: &mut Stats, filter: Option<&Glob>, by: Option<Field>) {
    if let Some(glob) = filter {
        stats.locks.retain(|lock| glob.fits(&lock.key));
        stats.semaphores.retain(|semaphore| glob.fits(&semaphore.key));
        stats.idle_locks.retain(|idle| glob.fits(&idle.key));
        stats.idle_semaphores.retain(|idle| glob.fits(&idle.key));
    }
    if let Some(by) = by {
        stats.locks.sort_by_cached_key(|lock| Row::of_lock(lock, 0).rank(by));
        stats
            .semaphores
            .sort_by_cached_key(|semaphore| Row::of_semaphore(semaphore, 0).rank(by));
        for (kind, keys) in [
            (Kind::Lock, &mut stats.idle_locks),
            (Kind::Semaphore, &mut stats.idle_semaphores),
        ] {
            keys.sort_by_cached_key(|idle| Row::of_idle(kind, idle, 0).rank(by));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::look::Missing;
    use super::*;

    const STATS: &str = r#"{"locks":[{"key":"b","lease_expires_in_s":9,"waiters":2},{"key":"a","lease_expires_in_s":20,"waiters":2}],
        "semaphores":[{"key":"s/1","limit":5,"holders":3,"waiters":7}],
        "idle_locks":[{"key":"i","idle_s":4},{"key":"j","idle_s":50}],"idle_semaphores":[{"key":"s/2","idle_s":6}]}"#;

    fn stats() -> Stats {
        serde_json::from_str(STATS).unwrap_or_else(|e| panic!("{e}"))
    }

    fn look(stats: Result<Stats, Missing>) -> Look {
        Look {
            shard: 1,
            server: "a:1".to_owned(),
            state: "connected",
            failovers: 0,
            latency: None,
            moment: Instant::now(),
            stats,
        }
    }

    #[test]
    fn keys_are_ordered_by_each_field_and_then_by_themselves() {
        let looks = [look(Ok(stats()))];
        for (by, expected) in [
            (Field::Waiters, ["s/1", "a", "b", "i", "j", "s/2"]),
            (Field::Held, ["s/1", "a", "b", "i", "j", "s/2"]),
            (Field::Lease, ["b", "a", "s/1", "i", "j", "s/2"]),
            (Field::Idle, ["j", "s/2", "i", "a", "b", "s/1"]),
            (Field::Key, ["a", "b", "i", "j", "s/1", "s/2"]),
            (Field::Kind, ["a", "b", "i", "j", "s/1", "s/2"]),
            (Field::Shard, ["a", "b", "i", "j", "s/1", "s/2"]),
        ] {
            let keys: Vec<String> = rows(&looks, None, by).into_iter().map(|row| row.key).collect();
            assert_eq!(keys, expected, "{by}");
        }
    }

    #[test]
    fn a_shard_that_is_away_has_no_keys() {
        let late = Missing::Late {
            after: Duration::ZERO,
            because: None,
        };
        assert_eq!(rows(&[look(Err(late))], None, Field::Key), []);
    }

    #[test]
    fn a_filter_keeps_the_rows_that_match() {
        let glob: Glob = "s/*".parse().unwrap_or_else(|e| panic!("{e}"));
        let left = rows(&[look(Ok(stats()))], Some(&glob), Field::Key);
        let shares: Vec<String> = left.iter().map(Row::share).collect();
        assert_eq!(shares, ["3/5", "0"]);
        let mut stats = stats();
        arrange(&mut stats, Some(&glob), None);
        assert_eq!((stats.locks.len(), stats.semaphores.len()), (0, 1));
        assert_eq!((stats.idle_locks.len(), stats.idle_semaphores.len()), (0, 1));
    }

    #[test]
    fn the_lists_of_a_server_are_ordered_only_on_demand() {
        let mut arranged = stats();
        arrange(&mut arranged, None, None);
        assert_eq!(arranged, stats());
        arrange(&mut arranged, None, Some(Field::Key));
        assert_eq!(arranged.locks[0].key, "a");
        arrange(&mut arranged, None, Some(Field::Idle));
        assert_eq!(arranged.idle_locks[0].key, "j");
    }

    #[test]
    fn the_fields_are_those_that_the_flag_accepts() {
        assert_eq!(Field::value_variants(), Field::ALL);
        for field in Field::ALL {
            assert_eq!(Field::from_str(&field.to_string(), false), Ok(field));
        }
    }
}
