//! The plan of a world: the settings of its hosts, and its faults. The seed determines the plan.

use std::time::Duration;

use fastrand::Rng;

use super::net::{Connects, Cut, Link, MS, SECOND, Time, Where};
use super::programs::Program;

#[derive(Clone, Debug)]
pub struct Plan {
    /// The simulated time for which the world runs each host in turn. Bytes that a host sends in a slice arrive in a
    /// later slice.
    pub slice: Time,
    /// The properties of all links without a fault.
    pub base: Link,
    /// How many keys the programs share.
    pub keys: u64,
    pub read_timeout: Duration,
    pub shards: Vec<ShardPlan>,
    pub clients: Vec<ClientPlan>,
    pub faults: Vec<Fault>,
    /// The time at which all faults end.
    pub faults_end: Time,
    pub programs_end: Time,
}

/// The servers of a shard.
#[derive(Clone, Debug)]
pub struct ShardPlan {
    /// The name of the dflockd release that the embedded server imitates.
    pub release: &'static str,
    /// The number of servers: 3 for a cluster, otherwise 1.
    pub members: usize,
    pub is_cluster: bool,
    pub orphan_ttl: Option<Duration>,
    pub auto_release: bool,
    pub max_locks: usize,
    pub max_waiters: usize,
    /// 0 means no limit.
    pub max_connections: usize,
    pub signal_buffer: usize,
    pub shutdown_timeout: Duration,
}

/// A client process.
#[derive(Clone, Debug)]
pub struct ClientPlan {
    pub programs: Vec<Program>,
    pub cancels_one_in: u32,
    pub lease_ttl: Option<Duration>,
    pub acquire_timeout: Duration,
    pub request_timeout: Duration,
    pub connect_timeout: Duration,
    pub renew_ratio: f64,
    pub keepalive: Duration,
    pub reply_timeout: Duration,
    pub pipelined_connections: usize,
    pub exclusive_connections: usize,
    pub exclusive_connections_per_key: usize,
    pub idle_connection_timeout: Duration,
    pub max_in_flight: usize,
    pub max_waiters: usize,
    pub max_redirects: u32,
    pub fails_fast: bool,
    pub knows_fences: bool,
}

#[derive(Clone, Debug)]
pub struct Fault {
    /// The time at which the fault begins.
    pub at: Time,
    /// The time at which the fault ends.
    pub until: Time,
    pub what: What,
}

/// The kinds of faults. `client`, `shard` and `member` are indices from 0. A standalone server has the member index 0.
#[derive(Clone, Copy, Debug)]
pub enum What {
    Partition {
        client: usize,
        shard: usize,
        member: usize,
    },
    PartitionUp {
        client: usize,
        shard: usize,
        member: usize,
    },
    PartitionDown {
        client: usize,
        shard: usize,
        member: usize,
    },
    Delay {
        client: usize,
        shard: usize,
        by: Time,
    },
    Narrow {
        client: usize,
        shard: usize,
        bandwidth: u64,
    },
    ReorderConnects {
        client: usize,
        shard: usize,
    },
    RefuseConnects {
        client: usize,
        shard: usize,
        member: usize,
    },
    HangConnects {
        client: usize,
        shard: usize,
        member: usize,
    },
    Cut {
        client: usize,
        shard: usize,
        member: usize,
        place: Where,
        cut: Cut,
    },
    KillServer {
        shard: usize,
    },
    LoseServer {
        shard: usize,
    },
    DrainServer {
        shard: usize,
    },
    FreezeServer {
        shard: usize,
    },
    KillMember {
        shard: usize,
        member: usize,
    },
    DrainMember {
        shard: usize,
        member: usize,
    },
    MoveLeader {
        shard: usize,
        member: usize,
    },
    MoveLeaderInFlight {
        shard: usize,
        member: usize,
    },
    Depose {
        shard: usize,
    },
    IsolateLeader {
        shard: usize,
    },
    FreezeClient {
        client: usize,
    },
    KillClient {
        client: usize,
    },
    LoseClient {
        client: usize,
    },
    EndRuntime {
        client: usize,
    },
    ShutDownClient {
        client: usize,
    },
}

