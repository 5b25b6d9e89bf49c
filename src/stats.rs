//! The statistics of a server.

use serde::{Deserialize, Serialize};

/// The statistics of one server. Fields that a server does not send, or sends as `null`, are empty. Unknown fields are
/// ignored.
///
/// ```
/// let stats: dflockd_client::Stats = serde_json::from_str(r#"{"connections":2,"locks":null}"#)?;
/// assert_eq!((stats.connections, stats.locks.len(), stats.semaphores.len()), (2, 0, 0));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Stats {
    /// The number of open connections, including the one that requested the statistics.
    #[serde(deserialize_with = "or_empty")]
    pub connections: u64,
    /// Locks that are held or waited for.
    #[serde(deserialize_with = "or_empty")]
    pub locks: Vec<LockStats>,
    /// Semaphores that are held or waited for.
    #[serde(deserialize_with = "or_empty")]
    pub semaphores: Vec<SemaphoreStats>,
    /// Free locks that the server still remembers.
    #[serde(deserialize_with = "or_empty")]
    pub idle_locks: Vec<IdleStats>,
    /// Free semaphores that the server still remembers.
    #[serde(deserialize_with = "or_empty")]
    pub idle_semaphores: Vec<IdleStats>,
    /// The subscriptions to signals. Empty if the server has no signals.
    #[serde(deserialize_with = "or_empty", skip_serializing_if = "Vec::is_empty")]
    pub signal_channels: Vec<SignalChannelStats>,
    /// The cluster of which the server is a member; `None` if it is not a member of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Box<ClusterStats>>,
}

impl Stats {
    /// Adds the statistics of another server. Keeps its own [`cluster`](Self::cluster) if it has one, and otherwise
    /// takes the other server's.
    pub fn merge(&mut self, other: Self) {
        self.connections = self.connections.saturating_add(other.connections);
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
    /// The key.
    #[serde(deserialize_with = "or_empty")]
    pub key: String,
    /// The number of the connection that acquired the lock. The server assigns these numbers.
    #[serde(deserialize_with = "or_empty")]
    pub owner_conn_id: u64,
    /// Seconds until the lease ends.
    #[serde(deserialize_with = "whole_seconds")]
    pub lease_expires_in_s: u64,
    /// The number of waiters.
    #[serde(deserialize_with = "or_empty")]
    pub waiters: u64,
}

/// One semaphore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct SemaphoreStats {
    /// The key.
    #[serde(deserialize_with = "or_empty")]
    pub key: String,
    /// The limit.
    #[serde(deserialize_with = "or_empty")]
    pub limit: u64,
    /// The number of slots that are held.
    #[serde(deserialize_with = "or_empty")]
    pub holders: u64,
    /// The number of waiters.
    #[serde(deserialize_with = "or_empty")]
    pub waiters: u64,
}

/// A free key that the server still remembers. It still counts towards the server's `--max-locks`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct IdleStats {
    /// The key.
    #[serde(deserialize_with = "or_empty")]
    pub key: String,
    /// Seconds since the last use of the key.
    #[serde(deserialize_with = "whole_seconds")]
    pub idle_s: u64,
}

/// The listeners of one pattern: the members of one group, or all listeners without a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct SignalChannelStats {
    /// The pattern.
    #[serde(deserialize_with = "or_empty")]
    pub pattern: String,
    /// The group. `None` for listeners without a group, which get every signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The number of connections that listen.
    #[serde(deserialize_with = "or_empty")]
    pub listeners: u64,
}

/// The state of a cluster, as one of its members reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ClusterStats {
    /// The member's own name.
    #[serde(deserialize_with = "or_empty")]
    pub node_id: String,
    /// `leader`, `follower`, `candidate` or `pre-candidate`.
    #[serde(deserialize_with = "or_empty")]
    pub role: String,
    /// The term that the member knows. It grows with each election.
    #[serde(deserialize_with = "or_empty")]
    pub term: u64,
    /// The name of the leader; empty if the member knows no leader.
    #[serde(deserialize_with = "or_empty")]
    pub leader_id: String,
    /// The address at which clients reach the leader, if the member knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader_addr: Option<String>,
    /// The index of the last log entry that is committed.
    #[serde(deserialize_with = "or_empty")]
    pub commit_index: u64,
    /// The index of the last log entry.
    #[serde(deserialize_with = "or_empty")]
    pub last_log_index: u64,
    /// The index of the last log entry that the newest snapshot contains.
    #[serde(deserialize_with = "or_empty")]
    pub snapshot_index: u64,
    /// The names of the voting members, including the member itself.
    #[serde(deserialize_with = "or_empty")]
    pub voters: Vec<String>,
}

