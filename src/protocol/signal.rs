//! Signals, which a server sends unasked.

use bytes::{BufMut, BytesMut};

use super::MAX_LONG_LINE;
use super::channel::Channel;
use crate::error::{Error, Result};
use crate::escape::Shortened;

/// The beginning of a signal's line. No answer begins with it.
const START: &str = "sig ";

/// The text of a signal: one line that is not empty. It may consist of blanks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Payload(Box<str>);

impl Payload {
    /// Checks a payload for `channel`. The length of the channel's name counts towards the 64 KiB of the line that
    /// delivers the signal.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the payload is empty, contains a line break or
    /// NUL, or is too long.
    pub fn new(channel: &Channel, payload: impl AsRef<str>) -> Result<Self> {
        let payload = payload.as_ref();
        let most = MAX_LONG_LINE - START.len() - channel.as_str().len() - 1;
        let remedy = if payload.is_empty() {
            "give at least one character".to_owned()
        } else if payload.contains(['\n', '\r', '\0']) {
            "a signal is one line: encode line breaks and NUL".to_owned()
        } else if payload.len() > most {
            format!(
                "it has {} bytes; at most {most} fit behind the name of this channel",
                payload.len()
            )
        } else {
            return Ok(Self(payload.into()));
        };
        Err(Error::invalid("signal payload", Shortened(payload), &remedy))
    }

    /// Returns the payload as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A signal for a subscriber: the line `sig <channel> <payload>`.
///
/// A connection that has listened receives signals at any time between the answers to its requests. A signal is not an
/// answer and must not be counted as one. So a reader of such a connection must check first whether each line [is a
/// signal](Self::decode).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Signal {
    channel: Box<str>,
    payload: Box<str>,
}

impl Signal {
    /// Creates a signal from a checked channel and payload.
    #[must_use]
    pub fn new(channel: Channel, payload: Payload) -> Self {
        Self {
            channel: channel.into_str(),
            payload: payload.0,
        }
    }

    /// Returns the channel to which the signal was sent.
    #[must_use]
    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// Returns the payload: the rest of the line, including blanks.
    #[must_use]
    pub fn payload(&self) -> &str {
        &self.payload
    }

    /// Parses a line, if it is a signal.
    ///
    /// This accepts more than [`Channel`] and [`Payload`] do. Text that a server accepted from one client must not cost
    /// another client its connection.
    #[must_use]
    pub fn decode(line: &str) -> Option<Self> {
        let (channel, payload) = line.strip_prefix(START)?.split_once(' ')?;
        (!channel.is_empty()).then(|| Self {
            channel: channel.into(),
            payload: payload.into(),
        })
    }

    /// Appends the line to a buffer.
    pub fn encode(&self, out: &mut BytesMut) {
        out.reserve(START.len() + self.channel.len() + self.payload.len() + 2);
        out.extend_from_slice(START.as_bytes());
        out.extend_from_slice(self.channel.as_bytes());
        out.put_u8(b' ');
        out.extend_from_slice(self.payload.as_bytes());
        out.put_u8(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Option<(String, String)> {
        Signal::decode(line).map(|signal| (signal.channel().to_owned(), signal.payload().to_owned()))
    }

    fn both(channel: &str, payload: &str) -> Option<(String, String)> {
        Some((channel.to_owned(), payload.to_owned()))
    }

    #[test]
    fn the_payload_is_the_rest_of_the_line() {
        assert_eq!(read("sig a.b hello world"), both("a.b", "hello world"));
        assert_eq!(read("sig a  two  spaces "), both("a", " two  spaces "));
        assert_eq!(read("sig a  "), both("a", " "));
        assert_eq!(read("sig a {\"k\": \"ü 漢\"}"), both("a", "{\"k\": \"ü 漢\"}"));
    }

    #[test]
    fn signals_that_this_client_could_not_send_are_read() {
        assert_eq!(read("sig a.* x"), both("a.*", "x"));
        assert_eq!(read("sig a\u{a0}b x\0y"), both("a\u{a0}b", "x\0y"));
        assert_eq!(read("sig a "), both("a", ""));
    }

    #[test]
    fn answers_and_incomplete_signals_are_not_signals() {
        for line in [
            "ok",
            "ok 1",
            "error",
            "",
            "sig",
            "sig ",
            "sig a",
            "sig  x",
            "signal a b",
            "SIG a b",
            " sig a b",
        ] {
            assert_eq!(read(line), None, "{line:?}");
        }
    }

    #[test]
    fn the_longest_payload_makes_the_longest_line() {
        let channel = Channel::new("orders.new").unwrap();
        let most = MAX_LONG_LINE - "sig orders.new ".len();
        assert!(Payload::new(&channel, "x".repeat(most + 1)).is_err());
        let payload = Payload::new(&channel, "x".repeat(most)).unwrap();
        let mut line = BytesMut::new();
        Signal::new(channel, payload).encode(&mut line);
        assert_eq!(line.len(), MAX_LONG_LINE + 1);
    }
}
