//! Patterns of keys.

use std::fmt;
use std::str::FromStr;

/// A pattern of whole keys: `*` is any text, `/` included, `?` is one character, and `\` takes the next character as
/// it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Glob {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Any,
    One,
    Is(char),
}

impl FromStr for Glob {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            parts.push(match c {
                '*' => Part::Any,
                '?' => Part::One,
                '\\' => Part::Is(chars.next().ok_or(r"a pattern cannot end with a single \: write \\")?),
                c => Part::Is(c),
            });
        }
        match parts.is_empty() {
            true => Err("an empty pattern matches no key: write * for all".to_owned()),
            false => Ok(Self {
                text: text.to_owned(),
                parts,
            }),
        }
    }
}

impl Glob {
    /// Returns whether the whole key fits. Takes at most as many steps as the product of both lengths.
    pub(crate) fn fits(&self, key: &str) -> bool {
        let key: Vec<char> = key.chars().collect();
        let (mut part, mut at) = (0, 0);
        // Where the last `*` stands, and how far it reaches.
        let mut any: Option<(usize, usize)> = None;
        while let Some(c) = key.get(at) {
            match self.parts.get(part) {
                Some(Part::Any) => {
                    any = Some((part, at));
                    part += 1;
                    continue;
                }
                Some(Part::One) => {}
                Some(Part::Is(expected)) if expected == c => {}
                _ => {
                    let Some((star, reach)) = any else {
                        return false;
                    };
                    any = Some((star, reach + 1));
                    (part, at) = (star + 1, reach + 1);
                    continue;
                }
            }
            (part, at) = (part + 1, at + 1);
        }
        let rest = self.parts.get(part..).unwrap_or_default();
        rest.iter().all(|part| *part == Part::Any)
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_whole_keys() {
        for (pattern, fitting, others) in [
            ("orders/42", &["orders/42"][..], &["orders/421", "xorders/42", ""][..]),
            ("orders/*", &["orders/", "orders/4/2"], &["order/4", "my/orders/4"]),
            ("*/4?", &["orders/42", "a/b/4ü", "/4/"], &["orders/4", "orders/422"]),
            ("a*b*c", &["abc", "abbc", "a/b/bc", "abcbc"], &["ab", "acb", "abcd"]),
            ("**", &["", "x"], &[]),
            (r"\*\\", &[r"*\"], &["x\\", "**"]),
        ] {
            let glob: Glob = pattern.parse().unwrap_or_else(|e| panic!("{pattern}: {e}"));
            for key in fitting {
                assert!(glob.fits(key), "{pattern} {key}");
            }
            for key in others {
                assert!(!glob.fits(key), "{pattern} {key}");
            }
        }
    }

    #[test]
    fn a_pattern_that_is_empty_or_ends_in_a_backslash_is_refused() {
        for (pattern, advice) in [("", "write *"), (r"a\", r"write \\")] {
            let refused = pattern.parse::<Glob>().unwrap_err();
            assert!(refused.contains(advice), "{refused}");
        }
    }

    #[test]
    fn many_stars_on_a_long_key_end_soon() {
        let glob: Glob = "*a".repeat(100).parse().unwrap_or_else(|e| panic!("{e}"));
        assert!(!glob.fits(&format!("{}b", "a".repeat(10_000))));
    }
}
