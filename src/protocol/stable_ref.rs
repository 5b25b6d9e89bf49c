//! The name of a session that outlives its connection.

use std::fmt;

use crate::error::{Error, Result};

/// The longest ref that a server accepts.
const MAX_BYTES: usize = 64;

/// The name of a logical session, for the members of a cluster: 1 to 64 printable ASCII characters without blanks.
///
/// A connection that presents the ref of an ended connection, and repeats its acquire or enqueue, gets the earlier
/// lease or queue position back. So a ref is a secret like a token. It belongs to *one* session: two connections must
/// not share it if they are open at the same time and could request the same key.
///
/// `Debug` shows only the first 8 characters.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct StableRef(Box<str>);

impl StableRef {
    /// Checks a ref.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if a server would refuse the ref. The message shows
    /// the mistake, not the ref.
    pub fn new(reference: impl AsRef<str>) -> Result<Self> {
        let reference = reference.as_ref();
        if reference.is_empty() || reference.len() > MAX_BYTES {
            return Err(Error::invalid(
                "stable ref of length",
                reference.len(),
                "give 1 to 64 printable ASCII characters",
            ));
        }
        match reference.chars().find(|c| !c.is_ascii_graphic()) {
            None => Ok(Self(reference.into())),
            Some(bad) => Err(Error::invalid(
                "stable ref with",
                bad,
                "give printable ASCII characters, and no blanks",
            )),
        }
    }

    /// Creates a ref that no other client has: 32 hexadecimal digits from the operating system's random numbers.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        if getrandom::fill(&mut bytes).is_err() {
            // Every known system provides such numbers. On a system that does not, weaker numbers are better than no
            // client.
            fastrand::fill(&mut bytes);
        }
        Self(format!("{:032x}", u128::from_be_bytes(bytes)).into())
    }

    /// Returns the whole ref. Keep it out of logs.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for StableRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        write!(f, "StableRef({}…)", &self.0[..SHOWN.min(self.0.len())])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_ref_consists_of_printable_ascii_without_blanks() {
        for good in ["r", "!~", &"r".repeat(64)] {
            assert!(StableRef::new(good).is_ok_and(|reference| reference.expose() == good));
        }
        for bad in ["", "a b", "a\n", "a\u{7f}", "ä", &"r".repeat(65)] {
            assert!(StableRef::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn random_refs_are_valid_and_differ() {
        let refs: HashSet<StableRef> = (0..1000).map(|_| StableRef::random()).collect();
        assert_eq!(refs.len(), 1000);
        for reference in refs {
            assert!(reference.0.len() == 32 && reference.0.bytes().all(|b| b.is_ascii_hexdigit()));
            assert!(StableRef::new(reference.expose()).is_ok());
        }
    }

    #[test]
    fn a_ref_is_shortened_wherever_it_is_shown() {
        let secret = "0123456789abcdef";
        let shown = StableRef::new(secret).map(|reference| format!("{reference:?}"));
        assert_eq!(shown.ok().as_deref(), Some("StableRef(01234567…)"));
        let refused = StableRef::new("0123456789abcdef ").map_or_else(|error| error.to_string(), |r| format!("{r:?}"));
        assert!(!refused.contains(secret), "{refused}");
    }
}
