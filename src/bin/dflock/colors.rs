//! Whether there are colours.

use std::io::IsTerminal;

/// Whether this takes colours: a terminal does, unless `NO_COLOR` is set or it is a dumb one.
pub(crate) fn taken_by(to: &impl IsTerminal) -> bool {
    let is_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !is_refused && is_screen(to)
}

/// Whether this is a terminal that moves its cursor where it is told.
pub(crate) fn is_screen(to: &impl IsTerminal) -> bool {
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    !is_dumb && to.is_terminal()
}