impl What {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Partition { .. } => "partition",
            Self::PartitionUp { .. } => "partition to the server",
            Self::PartitionDown { .. } => "partition from the server",
            Self::Delay { .. } => "delay",
            Self::Narrow { .. } => "narrow bandwidth",
            Self::ReorderConnects { .. } => "reordered connects",
            Self::RefuseConnects { .. } => "refused connects",
            Self::HangConnects { .. } => "connects without an answer",
            Self::Cut {
                place: Where::Bytes(0), ..
            } => "cut between lines",
            Self::Cut {
                place: Where::Bytes(_), ..
            } => CUT_IN_A_LINE,
            Self::Cut {
                place: Where::Lines(_), ..
            } => CUT_AFTER_A_LINE,
            Self::KillServer { .. } => "server killed",
            Self::LoseServer { .. } => "server's machine lost",
            Self::DrainServer { .. } => "server drained",
            Self::FreezeServer { .. } => "server frozen",
            Self::KillMember { .. } => "member killed",
            Self::DrainMember { .. } => "member drained",
            Self::MoveLeader { .. } => "leader moved",
            Self::MoveLeaderInFlight { .. } => "leader moved in flight",
            Self::Depose { .. } => "no leader",
            Self::IsolateLeader { .. } => "minority leader",
            Self::FreezeClient { .. } => "client frozen",
            Self::KillClient { .. } => "client killed",
            Self::LoseClient { .. } => "client's machine lost",
            Self::EndRuntime { .. } => "runtime ended",
            Self::ShutDownClient { .. } => "client shut down",
        }
    }
}

/// The part of a world that a lasting fault disables. The part stays disabled until all faults with this victim have
/// ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The servers of a shard do not run.
    Servers(usize),
    /// The servers of a shard are frozen.
    ServersTime(usize),
    Member(usize, usize),
    Leader(usize),
    Majority(usize),
    Client(usize),
    ClientTime(usize),
}

impl What {
    /// Returns `None` for a fault of a link, and for a fault that happens at one moment.
    pub fn victim(&self) -> Option<Victim> {
        match *self {
            Self::KillServer { shard } | Self::LoseServer { shard } | Self::DrainServer { shard } => {
                Some(Victim::Servers(shard))
            }
            Self::FreezeServer { shard } => Some(Victim::ServersTime(shard)),
            Self::KillMember { shard, member } | Self::DrainMember { shard, member } => {
                Some(Victim::Member(shard, member))
            }
            Self::Depose { shard } => Some(Victim::Leader(shard)),
            Self::IsolateLeader { shard } => Some(Victim::Majority(shard)),
            Self::KillClient { client } | Self::LoseClient { client } | Self::EndRuntime { client } => {
                Some(Victim::Client(client))
            }
            Self::FreezeClient { client } => Some(Victim::ClientTime(client)),
            _ => None,
        }
    }

    /// Applies the fault to a link if the fault concerns this link. `of` is the link's client, shard and member.
    pub fn apply_to_link(&self, link: &mut Link, of: (usize, usize, usize)) {
        let to_member = |client, shard, member| (client, shard, member) == of;
        let to_shard = |client, shard| (client, shard) == (of.0, of.1);
        match *self {
            Self::Partition { client, shard, member } if to_member(client, shard, member) => {
                link.up_is_cut = true;
                link.down_is_cut = true;
            }
            Self::PartitionUp { client, shard, member } if to_member(client, shard, member) => {
                link.up_is_cut = true;
            }
            Self::PartitionDown { client, shard, member } if to_member(client, shard, member) => {
                link.down_is_cut = true;
            }
            Self::Delay { client, shard, by } if to_shard(client, shard) => link.latency += by,
            Self::Narrow {
                client,
                shard,
                bandwidth,
            } if to_shard(client, shard) => link.bandwidth = link.bandwidth.min(bandwidth),
            Self::ReorderConnects { client, shard } if to_shard(client, shard) => {
                link.connect_jitter = 400 * MS;
            }
            Self::RefuseConnects { client, shard, member } if to_member(client, shard, member) => {
                link.connects = Connects::Refused;
            }
            Self::HangConnects { client, shard, member } if to_member(client, shard, member) => {
                link.connects = Connects::Hang;
            }
            _ => {}
        }
    }
}

/// The names of all kinds of faults.
pub const FAULTS: [&str; 26] = [
    "partition",
    "partition to the server",
    "partition from the server",
    "delay",
    "narrow bandwidth",
    "reordered connects",
    "refused connects",
    "connects without an answer",
    "cut between lines",
    CUT_IN_A_LINE,
    CUT_AFTER_A_LINE,
    "server killed",
    "server's machine lost",
    "server drained",
    "server frozen",
    "member killed",
    "member drained",
    "leader moved",
    "leader moved in flight",
    "no leader",
    "minority leader",
    "client frozen",
    "client killed",
    "client's machine lost",
    "runtime ended",
    "client shut down",
];

pub const CUT_IN_A_LINE: &str = "cut in a line";
pub const CUT_AFTER_A_LINE: &str = "cut after a line";

