//! Where the shards are: each on one server, on the members of a cluster, or on a server with others in reserve.

mod data;
mod datum;
mod notation;

use std::fmt;
use std::time::Duration;

pub(crate) use self::datum::{Datum, ValueKind};
use crate::error::{Error, Result};
use crate::escape::Shortened;
use crate::net::admission::Admission;
use crate::net::endpoint::{Endpoint, without_secret};
use crate::net::failover::Policy;
use crate::protocol::StableRef;

/// Where one shard is served: by one server, by the leader of a cluster, or by a server that has others in reserve. Keys are
/// spread over shards, never over the servers of one: a key keeps its shard whichever of them serves it.
///
/// What becomes of leases, waits and requests when a server fails is in
/// [`guide::failover`](https://docs.rs/dflockd-client/latest/dflockd_client/guide/failover/index.html).
///
/// ```
/// use dflockd_client::{Client, Shard};
///
/// let builder = Client::builder().shards([
///     Shard::single("locks-0.example.org:6388"),
///     Shard::cluster(["a.example.org:6388", "b.example.org:6388", "c.example.org:6388"]),
/// ]);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Shard {
    policy: Policy,
    endpoints: Vec<String>,
    terms: Terms,
}

/// What is said of one shard besides where it is: only what means something to shards of its kind.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) takeover_delay: Option<Duration>,
    pub(crate) allowed_hosts: Vec<String>,
    pub(crate) orphan_ttl: Option<Duration>,
    pub(crate) stable_ref: Option<StableRef>,
}

/// The same, checked.
#[derive(Clone, Debug)]
pub(crate) struct ShardPlan {
    pub(crate) policy: Policy,
    /// There is at least one.
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) takeover_delay: Option<Duration>,
    /// Where a cluster's members may be found that are not among the endpoints.
    pub(crate) admission: Admission,
    pub(crate) orphan_ttl: Option<Duration>,
    /// The name that its pipelined connections present.
    pub(crate) stable_ref: Option<StableRef>,
}

impl Shard {
    fn new<A: Into<String>>(policy: Policy, endpoints: impl IntoIterator<Item = A>) -> Self {
        Self {
            policy,
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            terms: Terms::default(),
        }
    }

    /// One server. If it is away, so is the shard.
    pub fn single(address: impl Into<String>) -> Self {
        Self::new(Policy::Single, [address])
    }

    /// The members of one cluster (of builds with clusters, which are later than release 2.1), which share their state, in any order. The
    /// client talks to the one that leads, and finds the next when that changes:
    ///
    /// - A member that says who leads is believed if that one is among `members`, spelled as here (the case of letters does not
    ///   matter), or at an [allowed host](Self::allowed_hosts); otherwise, and while no member leads, they are asked in turn. The client
    ///   connects to no other server.
    /// - When the leadership moves on, leases become [`Suspect`](crate::LeaseState::Suspect), are renewed by their tokens at the new
    ///   leader before anything else is asked of it, and stay held if it knows them. When their connection ends they are lost, unless
    ///   the cluster is known to keep them: see [`orphan_ttl`](Self::orphan_ttl).
    /// - A wait goes on: at the same queue position when the leader died or was deposed, at the end of the queue when a living leader
    ///   saw its connection end.
    /// - A request that a member refused because another one leads is asked again there, at most
    ///   [`max_redirects`](crate::ClientBuilder::max_redirects) times.
    ///
    /// **Independent** servers are no cluster, nor is one that stands alone: each grants what the others have granted. A server that
    /// shows that it is no member is never used. Its error is [fatal](crate::Error::is_fatal), of kind
    /// [`Connect`](crate::ErrorKind::Connect), and names it; callers get it if all of `members` fail so. What shows it, and what
    /// cannot be told, is in `docs/guide/src/failover.md`.
    ///
    /// A cluster knows no signals.
    pub fn cluster<A: Into<String>>(members: impl IntoIterator<Item = A>) -> Self {
        Self::new(Policy::Cluster, members)
    }

