//! The configuration of a client, from code, a URL, the environment or data, and its checked form.

mod check;
mod data;
mod environment;
mod layered;
mod nearest;
mod on_unavailable;
mod options;
mod settings;
mod source_settings;
mod sources;
mod transition;
mod url;
mod value;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::check::LONGEST_SILENCE;
pub use self::environment::IgnoredVariable;
pub use self::layered::{LayeredOptions, SettingSource, SettingValue};
pub use self::on_unavailable::OnUnavailable;
pub use self::options::ClientOptions;
pub use self::value::parse_duration;
use crate::error::Result;
use crate::events::{Callback, EventHub};
use crate::lease::policy::{RenewPolicy, RenewTerms};
use crate::net::connect::{ConnectOptions, Purpose};
use crate::net::endpoint::Endpoint;
use crate::net::reach::Way;
use crate::net::settings::ConnectionSettings;
use crate::shard::Settings;
#[cfg(feature = "server")]
use crate::shard::started::StartedShards;
use crate::sharding::Placement;
use crate::shards::ShardPlan;
use crate::telemetry::client_name::ClientName;
use crate::telemetry::key_class::Classifier;
use crate::telemetry::sink::Sink;

/// The parts of a configuration that only code can supply.
#[derive(Clone, Default)]
pub(crate) struct Supplied {
    pub(crate) way: Way,
    pub(crate) sink: Sink,
    pub(crate) key_class: Option<Classifier>,
    pub(crate) callbacks: Vec<Callback>,
    /// Collects the mailboxes of the shards, for tests.
    #[cfg(feature = "server")]
    pub(crate) started: Vec<StartedShards>,
}

/// The checked configuration.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) shards: Vec<ShardPlan>,
    pub(crate) placement: Placement,
    pub(crate) request_timeout: Duration,
    pub(crate) acquire_timeout: Duration,
    pub(crate) renew_policy: RenewPolicy,
    /// The renewal terms of the client's policy.
    pub(crate) renew_terms: RenewTerms,
    pub(crate) sink: Sink,
    pub(crate) key_class: Option<Classifier>,
    pub(crate) events: EventHub,
    pub(crate) name: ClientName,
    pub(crate) shard: ShardConfig,
}

impl Config {
    /// Returns the renewal terms of a lease: of its own policy, or of the client's if it has none.
    pub(crate) fn renewal(&self, own: Option<&RenewPolicy>) -> Result<RenewTerms> {
        match own {
            Some(policy) => Ok(policy.check()?.relative_to(self.shard.machine.schedule.pace)),
            None => Ok(self.renew_terms),
        }
    }
}

/// The configuration of a shard's actor.
#[derive(Clone, Debug)]
pub(crate) struct ShardConfig {
    pub(crate) connection: Arc<ConnectionSettings>,
    pub(crate) machine: Settings,
    /// How many callers may wait for keys at once.
    pub(crate) max_waiters: usize,
    /// Collects the mailboxes of the shards, for tests.
    #[cfg(feature = "server")]
    pub(crate) started: Vec<StartedShards>,
}

impl ShardConfig {
    /// Returns the connect options for an endpoint of the shard with this index.
    pub(crate) fn reach(&self, shard: usize, endpoint: &Endpoint, purpose: Purpose) -> ConnectOptions {
        ConnectOptions {
            settings: Arc::clone(&self.connection),
            shard,
            endpoint: endpoint.clone(),
            give_up_at: None,
            purpose,
        }
    }
}