/// Returns a random element of the slice.
fn random_element<T: Copy>(random: &mut Rng, elements: &[T]) -> T {
    elements[random.usize(..elements.len())]
}

impl Plan {
    pub fn draw(seed: u64) -> Self {
        let random = &mut Rng::with_seed(seed);
        let read_timeout = random_element(
            random,
            &[Duration::from_secs(6), Duration::from_secs(12), Duration::from_secs(23)],
        );
        let has_signals = random.u32(..3) == 0;
        let shards: Vec<ShardPlan> = (0..random.usize(1..=2))
            .map(|_| ShardPlan::draw(random, has_signals))
            .collect();
        let auto_release = shards.iter().all(|shard| shard.auto_release);
        let shards: Vec<ShardPlan> = shards
            .into_iter()
            .map(|shard| ShardPlan { auto_release, ..shard })
            .collect();
        let clients: Vec<ClientPlan> = (0..random.usize(1..=4))
            .map(|_| ClientPlan::draw(random, has_signals, read_timeout))
            .collect();
        let faults_end = SECOND * random.u64(15..=25);
        let programs_end = faults_end + SECOND * random.u64(8..=12);
        let faults = (0..random.usize(..=14)).map(|_| Fault::draw(random, faults_end, &shards, clients.len()));
        let mut faults: Vec<Fault> = faults.collect();
        faults.sort_by_key(|fault| fault.at);
        Self {
            slice: MS * random.u64(2..=6),
            base: Link {
                latency: MS * random.u64(1..=4),
                jitter: random_element(random, &[0, MS, 6 * MS]),
                ..Link::default()
            },
            keys: random.u64(2..=6),
            read_timeout,
            shards,
            clients,
            faults,
            faults_end,
            programs_end,
        }
    }
}

impl Plan {
    /// Returns the sum of the times by which the [`What::Delay`] faults delay bytes.
    pub fn delays(&self) -> Time {
        let delay = |fault: &Fault| match fault.what {
            What::Delay { by, .. } => by,
            _ => 0,
        };
        self.faults.iter().map(delay).sum()
    }

    /// Returns the longest time after which a subscription detects that its connection is lost. It is the default
    /// heartbeat of signal connections plus the longest reply timeout of a client.
    pub fn signal_silence(&self) -> Duration {
        let heartbeat = Duration::from_secs(15).min(self.read_timeout.mul_f64(2.0 / 3.0));
        let reply_timeout = self.clients.iter().map(|client| client.reply_timeout).max();
        heartbeat + reply_timeout.unwrap_or_default()
    }

    /// Returns whether leases survive the end of their connections.
    pub fn survives_disconnect(&self) -> bool {
        self.shards.iter().all(|shard| !shard.auto_release)
    }

    /// Returns whether a queue position may outlive its client. Two kinds of shards allow this:
    ///
    /// - A server of a release before 1.15, if leases survive the end of their connections.
    /// - A cluster after a fault. If the connection of a client to one member ends, the other members do not notice.
    ///   One of them may lead and keep the queue position.
    pub fn positions_may_outlive_clients(&self) -> bool {
        let before_1_15 = ["1.10", "1.11", "1.14"];
        let has_faults = !self.faults.is_empty();
        let may_outlive = |shard: &ShardPlan| {
            shard.is_cluster && has_faults || !shard.auto_release && before_1_15.contains(&shard.release)
        };
        self.shards.iter().any(may_outlive)
    }
}

impl ShardPlan {
    fn draw(random: &mut Rng, has_signals: bool) -> Self {
        let is_cluster = !has_signals && random.u32(..5) < 2;
        let release = match (is_cluster, has_signals) {
            (true, _) => "cluster",
            (_, true) => random_element(random, &["1.11", "1.15", "1.16"]),
            _ => random_element(
                random,
                &["1.10", "1.14", "1.15", "1.16", "2.0", "2.1", "2.1", "cluster"],
            ),
        };
        let is_scarce = random.u32(..5) == 0;
        Self {
            release,
            members: if is_cluster { 3 } else { 1 },
            is_cluster,
            orphan_ttl: (is_cluster && random.bool()).then(|| Duration::from_secs(random.u64(2..10))),
            auto_release: random.u32(..6) > 0,
            max_locks: if is_scarce { random.usize(3..8) } else { 1024 },
            max_waiters: if is_scarce { random.usize(..4) } else { 0 },
            max_connections: if is_scarce { random.usize(3..24) } else { 0 },
            signal_buffer: random_element(random, &[2, 8, 64]),
            shutdown_timeout: Duration::from_secs(random.u64(1..4)),
        }
    }
}

