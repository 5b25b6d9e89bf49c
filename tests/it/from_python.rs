//! The document `docs/guide/src/from-python.md` must have a row for every name of the Python client's reference, and an
//! example for each row. The documentation tests compile and run the examples.

use std::collections::{BTreeMap, BTreeSet};

const REFERENCE: &str = include_str!("../data/python-api.txt");
const TABLES: &str = include_str!("../../docs/guide/src/from-python.md");

// The reference of the Python client.

/// Returns all names of the reference, with their modules, for example `client.DistributedLock.acquire`.
fn reference() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let (mut module, mut class) = ("", String::new());
    let mut lines = REFERENCE.lines().map(str::trim).peekable();
    while let Some(line) = lines.next() {
        if let Some(heading) = line.strip_suffix('¶') {
            class.clear();
            module = match heading {
                "dflockd_client (top-level exports)" => "package",
                "dflockd_client.client (async)" => "client",
                "dflockd_client.sync_client" => "sync_client",
                "dflockd_client.sharding" => "sharding",
                title if title.contains(' ') => module,
                function_or_class => {
                    names.insert(format!("{module}.{function_or_class}"));
                    module
                }
            };
        } else if line == "from dflockd_client import (" {
            let exports = lines.by_ref().take_while(|line| *line != ")");
            names.extend(exports.map(|export| format!("package.{}", export.trim_end_matches(','))));
        } else if let Some(fields) = line.strip_prefix("Return type of stats() with ") {
            names.extend(words(fields).map(|field| format!("package.StatsResult.{field}")));
        } else if let Some(fields) = line.strip_prefix("Received signal with ") {
            let fields = words(fields).filter(|word| *word != "fields");
            names.extend(fields.map(|field| format!("package.Signal.{field}")));
        } else if let Some(rest) = line.strip_prefix("class ").filter(|rest| rest.ends_with(':')) {
            class = format!("{module}.{}", rest.trim_end_matches(':'));
            let fields = std::iter::from_fn(|| lines.next_if(|line| line.contains(": ")));
            let fields = fields.filter_map(|field| Some(field.split_once(": ")?.0));
            names.extend(
                fields
                    .filter(|field| *field != "_")
                    .map(|field| format!("{class}.{field}")),
            );
        } else if line == "Property:" {
            // The first row below the heading of the table.
            let row = lines
                .by_ref()
                .skip_while(|line| !line.starts_with("|---"))
                .nth(1)
                .unwrap();
            names.insert(format!("{class}.{}", row.trim_end_matches(" |")));
        } else if line.starts_with("Context manager") && !class.is_empty() {
            names.insert(format!("{class} as a context manager"));
            if line.contains("iteration") {
                names.insert(format!("{class} iterated over"));
            }
        } else if let Some(method) = method(line).filter(|_| !class.is_empty()) {
            names.insert(format!("{class}.{method}"));
        }
    }
    names
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', ',', '|'])
        .filter(|word| !word.is_empty() && *word != "and")
}

/// Returns the name of the method in a line of a table, for example in `await wait(timeout_s=None) |`.
fn method(line: &str) -> Option<&str> {
    let call = line.strip_suffix(" |")?;
    let call = call.strip_prefix("await ").unwrap_or(call);
    let (name, rest) = call.split_once('(')?;
    (rest.ends_with(')') && name.chars().all(|c| c.is_alphanumeric() || c == '_')).then_some(name)
}

// The tables of the document.

/// A Rust counterpart of a Python name, from one cell of a table.
#[derive(Clone, Debug)]
struct Entry {
    /// The path of the counterpart. The document may omit a prefix that the column implies.
    counterpart: String,
    example: Option<String>,
    /// The counterpart belongs to the blocking client only.
    blocking: bool,
}

