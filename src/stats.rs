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
}

impl Stats {
    /// Adds the state of another server.
    pub fn merge(&mut self, other: Self) {
        self.connections += other.connections;
        self.locks.extend(other.locks);
        self.semaphores.extend(other.semaphores);
        self.idle_locks.extend(other.idle_locks);
        self.idle_semaphores.extend(other.idle_semaphores);
        self.signal_channels.extend(other.signal_channels);
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
