//! Finds out whether a server is a member of a cluster. If independent servers were treated as one cluster, they would
//! grant the same key twice.
//!
//! | what a server does | what it is |
//! | --- | --- |
//! | says that it does not lead | a member: only members say that |
//! | sends a `cluster` object in its `stats` | a member |
//! | sends `stats` without one | not a member, even if it is a cluster build and accepts `stable-ref` and `barrier` |
//! | sends no readable `stats`, and refuses `stable-ref` and `barrier` | not a member: all builds with clusters know one of the two |
//! | sends no readable `stats`, and accepts one of the two | unknown: the client trusts its configuration and treats the server as a member |

use std::sync::Arc;

use crate::error::{Error, ErrorKind};
use crate::stats::{ClusterStats, Stats};

/// What is known of a server's membership.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Membership {
    /// It is a member, with this description of its cluster.
    Member(Box<ClusterStats>),
    /// It is not a member.
    NotAMember,
}

impl Membership {
    /// Derives the membership from a server's `stats`.
    pub(crate) fn shown_by(stats: Stats) -> Self {
        stats.cluster.map_or(Self::NotAMember, Self::Member)
    }
}

/// Returns the error for a server that is not a member of a cluster.
pub(crate) fn not_a_member() -> Error {
    Error::new(
        ErrorKind::Connect,
        "the server is not a member of a cluster, and servers that are independent of each other grant the same key twice: use \
         Shard::single (or ClientBuilder::servers) for a server that stands alone, use Shard::standby for independent servers of \
         which only one is in use at a time, or check that this is the address of a member",
    )
    .fatal()
}

/// The last member of a shard that described its cluster.
#[derive(Default)]
pub(crate) struct SeenClusters(Option<(Arc<str>, Box<ClusterStats>)>);

impl SeenClusters {
    /// Notes a member's description. Returns the previous member, if the two belong to different clusters.
    pub(crate) fn see(&mut self, endpoint: &Arc<str>, cluster: Box<ClusterStats>) -> Option<Arc<str>> {
        let other = self.0.as_ref().and_then(|(before, seen)| {
            let apart = before != endpoint && are_apart(seen, &cluster);
            apart.then(|| Arc::clone(before))
        });
        self.0 = Some((Arc::clone(endpoint), cluster));
        other
    }
}

/// Returns whether two members belong to different clusters: both name their voters, and have none in common. Clusters
/// whose members have the same names cannot be distinguished.
fn are_apart(one: &ClusterStats, other: &ClusterStats) -> bool {
    let names_voters = |cluster: &ClusterStats| !cluster.voters.is_empty();
    names_voters(one) && names_voters(other) && !one.voters.iter().any(|voter| other.voters.contains(voter))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster<const N: usize>(voters: [&str; N]) -> Box<ClusterStats> {
        Box::new(ClusterStats {
            voters: voters.map(str::to_owned).into(),
            ..ClusterStats::default()
        })
    }

    #[test]
    fn a_member_is_recognized_by_its_cluster_object_even_if_that_is_empty() {
        let with = |cluster| Stats {
            cluster,
            ..Stats::default()
        };
        assert_eq!(Membership::shown_by(with(None)), Membership::NotAMember);
        assert_eq!(
            Membership::shown_by(with(Some(Box::default()))),
            Membership::Member(Box::default())
        );
    }

    #[test]
    fn members_without_a_common_voter_belong_to_different_clusters() {
        let [a, b, c]: [Arc<str>; 3] = ["a:1".into(), "b:1".into(), "c:1".into()];
        let mut seen = SeenClusters::default();
        assert_eq!(seen.see(&a, cluster(["n1", "n2", "n3"])), None, "the first");
        assert_eq!(seen.see(&b, cluster(["n3", "n4", "n5"])), None, "members were replaced");
        assert_eq!(seen.see(&c, cluster([])), None, "it names no voters");
        assert_eq!(seen.see(&a, cluster(["n1"])), None, "the previous one named no voters");
        assert_eq!(seen.see(&b, cluster(["m1", "m2"])), Some(a.clone()));
        assert_eq!(seen.see(&b, cluster(["n1"])), None, "the same address");
    }
}