    /// For clusters whose members join and leave at run time: the hosts at which the client may find members that were not given.
    /// A rule is a name (`a.example.org`), all names of a domain (`*.locks.example.org`), an IP address, or a network (`10.1.0.0/16`,
    /// `fd00::/8`). Names are compared as they are written and never resolved for this; an address is compared with networks only.
    ///
    /// By default there are none, and the client connects only to addresses that it was given. With this it follows a redirect to an
    /// allowed host, at any port, and tries the members that a leader's `stats` name by their addresses. **What connects also sends
    /// the auth token**, so allow no host at which others may run a server. With TLS the certificate must be good for the host.
    ///
    /// Up to 16 such members are known at a time. A member that has left stays known until others take its place, and costs an attempt
    /// when the leader is looked for.
    ///
    /// It means nothing to other shards. A rule that cannot be read is an error when the client is built.
    ///
    /// ```
    /// use dflockd_client::Shard;
    ///
    /// let shard = Shard::cluster(["locks-0.dflockd.svc:6388", "locks-1.dflockd.svc:6388"]).allowed_hosts(["*.dflockd.svc"]);
    /// ```
    pub fn allowed_hosts<H: Into<String>>(mut self, hosts: impl IntoIterator<Item = H>) -> Self {
        if self.policy == Policy::Cluster {
            self.terms.allowed_hosts = hosts.into_iter().map(Into::into).collect();
        }
        self
    }

    /// **Independent** servers, of which one serves and the others are in reserve. The first is the primary.
    ///
    /// Servers that know nothing of each other **can grant the same key twice**: a client that still reaches the primary and
    /// one that does not will each hold it. Nor does a [fence](crate::Lease::fence) protect against that, as each server counts
    /// for itself. Use a cluster if you can.
    ///
    /// What is done against it: when the server in use is lost, its leases are lost at once, and no other server is asked for
    /// anything until every lease of its must be over, which is the [takeover delay](Self::takeover_delay). The client returns
    /// to the primary only when it is told to ([`Client::failback`](crate::Client::failback)) or loses the server that
    /// replaced it. What it emits and subscribes to goes along.
    ///
    /// A primary that comes back while others still use the server that replaced it is used by clients that start then. So keep it
    /// down until all are told to go back.
    pub fn standby<A: Into<String>>(servers: impl IntoIterator<Item = A>) -> Self {
        Self::new(Policy::Standby, servers)
    }

    /// For standbys: how long after the last contact with a server no other one is asked for a lock.
    ///
    /// Default: the longest lease TTL that this client asks for by default (33 s, the server's default, if it asks for none) or
    /// was ever granted, and a twentieth of that on top. It grows with each longer TTL and does not shrink. If other clients of
    /// the same keys use longer TTLs, or servers grant longer ones, say so here: it must cover them all. Without any delay
    /// ([`Duration::ZERO`]) nothing guards against two holders.
    ///
    /// It means nothing to other shards.
    pub fn takeover_delay(mut self, delay: Duration) -> Self {
        if self.policy == Policy::Standby {
            self.terms.takeover_delay = Some(delay);
        }
        self
    }

    /// For clusters: for how long the members keep what a connection leaves behind, which is their `--orphan-ttl` (of all members the
    /// shortest). The members take whole seconds.
    ///
    /// A lease whose connection ended is then [`Suspect`](crate::LeaseState::Suspect) for that long, less a twentieth, counted from the
    /// last word of its server; renewed by the leader meanwhile, it goes on. Without this it is lost at once
    /// ([`Disconnected`](crate::LostReason::Disconnected)): a leader without `--orphan-ttl` releases the leases of a
    /// connection as soon as it sees the connection end. **A longer time than the members keep shows leases as held that others have.**
    ///
    /// It means nothing to other shards.
    pub fn orphan_ttl(mut self, kept: Duration) -> Self {
        if self.policy == Policy::Cluster {
            self.terms.orphan_ttl = Some(kept);
        }
        self
    }

    /// For clusters: the name under which this client holds, in place of a random one. A process that begins under the name of one that
    /// has ended, within the members' `--orphan-ttl`, takes back what that held: see [`Lock::reclaim`](crate::Lock::reclaim).
    ///
    /// - **No two processes may use one name at the same time**, nor two shards or two clients of one process: each would be handed the
    ///   leases of the other.
    /// - Every try of a key takes back what the name holds of it. The answer does not say so, nor whether the previous process finished its
    ///   work. Compare the [fence](crate::Lease::fence): a lease that is taken back has its old one.
    /// - A lease with renewals off that was granted to a wait is not taken back: it stays under the name of that wait's connection.
    /// - A client that knows the name can take the leases. Keep it as secret as a token, and make it from what is not guessed.
    /// - Every grant of a try is confirmed by a renewal before it is handed out: one round trip more.
    ///
    /// It means nothing to other shards.
    pub fn stable_ref(mut self, name: StableRef) -> Self {
        if self.policy == Policy::Cluster {
            self.terms.stable_ref = Some(name);
        }
        self
    }

    /// How its servers share the work.
    pub(crate) fn policy(&self) -> Policy {
        self.policy
    }

    pub(crate) fn terms(&self) -> &Terms {
        &self.terms
    }

