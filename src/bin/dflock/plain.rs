//! Escapes untrusted text, so that a terminal does not interpret it.

/// Returns untrusted text with the characters escaped that a terminal would interpret.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => plain.extend(c.escape_default()),
            false => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_escaped() {
        for (text, shown) in [
            ("orders/42 für \\", "orders/42 für \\"),
            ("\u{1b}[2J\r\n\t", r"\u{1b}[2J\r\n\t"),
            ("\u{7f}\u{9b}31m", r"\u{7f}\u{9b}31m"),
        ] {
            assert_eq!(plain(text), shown);
        }
    }
}
