//! What a server tells of itself.

use serde::{Deserialize, Serialize};

/// The state of one server. Fields that a server does not send are empty; fields that are not known are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Stats {
    /// Open connections, the asking one included.
    pub connections: u64,
    /// Locks that are held or waited for.
    pub locks: Vec<LockStats>,
    /// Semaphores that are held or waited for.
    pub semaphores: Vec<SemaphoreStats>,
    /// Locks that were used lately and are free now.
    pub idle_locks: Vec<IdleStats>,
    /// Semaphores that were used lately and are free now.
    pub idle_semaphores: Vec<IdleStats>,
    /// Who listens to signals. Servers that know none do not send it, and those without listeners need not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub signal_channels: Vec<SignalChannelStats>,
    /// What the server says of the cluster that it is a member of. `None` for a server that is no member of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Box<ClusterStats>>,
}

impl Stats {
    /// Adds the state of another server. A [`cluster`](Self::cluster) stays; that of the other server counts if there is none.
    pub fn merge(&mut self, other: Self) {
        self.connections += other.connections;
        self.locks.extend(other.locks);
        self.semaphores.extend(other.semaphores);
        self.idle_locks.extend(other.idle_locks);
        self.idle_semaphores.extend(other.idle_semaphores);
        self.signal_channels.extend(other.signal_channels);
        self.cluster = self.cluster.take().or(other.cluster);
    }
}

/// One lock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct LockStats {
    /// Its key.
    pub key: String,
    /// The server's number of the connection that acquired it.
    pub owner_conn_id: u64,
    /// Seconds until its lease ends.
    #[serde(deserialize_with = "whole_seconds")]
    pub lease_expires_in_s: u64,
    /// How many wait for it.
    pub waiters: u64,
}

/// One semaphore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct SemaphoreStats {
    /// Its key.
    pub key: String,
    /// Its limit.
    pub limit: u64,
    /// How many slots are held.
    pub holders: u64,
    /// How many wait for a slot.
    pub waiters: u64,
}

/// A key that is free but not forgotten: it still counts against the server's `--max-locks`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct IdleStats {
    /// The key.
    pub key: String,
    /// Seconds since it was last used.
    #[serde(deserialize_with = "whole_seconds")]
    pub idle_s: u64,
}

/// Those who listen to the signals of one pattern: one group of them, or all that are in none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct SignalChannelStats {
    /// The pattern.
    pub pattern: String,
    /// The group; `None` for those that get every signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// How many connections.
    pub listeners: u64,
}

/// What a member of a cluster says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ClusterStats {
    /// The member's own name.
    pub node_id: String,
    /// `leader`, `follower`, `candidate` or `pre-candidate`.
    pub role: String,
    /// The term of office that the member knows of. It grows with each election.
    pub term: u64,
    /// The name of the leader; empty if the member knows of none.
    pub leader_id: String,
    /// The address at which clients reach the leader, if the member knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader_addr: Option<String>,
    /// The index of the last log entry that is committed.
    pub commit_index: u64,
    /// The index of the last log entry.
    pub last_log_index: u64,
    /// The index of the last log entry that the newest snapshot contains.
    pub snapshot_index: u64,
    /// The names of the members that vote, the member's own among them.
    #[serde(deserialize_with = "null_is_empty")]
    pub voters: Vec<String>,
}

/// A list that is `null` is empty: so servers write lists that they never filled.
fn null_is_empty<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Some servers write seconds with a fraction.
fn whole_seconds<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    // Saturates: negative becomes 0.
    Ok(seconds as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_are_ignored_and_missing_ones_empty() {
        let json = r#"{"connections":2,"cluster":{"role":"leader"},
            "locks":[{"key":"a","lease_expires_in_s":9.7,"waiters":1,"new":null}]}"#;
        let stats: Stats = serde_json::from_str(json).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((stats.connections, stats.semaphores.len()), (2, 0));
        assert_eq!((stats.locks[0].lease_expires_in_s, stats.locks[0].waiters), (9, 1));
        assert_eq!(stats.signal_channels, []);
    }

    #[test]
    fn what_a_member_says_of_its_cluster_is_read_whatever_is_missing() {
        let read = |json: &str| {
            serde_json::from_str::<Stats>(json)
                .unwrap_or_else(|e| panic!("{json}: {e}"))
                .cluster
        };
        let whole = r#"{"cluster":{"node_id":"n1","role":"leader","term":4,"leader_id":"n1","leader_addr":"h:1",
            "commit_index":9,"last_log_index":10,"snapshot_index":3,"voters":["n1","n2"],"new":{}}}"#;
        let expected = ClusterStats {
            node_id: "n1".into(),
            role: "leader".into(),
            term: 4,
            leader_id: "n1".into(),
            leader_addr: Some("h:1".into()),
            commit_index: 9,
            last_log_index: 10,
            snapshot_index: 3,
            voters: vec!["n1".into(), "n2".into()],
        };
        assert_eq!(read(whole), Some(Box::new(expected)));
        for none_known in [r#"{"cluster":{}}"#, r#"{"cluster":{"leader_addr":null,"voters":null}}"#] {
            assert_eq!(read(none_known), Some(Box::default()), "{none_known}");
        }
        for no_member in ["{}", r#"{"cluster":null}"#] {
            assert_eq!(read(no_member), None, "{no_member}");
        }
    }

    #[test]
    fn merged_stats_tell_of_the_first_cluster() {
        let of = |node: &str| Stats {
            cluster: Some(Box::new(ClusterStats {
                node_id: node.into(),
                ..ClusterStats::default()
            })),
            ..Stats::default()
        };
        let mut all = Stats::default();
        for other in [Stats::default(), of("a"), of("b")] {
            all.merge(other);
        }
        assert_eq!(all, of("a"));
    }

    #[test]
    fn listeners_in_no_group_are_told_without_one() {
        let json = r#"[{"pattern":"a.>","listeners":2},{"pattern":"jobs","group":"g","listeners":3}]"#;
        let channels: Vec<SignalChannelStats> = serde_json::from_str(json).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((channels[0].group.as_deref(), channels[0].listeners), (None, 2));
        assert_eq!((channels[1].group.as_deref(), channels[1].listeners), (Some("g"), 3));
        assert_eq!(serde_json::to_string(&channels).ok().as_deref(), Some(json));
    }

    #[test]
    fn a_server_without_listeners_does_not_mention_them() {
        let json = serde_json::to_string(&Stats::default()).unwrap_or_else(|e| panic!("{e}"));
        assert!(!json.contains("signal"), "{json}");
    }
}
