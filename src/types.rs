//! The values that travel on the wire. Each is validated when it is made and trusted after.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::escape::Escaped;

/// The longest line that every server takes for a key or a pattern, in bytes.
pub const MAX_KEY_BYTES: usize = 256;

/// The most seconds that a server takes as a timeout or a TTL.
pub const MAX_SECONDS: u64 = 9_223_372_036;

/// The name of a lock or semaphore: 1 to 256 bytes of UTF-8 without whitespace or NUL.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

impl Key {
    /// Checks a name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if it is empty, longer than
    /// [`MAX_KEY_BYTES`] bytes (bytes, not characters), or contains whitespace or NUL: the servers'
    /// line protocol has no way to carry those.
    pub fn new(name: impl AsRef<str>) -> Result<Self> {
        check_word("key", name.as_ref())?;
        Ok(Self(name.as_ref().into()))
    }

    /// A key that is shown in place of one that a client could not send: U+FFFD stands for what is not valid in it, and what is too
    /// long is cut.
    #[cfg(feature = "server")]
    pub(crate) fn lossy(key: &[u8]) -> Self {
        const INVALID: char = char::REPLACEMENT_CHARACTER;
        let text = String::from_utf8_lossy(key);
        let valid = text.chars().map(|c| match c {
            '\0' => INVALID,
            c if c.is_whitespace() => INVALID,
            c => c,
        });
        let mut name = String::with_capacity(key.len());
        for c in valid {
            if name.len() + c.len_utf8() > MAX_KEY_BYTES {
                break;
            }
            name.push(c);
        }
        Self(name.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The rule for everything that stands on the key line.
pub(crate) fn check_word(what: &str, word: &str) -> Result<()> {
    let problem = if word.is_empty() {
        Some("it is empty; give at least one character".to_owned())
    } else if word.len() > MAX_KEY_BYTES {
        Some(format!(
            "it has {} bytes; the server takes at most {MAX_KEY_BYTES}",
            word.len()
        ))
    } else {
        word.chars()
            .find(|c| c.is_whitespace() || *c == '\0')
            .map(|c| format!("it contains {c:?}; use no whitespace and no NUL"))
    };
    match problem {
        None => Ok(()),
        Some(problem) => Err(Error::invalid(what, Shortened(word), &problem)),
    }
}

/// A value quoted in an error message, cut where it is long.
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

/// The name, with everything escaped that would not be seen; [`Key::as_str`] is the name as it is.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Escaped(&self.0), f)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for Key {
    type Error = Error;

    fn try_from(name: &str) -> Result<Self> {
        Self::new(name)
    }
}

/// The secret that stands for one grant: 32 hexadecimal digits. Whoever presents it may renew and release.
///
/// `Debug` and `Display` show the first 8 digits only; [`Token::as_str`] shows all.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token([u8; 32]);

impl Token {
    /// A token that no server gives out.
    pub(crate) const OF_NOTHING: Self = Self([b'0'; 32]);

    /// Reads the 32 hexadecimal digits.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for anything else. The value is
    /// a secret, so the message gives its length only.
    pub fn new(digits: impl AsRef<[u8]>) -> Result<Self> {
        Self::parse(digits.as_ref()).ok_or_else(|| {
            Error::invalid(
                "token of length",
                digits.as_ref().len(),
                "a token is 32 hexadecimal digits",
            )
        })
    }

    /// The digits, or nothing.
    pub(crate) fn parse(digits: &[u8]) -> Option<Self> {
        let digits: [u8; 32] = digits.try_into().ok()?;
        // All of them, also behind one that is none: so the compiler looks at many at once.
        let valid = digits
            .iter()
            .fold(true, |valid, digit| valid & digit.is_ascii_hexdigit());
        valid.then_some(Self(digits))
    }

    /// A token of a fence and a random number, as servers from 2.1 on make them.
    #[cfg(any(test, feature = "server"))]
    pub(crate) fn compose(fence: Fence, random: u64) -> Self {
        let mut digits = [0_u8; 32];
        let (first, second) = digits.split_at_mut(16);
        for (half, number) in [(first, fence.0), (second, random)] {
            for (pair, byte) in half.chunks_exact_mut(2).zip(number.to_be_bytes()) {
                let hex = |digit: u8| digit + if digit < 10 { b'0' } else { b'a' - 10 };
                pair.copy_from_slice(&[hex(byte >> 4), hex(byte & 0xf)]);
            }
        }
        Self(digits)
    }

    /// All 32 digits. Keep them out of logs.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // The digits were checked to be ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// All 32 digits, for the wire.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The first 16 digits as a number. Servers from 2.1 on put the [`Fence`] there; those of earlier servers are random, and one token
    /// does not tell which it is.
    #[must_use]
    pub fn first_half(&self) -> u64 {
        // The digits were checked to be hexadecimal. In a letter the low bits count from 1.
        let value = |digit: u8| u64::from(digit & 0xf) + 9 * u64::from(digit >> 6);
        self.0[..16].iter().fold(0, |half, digit| (half << 4) | value(*digit))
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}…", &self.as_str()[..8])
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({self})")
    }
}

/// A number that grows with every grant of a key, to fence off the writes of earlier holders.
///
/// Servers from 2.1 on make fences: they count their grants, and put the number into the first half of each token. Tokens of earlier
/// servers are random throughout. A [lease](crate::Lease::fence) has a fence only where its server is known to make them, which is found
/// out as [`Fencing`](crate::Fencing) says. Some builds between 1.10 and 2.0 name the fence beside the token; those count, too.
///
/// What a fence guards must be a write to one place that compares: it keeps the largest fence that it has seen, and refuses
/// smaller ones. Fences are comparable
///
/// - between grants of the same key only;
/// - of one server, or of the members of one cluster, which count together. Servers that know nothing of each other (a
///   [standby](crate::Shard::standby) and its primary) count each for itself;
/// - over a restart of a server that stands alone as long as its clock does not go back, or if it runs with `--fence-state-file`: it
///   begins to count at the time of its start. A cluster begins at 0, so what has seen the fences of a server that stands alone refuses
///   those of a cluster that takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fence(pub u64);

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// How long a lease lasts unless it is renewed: whole seconds, at least one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ttl(u64);

impl Ttl {
    /// What servers use where the client names none, unless they were told otherwise: 33 s.
    pub const DEFAULT: Self = Self(33);

