//! The names of signals: channels, the patterns that match them, and groups of subscribers.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use crate::error::{Error, Result};
use crate::escape::{Escaped, Shortened};
use crate::types::check_word;

/// The destination of a signal: dot-separated tokens without wildcards, 1 to 256 bytes without whitespace or NUL.
/// Tokens may be empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Channel(Box<str>);

impl Channel {
    /// Checks a channel.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the channel is empty, longer than 256 bytes, or
    /// has whitespace, NUL or a wildcard.
    pub fn new(channel: impl AsRef<str>) -> Result<Self> {
        let channel = channel.as_ref();
        check_word("channel", channel)?;
        if channel.contains(['*', '>']) {
            return Err(Error::invalid(
                "channel",
                Shortened(channel),
                "wildcards (* and >) belong in subscriptions; signals go to one literal channel",
            ));
        }
        Ok(Self(channel.into()))
    }

    /// Returns the channel as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn into_str(self) -> Box<str> {
        self.0
    }
}

/// Channels in maps can be looked up by their text.
impl Borrow<str> for Channel {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Writes the channel, with invisible characters escaped. [`Channel::as_str`] returns the unescaped text.
impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Escaped(&self.0), f)
    }
}

impl AsRef<str> for Channel {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Checks a channel, as [`Channel::new`] does.
impl FromStr for Channel {
    type Err = Error;

    fn from_str(channel: &str) -> Result<Self> {
        Self::new(channel)
    }
}

/// Checks a channel, as [`Channel::new`] does.
impl TryFrom<&str> for Channel {
    type Error = Error;

    fn try_from(channel: &str) -> Result<Self> {
        Self::new(channel)
    }
}

/// Checks a channel, as [`Channel::new`] does.
impl TryFrom<String> for Channel {
    type Error = Error;

    fn try_from(channel: String) -> Result<Self> {
        Self::new(channel)
    }
}

impl From<Channel> for String {
    fn from(channel: Channel) -> Self {
        channel.0.into_string()
    }
}

impl Serialize for Channel {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// The channels of a subscription: dot-separated tokens like those of a [`Channel`]. `*` matches exactly one token.
/// `>`, which may only be the last token, matches all remaining tokens, at least one.
///
/// A pattern without wildcards matches only the channel of that name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(Arc<str>);

impl Pattern {
    /// Checks a pattern.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the pattern is empty, longer than 256 bytes, or
    /// has whitespace or NUL; or if a wildcard is not a whole token, or a `>` is not the last one.
    pub fn new(pattern: impl AsRef<str>) -> Result<Self> {
        let pattern = pattern.as_ref();
        check_word("pattern", pattern)?;
        let mut tokens = pattern.split('.').peekable();
        while let Some(token) = tokens.next() {
            let remedy = match token {
                ">" if tokens.peek().is_some() => "> stands for all tokens that follow: it must be the last one",
                "*" | ">" => continue,
                token if token.contains(['*', '>']) => {
                    "wildcards (* and >) stand for whole tokens, as in a.*.c and a.>"
                }
                _ => continue,
            };
            return Err(Error::invalid("pattern", Shortened(pattern), remedy));
        }
        Ok(Self(pattern.into()))
    }

    /// Returns the pattern as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether the pattern may match channels other than the one of the same name.
    #[must_use]
    pub fn has_wildcards(&self) -> bool {
        // Wildcards are whole tokens: `new` has checked that.
        self.0.contains(['*', '>'])
    }
}

/// Patterns in maps can be looked up by their text.
impl Borrow<str> for Pattern {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Writes the pattern, with invisible characters escaped. [`Pattern::as_str`] returns the unescaped text.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Escaped(&self.0), f)
    }
}

impl AsRef<str> for Pattern {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Checks a pattern, as [`Pattern::new`] does.
impl FromStr for Pattern {
    type Err = Error;

    fn from_str(pattern: &str) -> Result<Self> {
        Self::new(pattern)
    }
}

/// Checks a pattern, as [`Pattern::new`] does.
impl TryFrom<&str> for Pattern {
    type Error = Error;

    fn try_from(pattern: &str) -> Result<Self> {
        Self::new(pattern)
    }
}

/// Checks a pattern, as [`Pattern::new`] does.
impl TryFrom<String> for Pattern {
    type Error = Error;

