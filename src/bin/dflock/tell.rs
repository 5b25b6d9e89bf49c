//! Messages for people on standard error.

use std::io::Write;

use crate::colors;
use crate::plain::plain;
use crate::words::for_shells;

/// Prints an error.
pub(crate) fn complain(what: &str) {
    say("31", "dflock", what);
}

/// Prints a warning.
pub(crate) fn warn(what: &str) {
    say("33", "dflock", what);
}

/// Prints a remedy.
pub(crate) fn advise(what: &str) {
    say("36", "  try", what);
}

fn say(color: &str, head: &str, what: &str) {
    let what = for_shells(what);
    let lines: Vec<String> = what.split('\n').map(plain).collect();
    let what = lines.join("\n");
    let mut to = std::io::stderr().lock();
    // If standard error is closed, the message is lost.
    drop(match colors::taken_by(&to) {
        true => writeln!(to, "\x1b[1;{color}m{head}:\x1b[0m {what}"),
        false => writeln!(to, "{head}: {what}"),
    });
}
