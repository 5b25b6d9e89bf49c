//! The client at clusters that behave as the public code of real ones does, on sockets: leaders are deposed with requests under way,
//! shut down, lose their majority, and do not see connections end. `tests/it/cluster_server` shows that the embedded cluster does so.

mod builds;
mod documented;
mod in_flight;
mod leases;
mod places;
mod shutdown;
use std::time::Duration;

use crate::support::cluster::ClusterScene;
use dflockd_client::server::Server;

/// A keepalive interval that is longer than the wait of the test: the client does not learn of the change of leader by
/// a keepalive.
const LONG_KEEPALIVE: Duration = Duration::from_secs(10);

/// A cluster that keeps no orphans of a disconnect that a living leader sees.
async fn forgetful() -> ClusterScene {
    ClusterScene::set(Server::builder()).await
}
