//! `cluster` and `shard`: the state that a server reports of its cluster, and whether the servers of a shard agree on
//! the leader. Pure.

use dflockd_client::ClusterStats;
use serde_json::json;

use super::report::{Check, Finding};
use crate::exit::Exit;
use crate::failure::Failure;

/// The kind of a shard, according to the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Single,
    Cluster,
    Standby,
}

/// The results of the checks of one server of a shard.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) server: String,
    /// Whether it answered.
    pub(super) answers: bool,
    /// The state that it reports of its cluster.
    pub(super) says: Option<Box<ClusterStats>>,
    /// Whether it granted a lease.
    pub(super) grants: bool,
    /// Whether it refused a lease because it takes no new keys.
    pub(super) is_full: bool,
}

impl Member {
    /// Returns whether it reports that it leads its cluster.
    pub(super) fn leads(&self) -> bool {
        self.says.as_ref().is_some_and(|says| says.role == "leader")
    }

    fn term(&self) -> u64 {
        self.says.as_ref().map_or(0, |says| says.term)
    }
}

/// Judges the state that one server reports of its cluster.
pub(super) fn judge_member(kind: Kind, says: Option<&ClusterStats>) -> Finding {
    let Some(says) = says else {
        return match kind {
            Kind::Cluster => Finding::fail(
                Check::Cluster,
                Failure::new(Exit::REFUSED, "the server is not a member of a cluster")
                    .remedy("name only members of one cluster in a shard; servers that stand alone are shards of their own, or standbys"),
            ),
            Kind::Single | Kind::Standby => Finding::ok(Check::Cluster, "the server stands alone"),
        };
    };
    let leader = match (says.leader_id.as_str(), &says.leader_addr) {
        ("", _) => "it knows of no leader".to_owned(),
        (id, Some(address)) => format!("{id} leads, at {address}"),
        (id, None) => format!("{id} leads"),
    };
    let what = format!(
        "{} is {} of {} in term {}: {leader}",
        says.node_id,
        says.role,
        says.voters.len(),
        says.term
    );
    let finding = match kind {
        Kind::Cluster => Finding::ok(Check::Cluster, what),
        Kind::Single | Kind::Standby => Finding::warn(
            Check::Cluster,
            format!("{what}; the settings name it as a server that stands alone"),
            "name all members of the cluster as one shard, joined by +",
        ),
    };
    finding
        .fact("node_id", says.node_id.as_str())
        .fact("role", says.role.as_str())
        .fact("term", says.term)
        .fact("leader_id", says.leader_id.as_str())
        .fact("leader_addr", says.leader_addr.clone())
        .fact("voters", says.voters.clone())
}

/// Judges all servers of a shard together; `None` if there is only one server.
pub(super) fn judge_shard(kind: Kind, members: &[Member]) -> Option<Finding> {
    match kind {
        Kind::Single => None,
        Kind::Cluster => Some(judge_cluster(members)),
        Kind::Standby => Some(judge_standby(members)),
    }
}

fn judge_cluster(members: &[Member]) -> Finding {
    let leaders: Vec<&Member> = members.iter().filter(|member| member.leads()).collect();
    let away = away(members);
    let terms: Vec<String> = leaders
        .iter()
        .map(|leader| format!("{} in term {}", leader.server, leader.term()))
        .collect();
    let latest = leaders.iter().max_by_key(|leader| leader.term());
    let finding = match (&leaders[..], away.len()) {
        ([], _) => Finding::fail(
            Check::Shard,
            Failure::new(
                Exit::SERVER_AWAY,
                format!("no member says that it leads; {} of {} answer", members.len() - away.len(), members.len()),
            )
            .remedy("see that a majority of the members runs and that they reach each other"),
        ),
        ([leader], _) if leader.is_full => full(format!("{} leads", leader.server)),
        ([leader], _) if !leader.grants => Finding::fail(
            Check::Shard,
            Failure::new(
                Exit::SERVER_AWAY,
                format!(
                    "{} says that it leads, and granted no lease; {} of {} members answer",
                    leader.server,
                    members.len() - away.len(),
                    members.len()
                ),
            )
            .remedy("see its line `lease`, and that a majority of the members runs and that they reach each other"),
        ),
        ([leader], 0) => judge_led(leader, members),
        ([leader], _) => Finding::warn(
            Check::Shard,
            format!(
                "{} leads and serves clients; these members do not answer: {}",
                leader.server,
                away.join(", ")
            ),
            "start them again, or remove them from the settings: the cluster stops when it has no majority",
        ),
        _ => Finding::fail(
            Check::Shard,
            Failure::new(Exit::REFUSED, format!("several members say that they lead: {}", terms.join(", "))).remedy(
                "only the one in the latest term leads: the others are cut off from the members, or belong to another cluster",
            ),
        ),
    };
    finding
        .fact("kind", "cluster")
        .fact("leader", latest.map(|leader| leader.server.as_str()))
        .fact("served", latest.is_some_and(|leader| leader.grants))
        .fact("away", away)
}

