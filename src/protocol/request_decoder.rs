//! Cuts requests out of bytes: the reading side of a server.

use std::fmt;

use bytes::{Buf, BytesMut};

use super::line::LineError;
use super::raw_request::RequestLines;
use super::request::Request;
use super::{MAX_LONG_LINE, MAX_SHORT_LINE};

/// Collects bytes and returns the complete requests among them, as servers do.
///
/// The bytes before a `\n` are a line. Its length includes all `\r` before the `\n`, which are then dropped. A line
/// that is too long is refused when it ends; until then, its bytes are dropped as they arrive.
pub struct RequestDecoder {
    longest_secret: usize,
    longest_payload: usize,
    bytes: BytesMut,
    /// The number of bytes that belong to requests which were returned or refused already.
    consumed: usize,
    /// Where the complete lines of the next request end.
    ends: [usize; 2],
    /// The number of these complete lines.
    complete: usize,
    /// The number of bytes that are known to hold no further `\n`.
    searched: usize,
    /// Whether the incomplete line is already too long.
    too_long: bool,
    /// The number of lines since the start.
    lines: u64,
}

/// Why a request cannot be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestError {
    /// The three lines are not a valid request. The next request can be parsed.
    Malformed,
    /// A line cannot be read, so the stream is out of step. A server answers with an error and closes the connection.
    Line(LineError),
}

impl From<LineError> for RequestError {
    fn from(error: LineError) -> Self {
        Self::Line(error)
    }
}

/// Does not show the bytes, which may contain a secret.
impl fmt::Debug for RequestDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestDecoder")
            .field("lines", &self.lines)
            .field("unread_bytes", &(self.bytes.len() - self.consumed))
            .finish_non_exhaustive()
    }
}

impl Default for RequestDecoder {
    fn default() -> Self {
        Self::with_longest_arguments(MAX_LONG_LINE, MAX_LONG_LINE)
    }
}

impl RequestDecoder {
    /// Creates a decoder that accepts at most `auth` bytes as the argument of an `auth` request, and at most `signal`
    /// bytes as that of a `signal` request. The default is [`MAX_LONG_LINE`] for both; servers before 1.15 accept
    /// [`MAX_SHORT_LINE`].
    #[must_use]
    pub fn with_longest_arguments(auth: usize, signal: usize) -> Self {
        Self {
            longest_secret: auth,
            longest_payload: signal,
            bytes: BytesMut::new(),
            consumed: 0,
            ends: [0; 2],
            complete: 0,
            searched: 0,
            too_long: false,
            lines: 0,
        }
    }

    /// Returns the buffer to read more bytes into. Only append to it.
    pub fn read_space(&mut self) -> &mut BytesMut {
        self.bytes.advance(self.consumed);
        self.searched -= self.consumed;
        for end in &mut self.ends[..self.complete] {
            *end -= self.consumed;
        }
        self.consumed = 0;
        if self.bytes.capacity() - self.bytes.len() < 4096 {
            self.bytes.reserve(16 * 1024);
        }
        &mut self.bytes
    }

    /// Returns the next complete request, if there is one.
    ///
    /// # Errors
    ///
    /// [`RequestError`]. After [`RequestError::Malformed`], the decoder continues with the next request. Servers accept
    /// some requests that [`Request`] cannot represent, such as keys that are not UTF-8; here, these are malformed.
    pub fn next_request(&mut self) -> Result<Option<Request>, RequestError> {
        match self.next_lines()? {
            None => Ok(None),
            Some(lines) => Request::read(lines).map(Some).ok_or(RequestError::Malformed),
        }
    }

    /// Returns the lines of the next complete request, if there is one.
    pub(crate) fn next_lines(&mut self) -> Result<Option<RequestLines<'_>>, LineError> {
        let mut start = self.line_start();
        loop {
            let limit = self.limit();
            let Some(offset) = memchr::memchr(b'\n', &self.bytes[self.searched..]) else {
                self.too_long |= self.bytes.len() - start > limit;
                if self.too_long {
                    self.bytes.truncate(start);
                }
                self.searched = self.bytes.len();
                return Ok(None);
            };
            let end = self.searched + offset;
            self.searched = end + 1;
            self.lines += 1;
            if std::mem::take(&mut self.too_long) || end - start > limit {
                self.begin_request(end + 1);
                return Err(LineError::TooLong { limit });
            }
            if let Some(of_line) = self.ends.get_mut(self.complete) {
                *of_line = end;
                self.complete += 1;
                start = end + 1;
                continue;
            }
            let from = self.consumed;
            self.begin_request(end + 1);
            return Ok(Some(RequestLines {
                command: trimmed(&self.bytes[from..self.ends[0]]),
                key: trimmed(&self.bytes[self.ends[0] + 1..self.ends[1]]),
                argument: trimmed(&self.bytes[self.ends[1] + 1..end]),
            }));
        }
    }

    fn begin_request(&mut self, at: usize) {
        self.consumed = at;
        self.complete = 0;
    }

    /// Returns where the incomplete line starts.
    fn line_start(&self) -> usize {
        match self.complete {
            0 => self.consumed,
            complete => self.ends[complete - 1] + 1,
        }
    }

    /// Returns the maximum length of the incomplete line.
    fn limit(&self) -> usize {
        if self.complete < self.ends.len() {
            return MAX_SHORT_LINE;
        }
        match trimmed(&self.bytes[self.consumed..self.ends[0]]) {
            b"auth" => self.longest_secret,
            b"signal" => self.longest_payload,
            _ => MAX_SHORT_LINE,
        }
    }
}

