//! The servers of a shard: one server, a cluster, or a primary with standbys.

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

/// The servers of one shard: one server, the members of a cluster, or a primary with standbys. The client distributes
/// keys over shards, never over the servers of one shard: a key keeps its shard, whichever server serves the shard.
///
/// For what happens to leases, waits and requests when a server fails, see
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

/// The settings of one shard, without its servers. Only settings of the shard's kind are set.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) takeover_delay: Option<Duration>,
    pub(crate) allowed_hosts: Vec<String>,
    pub(crate) orphan_ttl: Option<Duration>,
    pub(crate) stable_ref: Option<StableRef>,
}

/// A checked shard.
#[derive(Clone, Debug)]
pub(crate) struct ShardPlan {
    pub(crate) policy: Policy,
    /// Never empty.
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) takeover_delay: Option<Duration>,
    /// The rules for members of a cluster that are not among the endpoints.
    pub(crate) admission: Admission,
    pub(crate) orphan_ttl: Option<Duration>,
    /// The stable name that the shard's pipelined connections send.
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

    /// Creates a shard of one server. If the server is down, the shard is down.
    pub fn single(address: impl Into<String>) -> Self {
        Self::new(Policy::Single, [address])
    }

    /// Creates a shard of the members of one cluster, in any order. (Clusters need a server build later than release
    /// 2.1.1.) The client sends requests to the leader, and finds the new leader after a change:
    ///
    /// - If a member names the leader, the client connects to that address, provided that it is among `members` (the
    ///   same text, except for upper and lower case) or on an [allowed host](Self::allowed_hosts). Otherwise, and while
    ///   there is no leader, the client tries the members in turn. It connects to no other server.
    /// - When the leader changes, leases become [`Suspect`](crate::LeaseState::Suspect). The client renews them at the
    ///   new leader before it sends other requests there. A lease stays held if the new leader knows it. When the
    ///   connection of a lease ends, the lease is lost, unless the cluster is known to keep it: see
    ///   [`orphan_ttl`](Self::orphan_ttl).
    /// - A wait continues: at the same queue position if the leader died or was replaced, and at the end of the queue
    ///   if a running leader saw the connection end.
    /// - If a member rejects a request because it is not the leader, the client sends the request to the leader: an
    ///   acquire or a question at most [`max_redirects`](crate::ClientBuilder::max_redirects) times.
    ///
    /// **Independent** servers are not a cluster, and a standalone server is not a member of one: each such server can
    /// grant a key that another one has granted. If the client finds that a server is not a member of a cluster, it
    /// does not use that server. The error names the server, is [fatal](crate::Error::is_fatal), and has the kind
    /// [`Connect`](crate::ErrorKind::Connect). Callers get this error if all `members` fail in this way. The chapter
    /// [Failover](https://docs.rs/dflockd-client/latest/dflockd_client/guide/failover/index.html) describes the limits
    /// of this detection.
    ///
    /// A cluster has no signals.
    pub fn cluster<A: Into<String>>(members: impl IntoIterator<Item = A>) -> Self {
        Self::new(Policy::Cluster, members)
    }

    /// Sets the hosts on which the client may use members that are not configured, for clusters whose members join and
    /// leave at run time. A rule is a name (`a.example.org`), all names of a domain (`*.locks.example.org`), an IP
    /// address, or a network (`10.1.0.0/16`, `fd00::/8`). The client compares names as text and does not resolve them.
    /// It compares an address only with addresses and networks.
    ///
    /// By default there are no rules, and the client connects only to configured addresses. With rules, it follows
    /// redirects to allowed hosts, on any port, and also tries the members on allowed hosts whose addresses are in a
    /// leader's `stats`. **Each connection sends the authentication token**, so do not allow a host on which other
    /// parties can run a server. With TLS, the certificate must be valid for the host.
    ///
    /// The client remembers up to 16 such members. It remembers a member that has left until new members replace it,
    /// and may try that member when it looks for the leader.
    ///
    /// This setting has no effect on other kinds of shards. An invalid rule is an error when the client is built.
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

    /// Creates a shard of **independent** servers: one serves the shard, and the remaining ones are standbys. The first
    /// server is the primary.
    ///
    /// Independent servers **can grant the same key twice**: to a client that still reaches the primary, and to a
    /// client that does not. A [fence](crate::Lease::fence) does not protect against that, because each server counts
    /// separately. Use a cluster if you can.
    ///
    /// The client reduces this risk. When it loses the current server, it reports the leases there as lost at once. It
    /// sends no request to another server until all leases on the lost server must have ended; this time is the
    /// [takeover delay](Self::takeover_delay). The client returns to the primary only on
    /// [`Client::failback`](crate::Client::failback), or when it loses the standby. Signals move to the same server.
    ///
    /// If the primary comes back while clients still use the standby, newly started clients use the primary. So keep
    /// the primary down until you switch all clients back.
    pub fn standby<A: Into<String>>(servers: impl IntoIterator<Item = A>) -> Self {
        Self::new(Policy::Standby, servers)
    }

    /// Sets the takeover delay of a shard with standbys: for this long after the last contact with a server, the client
    /// sends no request to another server.
    ///
    /// Default: the longer of the client's lease TTL (33 s, the server's default, if the client sets none) and the
    /// longest TTL that a server has granted to this client, plus a twentieth. So the default can grow, but never
    /// shrinks. The delay must cover the TTLs of all clients: set it if other clients of the same keys use longer TTLs,
    /// or if servers grant longer TTLs. With [`Duration::ZERO`] nothing prevents two holders.
    ///
    /// This setting has no effect on other kinds of shards.
    pub fn takeover_delay(mut self, delay: Duration) -> Self {
        if self.policy == Policy::Standby {
            self.terms.takeover_delay = Some(delay);
        }
        self
    }

    /// Tells the client the `--orphan-ttl` of a cluster's members (the shortest, if they differ): for how long they
    /// keep the leases of a connection that has ended. Members accept whole seconds.
    ///
    /// If the connection of a lease ends, the lease is [`Suspect`](crate::LeaseState::Suspect) for this time, less a
    /// twentieth, counted from the last message of its server. It stays held if the leader renews it meanwhile. Without
    /// this setting, the lease is lost at once ([`Disconnected`](crate::LostReason::Disconnected)), because a leader
    /// without `--orphan-ttl` releases the leases of a connection as soon as it sees the connection end. **If this time
    /// is longer than the members' `--orphan-ttl`, the client can report a lease as held that another client holds.**
    ///
    /// This setting has no effect on other kinds of shards.
    pub fn orphan_ttl(mut self, kept: Duration) -> Self {
        if self.policy == Policy::Cluster {
            self.terms.orphan_ttl = Some(kept);
        }
        self
    }

    /// Sets the stable name under which this client holds leases in a cluster, in place of a random name. If a process
    /// has ended, and a new process starts under the same name within the members' `--orphan-ttl`, the new process can
    /// reclaim the leases of the old one: see [`Lock::reclaim`](crate::Lock::reclaim).
    ///
    /// - **Two processes must not use one name at the same time.** The same applies to two shards and to two clients of
    ///   one process. Otherwise each would get the leases of the other one.
    /// - Every try of a key reclaims a lease on this key that is held under the name. The answer does not say that the
    ///   lease was reclaimed, or whether the previous process finished its work. Compare the
    ///   [fence](crate::Lease::fence): a reclaimed lease keeps its fence.
    /// - A lease that was granted to a wait and is never renewed cannot be reclaimed: the server keeps it under the
    ///   name of that wait's connection.
    /// - Any client that knows the name can take the leases. Choose a name that cannot be guessed, and keep it secret,
    ///   like a token.
    /// - The client confirms every grant of a try by a renewal before the caller gets it, which costs a round trip.
    ///
    /// This setting has no effect on other kinds of shards.
    pub fn stable_ref(mut self, name: StableRef) -> Self {
        if self.policy == Policy::Cluster {
            self.terms.stable_ref = Some(name);
        }
        self
    }

    /// Returns the addresses of the servers, in order.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for an invalid address or an empty list.
    ///
    /// ```
    /// use dflockd_client::Shard;
    ///
    /// let shard = Shard::standby(["a.example:6388", "b.example:6388"]);
    /// assert_eq!(shard.endpoints()?[0].as_str(), "a.example:6388");
    /// assert!(Shard::single("nowhere").endpoints().is_err());
    /// # Ok::<(), dflockd_client::Error>(())
    /// ```
    pub fn endpoints(&self) -> Result<Vec<Endpoint>> {
        Ok(self.check()?.endpoints)
    }

    /// Returns whether the servers are the members of a [cluster](Self::cluster).
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        self.policy == Policy::Cluster
    }

    /// Returns whether the servers are a primary and standbys: see [`standby`](Self::standby).
    #[must_use]
    pub fn is_standby(&self) -> bool {
        self.policy == Policy::Standby
    }

    /// Returns the kind of the shard.
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
    /// Returns the endpoint that the client tries first.
    pub(crate) fn first(&self) -> &Endpoint {
        &self.endpoints[0]
    }

    /// Returns the endpoint with this address, or the first endpoint if no endpoint has it.
    pub(crate) fn endpoint_at(&self, address: Option<&str>) -> &Endpoint {
        let has_address = |endpoint: &&Endpoint| Some(&**endpoint.shared_text()) == address;
        self.endpoints.iter().find(has_address).unwrap_or_else(|| self.first())
    }
}

/// Checks each shard. Also checks that no server appears twice in the list.
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
                "name each server once: no two shards may share a server",
            ));
        }
    }
    Ok(plans)
}

/// Creates a shard of one server, as [`Shard::single`] does.
impl From<&str> for Shard {
    fn from(address: &str) -> Self {
        Self::single(address)
    }
}

/// Creates a shard of one server, as [`Shard::single`] does.
impl From<String> for Shard {
    fn from(address: String) -> Self {
        Self::single(address)
    }
}

/// Shows a configured address without a part that may be a secret.
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
            Ok(plans) => panic!("{plans:?} was accepted"),
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
    fn settings_of_clusters_have_no_effect_on_other_shards() {
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
    fn shards_and_servers_keep_their_order() {
        let plans = check_all(&[Shard::cluster(["b:1", "a:1"]), "c:1".into()]).unwrap();
        assert_eq!(
            (plans[0].first().to_string(), plans[1].first().to_string()),
            ("b:1".into(), "c:1".into())
        );
    }
}
