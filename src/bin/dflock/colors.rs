//! Decides whether an output has colours.

use std::io::IsTerminal;

/// Returns whether a stream takes colours. A terminal does, unless `NO_COLOR` is set or `TERM` is `dumb`.
pub(crate) fn taken_by(to: &impl IsTerminal) -> bool {
    let is_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !is_refused && is_screen(to)
}

/// Returns whether a stream is a terminal that can move its cursor.
pub(crate) fn is_screen(to: &impl IsTerminal) -> bool {
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    !is_dumb && to.is_terminal()
}
