//! Tests of the client with the embedded cluster, over sockets. Leaders are shut down, lose their majority, do not see
//! connections end, or are deposed while the client waits for answers. `tests/it/cluster_server` shows that the
//! embedded cluster behaves as the public code of real clusters does.

mod builds;
mod documented;
mod in_flight;
mod leases;
mod places;
mod shutdown;
use std::time::Duration;

use crate::support::cluster::ClusterScene;
use dflockd_client::server::Server;

/// A keepalive interval that is longer than the wait of the test. So the client does not learn of a change of leaders
/// from a keepalive.
const LONG_KEEPALIVE: Duration = Duration::from_secs(10);

/// A cluster without an orphan TTL. If the leader sees a connection end, it ends the leases and queue positions of this
/// connection.
async fn forgetful() -> ClusterScene {
    ClusterScene::set(Server::builder()).await
}
