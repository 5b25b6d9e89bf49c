//! Suggests known names that are similar to an unknown one. Pure.

/// The maximum number of suggestions.
const MOST: usize = 4;

/// The length in characters of the longest name for which known names are suggested. No known name is longer. The work
/// grows with the length, and names come from files and URLs.
const LONGEST: usize = 64;

/// Returns known names that the user may have meant, the most similar first. Empty if there are none, or if the name is
/// longer than [`LONGEST`].
///
/// Names consist of words with `_` between them. The result contains the known names that differ in a few letters. If
/// there are none, it contains the names with all words of the unknown name. If there are none of these either, it
/// contains the names that share a word with the unknown name.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    if name.chars().nth(LONGEST).is_some() {
        return Vec::new();
    }
    let name = name.to_ascii_lowercase().replace('-', "_");
    let words: Vec<&str> = name.split('_').filter(|word| !word.is_empty()).collect();
    let has = |known: &str, word: &str| known.split('_').any(|other| other == word);
    let (mut typos, mut longer, mut related) = (Vec::new(), Vec::new(), Vec::new());
    for known in known {
        let letters = distance(&name, known);
        let has_all = !words.is_empty() && words.iter().all(|word| has(known, word));
        if letters <= (name.chars().count() / 4).max(1) {
            typos.push((letters, known));
        } else if has_all {
            longer.push((letters, known));
        } else if words.iter().any(|word| has(known, word)) {
            related.push((letters, known));
        }
    }
    let mut found = [typos, longer, related]
        .into_iter()
        .find(|found| !found.is_empty())
        .unwrap_or_default();
    found.sort();
    found.dedup();
    found.into_iter().take(MOST).map(|(_, known)| known).collect()
}

/// Returns how many letters must be inserted, removed or replaced to turn `one` into `other`.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, letter) in one.chars().enumerate() {
        let mut diagonal = line;
        let mut left = line + 1;
        for (column, against) in other.iter().enumerate() {
            let above = row[column + 1];
            let replaced = diagonal + usize::from(letter != *against);
            let here = replaced.min(above + 1).min(left + 1);
            row[column] = left;
            diagonal = above;
            left = here;
        }
        row[other.len()] = left;
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 9] = [
        "lease_ttl",
        "orphan_ttl",
        "tls",
        "keepalive",
        "connect_timeout",
        "acquire_timeout",
        "reply_timeout",
        "request_timeout",
        "server_read_timeout",
    ];

    #[test]
    fn a_distance_counts_letters() {
        for (one, other, letters) in [
            ("", "", 0),
            ("", "ab", 2),
            ("leas_ttl", "lease_ttl", 1),
            ("kitten", "sitting", 3),
            ("abc", "", 3),
            ("tls", "ttl", 2),
        ] {
            assert_eq!(distance(one, other), letters, "{one} {other}");
            assert_eq!(distance(other, one), letters, "{other} {one}");
        }
    }

    #[test]
    fn typos_and_parts_of_names_are_recognized() {
        for (name, expected) in [
            ("leas_ttl", &["lease_ttl"][..]),
            ("LEASE-TTL", &["lease_ttl"]),
            ("ttl", &["lease_ttl", "orphan_ttl"]),
            ("keep_alive", &["keepalive"]),
            ("conect_timeout", &["connect_timeout"]),
            ("acquire", &["acquire_timeout"]),
            ("lease_time", &["lease_ttl"]),
            ("colour", &[]),
            ("tlss", &["tls"]),
            ("", &[]),
        ] {
            assert_eq!(nearest(name, KNOWN), expected, "{name}");
        }
        assert_eq!(nearest("timeout", KNOWN).len(), MOST);
    }

    #[test]
    fn no_name_is_near_a_long_one() {
        let of_length = |length| "lease_ttl".to_owned() + &"_".repeat(length - "lease_ttl".len());
        assert_eq!(nearest(&of_length(LONGEST), KNOWN), ["lease_ttl"]);
        assert!(nearest(&of_length(LONGEST + 1), KNOWN).is_empty());
        assert!(nearest(&of_length(2_000_000), KNOWN).is_empty());
    }
}
