//! The beginning of a line from a peer, as error messages quote it.

use std::fmt;

use crate::escape::Shortened;
use crate::types::Token;

/// The maximum length, in bytes, of the kept beginning. A line may be a megabyte long.
const KEPT: usize = 256;

/// The beginning of a line that a peer sent, without tokens.
///
/// A message may end up in a log, and a token lets its reader release another holder's lease. So each run of
/// hexadecimal digits that is long enough for a token is shortened to its first 8 digits, as tokens are always shown. A
/// token may stand anywhere in the line, because the line does not have the form of an answer.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Quoted(Box<str>);

impl Quoted {
    pub(crate) fn of(line: &str) -> Self {
        Self(shorten_tokens(beginning(line)).into())
    }

    /// The kept text.
    #[cfg(test)]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&Shortened(&self.0), f)
    }
}

/// Returns the beginning of a line. Digits directly before the cut are left out. They may be the beginning of a token,
/// and such a part of a token would not be recognized.
fn beginning(line: &str) -> &str {
    if line.len() <= KEPT {
        return line;
    }
    let end = (0..=KEPT).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(0);
    line[..end].trim_end_matches(is_digit)
}

fn shorten_tokens(mut rest: &str) -> String {
    let mut shown = String::with_capacity(rest.len());
    while let Some(start) = rest.find(is_digit) {
        let (before, from_run) = rest.split_at(start);
        let end = from_run.find(|c| !is_digit(c)).unwrap_or(from_run.len());
        let (run, behind) = from_run.split_at(end);
        shown.push_str(before);
        match run
            .get(..Token::DIGITS)
            .and_then(|digits| Token::parse(digits.as_bytes()))
        {
            Some(token) => shown.push_str(&token.to_string()),
            None => shown.push_str(run),
        }
        rest = behind;
    }
    shown + rest
}

fn is_digit(c: char) -> bool {
    c.is_ascii_hexdigit()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "00000000000000070123456789abcdef";

    #[test]
    fn a_token_is_shortened_wherever_it_stands_in_the_line() {
        for (line, quoted) in [
            (format!("ok {TOKEN} 30"), "ok 00000000… 30"),
            (TOKEN.to_owned(), "00000000…"),
            (format!("ok,{TOKEN},30"), "ok,00000000…,30"),
            (format!("\0{TOKEN}\u{7f}{TOKEN}é"), "\u{0}00000000…\u{7f}00000000…é"),
            (format!("{TOKEN}{TOKEN} {TOKEN}"), "00000000… 00000000…"),
            (TOKEN.to_uppercase(), "00000000…"),
        ] {
            assert_eq!(Quoted::of(&line).as_str(), quoted);
        }
    }

    #[test]
    fn other_text_is_kept() {
        let short = &TOKEN[1..];
        for line in ["", "HTTP/1.1 400 Bad Request", "ok 0123 10", "größe/鍵", short] {
            assert_eq!(Quoted::of(line).as_str(), line);
        }
    }

    #[test]
    fn only_the_beginning_is_kept_and_digits_at_the_cut_are_left_out() {
        let long = format!("{} {TOKEN} {}", "x".repeat(230), "é".repeat(100_000));
        assert_eq!(Quoted::of(&long).as_str(), "x".repeat(230) + " ");
        let glued = format!("{}{TOKEN}{}", "x".repeat(240), "y".repeat(100));
        assert_eq!(Quoted::of(&glued).as_str(), "x".repeat(240));
        assert_eq!(Quoted::of(&" ".repeat(1_000_000)).as_str().len(), 256);
        assert_eq!(Quoted::of(&"é".repeat(500_000)).as_str().len(), 256);
        assert_eq!(Quoted::of(&"0".repeat(500_000)).as_str(), "");
    }
}
