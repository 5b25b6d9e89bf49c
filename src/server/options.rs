//! The options of a running server.

use std::sync::Arc;
use std::time::Duration;

use super::event::Event;
use super::release::Release;
use crate::error::{Error, Result};
use crate::protocol::AuthToken;
use crate::tls::TlsAcceptor;
use crate::types::Ttl;

/// A callback for events.
pub(super) type EventSink = Arc<dyn Fn(&Event) + Send + Sync>;

/// The options of a running server.
#[derive(Clone)]
pub(super) struct ServerOptions {
    pub(super) max_locks: usize,
    pub(super) max_waiters: usize,
    pub(super) max_connections: usize,
    pub(super) default_lease_ttl: Ttl,
    pub(super) lease_sweep_interval: Duration,
    pub(super) gc_interval: Duration,
    pub(super) gc_max_idle: Duration,
    pub(super) auto_release_on_disconnect: bool,
    pub(super) release: Release,
    pub(super) orphan_ttl: Duration,
    /// For clusters: whether to imitate the earlier builds, in which the ref alone decides what a session reclaims.
    pub(super) earlier_builds: bool,
    /// Whether a connection is closed if nothing is read for the read timeout, even between requests. `None`: as in the
    /// release.
    pub(super) closes_idle_connections: Option<bool>,
    pub(super) read_timeout: Duration,
    pub(super) write_timeout: Duration,
    pub(super) shutdown_timeout: Duration,
    pub(super) auth_token: Option<AuthToken>,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) max_subscriptions: usize,
    pub(super) signal_buffer: usize,
    pub(super) record_events: bool,
    /// For benchmarks: how long each request takes.
    pub(super) request_time: Duration,
    /// The seed of fences and tokens, for reproducible runs.
    pub(super) seed: Option<u64>,
    pub(super) on_event: Option<EventSink>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            max_locks: 1024,
            max_waiters: 0,
            max_connections: 0,
            default_lease_ttl: Ttl::DEFAULT,
            lease_sweep_interval: Duration::from_secs(1),
            gc_interval: Duration::from_secs(5),
            gc_max_idle: Duration::from_secs(60),
            auto_release_on_disconnect: true,
            release: Release::NEWEST,
            orphan_ttl: Duration::ZERO,
            earlier_builds: false,
            closes_idle_connections: None,
            read_timeout: Duration::from_secs(23),
            write_timeout: Duration::from_secs(5),
            shutdown_timeout: Duration::from_secs(30),
            auth_token: None,
            tls: None,
            max_subscriptions: 0,
            signal_buffer: 64,
            record_events: false,
            request_time: Duration::ZERO,
            seed: None,
            on_event: None,
        }
    }
}

impl ServerOptions {
    /// Returns whether the read timeout also runs between requests.
    pub(super) fn closes_idle_connections(&self) -> bool {
        self.closes_idle_connections
            .unwrap_or_else(|| self.release.closes_idle_connections())
    }

    /// Refuses timeouts of zero, which would end every connection at once.
    pub(super) fn check(&self) -> Result<()> {
        for (what, timeout) in [
            ("read timeout", self.read_timeout),
            ("write timeout", self.write_timeout),
        ] {
            if timeout.is_zero() {
                let remedy = "the server would close every connection at once; give more than zero";
                return Err(Error::invalid(&format!("{what} of the server"), timeout, remedy));
            }
        }
        Ok(())
    }
}
