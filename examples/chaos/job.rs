//! The jobs of the other processes.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The orphan TTL of the cluster's members.
pub(crate) const KEPT_BY_MEMBERS: Duration = Duration::from_secs(5);

/// The orphan TTL in the clients' settings. A suspect lease lasts for this time, less a twentieth, from the leader's last
/// message on. This setting is somewhat shorter than that of the members, as a margin.
pub(crate) const KEPT: Duration = Duration::from_secs(4);

/// The usual TTL of leases.
pub(crate) const TTL: Duration = Duration::from_secs(3);

/// The request timeout.
pub(crate) const ANSWER: Duration = Duration::from_secs(3);

/// The TTL of leases that are held for long.
pub(crate) const LONG_TTL: Duration = Duration::from_secs(12);

/// The job of a process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Job {
    Client(ClientJob),
    Server(ServerJob),
    Cluster(ClusterJob),
}

impl Job {
    pub(crate) fn record(&self) -> &Record {
        match self {
            Self::Client(job) => &job.record,
            Self::Server(job) => &job.record,
            Self::Cluster(job) => &job.record,
        }
    }
}

/// Where a process writes its record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The directory, which also has the resource.
    pub(crate) directory: PathBuf,
    /// The name of the process, unique in the run.
    pub(crate) name: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ClientJob {
    pub(crate) record: Record,
    pub(crate) seed: u64,
    pub(crate) ways: Ways,
}

/// The addresses of the proxies in front of the servers, for a client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ways {
    /// The standalone servers.
    pub(crate) singles: Vec<String>,
    /// The members of the cluster.
    pub(crate) members: Vec<String>,
    /// The server of a release that has signals.
    pub(crate) signals: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ServerJob {
    pub(crate) record: Record,
    pub(crate) release: String,
    /// 0 for any free port.
    pub(crate) port: u16,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ClusterJob {
    pub(crate) record: Record,
    pub(crate) members: usize,
}

/// An order to the process of the cluster, one per line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// This member becomes the leader. The others do not name its address, because each client reaches it by another
    /// proxy.
    Lead(usize),
    /// No member leads.
    Depose,
    /// A member ends at once.
    Stop(usize),
    Start(usize),
    /// A member is isolated from the others.
    Isolate(usize),
    Rejoin(usize),
    /// The leader executes and rejects its next request; then this member becomes the leader.
    FallInFlight(usize),
}
