//! The parameters that a seed determines: servers, clients, network, and the kinds and rates of faults.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::lane::LaneTerms;
use crate::lease::schedule::{Pace, Schedule};
use crate::net::backoff::ReconnectPolicy;
use crate::net::endpoint::Endpoint;
use crate::net::fencing::Fencing;
use crate::server::Release;
use crate::server::model::{ClusterTerms, Terms};
use crate::shard::Settings;
use crate::types::{Key, Limit, Target, Ttl};

/// The number of members of a cluster.
pub(super) const MEMBERS: u16 = 3;

/// The longest TTL that a caller asks for, in seconds.
pub(super) const LONGEST_TTL: u64 = 6;

/// The longest pause of a client between two attempts to connect.
pub(super) const LONGEST_RECONNECT_PAUSE: Duration = Duration::from_millis(1_200);

/// The longest wait that a caller asks for.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// The timeout of a request that does not wait.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest stall of a client's task.
pub(super) const LONGEST_STALL: Duration = Duration::from_millis(800);

/// The longest stop of a client's process: longer than most leases.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(12);

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) clients: usize,
    /// The keys of callers, and their limits.
    pub(super) targets: Vec<(Target, Key)>,
    pub(super) terms: Terms,
    pub(super) lanes: LaneTerms,
    pub(super) latency: Latency,
    pub(super) pipelined: usize,
    exclusive: usize,
    exclusive_per_key: usize,
    pub(super) idle_timeout: Duration,
    pub(super) survives_disconnect: bool,
    /// The orphan TTL of the cluster's members in the clients' settings.
    pub(super) orphan_ttl: Option<Duration>,
    fail_fast: bool,
    lease_ttl: Option<Ttl>,
    /// Whether some callers request no TTL. Then a lease may be as long as the default that the client assumes.
    pub(super) unnamed_ttls: bool,
    /// The usual maximum pause between two actions of callers.
    pub(super) pause: Duration,
    /// The longest pause between two faults; `None` for no faults.
    pub(super) fault_pause: Option<Duration>,
    /// Whether the socket accepts data in pieces.
    pub(super) pieces: bool,
    /// Whether some callers use a different limit of a semaphore.
    pub(super) wrong_limits: bool,
}

/// The latency of a wire.
#[derive(Clone, Copy, Debug)]
pub(super) struct Latency {
    least: Duration,
    most: Duration,
}

impl Latency {
    pub(super) fn draw(self, rng: &mut fastrand::Rng) -> Duration {
        up_to(self.most - self.least, rng) + self.least
    }

    pub(super) fn most(self) -> Duration {
        self.most
    }
}

/// Returns a random duration up to `most`.
pub(super) fn up_to(most: Duration, rng: &mut fastrand::Rng) -> Duration {
    Duration::from_micros(rng.u64(0..=most.as_micros() as u64))
}

impl Plan {
    /// Creates the plan of a seed. One seed in three has a cluster.
    pub(super) fn new(seed: u64, rng: &mut fastrand::Rng) -> Self {
        let plan = Self::of_one_server(rng);
        match seed % 3 {
            1 => plan.of_cluster(rng),
            _ => plan,
        }
    }

    fn of_cluster(mut self, rng: &mut fastrand::Rng) -> Self {
        let orphan_ttl = Duration::from_secs([0, 0, 3, 8, 40][rng.usize(0..5)]);
        // Clients may or may not know the orphan TTL of the members.
        self.orphan_ttl = (!orphan_ttl.is_zero() && rng.u8(0..4) > 0).then_some(orphan_ttl);
        self.survives_disconnect = false;
        self.terms.auto_release_on_disconnect = true;
        self.terms.release = Release::Cluster;
        self.terms.cluster = Some(ClusterTerms {
            members: (1..=MEMBERS)
                .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
                .collect(),
            orphan_ttl,
        });
        self
    }

