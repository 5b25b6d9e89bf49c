//! Tests that the guide names a cause and a remedy for each kind of error.

use std::collections::BTreeSet;
use std::fs;

use crate::{chapter, root};

#[test]
fn every_kind_of_error_has_a_cause_and_a_remedy() {
    let source = fs::read_to_string(root().join("src/error/kind.rs")).unwrap();
    let (_, body) = source.split_once("pub enum ErrorKind {").unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    let kinds: BTreeSet<&str> = body
        .lines()
        .filter_map(|line| line.strip_prefix("    ")?.strip_suffix(','))
        .filter(|name| name.chars().all(char::is_alphanumeric))
        .collect();
    assert!(kinds.contains("Timeout") && kinds.len() > 20, "{kinds:?}");

    let page = chapter("troubleshooting.md");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let rows: Vec<Vec<&str>> = rows
        .map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    let listed: BTreeSet<&str> = rows.iter().map(|row| row[0].trim_matches('`')).collect();
    assert_eq!(listed, kinds);
    for row in rows {
        assert!(row.len() == 3 && row.iter().all(|cell| cell.len() > 5), "{row:?}");
    }
}