    pub(crate) fn check(&self) -> Result<ShardPlan> {
        if self.endpoints.is_empty() {
            return Err(Error::invalid(
                "shard",
                self,
                "name at least one of its servers, as host:port",
            ));
        }
        let endpoints = self.endpoints.iter().map(|endpoint| Endpoint::parse(endpoint));
        Ok(ShardPlan {
            policy: self.policy,
            endpoints: endpoints.collect::<Result<_>>()?,
            takeover_delay: self.terms.takeover_delay,
            admission: Admission::parse(self.terms.allowed_hosts.iter().map(String::as_str))?,
            orphan_ttl: self.terms.orphan_ttl.filter(|kept| !kept.is_zero()),
            stable_ref: self.terms.stable_ref.clone(),
        })
    }
}

impl ShardPlan {
    /// The endpoint that is used first.
    pub(crate) fn first(&self) -> &Endpoint {
        &self.endpoints[0]
    }

    /// The endpoint with that address, or the first.
    pub(crate) fn endpoint_at(&self, address: Option<&str>) -> &Endpoint {
        let is_it = |endpoint: &&Endpoint| Some(&**endpoint.shared_text()) == address;
        self.endpoints.iter().find(is_it).unwrap_or_else(|| self.first())
    }
}

/// No server is named twice, in one shard or in two.
pub(crate) fn check_all(shards: &[Shard]) -> Result<Vec<ShardPlan>> {
    if shards.is_empty() {
        return Err(Error::invalid(
            "server list",
            shards,
            "name at least one server, as host:port",
        ));
    }
    let plans = shards.iter().map(Shard::check).collect::<Result<Vec<_>>>()?;
    let mut seen = std::collections::HashSet::new();
    for endpoint in plans.iter().flat_map(|plan| &plan.endpoints) {
        if !seen.insert(endpoint.shared_text()) {
            return Err(Error::invalid(
                "server list with a repeated",
                Shortened(endpoint.shared_text()),
                "name each server once: every shard has servers of its own",
            ));
        }
    }
    Ok(plans)
}

/// One server.
impl From<&str> for Shard {
    fn from(address: &str) -> Self {
        Self::single(address)
    }
}

/// One server.
impl From<String> for Shard {
    fn from(address: String) -> Self {
        Self::single(address)
    }
}

/// An address as it was given, without what may be a secret.
struct ShownEndpoint<'a>(&'a str);

impl fmt::Debug for ShownEndpoint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&Shortened(&without_secret(self.0)), f)
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.policy {
            Policy::Single => write!(f, "single")?,
            Policy::Cluster => write!(f, "cluster")?,
            Policy::Standby => write!(f, "standby")?,
        }
        f.debug_list()
            .entries(self.endpoints.iter().map(|endpoint| ShownEndpoint(endpoint)))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(shards: &[Shard]) -> String {
        match check_all(shards) {
            Ok(plans) => panic!("{plans:?} was taken"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn shards_without_servers_and_servers_of_two_shards_are_refused() {
        let none: [&str; 0] = [];
        assert!(refusal(&[]).contains("at least one server"));
        assert!(refusal(&[Shard::single("a:1"), Shard::cluster(none)]).contains("cluster[]"));
        assert!(refusal(&[Shard::cluster(["a:1", "nonsense"])]).contains("\"nonsense\""));
        for twice in [
            vec![Shard::single("a:1"), Shard::single("a:1")],
            vec![Shard::cluster(["b:1", "a:1"]), Shard::standby(["a:1", "c:1"])],
            vec![Shard::standby(["a:1", "a:1"])],
        ] {
            assert!(refusal(&twice).contains("\"a:1\""), "{twice:?}");
        }
    }

    #[test]
    fn what_is_said_of_clusters_means_nothing_to_other_shards() {
        let described = |shard: Shard| {
            let name = StableRef::new("the-worker").unwrap();
            let described = shard.stable_ref(name).orphan_ttl(Duration::from_secs(9));
            let plan = described.check().unwrap();
            (plan.stable_ref.is_some(), plan.orphan_ttl.is_some())
        };
        assert_eq!(described(Shard::cluster(["a:1"])), (true, true));
        assert_eq!(described(Shard::single("a:1")), (false, false));
        assert_eq!(described(Shard::standby(["a:1", "b:1"])), (false, false));
    }

    #[test]
    fn the_order_is_kept() {
        let plans = check_all(&[Shard::cluster(["b:1", "a:1"]), "c:1".into()]).unwrap();
        assert_eq!(
            (plans[0].first().to_string(), plans[1].first().to_string()),
            ("b:1".into(), "c:1".into())
        );
    }
}