/// Used only by a server.
#[cfg(any(test, feature = "server"))]
impl RequestDecoder {
    /// Returns the number of bytes after the last request that was returned or refused.
    pub(crate) fn pending(&self) -> usize {
        self.bytes.len() - self.consumed
    }

    /// Returns the number of lines that were completed since the start.
    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }

    /// Returns whether the incomplete line is already too long.
    pub(crate) fn is_too_long(&self) -> bool {
        self.too_long
    }
}

/// Removes every `\r` at the end of a line.
fn trimmed(mut line: &[u8]) -> &[u8] {
    while let [rest @ .., b'\r'] = line {
        line = rest;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes bytes that arrive in pieces. Returns the requests, joined, or `too long`.
    fn requests(pieces: &[&[u8]]) -> Vec<String> {
        let mut decoder = RequestDecoder::with_longest_arguments(300, 256);
        let mut out = Vec::new();
        for piece in pieces {
            decoder.read_space().extend_from_slice(piece);
            loop {
                match decoder.next_lines() {
                    Ok(None) => break,
                    Ok(Some(lines)) => {
                        let lines = [lines.command, lines.key, lines.argument];
                        out.push(lines.map(|line| String::from_utf8_lossy(line).into_owned()).join("|"));
                    }
                    Err(_) => out.push("too long".to_owned()),
                }
            }
        }
        out
    }

    #[test]
    fn carriage_returns_count_towards_the_limit_and_are_dropped_only_at_the_end() {
        assert_eq!(requests(&[b"l\r\nk\r\r\r\n\r0\n"]), ["l|k|\r0"]);
        let longest = format!("l\nk\n{}\n", "0".repeat(256));
        assert_eq!(requests(&[longest.as_bytes()]).len(), 1);
        let with_return = longest.replace("0\n", "0\r\n");
        assert_eq!(requests(&[with_return.as_bytes()]), ["too long"]);
    }

    #[test]
    fn a_line_that_is_too_long_is_refused_at_its_end() {
        let long = "x".repeat(300);
        let pieces = [long.as_bytes(), long.as_bytes(), b"x\nl\nk\n0\n"];
        let mut decoder = RequestDecoder::default();
        for piece in &pieces[..2] {
            decoder.read_space().extend_from_slice(piece);
            assert_eq!(decoder.next_lines(), Ok(None));
            assert!(decoder.is_too_long() && decoder.pending() == 0);
        }
        assert_eq!(requests(&pieces), ["too long", "l|k|0"]);
    }

    #[test]
    fn the_limit_of_an_argument_depends_on_its_command() {
        let argument = |command: &str, length: usize| {
            let request = format!("{command}\r\n_\n{}\n", "x".repeat(length));
            requests(&[request.as_bytes()])[0] != "too long"
        };
        assert!(argument("auth", 300) && !argument("auth", 301));
        assert!(argument("signal", 256) && !argument("signal", 257));
        assert!(argument("r", 256) && !argument("r", 257));
    }

    #[test]
    fn lines_that_are_not_utf8_are_returned() {
        let mut decoder = RequestDecoder::default();
        decoder.read_space().extend_from_slice(b"l\n\xff\n0\nping\n_\n_\n");
        assert_eq!(decoder.next_request(), Err(RequestError::Malformed));
        assert_eq!(decoder.next_request(), Ok(Some(Request::Ping)));
        assert_eq!((decoder.lines(), decoder.pending()), (6, 0));
    }

    /// As [`requests`], from all bytes at once, by a direct implementation of the rules.
    fn by_the_rules(bytes: &[u8]) -> Vec<String> {
        let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
        // The bytes after the last line end are not a line.
        lines.pop();
        let mut out = Vec::new();
        let mut request: Vec<String> = Vec::new();
        for line in lines {
            let limit = match request.as_slice() {
                [command, _] if command == "auth" => 300,
                _ => 256,
            };
            if line.len() > limit {
                out.push("too long".to_owned());
                request.clear();
                continue;
            }
            request.push(String::from_utf8_lossy(line).trim_end_matches('\r').to_owned());
            if request.len() == 3 {
                out.push(request.join("|"));
                request.clear();
            }
        }
        out
    }

    proptest::proptest! {
        #[test]
        fn bytes_in_pieces_are_decoded_by_the_rules(
            lines in proptest::collection::vec("[a-c\\r]{0,4}|auth\\r{0,2}|signal|x{250,310}", 0..12),
            cuts in proptest::collection::vec(proptest::prelude::any::<proptest::sample::Index>(), 0..8),
        ) {
            let bytes = lines.join("\n").into_bytes();
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            ends.sort_unstable();
            ends.push(bytes.len());
            let mut start = 0;
            let mut pieces = Vec::new();
            for end in ends {
                pieces.push(&bytes[start..end]);
                start = end;
            }
            proptest::prop_assert_eq!(requests(&pieces), by_the_rules(&bytes));
        }
    }
}