    fn try_from(pattern: String) -> Result<Self> {
        Self::new(pattern)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.as_str().to_owned()
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// The name of a group of connections that share the signals of one pattern: each signal goes to one of them, in
/// rotation. 1 to 256 bytes without whitespace or NUL.
///
/// The same name with two patterns makes two groups.
///
/// # What a group can lose
///
/// A server treats a connection as a member until it notices the end of that connection. When a network or a machine
/// fails silently, the server goes on giving a share of the group's signals to a dead connection. The client that lost
/// the connection connects again and reports [`Lost`](crate::SignalEvent::Lost) and
/// [`Restored`](crate::SignalEvent::Restored), which cover the signals that the old connection got until then. Signals
/// that the server gives to the old connection later are lost to the whole group. No event reports them, because no
/// client can see what happens to the old connection.
///
/// This lasts until the server's read timeout is over (`--read-timeout`, by default 23 s), counted from the last
/// request that the server read from that connection. It ends earlier if something tells the server, such as a machine
/// that is up again and refuses the packets. To shorten this time, give the servers a shorter read timeout, and set
/// [`server_read_timeout`](crate::ClientBuilder::server_read_timeout) of the clients accordingly. A setting of the
/// client alone has no effect on it. Subscriptions without a group do not lose signals in this way: everything that
/// they miss lies between `Lost` and `Restored`.
///
/// A member that leaves properly loses nothing: it [ends its subscription](crate::SignalHandle::unlisten) and takes the
/// signals that have arrived before it closes. If it closes at once, the signals under way are lost to the group.
///
/// So a job that must be done must not exist only as a signal. Store it where it can be found again, and use signals to
/// announce that there is work.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Group(Arc<str>);

impl Group {
    /// Checks a group name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the name is empty, longer than 256 bytes, or has
    /// whitespace or NUL.
    pub fn new(name: impl AsRef<str>) -> Result<Self> {
        check_word("group", name.as_ref())?;
        Ok(Self(name.as_ref().into()))
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Groups in maps can be looked up by their names.
impl Borrow<str> for Group {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Writes the name, with invisible characters escaped. [`Group::as_str`] returns the unescaped text.
impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Escaped(&self.0), f)
    }
}

impl AsRef<str> for Group {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Checks a name, as [`Group::new`] does.
impl FromStr for Group {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::new(name)
    }
}

/// Checks a name, as [`Group::new`] does.
impl TryFrom<&str> for Group {
    type Error = Error;

    fn try_from(name: &str) -> Result<Self> {
        Self::new(name)
    }
}

/// Checks a name, as [`Group::new`] does.
impl TryFrom<String> for Group {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        Self::new(name)
    }
}

impl From<Group> for String {
    fn from(name: Group) -> Self {
        name.as_str().to_owned()
    }
}

impl Serialize for Group {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn names_are_parsed_and_serialized_and_maps_find_them_by_their_text() {
        let channel: Channel = "a.b".parse().unwrap();
        let pattern = Pattern::try_from("a.>").unwrap();
        let group = Group::try_from("g".to_owned()).unwrap();
        assert_eq!(format!("{channel} {pattern} {group}"), "a.b a.> g");
        let texts: [&str; 3] = [channel.as_ref(), pattern.as_ref(), group.as_ref()];
        assert_eq!(texts, ["a.b", "a.>", "g"]);
        let json = serde_json::to_string(&(&channel, &pattern, &group)).unwrap();
        assert_eq!(json, r#"["a.b","a.>","g"]"#);
        let read: (Channel, Pattern, Group) = serde_json::from_str(&json).unwrap();
        assert_eq!(read, (channel.clone(), pattern.clone(), group.clone()));
        assert!(serde_json::from_str::<Channel>(r#""a.*""#).is_err());
        assert!(HashMap::from([(channel.clone(), 1)]).contains_key("a.b"));
        assert!(HashMap::from([(group.clone(), 1)]).contains_key("g"));
        let owned = [String::from(channel), String::from(pattern), String::from(group)];
        assert_eq!(owned, ["a.b", "a.>", "g"]);
        assert_eq!(Group::new("a\u{202e}b").unwrap().to_string(), "a\\u{202e}b");
    }

    #[test]
    fn wildcards_are_whole_tokens_and_the_one_for_all_remaining_tokens_is_last() {
        for good in [
            "*", ">", "a.*", "*.a", "a.*.c", "a.>", "*.>", "a..b", ".", "a.", ".>", "*.*.*",
        ] {
            assert!(Pattern::new(good).is_ok(), "{good}");
        }
        for (bad, said) in [
            ("a*", "whole tokens"),
            ("*a.b", "whole tokens"),
            ("**", "whole tokens"),
            ("a.b>", "whole tokens"),
            (">>", "whole tokens"),
            ("*>", "whole tokens"),
            ("a.>.b", "the last one"),
            (">.", "the last one"),
            (">.>", "the last one"),
            ("", "empty"),
            ("a b", "whitespace"),
        ] {
            let error = Pattern::new(bad).expect_err(bad).to_string();
            assert!(error.contains(said), "{bad:?}: {error}");
        }
    }

    #[test]
    fn only_wildcards_match_other_names() {
        let has = |pattern| Pattern::new(pattern).map(|pattern| pattern.has_wildcards()).ok();
        assert_eq!(
            [has("a.b"), has("a.*"), has(">")],
            [Some(false), Some(true), Some(true)]
        );
    }
}
