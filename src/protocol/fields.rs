//! Reads the fields and numbers of argument lines as the servers do.
//!
//! The servers are written in Go: a blank is a character that Go's `unicode.IsSpace` accepts, and a number is a text
//! that `strconv.Atoi` accepts. Lines are bytes, since servers do not check that a line is UTF-8.

/// Returns the length of the blank at the start of `bytes`, or 0 if there is none.
fn blank(bytes: &[u8]) -> usize {
    match bytes {
        [b' ' | b'\t'..=b'\r', ..] => 1,
        [0xC2, 0x85 | 0xA0, ..] => 2,
        // U+1680, U+2000 to U+200A, U+2028, U+2029, U+202F, U+205F, U+3000.
        [0xE1, 0x9A, 0x80, ..]
        | [0xE2, 0x80, 0x80..=0x8A | 0xA8 | 0xA9 | 0xAF, ..]
        | [0xE2, 0x81, 0x9F, ..]
        | [0xE3, 0x80, 0x80, ..] => 3,
        _ => 0,
    }
}

/// Returns the length of the blank at the end of `bytes`, or 0 if there is none.
fn blank_at_end(bytes: &[u8]) -> usize {
    let ends_with = |length: &usize| {
        let start = bytes.len().checked_sub(*length);
        start.is_some_and(|start| blank(&bytes[start..]) == *length)
    };
    (1..=3).find(ends_with).unwrap_or(0)
}

/// Removes the blanks around the bytes.
pub(crate) fn trim(mut bytes: &[u8]) -> &[u8] {
    loop {
        match blank(bytes) {
            0 => break,
            length => bytes = &bytes[length..],
        }
    }
    loop {
        match blank_at_end(bytes) {
            0 => return bytes,
            length => bytes = &bytes[..bytes.len() - length],
        }
    }
}

/// Iterates over the fields of a line, which any number of blanks separate.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn of(line: &'a [u8]) -> Self {
        Self(line)
    }

    /// Skips the blanks before the next field. Returns whether there is one.
    pub(super) fn skip_blanks(&mut self) -> bool {
        loop {
            match blank(self.0) {
                0 => return !self.0.is_empty(),
                length => self.0 = &self.0[length..],
            }
        }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if !self.skip_blanks() {
            return None;
        }
        let may_be_blank = |byte: u8| byte <= b' ' || byte >= 0xC2;
        let end = (0..self.0.len()).find(|at| may_be_blank(self.0[*at]) && blank(&self.0[*at..]) > 0);
        let (field, rest) = self.0.split_at(end.unwrap_or(self.0.len()));
        self.0 = rest;
        Some(field)
    }
}

/// Reads a whole number, with or without a sign.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    let (negative, digits) = match field {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_i64, |number, digit| {
        let digit = i64::from(digit.wrapping_sub(b'0'));
        let number = number.checked_mul(10).filter(|_| digit <= 9)?;
        match negative {
            true => number.checked_sub(digit),
            false => number.checked_add(digit),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(line: &str) -> Vec<&str> {
        let fields = Fields::of(line.as_bytes());
        fields.map(|field| std::str::from_utf8(field).unwrap()).collect()
    }

    #[test]
    fn any_number_of_blanks_may_separate_precede_or_follow_fields() {
        assert_eq!(fields(" \t5\u{b}\u{c}  6\u{a0}7\u{85}\u{3000}"), ["5", "6", "7"]);
        assert_eq!(fields(" \u{2003}\u{1680}"), [""; 0]);
        assert_eq!(fields(""), [""; 0]);
        // This holds as long as Rust and Go agree on what a blank is.
        for c in ('\0'..=char::MAX).filter(|c| *c != '\n') {
            let expected = if c.is_whitespace() { 2 } else { 1 };
            assert_eq!(fields(&format!("a{c}b")).len(), expected, "{c:?}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_not_blanks() {
        assert_eq!(Fields::of(b"\xff \xc2 \xa0").count(), 3);
        assert_eq!(trim(b" \xc2\xa0\xff\xe2\x80\x83\x0b"), b"\xff");
        assert_eq!(trim(b"\xa0"), b"\xa0", "half a blank");
        assert_eq!(trim(b" \t "), b"");
    }

    #[test]
    fn numbers_have_the_forms_that_servers_accept() {
        for (text, value) in [
            ("0", 0),
            ("+5", 5),
            ("-0", 0),
            ("007", 7),
            ("-9223372036854775808", i64::MIN),
            ("9223372036854775807", i64::MAX),
        ] {
            assert_eq!(number(text.as_bytes()), Some(value), "{text}");
        }
        for text in [
            "",
            "+",
            "-",
            "+-1",
            "1_000",
            "0x1",
            "1.0",
            "1 ",
            "٣",
            "9223372036854775808",
        ] {
            assert_eq!(number(text.as_bytes()), None, "{text}");
        }
    }

    proptest::proptest! {
        /// Blanks and numbers are the same for Rust and for the servers.
        #[test]
        fn lines_of_text_are_read_as_rust_reads_them(line in "[ \\t\\x0b\\x0c\u{a0}\u{85}\u{2003}\u{3000}0-9+a\u{e9}-]{0,40}") {
            let expected: Vec<&str> = line.split_whitespace().collect();
            proptest::prop_assert_eq!(fields(&line), expected);
            proptest::prop_assert_eq!(trim(line.as_bytes()), line.trim().as_bytes());
        }

        #[test]
        fn numbers_are_read_as_rust_reads_them(text in "[+-]{0,2}[0-9_]{0,21}") {
            proptest::prop_assert_eq!(number(text.as_bytes()), text.parse().ok());
        }
    }
}
