//! Equal histories have equal outcomes: whatever the library decides by chance comes from a seed. `tokio::select!` would choose among
//! what is ready by a number that none gives, so each says in which order it looks. (That no order of a hash map gets out is checked by
//! clippy, see `src/lib.rs`.)
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => files(&path),
            false => vec![path],
        })
        .collect()
}

/// How many there are, and those that are not biased, by the text behind them.
fn selects(code: &str) -> (usize, Vec<String>) {
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code: Vec<&str> = lines.collect();
    let code = code.join("\n");
    let bodies: Vec<&str> = code.split("select!").skip(1).collect();
    let is_biased = |body: &&str| body.trim_start_matches([' ', '\n', '{', '(']).starts_with("biased;");
    let others = bodies.iter().filter(|body| !is_biased(body));
    (
        bodies.len(),
        others.map(|body| body.chars().take(60).collect()).collect(),
    )
}

#[test]
fn each_select_says_in_which_order_it_looks() {
    let mut all = 0;
    for path in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let (count, others) = selects(&fs::read_to_string(&path).unwrap());
        assert!(others.is_empty(), "{}: {others:?} needs `biased;`", path.display());
        all += count;
    }
    assert!(all >= 10, "only {all} were found");
}

#[test]
fn one_that_does_not_is_seen() {
    let code = "tokio::select! {\n  biased;\n}\n// select! { a }\nselect! { b = c => {} }\nselect! { biased; }";
    assert_eq!(selects(code), (3, vec![" { b = c => {} }\n".to_owned()]));
}
