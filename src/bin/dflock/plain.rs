//! Escapes untrusted text, so that a terminal does not interpret it.

/// Escapes the characters of untrusted text that a terminal would interpret.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() || reorders(c) {
            true => plain.extend(c.escape_default()),
            false => plain.push(c),
        }
    }
    plain
}

/// Returns whether a character changes the order in which others are shown, or begins another line (Unicode's
/// `Bidi_Control`, and its separators).
fn reorders(c: char) -> bool {
    matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_for_the_terminal() {
        for (text, shown) in [
            ("orders/42 für \\", "orders/42 für \\"),
            ("\u{1b}[2J\r\n\t", r"\u{1b}[2J\r\n\t"),
            ("\u{7f}\u{9b}31m", r"\u{7f}\u{9b}31m"),
            (
                "a\u{202e}b\u{2069}\u{200f}\u{2028}",
                r"a\u{202e}b\u{2069}\u{200f}\u{2028}",
            ),
        ] {
            assert_eq!(plain(text), shown);
        }
    }
}
