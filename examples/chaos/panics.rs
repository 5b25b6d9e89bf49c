//! Detects panics of all processes. Each panic is a failure of the run, even if tokio catches it.

use std::fs;
use std::path::PathBuf;

use crate::job::Record;

fn file(of: &Record) -> PathBuf {
    of.directory.join(format!("{}.panic", of.name))
}

/// Installs a panic hook. On a panic in any thread or task, the hook writes the message to a file and ends this
/// process.
pub(crate) fn end_the_process(record: &Record) {
    let file = file(record);
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        usual(panic);
        if let Err(error) = fs::write(&file, panic.to_string()) {
            eprintln!("the message of the panic cannot be written: {error}");
        }
        std::process::abort();
    }));
}

/// Returns the message of the panic that ended a process, or `None` if the process did not panic.
pub(crate) fn message(of: &Record) -> Option<String> {
    fs::read_to_string(file(of)).ok()
}
