//! No grant outlives its lease by more than `unowned`, and no grant lacks an owner for longer than `unowned`. The time
//! of trouble at the server of the grant does not count.
//!
//! The owner of a grant is the caller that has it, or an operation that may still return it:
//! - If a caller got the grant, the caller owns it from the `invoke` of the operation that returned it. For a ticket,
//!   that operation is the `enqueue`. Ownership ends when the caller drops the grant, begins to release it, or learns
//!   of its loss.
//! - If no caller got the grant, each operation that may return the grant owns it. Ownership ends when the operation
//!   returns. If the operation returns a ticket, ownership ends with the ticket. An operation that returned another
//!   grant is no owner.
//!
//! After some faults, the rule allows more time, or any time. The functions below say after which faults.

use std::collections::HashMap;

use super::super::bounds::Bounds;
use super::super::facts::Facts;
use super::super::facts::grants::Grant;
use super::super::facts::holders::Holder;
use super::super::facts::operations::Operation;
use super::super::record::{Kind, Name, Outcome};
use super::super::verdict::Rule;
use super::{Findings, about_grant, time};

/// A stretch of time in which a grant has an owner.
type Stretch = (u64, u64);

pub fn check(findings: &mut Findings<'_>) {
    let facts = findings.facts;
    if facts.operations.all.is_empty() {
        return;
    }
    let seekers = Seekers::of(facts);
    for grant in &facts.grants.all {
        outlives_its_lease(findings, grant);
        let mut holders = facts.holders.of_token(grant.token).peekable();
        let owned = match holders.peek() {
            Some(_) => had(facts, holders),
            None => on_its_way(findings, &seekers, grant),
        };
        if let Some(owned) = owned {
            findings.counts.owned += 1;
            unowned(findings, grant, owned);
        }
    }
}

/// The times at which a grant has an owner, and the processes of the owners.
struct Owned<'a> {
    stretches: Vec<Stretch>,
    processes: Vec<&'a Name>,
    /// Whether a caller learnt of the loss of the grant. A client does not release a lost lease.
    is_lost: bool,
}

fn outlives_its_lease(findings: &mut Findings<'_>, grant: &Grant) {
    let facts = findings.facts;
    let Some(lease_end) = grant.lease_end else { return };
    let until = grant.until(facts.end);
    if facts.troubles_of(&grant.server).outside(lease_end, until) > findings.bounds.unowned {
        let what = format!(
            "the lease of grant {} ended at {}, but the grant was held until {}",
            grant.token,
            time(lease_end),
            time(until)
        );
        findings.violation(Rule::Owners, grant.line, about_grant(grant), what);
    }
}

/// Returns the owners of a grant that a caller got. `None` if a caller had the grant when its process was killed.
fn had<'a>(facts: &'a Facts<'_>, holders: impl Iterator<Item = &'a Holder>) -> Option<Owned<'a>> {
    let mut owned = Owned {
        stretches: Vec::new(),
        processes: Vec::new(),
        is_lost: false,
    };
    for holder in holders {
        let until = match holder.given_up() {
            Some(until) => until,
            None if facts.processes.life(&holder.process).killed().is_some() => return None,
            None => facts.processes.last_moment(&holder.process, facts.end),
        };
        owned.is_lost |= holder.lost.is_some();
        owned.stretches.push((facts.requested_at(holder), until));
        owned.processes.push(&holder.process);
    }
    Some(owned)
}

/// Returns the owners of a grant that no caller got. `None` if the fate of a request for the grant is unknown.
fn on_its_way<'a>(findings: &Findings<'a>, seekers: &Seekers<'a>, grant: &'a Grant) -> Option<Owned<'a>> {
    let facts = findings.facts;
    let Bounds { unowned, unnoticed, .. } = findings.bounds;
    let mut owned = Owned {
        stretches: Vec::new(),
        processes: Vec::new(),
        is_lost: false,
    };
    let until = grant.until(facts.end);
    // Trouble may delay a request of an operation that has ended.
    let since = grant.at.saturating_sub(unowned.max(unnoticed));
    for seeker in seekers.between(grant, since, until) {
        let (operation, end) = (seeker.operation, seeker.end);
        if operation.at <= grant.at && is_of_unknown_fate(facts, grant, seeker, unowned) {
            return None;
        }
        if operation.outcome() != Some(Outcome::Granted) {
            owned.stretches.push((operation.at, end));
            owned.processes.push(&operation.process);
        }
    }
    Some(owned)
}

