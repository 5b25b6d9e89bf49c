//! Paths of folders and programs.

use std::io;
use std::path::{Path, PathBuf};

/// Returns the root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

/// Returns cargo's target folder.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => root().join(target),
        None => root().join("target"),
    }
}

/// Returns the folder for everything that the benchmark installs, builds and writes. Creates the folder if it is
/// missing.
pub(crate) fn compare() -> io::Result<PathBuf> {
    let folder = target().join("compare");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Returns the program of this name, if it is in `PATH`.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}
