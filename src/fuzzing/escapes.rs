//! The escapes in messages, which are not a part of the input.

/// Replaces each escape of a message, such as `\0` or `\u{7f}`, by a blank. Otherwise `\0` before other digits would
/// look like one more digit of the input.
pub(super) fn without_escapes(said: &str) -> String {
    let mut plain = String::with_capacity(said.len());
    let mut chars = said.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            plain.push(c);
            continue;
        }
        plain.push(' ');
        if chars.next() == Some('u') {
            chars.by_ref().find(|c| *c == '}');
        }
    }
    plain
}
