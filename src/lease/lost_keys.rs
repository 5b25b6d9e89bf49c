//! Names leases that were lost together, for a log line.

use std::fmt;

use crate::types::Key;

/// The keys of leases that were lost together: the first few keys, and the number of leases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LostKeys {
    first: Vec<Key>,
    count: usize,
}

/// The number of keys that a line names.
const NAMED: usize = 5;

impl LostKeys {
    /// Adds the key of another lease.
    pub(crate) fn push(&mut self, key: &Key) {
        if self.first.len() < NAMED {
            self.first.push(key.clone());
        }
        self.count += 1;
    }

    /// Returns how many leases were lost.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<'a> FromIterator<&'a Key> for LostKeys {
    fn from_iter<I: IntoIterator<Item = &'a Key>>(keys: I) -> Self {
        let mut lost = Self::default();
        keys.into_iter().for_each(|key| lost.push(key));
        lost
    }
}

/// Writes the first few keys, escaped, and the number of further ones.
impl fmt::Display for LostKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, key) in self.first.iter().enumerate() {
            let between = if number == 0 { "" } else { ", " };
            write!(f, "{between}{key}")?;
        }
        match self.count - self.first.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_keys_are_named_and_the_others_counted() {
        let keys: Vec<Key> = (0..7).map(|number| Key::new(format!("k{number}")).unwrap()).collect();
        let text = |count| LostKeys::from_iter(&keys[..count]).to_string();
        assert_eq!(text(0), "");
        assert_eq!(text(1), "k0");
        assert_eq!(text(5), "k0, k1, k2, k3, k4");
        assert_eq!(text(7), "k0, k1, k2, k3, k4 and 2 more");
        assert_eq!(LostKeys::from_iter(&keys).count(), 7);
        let escaping = Key::new("a\u{1b}[2Jb").unwrap();
        assert_eq!(LostKeys::from_iter([&escaping]).to_string(), "a\\u{1b}[2Jb");
    }
}