impl ClientPlan {
    fn draw(random: &mut Rng, has_signals: bool, read_timeout: Duration) -> Self {
        let many = random.usize(2..=7);
        let drawn = (0..many).map(|_| match has_signals && random.bool() {
            true => random_element(random, &Program::SIGNALS),
            false => random_element(random, &Program::LOCKS),
        });
        let programs = drawn.collect();
        let exclusive = random_element(random, &[2, 4, 64, 1024]);
        Self {
            programs,
            cancels_one_in: random_element(random, &[0, 3, 8, 30]),
            lease_ttl: random_element(random, &[None, Some(1), Some(2), Some(4), Some(9), Some(30)])
                .map(Duration::from_secs),
            acquire_timeout: Duration::from_millis(random.u64(200..9_000)),
            request_timeout: Duration::from_millis(random.u64(1_000..5_000)),
            connect_timeout: Duration::from_millis(random.u64(500..5_000)),
            renew_ratio: random_element(random, &[0.2, 0.5, 0.5, 0.8]),
            keepalive: read_timeout.mul_f64(0.2 + 0.2 * random.f64()),
            reply_timeout: read_timeout.mul_f64(0.1 + 0.3 * random.f64()),
            pipelined_connections: random_element(random, &[1, 1, 2, 4]),
            exclusive_connections: exclusive,
            exclusive_connections_per_key: exclusive.min(random_element(random, &[1, 2, 16])),
            idle_connection_timeout: Duration::from_millis(random.u64(100..20_000)),
            max_in_flight: random_element(random, &[1, 4, 4096]),
            max_waiters: random_element(random, &[1, 3, 65_536]),
            max_redirects: random.u32(..4),
            fails_fast: random.u32(..5) == 0,
            knows_fences: random.bool(),
        }
    }
}

impl ClientPlan {
    /// Returns the greatest number of connections that this client may have to all shards. Each shard has pipelined
    /// connections, one connection for stats, one to emit, and one for each subscriber. The limit of exclusive
    /// connections applies to waits, and separately to connections that own leases.
    pub fn most_connections(&self, shards: usize) -> usize {
        // The factors are generous, because a new connection may exist before the connection that it replaces has
        // closed.
        let of_shard = 2 * (self.pipelined_connections + self.programs.len() + 2) + 3 * self.exclusive_connections;
        shards * of_shard
    }
}

impl Fault {
    fn draw(random: &mut Rng, end: Time, shards: &[ShardPlan], clients: usize) -> Self {
        let at = random.u64(SECOND / 2..end - SECOND);
        let longest = random_element(random, &[SECOND / 5, 2 * SECOND, 6 * SECOND, 15 * SECOND]);
        let until = (at + random.u64(..longest)).min(end);
        let shard = random.usize(..shards.len());
        let member = random.usize(..shards[shard].members);
        let client = random.usize(..clients);
        let what = match random.u32(..20) {
            0 | 1 => What::Partition { client, shard, member },
            2 => What::PartitionUp { client, shard, member },
            3 => What::PartitionDown { client, shard, member },
            4 => What::Delay {
                client,
                shard,
                by: random.u64(..2 * SECOND),
            },
            5 => What::Narrow {
                client,
                shard,
                bandwidth: random.u64(1..50),
            },
            6 => What::ReorderConnects { client, shard },
            7 => What::RefuseConnects { client, shard, member },
            8 => What::HangConnects { client, shard, member },
            9..=11 => What::Cut {
                client,
                shard,
                member,
                place: match random.u32(..3) {
                    0 => Where::Bytes(0),
                    1 => Where::Bytes(random.usize(1..60)),
                    _ => Where::Lines(random.usize(1..6)),
                },
                cut: random_element(random, &[Cut::Reset, Cut::End, Cut::Silence]),
            },
            12..=15 if shards[shard].is_cluster => match random.u32(..7) {
                0 => What::KillMember { shard, member },
                1 => What::DrainMember { shard, member },
                2 => What::MoveLeader { shard, member },
                3 => What::MoveLeaderInFlight { shard, member },
                4 => What::Depose { shard },
                5 => What::IsolateLeader { shard },
                _ => What::FreezeServer { shard },
            },
            12..=15 => match random.u32(..4) {
                0 => What::KillServer { shard },
                1 => What::LoseServer { shard },
                2 => What::DrainServer { shard },
                _ => What::FreezeServer { shard },
            },
            _ => match random.u32(..6) {
                0 | 1 => What::FreezeClient { client },
                2 => What::KillClient { client },
                3 => What::LoseClient { client },
                4 => What::EndRuntime { client },
                _ => What::ShutDownClient { client },
            },
        };
        Self { at, until, what }
    }
}