    /// A TTL of at least `ttl`: fractions are rounded up, since the wire carries whole seconds.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) below one second or beyond [`MAX_SECONDS`].
    pub fn new(ttl: Duration) -> Result<Self> {
        if ttl < Duration::from_secs(1) {
            return Err(Error::invalid(
                "lease TTL",
                ttl,
                "servers count whole seconds; give at least 1 s",
            ));
        }
        Self::from_secs(ceil_secs(ttl))
            .ok_or_else(|| Error::invalid("lease TTL", ttl, "servers take at most 9223372036 s"))
    }

    /// A TTL of that many seconds, if a server would take it.
    #[must_use]
    pub fn from_secs(secs: u64) -> Option<Self> {
        (1..=MAX_SECONDS).contains(&secs).then_some(Self(secs))
    }

    /// In seconds.
    #[must_use]
    pub fn as_secs(self) -> u64 {
        self.0
    }

    /// As a duration.
    #[must_use]
    pub fn as_duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl fmt::Debug for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0)
    }
}

/// How long the server itself may block a request: whole seconds, 0 for a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WaitSecs(u64);

impl WaitSecs {
    /// Do not wait at all.
    pub const TRY: Self = Self(0);

    /// At least `wait`: fractions are rounded up. What is longer than a server takes is cut to the longest it does.
    #[must_use]
    pub fn covering(wait: Duration) -> Self {
        Self(ceil_secs(wait).min(MAX_SECONDS))
    }

    /// That many seconds, if a server would take it.
    #[must_use]
    pub fn from_secs(secs: u64) -> Option<Self> {
        (secs <= MAX_SECONDS).then_some(Self(secs))
    }

    /// In seconds.
    #[must_use]
    pub fn as_secs(self) -> u64 {
        self.0
    }

