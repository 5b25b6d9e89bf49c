//! The jobs of the processes that the controller starts, and the durations that these processes share.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The orphan TTL of the cluster's members.
pub(crate) const ORPHAN_TTL_OF_MEMBERS: Duration = Duration::from_secs(5);

/// The orphan TTL in the clients' settings. It is shorter than [`ORPHAN_TTL_OF_MEMBERS`], so that the client reports
/// the loss of a lease before the members end the lease.
pub(crate) const ORPHAN_TTL_OF_CLIENTS: Duration = Duration::from_secs(4);

/// The usual TTL of leases.
pub(crate) const TTL: Duration = Duration::from_secs(3);

/// The request timeout of the clients.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// The TTL of leases that are held for a long time.
pub(crate) const LONG_TTL: Duration = Duration::from_secs(12);

/// What a started process does. The controller gives it to the process as a command line argument.
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

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The directory of all records and of the resource.
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

/// The addresses of the proxies of one client. Each proxy passes connections on to one server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ways {
    /// The proxies of the standalone servers for locks.
    pub(crate) singles: Vec<String>,
    /// The proxies of the cluster's members.
    pub(crate) members: Vec<String>,
    /// The proxy of the server for signals. This server is of a release that has signals.
    pub(crate) signals: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ServerJob {
    pub(crate) record: Record,
    pub(crate) release: String,
    /// 0 means any free port.
    pub(crate) port: u16,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ClusterJob {
    pub(crate) record: Record,
    pub(crate) members: usize,
}

/// An order to the process of the cluster. The controller writes each order as one line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// This member becomes the leader.
    Lead(usize),
    /// No member leads.
    Depose,
    /// This member ends at once, as if it were killed.
    Stop(usize),
    Start(usize),
    /// This member is cut off from the other members.
    Isolate(usize),
    Rejoin(usize),
    /// The leader executes its next request, but rejects it with `error_not_leader`. Then this member becomes the
    /// leader.
    MoveLeaderInFlight(usize),
}
