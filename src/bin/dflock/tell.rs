//! Messages for people on standard error.

use std::io::{IsTerminal, Write};

use crate::plain::plain;

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
    let lines: Vec<String> = what.split('\n').map(plain).collect();
    let what = lines.join("\n");
    let mut to = std::io::stderr().lock();
    // If standard error is closed, the message is lost.
    drop(match colors() {
        true => writeln!(to, "\x1b[1;{color}m{head}:\x1b[0m {what}"),
        false => writeln!(to, "{head}: {what}"),
    });
}

/// Returns whether standard error supports colours: it is a terminal other than a dumb one, and `NO_COLOR` is not set.
fn colors() -> bool {
    let is_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    !is_refused && !is_dumb && std::io::stderr().is_terminal()
}
