//! Detects panics: none is acceptable, even if it is caught.

use std::fs;
use std::path::PathBuf;

use crate::job::Record;

fn file(of: &Record) -> PathBuf {
    of.directory.join(format!("{}.panic", of.name))
}

/// Makes a panic of any thread or task end this process, after it has written the message.
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

/// Returns the message of a process that panicked.
pub(crate) fn message(of: &Record) -> Option<String> {
    fs::read_to_string(file(of)).ok()
}