/// Judges a cluster in which all members answer and one leads.
fn judge_led(leader: &Member, members: &[Member]) -> Finding {
    let said = |of: &Member| of.says.as_ref().map(|says| (says.leader_id.clone(), says.term));
    let disagree: Vec<&str> = members
        .iter()
        .filter(|member| said(member) != said(leader))
        .map(|member| member.server.as_str())
        .collect();
    let voters = leader.says.as_ref().map_or(0, |says| says.voters.len());
    if !disagree.is_empty() {
        return Finding::warn(
            Check::Shard,
            format!(
                "{} leads, and these members do not say so: {}",
                leader.server,
                disagree.join(", ")
            ),
            "run this again: an election may be under way; if this warning stays, see that the members reach each other and are of one cluster",
        );
    }
    if voters != members.len() {
        return Finding::warn(
            Check::Shard,
            format!(
                "{} leads {voters} members, and the settings name {}",
                leader.server,
                members.len()
            ),
            "name all members of the cluster, and no others",
        );
    }
    Finding::ok(
        Check::Shard,
        format!("{} leads, and all {voters} members agree", leader.server),
    )
}

fn judge_standby(members: &[Member]) -> Finding {
    let away = away(members);
    let first = members.iter().find(|member| member.answers);
    let finding = match (first, away.is_empty()) {
        (None, _) => Finding::fail(
            Check::Shard,
            Failure::new(Exit::SERVER_AWAY, "no server of the shard answers").remedy("start one of them"),
        ),
        (Some(first), _) if first.is_full => full(format!("{} answers first", first.server)),
        (Some(first), _) if !first.grants => Finding::fail(
            Check::Shard,
            Failure::new(
                Exit::SERVER_AWAY,
                format!("{} answers first, and granted no lease", first.server),
            )
            .remedy("see its line `lease`: clients go to the first server that answers"),
        ),
        (Some(first), true) => Finding::ok(
            Check::Shard,
            format!("{} and all servers in reserve answer", first.server),
        ),
        (Some(first), false) => Finding::warn(
            Check::Shard,
            format!(
                "{} answers first and serves clients; these servers do not answer: {}",
                first.server,
                away.join(", ")
            ),
            "start them again: without them nothing is in reserve",
        ),
    };
    finding
        .fact("kind", "standby")
        .fact("leader", json!(null))
        .fact("served", first.is_some_and(|first| first.grants))
        .fact("away", away)
}

/// Returns the finding for a shard whose server takes no new keys. `who` says which server it is.
fn full(who: String) -> Finding {
    Finding::fail(
        Check::Shard,
        Failure::new(Exit::NOT_IN_TIME, format!("{who}, and refuses new keys")).remedy(
            "raise --max-locks of the server, or use fewer keys: a key counts until a minute after its last use",
        ),
    )
}

