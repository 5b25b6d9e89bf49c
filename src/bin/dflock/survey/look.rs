//! The answers of shards at one look.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use dflockd_client::{Error, Stats};

use crate::words::for_shells;

/// One look at all shards.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    pub(crate) at: SystemTime,
    /// In the order of the shards.
    pub(crate) looks: Vec<Look>,
}

/// One look at one shard.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    pub(crate) shard: usize,
    /// The server that serves the shard, or that the client tries to reach.
    pub(crate) server: String,
    /// The state of the connection, for example `connected`.
    pub(crate) state: &'static str,
    pub(crate) failovers: u64,
    /// How long the answer took, including a connection attempt if one was necessary.
    pub(crate) latency: Option<Duration>,
    /// When the server answered or failed. If it has done neither, the moment of the look.
    pub(crate) moment: Instant,
    pub(crate) stats: Result<Stats, Missing>,
}

impl Look {
    /// Returns the role of the server in its cluster, if the server reports one.
    pub(crate) fn role(&self) -> Option<&str> {
        let cluster = self.stats.as_ref().ok()?.cluster.as_ref()?;
        (!cluster.role.is_empty()).then_some(cluster.role.as_str())
    }
}

/// Why the state of a shard is not known.
#[derive(Clone, Debug)]
pub(crate) enum Missing {
    Failed(Error),
    /// It has not answered so far.
    Late {
        after: Duration,
        /// Why the last attempt to connect failed, if it did.
        because: Option<String>,
    },
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => f.write_str(&for_shells(&error.to_string())),
            Self::Late { after, because } => {
                let late = format!("no answer for {:.1}s", after.as_secs_f64());
                match because {
                    Some(because) => write!(f, "{} ({late})", for_shells(because)),
                    None => f.write_str(&late),
                }
            }
        }
    }
}
