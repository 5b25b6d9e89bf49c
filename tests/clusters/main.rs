//! The client at clusters that do what the public code of real ones does, on sockets: leaders that fall with requests under way, shut
//! down, lose their majority, and do not see connections end. The embedded cluster's own tests say which facts it plays.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod builds;
mod documented;
mod in_flight;
mod leases;
mod places;
mod shutdown;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use dflockd_client::server::Server;
use support::cluster::ClusterScene;

/// Something else is to show that the leader has changed.
const NOT_LOOKED: Duration = Duration::from_secs(10);

/// A cluster that keeps nothing of what a living leader saw disconnect.
async fn forgetful() -> ClusterScene {
    ClusterScene::set(Server::builder()).await
}
