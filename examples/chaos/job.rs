//! What the other processes are told to be.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// For how long the members of the cluster keep what a connection leaves behind.
pub(crate) const KEPT_BY_MEMBERS: Duration = Duration::from_secs(5);

/// What the clients are told of that: somewhat less, since a lease is in doubt from the last word of the leader on.
pub(crate) const KEPT: Duration = Duration::from_secs(4);

/// How long leases last, unless a task asks for something else.
pub(crate) const TTL: Duration = Duration::from_secs(3);

/// How long an answer may take, beside what the request itself may wait.
pub(crate) const ANSWER: Duration = Duration::from_secs(3);

/// How long leases last of what is held for long.
pub(crate) const LONG_TTL: Duration = Duration::from_secs(12);

/// What a process is.
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
    /// The resource is there, too.
    pub(crate) directory: PathBuf,
    /// Of the process: unique in the run.
    pub(crate) name: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ClientJob {
    pub(crate) record: Record,
    pub(crate) seed: u64,
    pub(crate) ways: Ways,
}

/// Where a client finds the servers: the proxies before them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ways {
    /// Servers by themselves.
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
    /// 0 for any that is free.
    pub(crate) port: u16,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ClusterJob {
    pub(crate) record: Record,
    pub(crate) members: usize,
}

/// What the process of the cluster is told while it runs, one a line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// That member leads. The others name the way to it, which differs from client to client: none.
    Lead(usize),
    /// No member leads.
    Depose,
    /// A member ends at once.
    Stop(usize),
    Start(usize),
    /// A member sees no others any more.
    Isolate(usize),
    Rejoin(usize),
    /// The next request of the leader's is carried out and refused; then that member leads.
    FallInFlight(usize),
}