    /// As a duration.
    #[must_use]
    pub fn as_duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

/// How many may hold a semaphore at once: at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Limit(NonZeroU32);

impl Limit {
    /// Checks a limit.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for 0.
    pub fn new(limit: u32) -> Result<Self> {
        NonZeroU32::new(limit).map(Self).ok_or_else(|| {
            Error::invalid(
                "semaphore limit",
                limit,
                "give at least 1, and the same for every user of the key",
            )
        })
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

/// Which of the server's two namespaces a key is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A lock: one holder.
    Lock,
    /// A semaphore: as many holders as its limit.
    Semaphore,
}

impl Kind {
    /// Its name as metrics and spans carry it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lock => "lock",
            Self::Semaphore => "semaphore",
        }
    }
}

/// What is asked for: a lock, or one of a semaphore's slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The lock.
    Lock,
    /// A slot of the semaphore of this limit.
    Semaphore(Limit),
}

impl Target {
    /// Its namespace.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Self::Lock => Kind::Lock,
            Self::Semaphore(_) => Kind::Semaphore,
        }
    }
}

/// A lock or slot that the server has granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The secret to renew and release it with.
    pub token: Token,
    /// The lease: what the server says counts, not what was asked for.
    pub ttl: Ttl,
    /// The fence, if the grant names it as a third number. It may be in the token if not: see [`Token::first_half`].
    pub fence: Option<Fence>,
}

impl Grant {
    /// A grant that names no fence beside its token.
    #[must_use]
    pub fn new(token: Token, ttl: Ttl) -> Self {
        Self {
            token,
            ttl,
            fence: None,
        }
    }
}

fn ceil_secs(duration: Duration) -> u64 {
    duration
        .as_secs()
        .saturating_add(u64::from(duration.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn message(result: Result<Key>) -> String {
        match result {
            Ok(key) => panic!("{key:?} was taken"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::InvalidInput);
                error.to_string()
            }
        }
    }

    #[test]
    fn keys_are_measured_in_bytes() {
        assert!(Key::new("k".repeat(256)).is_ok());
        assert!(Key::new("ü".repeat(128)).is_ok());
        assert!(message(Key::new("ü".repeat(129))).contains("258 bytes"));
    }

    #[test]
    fn keys_that_the_wire_cannot_carry_are_refused_by_name() {
        assert!(message(Key::new("")).contains("empty"));
        for bad in ["a b", "a\tb", "a\nb", "a\rb", "a\0b", "a\u{3000}b"] {
            let text = message(Key::new(bad));
            assert!(text.contains(&format!("{bad:?}")), "{text}");
        }
    }

    #[test]
    fn long_values_are_cut_in_messages() {
        assert!(message(Key::new("k".repeat(10_000))).len() < 200);
    }

    #[test]
    fn tokens_are_shortened() {
        let token = Token::new("00000000000000ffDEADBEEFdeadbeef").unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(token.first_half(), 255);
        let all = Token::new("0123456789abcdefFEDCBA9876543210").unwrap();
        assert_eq!(all.first_half(), 0x0123_4567_89ab_cdef);
        let upper = Token::new("FEDCBA9876543210ffffffffffffffff").unwrap();
        assert_eq!(upper.first_half(), 0xfedc_ba98_7654_3210);
        assert_eq!(format!("{token} {token:?}"), "00000000… Token(00000000…)");
        assert!(Token::new("xyz").is_err_and(|e| !e.to_string().contains("xyz")));
        assert!(Token::new("g".repeat(32)).is_err());
    }

    #[test]
    fn seconds_are_rounded_up_and_bounded() {
        assert!(Ttl::new(Duration::from_millis(999)).is_err());
        assert_eq!(Ttl::new(Duration::from_millis(1001)).map(Ttl::as_secs).ok(), Some(2));
        assert!(Ttl::new(Duration::MAX).is_err());
        assert_eq!(Ttl::from_secs(0), None);
        assert_eq!(WaitSecs::covering(Duration::ZERO), WaitSecs::TRY);
        assert_eq!(WaitSecs::covering(Duration::from_millis(1)).as_secs(), 1);
        assert_eq!(WaitSecs::covering(Duration::MAX).as_secs(), MAX_SECONDS);
        assert!(Limit::new(0).is_err());
    }
}
