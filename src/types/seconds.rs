//! Times on the wire, which are whole seconds.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};
use crate::escape::Shortened;
use crate::human::read_duration;

/// The maximum number of seconds that a server accepts as a timeout or a TTL.
pub const MAX_SECONDS: u64 = 9_223_372_036;

/// How long a lease lasts unless it is renewed: whole seconds, at least one.
///
/// `Display` shows `33s`. A TTL is parsed from a duration with its unit (`10s`, `1m30s`), like the settings in
/// [`guide::configuration`](https://docs.rs/dflockd-client/latest/dflockd_client/guide/configuration/index.html). It is
/// serialized as the number of seconds, and deserialized from a number of seconds or a duration with its unit.
///
/// ```
/// use std::time::Duration;
///
/// use dflockd_client::Ttl;
///
/// let ttl = Ttl::try_from(Duration::from_millis(9_500))?;
/// assert_eq!((ttl.to_string(), Duration::from(ttl)), ("10s".to_owned(), Duration::from_secs(10)));
/// assert_eq!(("10s".parse::<Ttl>()?, "1m30s".parse::<Ttl>()?.as_secs()), (ttl, 90));
/// # Ok::<(), dflockd_client::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ttl(u64);

impl Ttl {
    /// The TTL that servers use if a client gives none: 33 s, unless the server's operator sets another.
    pub const DEFAULT: Self = Self(33);

    /// Creates a TTL of at least `ttl`: fractions are rounded up, because the wire protocol has whole seconds.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) below one second or above [`MAX_SECONDS`].
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

    /// Creates a TTL of `secs` seconds. Returns `None` if servers would reject it.
    #[must_use]
    pub fn from_secs(secs: u64) -> Option<Self> {
        (1..=MAX_SECONDS).contains(&secs).then_some(Self(secs))
    }

    /// Returns the number of seconds.
    #[must_use]
    pub fn as_secs(self) -> u64 {
        self.0
    }

    /// Returns the value as a duration.
    #[must_use]
    pub fn as_duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0)
    }
}

impl fmt::Debug for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Parses a duration with its unit, and rounds it up to whole seconds as [`Ttl::new`] does.
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for anything else, and for values that servers reject.
impl FromStr for Ttl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let duration = read_duration(text).filter(|duration| *duration >= Duration::from_secs(1));
        let ttl = duration.and_then(|duration| Self::from_secs(ceil_secs(duration)));
        ttl.ok_or_else(|| Error::invalid("lease TTL", Shortened(text), TTL_FORM))
    }
}

/// Creates a TTL as [`Ttl::new`] does.
impl TryFrom<Duration> for Ttl {
    type Error = Error;

    fn try_from(ttl: Duration) -> Result<Self> {
        Self::new(ttl)
    }
}

impl From<Ttl> for Duration {
    fn from(ttl: Ttl) -> Self {
        ttl.as_duration()
    }
}

impl Serialize for Ttl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Ttl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Seconds::read(deserializer)? {
            Seconds::Number(secs) => {
                Self::from_secs(secs).ok_or_else(|| D::Error::custom(Error::invalid("lease TTL", secs, TTL_FORM)))
            }
            Seconds::Text(text) => text.parse().map_err(D::Error::custom),
        }
    }
}

/// The text form of a TTL.
const TTL_FORM: &str = "write a duration with its unit, from 1s to 9223372036s, such as 10s or 1m30s";

/// Seconds in data: a number or a text.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "a number of seconds, or a duration with its unit, such as 10s"
)]
enum Seconds {
    Number(u64),
    Text(String),
}

impl Seconds {
    /// Deserializes seconds. Formats that are not self-describing contain a number.
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.is_human_readable() {
            true => Self::deserialize(deserializer),
            false => u64::deserialize(deserializer).map(Self::Number),
        }
    }
}

/// How long the server may block a request: whole seconds, 0 for a try.
///
/// It is shown, parsed and serialized as a [`Ttl`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WaitSecs(u64);

impl WaitSecs {
    /// No wait.
    pub const TRY: Self = Self(0);

    /// Returns a wait of at least `wait`, rounded up to whole seconds. If servers do not accept such a long wait,
    /// returns their maximum.
    #[must_use]
    pub fn covering(wait: Duration) -> Self {
        Self(ceil_secs(wait).min(MAX_SECONDS))
    }

    /// Creates a wait of `secs` seconds. Returns `None` if servers would reject it.
    #[must_use]
    pub fn from_secs(secs: u64) -> Option<Self> {
        (secs <= MAX_SECONDS).then_some(Self(secs))
    }

    /// Returns the number of seconds.
    #[must_use]
    pub fn as_secs(self) -> u64 {
        self.0
    }

    /// Returns the value as a duration.
    #[must_use]
    pub fn as_duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl fmt::Display for WaitSecs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0)
    }
}

/// Parses a duration with its unit, and rounds it up to whole seconds.
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for anything else, and for values that servers reject.
impl FromStr for WaitSecs {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wait = read_duration(text).and_then(|duration| Self::from_secs(ceil_secs(duration)));
        wait.ok_or_else(|| Error::invalid("wait", Shortened(text), WAIT_FORM))
    }
}

impl Serialize for WaitSecs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for WaitSecs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Seconds::read(deserializer)? {
            Seconds::Number(secs) => {
                Self::from_secs(secs).ok_or_else(|| D::Error::custom(Error::invalid("wait", secs, WAIT_FORM)))
            }
            Seconds::Text(text) => text.parse().map_err(D::Error::custom),
        }
    }
}

/// The text form of a wait.
const WAIT_FORM: &str = "write a duration with its unit, up to 9223372036s, such as 10s or 1m30s";

impl From<WaitSecs> for Duration {
    fn from(wait: WaitSecs) -> Self {
        wait.as_duration()
    }
}

fn ceil_secs(duration: Duration) -> u64 {
    duration
        .as_secs()
        .saturating_add(u64::from(duration.subsec_nanos() > 0))
}