/// Returns whether the server may execute a request of an operation although no caller gets the grant: the operation
/// failed, its process was killed, or there was trouble at the server.
fn is_of_unknown_fate(facts: &Facts<'_>, grant: &Grant, seeker: &Seeker<'_>, unowned: u64) -> bool {
    let Seeker { operation, end, .. } = *seeker;
    let killed = facts.processes.life(&operation.process).killed();
    let is_recent = end >= grant.at.saturating_sub(unowned);
    match operation.outcome() {
        Some(Outcome::Failed) if is_recent => true,
        _ if is_recent && killed.is_some_and(|killed| killed <= end.saturating_add(unowned)) => true,
        _ => facts
            .troubles_of(&grant.server)
            .meet(operation.at, end.saturating_add(unowned)),
    }
}

/// Reports a violation if the grant lacked an owner for too long. Freezes of the owners' processes do not count. If a
/// caller learnt of the loss of the grant, the time after the end of the lease does not count either.
fn unowned(findings: &mut Findings<'_>, grant: &Grant, mut owned: Owned<'_>) {
    let facts = findings.facts;
    let until = grant.until(facts.end);
    let lease_end = grant.lease_end.filter(|_| owned.is_lost);
    let until = lease_end.map_or(until, |lease_end| until.min(lease_end));
    owned.stretches.sort_unstable();
    owned.processes.sort_unstable();
    owned.processes.dedup();
    owned.stretches.push((until, until));
    let mut since = grant.at;
    for (from, to) in std::mem::take(&mut owned.stretches) {
        let from = from.min(until);
        if from > since {
            let Bounds { unowned, unnoticed, .. } = findings.bounds;
            let troubles = facts.troubles_of(&grant.server);
            let lives = || owned.processes.iter().map(|process| facts.processes.life(process));
            let frozen: u64 = lives().map(|life| life.frozen.within(since, from)).sum();
            let alone = troubles.outside(since, from).saturating_sub(frozen);
            // Trouble or a freeze may delay the end of the grant.
            let (before, after) = (since.saturating_sub(unnoticed), since.saturating_add(unowned));
            let is_hampered = troubles.meet(before, after) || lives().any(|life| life.frozen.meet(before, after));
            let most = unowned.saturating_add(if is_hampered { unnoticed } else { 0 });
            // A process that was killed releases nothing.
            let mut died = lives().filter_map(|life| life.killed());
            let is_of_dead = died.any(|died| died.saturating_sub(since) <= unowned);
            if alone > most && !is_of_dead {
                let what = format!(
                    "grant {} had no owner from {} to {}",
                    grant.token,
                    time(since),
                    time(from)
                );
                findings.violation(Rule::Owners, grant.line, about_grant(grant), what);
                return;
            }
        }
        since = since.max(to);
    }
}

/// Operations that may return a grant.
struct Seekers<'a> {
    /// Operations that name a key. Each list has the order of the `invoke` lines.
    of_keys: HashMap<(Kind, &'a Name), Vec<Seeker<'a>>>,
    /// Operations that name no key. They may return a grant of any key.
    of_any: Vec<Seeker<'a>>,
}

#[derive(Clone, Copy)]
struct Seeker<'a> {
    operation: &'a Operation,
    end: u64,
    /// The latest `end` of this operation and of all operations before it in the same list.
    last_end: u64,
}

impl<'a> Seekers<'a> {
    fn of(facts: &'a Facts<'_>) -> Self {
        let mut seekers = Self {
            of_keys: HashMap::new(),
            of_any: Vec::new(),
        };
        for operation in &facts.operations.all {
            if !operation.asks_for_grants() {
                continue;
            }
            let last_moment = facts.processes.last_moment(&operation.process, facts.end);
            let end = operation.awaits_until().unwrap_or(last_moment);
            let list = match (operation.kind, &operation.key) {
                (Some(kind), Some(key)) => seekers.of_keys.entry((kind, key)).or_default(),
                _ => &mut seekers.of_any,
            };
            let before = list.last().map_or(0, |seeker| seeker.last_end);
            list.push(Seeker {
                operation,
                end,
                last_end: before.max(end),
            });
        }
        seekers
    }

    /// Returns the operations that may return this grant and were under way at some time between `from` and `to`.
    fn between(&self, grant: &'a Grant, from: u64, to: u64) -> impl Iterator<Item = &Seeker<'a>> {
        let of_key = self.of_keys.get(&(grant.kind, &grant.key));
        let lists = [of_key.map_or(&[][..], Vec::as_slice), &self.of_any];
        lists.into_iter().flat_map(move |list| {
            let begun = list.partition_point(|seeker| seeker.operation.at <= to);
            let under_way = list[..begun]
                .iter()
                .rev()
                .take_while(move |seeker| seeker.last_end >= from);
            under_way.filter(move |seeker| seeker.end >= from)
        })
    }
}
