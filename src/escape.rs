//! Escapes untrusted text for a terminal and a log.

use std::fmt::{self, Write};

/// Shows a text, but escapes characters that are invisible, move the cursor, or reorder the surrounding text.
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.contains(is_hidden) {
            return f.write_str(self.0);
        }
        for c in self.0.chars() {
            match is_hidden(c) {
                true => write!(f, "{}", c.escape_debug())?,
                false => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Returns whether a character is a control character, has no width, or changes the direction of text.
pub(crate) fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
                | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

/// A value quoted in an error message; the rest of a long value is cut off.
pub(crate) struct Shortened<'a>(pub(crate) &'a str);

impl fmt::Debug for Shortened<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 64;
        if self.0.chars().nth(SHOWN).is_none() {
            return fmt::Debug::fmt(self.0, f);
        }
        let start: String = self.0.chars().take(SHOWN).collect();
        write!(f, "{start:?}…")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invisible_characters_are_escaped_and_others_kept() {
        for (text, shown) in [
            ("orders/42", "orders/42"),
            ("größe/鍵/e\u{301}/\"'\\", "größe/鍵/e\u{301}/\"'\\"),
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
            ("a\nb\tc\u{7}", "a\\nb\\tc\\u{7}"),
            ("a\u{202e}b\u{200b}", "a\\u{202e}b\\u{200b}"),
            ("\u{9b}31m", "\\u{9b}31m"),
        ] {
            assert_eq!(Escaped(text).to_string(), shown);
        }
    }
}
