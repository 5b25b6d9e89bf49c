//! A key never has more believers than its limit.
//!
//! A caller is a believer from the acquire of a guard or permit to the last use with `is_held` true. The time in which
//! the process was frozen counts too. A lost lease never comes back (rule `losses`), so the last use proves that the
//! caller believed all the time before it.
//!
//! Allows: if `belief_in_grant` allows the last use, the time after the end of the grant does not count. A record
//! without lines of servers does not show the ends of grants. In such a record, all the time counts.
//!
//! Assumes: the same name means the same key at all servers of the record.

use std::collections::HashMap;

use super::super::record::{Kind, Name};
use super::super::verdict::Rule;
use super::{Findings, about_key, named, time};

/// The times at which a caller becomes and stops being a believer, and the index of the holder.
type Belief = (u64, u64, usize);

pub fn check(findings: &mut Findings<'_>) {
    let facts = findings.facts;
    let mut beliefs: HashMap<(Kind, &Name), Vec<Belief>> = HashMap::new();
    for (number, holder) in facts.holders.all.iter().enumerate() {
        let Some(until) = holder.last_belief() else { continue };
        let excused = facts.grants.of(holder.token).and_then(|grant| {
            let end = grant.end.filter(|end| end.at < until)?;
            findings.may_be_believed_at(holder, grant, until).then_some(end.at)
        });
        let until = excused.unwrap_or(until);
        if holder.at < until {
            let of_key = beliefs.entry((holder.kind, &holder.key)).or_default();
            of_key.push((holder.at, until, number));
        }
    }
    for ((kind, _), mut of_key) in beliefs {
        of_key.sort_unstable();
        let mut current: Vec<(u64, usize)> = Vec::new();
        for (since, until, number) in of_key {
            current.retain(|(until, _)| *until > since);
            let holder = &facts.holders.all[number];
            let most = match kind {
                Kind::Lock => 1,
                Kind::Semaphore => holder.limit as usize,
            };
            if current.len() >= most {
                let others: Vec<String> = current
                    .iter()
                    .map(|(until, other)| {
                        format!(
                            "{}, believed in until {}",
                            named(&facts.holders.all[*other]),
                            time(*until)
                        )
                    })
                    .collect();
                let what = format!(
                    "{} was believed in until {}, together with {}; no more than {most} may be",
                    named(holder),
                    time(until),
                    others.join(" and ")
                );
                findings.violation(Rule::Believers, holder.line, about_key(holder), what);
            }
            current.push((until, number));
        }
    }
}
