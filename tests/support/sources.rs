//! The sources of the crate, for tests that check rules of the code.

use std::fs;
use std::path::{Path, PathBuf};

/// Returns the path below `src`, with slashes, and the text of each source file.
pub fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let read = |file: PathBuf| {
        let path = file.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
        (path, fs::read_to_string(&file).unwrap())
    };
    let all: Vec<_> = rust_files(&root).into_iter().map(read).collect();
    assert!(all.len() > 100, "only {} files", all.len());
    all
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => rust_files(&path),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}
