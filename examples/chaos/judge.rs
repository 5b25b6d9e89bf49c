//! What came of it.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::fs;
use std::path::Path;

use crate::history::record::{Line, What};
use crate::resource::Resource;

/// Everything that is wrong.
pub(crate) fn judge(directory: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let lines = read(directory)?;
    println!("{}", operations(&lines));
    let mut wrong = Vec::new();
    wrong.extend(resource(directory)?);
    Ok(wrong)
}

/// The records of all processes, as one. The last line of a process that was killed may be torn.
fn read(directory: &Path) -> Result<Vec<Line>, Box<dyn Error>> {
    let mut lines: Vec<Line> = Vec::new();
    for file in fs::read_dir(directory)? {
        let path = file?.path();
        if path.extension().is_none_or(|ending| ending != "jsonl") {
            continue;
        }
        let text = fs::read(&path)?;
        // What stands behind the last end of a line is torn.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        for line in text[..whole]
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            lines.push(serde_json::from_slice(line)?);
        }
    }
    lines.sort_by_key(|line| line.at);
    Ok(lines)
}

/// Operations by kind, and what came of them.
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
        "operations: {all} that returned, {} cut off by the end of their process; {uses} times a holder looked",
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

/// The resource must have all that it acknowledged, count all that it has, and never have taken an older fence after a newer one.
fn resource(directory: &Path) -> Result<Vec<String>, Box<dyn Error>> {
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
            wrong.push(format!("{key}: {id} was taken with fence {fence}, after {newest}"));
        }
        *newest = (*newest).max(*fence);
    }
    for (key, count) in resource.counts()? {
        let rows = rows.get(key.as_str()).copied().unwrap_or_default();
        if count != rows {
            wrong.push(format!("{key} counts {count}, but was given {rows}"));
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
    // An attempt whose process was killed before it could write the acknowledgement down: at most one for each task that counts, and
    // each time that a process was killed.
    println!(
        "resource: {} increments, of which {acknowledged} were acknowledged and written down",
        increments.len()
    );
    Ok(wrong)
}
