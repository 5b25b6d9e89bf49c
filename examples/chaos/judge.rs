//! Checks the records of a run.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::error::Error;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;
use std::time::Duration;

use crate::history::bounds::{Bounds, nanoseconds};
use crate::history::record::{Action, Line, Outcome, What};
use crate::history::{History, reader};
use crate::resource::Resource;

/// The file name of the controller's record.
const CONTROLLER: &str = "controller.jsonl";

/// Returns the time limits of the checks.
fn bounds() -> Bounds {
    Bounds {
        scheduling: nanoseconds(Duration::from_secs(3)),
        // The keepalive (1 s), the reply timeout (1 s), and 1 s for delays on a busy machine.
        unnoticed: nanoseconds(Duration::from_secs(3)),
        // The default heartbeat of signal connections (15 s), the reply timeout (1 s), and 1 s for delays on a busy
        // machine.
        silence: nanoseconds(Duration::from_secs(17)),
        unowned: nanoseconds(Duration::from_secs(6)),
        // A proxy holds a request back for at most 4 s. Then the server may be stopped for at most 6 s. The other 2 s
        // are for delays on a busy machine.
        transit: nanoseconds(Duration::from_secs(12)),
        delivery: nanoseconds(Duration::from_secs(12)),
    }
}

/// Checks all records and the resource of a run. Returns all violations.
pub(crate) fn judge(directory: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let lines = read(directory)?;
    println!("{}", operations(&lines));
    let mut wrong = resource(directory, &Attempts::of(&lines))?;
    let verdict = History::default().with(lines).judge(&bounds());
    println!("judged: {} lines; {:?}", verdict.counts.lines, verdict.counts);
    wrong.extend(verdict.violations.iter().map(ToString::to_string));
    Ok(wrong)
}

/// Reads the records of all processes.
fn read(directory: &Path) -> Result<Vec<Line>, Box<dyn Error>> {
    let mut lines: Vec<Line> = Vec::new();
    let mut ends = Vec::new();
    let mut records = Vec::new();
    for file in fs::read_dir(directory)? {
        let path = file?.path();
        if path.extension().is_some_and(|ending| ending == "jsonl") {
            records.push(path);
        }
    }
    // The controller's file is read first, so that its line about a server's start comes before the server's own
    // lines. The lines about the ends of servers are added after all other lines.
    records.sort_by_key(|path| !path.ends_with(CONTROLLER));
    for path in records {
        for line in reader::read(BufReader::new(File::open(path)?))? {
            match line.what {
                What::ServerEnded(_) => ends.push(line),
                _ => lines.push(line),
            }
        }
    }
    lines.extend(ends);
    Ok(lines)
}

/// Describes how many operations of each kind had which outcome.
fn operations(lines: &[Line]) -> String {
    let mut open = HashMap::new();
    let mut counts: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    let mut uses = 0_u64;
    for line in lines {
        match &line.what {
            What::Invoke(invoke) => {
                open.insert((&invoke.process, invoke.op), invoke.action);
            }
            What::Return(returned) => {
                let action = open.remove(&(&returned.process, returned.op));
                let action = action.map_or_else(String::new, |action| format!("{action:?}").to_lowercase());
                let outcome = format!("{:?}", returned.outcome).to_lowercase();
                *counts.entry(action).or_default().entry(outcome).or_default() += 1;
            }
            What::Use(_) => uses += 1,
            _ => {}
        }
    }
    let all: u64 = counts.values().flat_map(BTreeMap::values).sum();
    let mut text = format!(
        "operations: {all} that returned, {} cut off by the end of their process; {uses} checks of holders",
        open.len()
    );
    for (action, outcomes) in &counts {
        let count: u64 = outcomes.values().sum();
        let outcomes: Vec<String> = outcomes
            .iter()
            .map(|(outcome, count)| format!("{outcome} {count}"))
            .collect();
        text.push_str(&format!("\n{count:>8} {action}: {}", outcomes.join(", ")));
    }
    text
}

/// Counts the attempts to write to the resource, by the outcomes that the callers recorded.
struct Attempts {
    refused: usize,
    /// Attempts that failed, or whose process was killed before they returned. The resource may have their writes.
    uncertain: usize,
}

impl Attempts {
    fn of(lines: &[Line]) -> Self {
        let mut open = HashSet::new();
        let mut attempts = Self {
            refused: 0,
            uncertain: 0,
        };
        for line in lines {
            match &line.what {
                What::Invoke(invoke) if invoke.action == Action::Other && invoke.key.is_some() => {
                    open.insert((&invoke.process, invoke.op));
                }
                What::Return(returned) if open.remove(&(&returned.process, returned.op)) => match returned.outcome {
                    Outcome::Done => {}
                    Outcome::Busy => attempts.refused += 1,
                    _ => attempts.uncertain += 1,
                },
                _ => {}
            }
        }
        attempts.uncertain += open.len();
        attempts
    }
}

/// Checks the resource by these rules:
///
/// - It never accepted an older fence of a key after a newer one.
/// - Each counter equals the number of increments of its key.
/// - It has all acknowledged increments.
/// - The number of its increments is at most the number of acknowledged and uncertain attempts.
fn resource(directory: &Path, attempts: &Attempts) -> Result<Vec<String>, Box<dyn Error>> {
    let resource = Resource::open(directory)?;
    let increments = resource.increments()?;
    let mut wrong = Vec::new();
    let mut rows: HashMap<&str, u64> = HashMap::new();
    let mut newest: HashMap<&str, i64> = HashMap::new();
    let mut ids = HashMap::new();
    for (id, key, fence) in &increments {
        *rows.entry(key).or_default() += 1;
        ids.insert(id.as_str(), (key.as_str(), *fence));
        let newest = newest.entry(key).or_insert(*fence);
        if fence < newest {
            wrong.push(format!("{key}: {id} was accepted with fence {fence}, after {newest}"));
        }
        *newest = (*newest).max(*fence);
    }
    for (key, count) in resource.counts()? {
        let rows = rows.get(key.as_str()).copied().unwrap_or_default();
        if count != rows {
            wrong.push(format!(
                "the counter of {key} is {count}, but the resource has {rows} increments of it"
            ));
        }
    }
    let mut acknowledged = 0_usize;
    for file in fs::read_dir(directory)? {
        let path = file?.path();
        if path.extension().is_none_or(|ending| ending != "acknowledged") {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        for line in text[..whole].lines() {
            acknowledged += 1;
            let mut fields = line.split('\t');
            let (id, key, fence) = (fields.next(), fields.next(), fields.next());
            let row = id.and_then(|id| ids.get(id));
            let same = row
                .is_some_and(|(has, of)| key == Some(*has) && fence.and_then(|fence| fence.parse().ok()) == Some(*of));
            if !same {
                wrong.push(format!("{line:?} was acknowledged, but the resource has {row:?}"));
            }
        }
    }
    println!(
        "resource: {} increments, of which {acknowledged} were acknowledged and recorded; {} attempts were refused as stale; {} attempts \
         had no known outcome",
        increments.len(),
        attempts.refused,
        attempts.uncertain
    );
    if increments.len() > acknowledged + attempts.uncertain {
        wrong.push("the resource has more increments than were acknowledged or are uncertain".to_owned());
    }
    Ok(wrong)
}
