//! The records of servers are free of contradictions, each by itself and all together.
//!
//! A token is granted once. A grant is ended, renewed, collected, orphaned or reclaimed only by the server that made
//! it. After the end of a grant, the server only refuses renewals. In the whole record, a key never has more grants at
//! once than its limit, over all servers and clusters.
//!
//! At its own server, a grant lasts until a line of the server ends it. In a comparison with a grant of another server,
//! a grant also ends with its lease, even if its server records that later. If one grant ends when a grant of another
//! server begins, the two do not overlap.
//!
//! Assumes: all servers of a record serve the same keys. If two services use the same names for different keys, judge
//! their records separately.

use std::collections::{HashMap, HashSet};

use super::super::facts::grants::Grant;
use super::super::record::{Entry, Kind, Name, Token, What};
use super::super::shortened::Subject;
use super::super::verdict::Rule;
use super::{Findings, about_grant, time};

pub fn check(findings: &mut Findings<'_>) {
    each(findings);
    together(findings);
}

/// Checks that each token is granted once, and that only held grants end or change.
fn each(findings: &mut Findings<'_>) {
    let facts = findings.facts;
    let mut granted: HashSet<Token> = HashSet::new();
    let mut held: HashMap<&Name, HashSet<Token>> = HashMap::new();
    for (number, line) in facts.lines.iter().enumerate() {
        if let What::ServerEnded(server) = &line.what {
            held.remove(&server.server);
        }
        let Some(entry) = line.what.entry() else { continue };
        let wrong = match (&line.what, entry.token) {
            (What::Granted(_), None) => Some("names no token"),
            (What::Granted(_), Some(token)) => {
                held.entry(&entry.server).or_default().insert(token);
                (!granted.insert(token)).then_some("was granted before")
            }
            (What::RenewalRefused(_), _) | (_, None) => None,
            (what, Some(token)) => {
                let of_server = held.entry(&entry.server).or_default();
                let was_held = match ends_a_lease(what) {
                    true => of_server.remove(&token),
                    false => of_server.contains(&token),
                };
                (!was_held).then_some("was not held")
            }
        };
        if let Some(wrong) = wrong {
            let what = format!("grant {:?} of {}: {wrong}", entry.token, of_server(entry));
            let subject = Subject::Key(entry.kind, entry.key.clone());
            findings.violation(Rule::Servers, number, subject, what);
        }
    }
    findings.counts.held = held.values().map(HashSet::len).sum();
}

/// Checks that no key has more holders than its limit.
fn together(findings: &mut Findings<'_>) {
    let facts = findings.facts;
    let mut held: HashMap<(Kind, &Name), Vec<&Grant>> = HashMap::new();
    for grant in &facts.grants.all {
        let current = held.entry((grant.kind, &grant.key)).or_default();
        current.retain(|other| !is_over(other, grant));
        if current.len() as u64 >= grant.most() {
            let others: Vec<String> = current
                .iter()
                .map(|other| format!("{} of server {:?}, since {}", other.token, other.server, time(other.at)))
                .collect();
            let what = format!(
                "grant {} of server {:?}, while it is held by {}; no more than {} may hold it",
                grant.token,
                grant.server,
                others.join(" and "),
                grant.most()
            );
            findings.violation(Rule::Servers, grant.line, about_grant(grant), what);
        }
        held.entry((grant.kind, &grant.key)).or_default().push(grant);
    }
    findings.counts.keys = held.len();
}

/// Returns whether `earlier` had ended when `next` began.
fn is_over(earlier: &Grant, next: &Grant) -> bool {
    let end = earlier.end;
    match earlier.server == next.server {
        true => end.is_some_and(|end| end.line < next.line),
        false => {
            let ended = end.map(|end| end.at);
            ended.into_iter().chain(earlier.lease_end).any(|end| end <= next.at)
        }
    }
}

fn ends_a_lease(what: &What) -> bool {
    matches!(
        what,
        What::Released(_) | What::Disconnected(_) | What::Expired(_) | What::Forgotten(_)
    )
}

fn of_server(entry: &Entry) -> String {
    format!("server {:?}, {} {:?}", entry.server, entry.kind, entry.key)
}
