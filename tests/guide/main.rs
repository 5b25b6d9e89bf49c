//! Tests of the guide. They run its shell blocks, run its SQL on PostgreSQL, and check that it covers every kind of
//! error. The Rust blocks of the guide are documentation tests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod kinds;
#[cfg(unix)]
mod postgres;
#[cfg(unix)]
mod shell;
mod testing;

use std::fs;
use std::path::Path;
#[cfg(unix)]
use std::path::PathBuf;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the chapters of the guide, each with its text.
#[cfg(unix)]
fn chapters() -> Vec<(PathBuf, String)> {
    let folder = fs::read_dir(root().join("docs/guide/src")).unwrap();
    let mut chapters: Vec<_> = folder
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|of| of == "md"))
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect();
    chapters.sort();
    chapters
}

fn chapter(name: &str) -> String {
    fs::read_to_string(root().join("docs/guide/src").join(name)).unwrap()
}

/// Returns the code blocks that have this mark (such as `sh`), in the order of the text.
fn blocks(text: &str, mark: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut block: Option<(bool, String)> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut block) {
            (Some(found), None) => block = Some((found == mark, String::new())),
            (Some(_), Some(_)) => {
                if let Some((true, code)) = block.take() {
                    blocks.push(code);
                }
            }
            (None, Some((_, code))) => {
                code.push_str(line);
                code.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}
