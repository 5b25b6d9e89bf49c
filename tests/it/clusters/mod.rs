//! The client at clusters that do what the public code of real ones does, on sockets: leaders that fall with requests under way, shut
//! down, lose their majority, and do not see connections end. The embedded cluster's own tests say which facts it plays.

mod builds;
mod documented;
mod in_flight;
mod leases;
mod places;
mod shutdown;
use std::time::Duration;

use crate::support::cluster::ClusterScene;
use dflockd_client::server::Server;

/// Something else is to show that the leader has changed.
const NOT_LOOKED: Duration = Duration::from_secs(10);

/// A cluster that keeps nothing of what a living leader saw disconnect.
async fn forgetful() -> ClusterScene {
    ClusterScene::set(Server::builder()).await
}