/// Returns the entries for each name of the reference, and the rows for names that the reference does not have.
fn tables(reference: &BTreeSet<String>) -> (BTreeMap<String, Vec<Entry>>, Vec<String>) {
    let (mut entries, mut strange) = (BTreeMap::<String, Vec<Entry>>::new(), Vec::new());
    let (mut section, mut in_table) = ("", false);
    for line in TABLES.lines() {
        section = line.strip_prefix("## ").unwrap_or(section);
        in_table = line.starts_with("| Python | for tasks |") || in_table && line.starts_with('|');
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [python, tasks, threads, example] = cells[..] else {
            continue;
        };
        if !in_table || python == "Python" || python.starts_with("---") {
            continue;
        }
        let example = example
            .split_once("(#")
            .map(|(_, anchor)| anchor.trim_end_matches(')').to_owned());
        for (for_threads, cell) in [(false, tasks), (true, threads)] {
            let Some(counterpart) = counterpart(cell, tasks) else {
                continue;
            };
            let module = match section {
                "The package" => "package",
                "Sharding" => "sharding",
                _ if for_threads => "sync_client",
                _ => "client",
            };
            let names: Vec<String> = python_names(python)
                .map(|name| format!("{module}.{name}"))
                .filter(|name| reference.contains(name))
                .collect();
            if names.is_empty() {
                strange.push(format!("{module}: {line}"));
            }
            for name in names {
                entries.entry(name).or_default().push(Entry {
                    counterpart: counterpart.clone(),
                    example: example.clone(),
                    blocking: for_threads && cell != "the same",
                });
            }
        }
    }
    (entries, strange)
}

/// Returns the Python names in a cell such as `` `A.b`, `A.c` `` or `` `A` as a context manager ``.
fn python_names(cell: &str) -> impl Iterator<Item = String> + '_ {
    let suffix = cell.rsplit_once('`').map_or("", |(_, suffix)| suffix);
    let names = cell.split('`').skip(1).step_by(2);
    names.map(move |name| format!("{name}{suffix}"))
}

fn counterpart(cell: &str, tasks: &str) -> Option<String> {
    match cell {
        "" => None,
        "the same" => counterpart(tasks, ""),
        path => {
            let path = path.strip_prefix('`').and_then(|path| path.strip_suffix('`'));
            Some(path.expect("a path in backticks").to_owned())
        }
    }
}

/// Returns the Rust examples under the heading with this anchor.
fn examples(anchor: &str) -> Vec<String> {
    let mut examples = Vec::new();
    let (mut here, mut block) = (false, None::<String>);
    for line in TABLES.lines() {
        if let Some(example) = &mut block {
            if line == "```" {
                examples.extend(block.take());
            } else {
                example.push_str(line);
                example.push('\n');
            }
        } else if line.starts_with('#') {
            here = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-") == anchor;
        } else if here && line == "```rust" {
            block = Some(String::new());
        }
    }
    examples
}

#[test]
fn the_parser_finds_all_names_of_the_reference() {
    let names = reference();
    for name in [
        "package.__version__",
        "package.StatsResult.idle_semaphores",
        "package.Signal.payload",
        "client.DistributedLock.connect_timeout_s",
        "client.DistributedLock.aclose",
        "client.DistributedLock as a context manager",
        "client.DistributedSemaphore.limit",
        "client.SignalConn.signals",
        "client.SignalConn iterated over",
        "client.sig_emit",
        "sync_client.release",
        "sync_client.SignalConn.close",
        "sharding.stable_hash_shard",
    ] {
        assert!(names.contains(name), "{name} is not in {names:#?}");
    }
    // The expected numbers are counted by hand.
    let of = |module: &str| names.iter().filter(|name| name.starts_with(module)).count();
    let counts = ["package.", "client.", "sync_client.", "sharding."].map(of);
    assert_eq!(counts, [19, 58, 58, 2], "{names:#?}");
}

#[test]
fn every_name_has_a_counterpart() {
    let names = reference();
    let (entries, _) = tables(&names);
    let missing: Vec<_> = names.iter().filter(|name| !entries.contains_key(*name)).collect();
    assert!(
        missing.is_empty(),
        "no row in docs/guide/src/from-python.md for {missing:#?}"
    );
}

#[test]
fn every_row_is_about_a_name_of_the_reference() {
    let (_, strange) = tables(&reference());
    assert!(strange.is_empty(), "{strange:#?}");
}

#[test]
fn every_counterpart_is_used_in_its_example() {
    let (entries, _) = tables(&reference());
    let mut bad = Vec::new();
    for (name, entries) in entries {
        for entry in entries {
            let word = entry.counterpart.rsplit("::").next().unwrap();
            let examples = entry.example.as_deref().map(examples).unwrap_or_default();
            let used = |example: &String| {
                let mut words = example.split(|c: char| !(c.is_alphanumeric() || c == '_'));
                words.any(|found| found == word)
            };
            if !examples
                .iter()
                .any(|example| used(example) && (!entry.blocking || example.contains("blocking")))
            {
                bad.push(format!(
                    "{name}: {word} is not in the example under {:?}",
                    entry.example
                ));
            }
        }
    }
    assert!(bad.is_empty(), "{bad:#?}");
}
