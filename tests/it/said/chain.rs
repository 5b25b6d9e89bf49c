//! Tests that an error and its sources state each fact only once, and that the guide's table of error kinds is true.

use std::error::Error as _;

use dflockd_client::Error;

use super::every_kind::provoke;

/// Asserts that an error and all its sources together state each fact once. `{:#}` of anyhow prints them together.
fn tells_each_fact_once(what: &str, error: &Error) {
    let mut texts = vec![error.to_string()];
    let mut source = error.source();
    while let Some(error) = source {
        texts.push(error.to_string());
        source = error.source();
    }
    for (index, text) in texts.iter().enumerate() {
        assert!(!text.is_empty(), "{what}: {texts:?}");
        for other in &texts[index + 1..] {
            assert!(!text.contains(other.as_str()), "{what}: {texts:#?}");
            assert!(!other.contains(text.as_str()), "{what}: {texts:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_error_repeats_its_source() {
    let mut with_sources = 0;
    for (what, error) in provoke().await {
        tells_each_fact_once(what, &error);
        with_sources += usize::from(error.source().is_some());
    }
    assert!(with_sources >= 6, "only {with_sources} had a source at all");
}

/// Compares the table of `docs/guide/src/errors.md` with errors of each kind.
#[tokio::test(flavor = "multi_thread")]
async fn the_table_of_error_kinds_is_true() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/guide/src/errors.md")).unwrap();
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>())
        .filter(|cells| cells.len() == 6 && ["yes", "no"].contains(&cells[2]))
        .collect();
    let provoked = provoke().await;
    let mut seen = 0;
    for cells in &rows {
        let of_kind: Vec<_> = provoked
            .iter()
            .filter(|(_, error)| format!("`{:?}`", error.kind()) == cells[1])
            // The table does not cover these errors. The text below the table says that they are fatal.
            .filter(|(what, _)| !what.starts_with("fatal: "))
            .collect();
        for (what, error) in &of_kind {
            let outlook = [error.is_retryable(), error.is_fatal()].map(|is| if is { "yes" } else { "no" });
            assert_eq!(outlook.as_slice(), &cells[2..4], "{what}: {error:?}");
        }
        // The kind `ShardGone` needs a panic in the actor of a shard, and this test provokes no panic.
        assert_eq!(of_kind.is_empty(), cells[1] == "`ShardGone`", "{cells:?}");
        seen += of_kind.len();
    }
    let fatal: Vec<_> = provoked
        .iter()
        .filter(|(what, _)| what.starts_with("fatal: "))
        .collect();
    for (what, error) in &fatal {
        assert!(error.is_fatal() && !error.is_retryable(), "{what}: {error:?}");
    }
    assert_eq!(seen + fatal.len(), provoked.len(), "a kind is missing in the table");
    assert_eq!(rows.len(), 23);
}