impl ClusterStats {
    /// Parses the cluster's part of a `stats` answer. Skips the rest, which may be megabytes.
    pub(crate) fn within(stats: &str) -> Option<Box<Self>> {
        #[derive(Deserialize)]
        struct OfCluster {
            #[serde(default)]
            cluster: Option<Box<ClusterStats>>,
        }
        serde_json::from_str::<OfCluster>(stats).ok()?.cluster
    }

    /// Returns whether the member is the leader, or `None` if it reports no role.
    pub(crate) fn leads(&self) -> Option<bool> {
        match self.role.as_str() {
            "" => None,
            role => Some(role == "leader"),
        }
    }
}

/// Deserializes a value that may be `null`: servers that are written in Go send an empty list as `null`.
fn or_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Deserializes seconds, which some servers send with a fraction.
fn whole_seconds<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let seconds: f64 = or_empty(deserializer)?;
    // The cast saturates: a negative number becomes 0.
    Ok(seconds as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

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
    fn the_cluster_part_is_read_even_if_fields_are_missing() {
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
        for empty in [r#"{"cluster":{}}"#, r#"{"cluster":{"leader_addr":null,"voters":null}}"#] {
            assert_eq!(read(empty), Some(Box::default()), "{empty}");
        }
        let long = format!(
            r#"{{"locks":[{}{{}}],"cluster":{{"role":"leader"}}}}"#,
            r#"{"key":"k"},"#.repeat(1_000)
        );
        assert_eq!(ClusterStats::within(&long), read(&long));
        assert_eq!(
            ClusterStats::within(&long).and_then(|cluster| cluster.leads()),
            Some(true)
        );
        assert_eq!(ClusterStats::within("no JSON"), None);
        for standalone in ["{}", r#"{"cluster":null}"#] {
            assert_eq!(read(standalone), None, "{standalone}");
        }
    }

    #[test]
    fn merged_stats_keep_the_first_cluster() {
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
    fn listeners_without_a_group_are_shown_without_one() {
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

    #[test]
    fn sums_do_not_overflow() {
        let mut stats = Stats {
            connections: u64::MAX,
            ..Stats::default()
        };
        stats.merge(stats.clone());
        assert_eq!(stats.connections, u64::MAX);
    }

    /// The ways in which a server may send a field.
    #[derive(Clone, Copy, Debug)]
    enum Sent {
        NotAtAll,
        AsNull,
        WithItsValue,
    }

    fn sent() -> impl Strategy<Value = Sent> {
        prop_oneof![Just(Sent::NotAtAll), Just(Sent::AsNull), Just(Sent::WithItsValue)]
    }

    /// Sends each field of the value, at all depths, in one of these ways. Returns the value as sent, and the value as
    /// it must be read, which has only the fields that are sent with their values.
    fn vary(value: &Value, ways: &mut impl Iterator<Item = Sent>) -> (Value, Value) {
        match value {
            Value::Object(fields) => {
                let (mut said, mut meant) = (Map::new(), Map::new());
                for (name, value) in fields {
                    match ways.next().unwrap_or(Sent::WithItsValue) {
                        Sent::NotAtAll => {}
                        Sent::AsNull => drop(said.insert(name.clone(), Value::Null)),
                        Sent::WithItsValue => {
                            let (said_here, meant_here) = vary(value, ways);
                            said.insert(name.clone(), said_here);
                            meant.insert(name.clone(), meant_here);
                        }
                    }
                }
                (Value::Object(said), Value::Object(meant))
            }
            Value::Array(items) => {
                let (said, meant) = items.iter().map(|item| vary(item, ways)).unzip();
                (Value::Array(said), Value::Array(meant))
            }
            other => (other.clone(), other.clone()),
        }
    }

    proptest! {
        #[test]
        fn a_null_field_is_treated_as_missing(ways in prop::collection::vec(sent(), 64)) {
            let whole = json!({
                "connections": 7,
                "locks": [{"key": "a", "owner_conn_id": 1, "lease_expires_in_s": 9.5, "waiters": 2}, {"key": "b", "waiters": 1}],
                "semaphores": [{"key": "s", "limit": 3, "holders": 2, "waiters": 1}],
                "idle_locks": [{"key": "i", "idle_s": 4.25}],
                "idle_semaphores": [{"key": "j", "idle_s": 5}],
                "signal_channels": [{"pattern": "a.>", "group": "g", "listeners": 3}],
                "cluster": {"voters": ["x"]},
            });
            let (said, meant) = vary(&whole, &mut ways.into_iter());
            let read = |value: &Value| serde_json::from_str::<Stats>(&value.to_string());
            prop_assert_eq!(read(&said).map_err(|e| TestCaseError::fail(e.to_string()))?, read(&meant).unwrap(), "{}", said);
        }
    }
}
