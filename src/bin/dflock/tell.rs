//! What people are told on standard error.

use std::io::{IsTerminal, Write};

use crate::plain::plain;

/// Tells of a fault.
pub(crate) fn complain(what: &str) {
    say("31", "dflock", what);
}

/// Tells of something that the user should know.
pub(crate) fn warn(what: &str) {
    say("33", "dflock", what);
}

/// Tells what to do.
pub(crate) fn advise(what: &str) {
    say("36", "  try", what);
}

fn say(color: &str, head: &str, what: &str) {
    let lines: Vec<String> = what.split('\n').map(plain).collect();
    let what = lines.join("\n");
    let mut to = std::io::stderr().lock();
    // Where standard error is closed there is no place to say so.
    drop(match colors() {
        true => writeln!(to, "\x1b[1;{color}m{head}:\x1b[0m {what}"),
        false => writeln!(to, "{head}: {what}"),
    });
}

/// Whether standard error takes colours: a terminal does, unless `NO_COLOR` is set or it is a dumb one.
fn colors() -> bool {
    let is_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    !is_refused && !is_dumb && std::io::stderr().is_terminal()
}