fn away(members: &[Member]) -> Vec<String> {
    let away = members.iter().filter(|member| !member.answers);
    away.map(|member| member.server.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::report::Verdict;

    fn member(number: usize, role: &str, leader: &str, term: u64) -> Member {
        let says = json!({"node_id": format!("n{number}"), "role": role, "leader_id": leader, "term": term, "voters": ["n0", "n1", "n2"]});
        Member {
            server: format!("m{number}:1"),
            answers: true,
            says: Some(Box::new(serde_json::from_value(says).unwrap())),
            grants: true,
            is_full: false,
        }
    }

    fn away(number: usize) -> Member {
        Member {
            server: format!("m{number}:1"),
            answers: false,
            says: None,
            grants: false,
            is_full: false,
        }
    }

    fn healthy() -> [Member; 3] {
        [
            member(0, "leader", "n0", 3),
            member(1, "follower", "n0", 3),
            member(2, "follower", "n0", 3),
        ]
    }

    #[test]
    fn a_cluster_is_judged_by_what_its_members_say() {
        let [leader, second, third] = healthy();
        let stale = member(2, "leader", "n2", 2);
        let behind = member(2, "follower", "n2", 2);
        let candidate = member(0, "candidate", "", 4);
        let cut_off = Member {
            grants: false,
            ..leader.clone()
        };
        let full = Member {
            is_full: true,
            ..cut_off.clone()
        };
        for (members, verdict, said) in [
            (
                vec![leader.clone(), second.clone(), third.clone()],
                Verdict::Ok,
                "m0:1 leads, and all 3",
            ),
            (
                vec![leader.clone(), second.clone(), away(2)],
                Verdict::Warn,
                "do not answer: m2:1",
            ),
            (
                vec![leader.clone(), second.clone(), behind],
                Verdict::Warn,
                "do not say so: m2:1",
            ),
            (
                vec![leader.clone(), second.clone()],
                Verdict::Warn,
                "leads 3 members, and the settings name 2",
            ),
            (
                vec![leader.clone(), second.clone(), stale],
                Verdict::Fail,
                "m0:1 in term 3, m2:1 in term 2",
            ),
            (vec![candidate, away(1), away(2)], Verdict::Fail, "1 of 3 answer"),
            (
                vec![cut_off.clone(), away(1), away(2)],
                Verdict::Fail,
                "granted no lease; 1 of 3 members answer",
            ),
            (
                vec![full, second.clone(), third.clone()],
                Verdict::Fail,
                "m0:1 leads, and refuses new keys",
            ),
        ] {
            let finding = judge_shard(Kind::Cluster, &members).unwrap();
            let told = serde_json::to_value(&finding).unwrap();
            assert_eq!(finding.verdict, verdict, "{told}");
            assert!(told["what"].as_str().unwrap().contains(said), "{told}");
        }
        assert_eq!(judge_shard(Kind::Single, &[leader]), None);
        // Of two leaders, only the one in the latest term leads.
        for (members, served) in [
            (vec![cut_off.clone(), member(1, "leader", "n1", 4)], true),
            (vec![cut_off, member(1, "leader", "n1", 2)], false),
        ] {
            let told = serde_json::to_value(judge_shard(Kind::Cluster, &members).unwrap()).unwrap();
            let leader = if served { "m1:1" } else { "m0:1" };
            let facts = (&told["facts"]["leader"], &told["facts"]["served"]);
            assert_eq!(facts, (&json!(leader), &json!(served)), "{told}");
        }
    }

    #[test]
    fn a_standby_shard_is_judged_by_its_first_server_that_answers_and_by_those_that_do_not() {
        let [first, second, _] = healthy();
        let refuses = Member {
            grants: false,
            ..first.clone()
        };
        let full = Member {
            is_full: true,
            ..refuses.clone()
        };
        for (members, verdict, exit) in [
            (vec![refuses, second.clone()], Verdict::Fail, Exit::SERVER_AWAY),
            (vec![full, second.clone()], Verdict::Fail, Exit::NOT_IN_TIME),
            (vec![first.clone(), second], Verdict::Ok, Exit::SUCCESS),
            (vec![first, away(1)], Verdict::Warn, Exit::SUCCESS),
            (vec![away(0), away(1)], Verdict::Fail, Exit::SERVER_AWAY),
        ] {
            let finding = judge_shard(Kind::Standby, &members).unwrap();
            assert_eq!((finding.verdict, finding.exit), (verdict, exit), "{members:?}");
        }
    }

    #[test]
    fn settings_and_servers_must_agree_on_what_a_server_is() {
        let [leader, ..] = healthy();
        let says = leader.says.as_deref();
        for (kind, says, verdict) in [
            (Kind::Cluster, says, Verdict::Ok),
            (Kind::Cluster, None, Verdict::Fail),
            (Kind::Single, says, Verdict::Warn),
            (Kind::Single, None, Verdict::Ok),
        ] {
            assert_eq!(judge_member(kind, says).verdict, verdict, "{kind:?}");
        }
    }
}