    fn of_one_server(rng: &mut fastrand::Rng) -> Self {
        let one_of =
            |rng: &mut fastrand::Rng, millis: &[u64]| Duration::from_millis(millis[rng.usize(0..millis.len())]);
        let clients = rng.usize(1..=3);
        let pipelined = match rng.u8(0..3) {
            0 => 1,
            1 => 2,
            _ => rng.usize(1..=4),
        };
        let read_timeout = one_of(rng, &[4_000, 6_000, 10_000]);
        // Some servers keep leases when a connection ends. Clients may or may not know that.
        let auto_release = rng.u8(0..4) > 0;
        let survives_disconnect = !auto_release && rng.u8(0..4) > 0;
        let exclusive = [1, 1, 2, 3, 8][rng.usize(0..5)];
        let max_connections = match rng.u8(0..4) {
            0 => clients * pipelined + rng.usize(1..=3),
            _ => 0,
        };
        let terms = Terms {
            release: [Release::V1_14, Release::NEWEST, Release::NEWEST][rng.usize(0..3)],
            auto_release_on_disconnect: auto_release,
            read_timeout,
            max_connections,
            max_locks: if rng.u8(0..6) == 0 { 2 } else { 64 },
            max_waiters: if rng.u8(0..6) == 0 { 2 } else { 0 },
            default_lease_ttl: Ttl::from_secs(rng.u64(1..=LONGEST_TTL)).unwrap_or(Ttl::DEFAULT),
            lease_sweep_interval: one_of(rng, &[200, 1_000]),
            gc_max_idle: Duration::from_secs(2),
            cluster: None,
        };
        let latency = match rng.u8(0..4) {
            0 => (1_000, 1_000),
            1 => (0, 2_000),
            2 => (100, 20_000),
            _ => (5_000, 120_000),
        };
        Self {
            clients,
            targets: targets(rng),
            terms,
            lanes: LaneTerms {
                keepalive: one_of(rng, &[700, 1_500]),
                reply_timeout: one_of(rng, &[600, 1_200]),
                connect_timeout: one_of(rng, &[500, 2_000]),
                max_in_flight: if rng.u8(0..6) == 0 { 2 } else { 64 },
            },
            latency: Latency {
                least: Duration::from_micros(latency.0),
                most: Duration::from_micros(latency.1),
            },
            pipelined,
            exclusive,
            exclusive_per_key: rng.usize(1..=exclusive.div_ceil(2)),
            idle_timeout: one_of(rng, &[500, 2_000]),
            survives_disconnect,
            orphan_ttl: None,
            fail_fast: rng.u8(0..5) == 0,
            lease_ttl: (rng.u8(0..2) == 0).then_some(Ttl::from_secs(3)).flatten(),
            unnamed_ttls: rng.bool(),
            pause: one_of(rng, &[5, 30, 200]),
            fault_pause: match rng.u8(0..5) {
                0 => None,
                1 => Some(Duration::from_secs(20)),
                2 => Some(Duration::from_millis(400)),
                _ => Some(Duration::from_secs(3)),
            },
            pieces: rng.u8(0..3) > 0,
            wrong_limits: rng.u8(0..5) == 0,
        }
    }

    /// Returns how long a cluster keeps the leases of a connection that has ended.
    pub(super) fn kept_for(&self) -> Duration {
        self.terms
            .cluster
            .as_ref()
            .map_or(Duration::ZERO, |cluster| cluster.orphan_ttl)
    }

    /// Returns the endpoints in a client's settings.
    pub(super) fn endpoints(&self) -> Vec<Endpoint> {
        let members = self.terms.cluster.iter().flat_map(|cluster| &cluster.members);
        let texts = members.map(SocketAddr::to_string);
        let endpoints: Vec<_> = texts.filter_map(|text| Endpoint::parse(&text).ok()).collect();
        match endpoints.is_empty() {
            true => vec![Endpoint::parse("model:1").unwrap()],
            false => endpoints,
        }
    }

    /// Returns the longest possible lease.
    pub(super) fn longest_lease(&self) -> Duration {
        match self.unnamed_ttls {
            true => Ttl::DEFAULT.as_duration(),
            false => Duration::from_secs(LONGEST_TTL),
        }
    }

    /// Returns the settings of a client's shard. Its pauses follow from `seed`.
    pub(super) fn settings(&self, seed: u64) -> Settings {
        let rng = Mutex::new(fastrand::Rng::with_seed(seed));
        let reconnect = ReconnectPolicy::of(move || {
            let mut rng = rng.lock().unwrap_or_else(PoisonError::into_inner).fork();
            let mut pause = Duration::from_millis(20);
            Box::new(std::iter::from_fn(move || {
                let next = pause + up_to(pause, &mut rng);
                pause = (pause * 2).min(LONGEST_RECONNECT_PAUSE / 2);
                Some(next)
            }))
        });
        Settings {
            schedule: Schedule {
                longest_suspend: None,
                pace: Pace::new(0.5, 0.1).unwrap(),
                margin: None,
            },
            reconnect,
            fail_fast: self.fail_fast,
            fencing: Fencing::IfKnown,
            keepalive: self.lanes.keepalive,
            server_read_timeout: self.terms.read_timeout,
            survives_disconnect: self.survives_disconnect,
            pipelined: self.pipelined,
            exclusive: self.exclusive,
            exclusive_per_key: self.exclusive_per_key,
            idle_timeout: self.idle_timeout,
            lease_ttl: self.lease_ttl,
            max_redirects: 3,
        }
    }
}

fn targets(rng: &mut fastrand::Rng) -> Vec<(Target, Key)> {
    let mut targets = Vec::new();
    for name in &["a", "b", "c"][..rng.usize(1..=3)] {
        targets.push((Target::Lock, Key::new(name).unwrap()));
    }
    if rng.bool() {
        let limit = Limit::new(rng.u32(1..=3)).unwrap();
        targets.push((Target::Semaphore(limit), Key::new("s").unwrap()));
    }
    targets
}
