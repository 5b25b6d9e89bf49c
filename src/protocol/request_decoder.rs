//! Requests out of bytes: the reading side of a server.

use super::line::{LineBuffer, LineError};
use super::request::Request;
use super::{MAX_LONG_LINE, MAX_SHORT_LINE};
use bytes::BytesMut;

/// Collects bytes and gives out the complete requests among them.
#[derive(Debug)]
pub struct RequestDecoder {
    longest_argument: usize,
    lines: LineBuffer,
    command: Option<Box<str>>,
    key: Option<Box<str>>,
}

/// Why a request cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// Three lines that mean nothing. The next request can be read.
    Malformed,
    /// The stream is out of step: answer and close.
    Line(LineError),
}

impl From<LineError> for RequestError {
    fn from(error: LineError) -> Self {
        Self::Line(error)
    }
}

impl Default for RequestDecoder {
    fn default() -> Self {
        Self::with_longest_argument(MAX_LONG_LINE)
    }
}

impl RequestDecoder {
    /// A decoder that takes argument lines of `auth` and `signal` up to so many bytes. Servers before 1.15 take no more than
    /// [`MAX_SHORT_LINE`]; the default is [`MAX_LONG_LINE`].
    #[must_use]
    pub fn with_longest_argument(bytes: usize) -> Self {
        Self {
            longest_argument: bytes,
            lines: LineBuffer::new(),
            command: None,
            key: None,
        }
    }

    /// The place to read more bytes into. Only append.
    pub fn read_space(&mut self) -> &mut BytesMut {
        self.lines.read_space()
    }

    /// The next complete request, if there is one.
    ///
    /// # Errors
    ///
    /// [`RequestError`]; after [`RequestError::Malformed`] the decoder goes on with the next request.
    pub fn next_request(&mut self) -> Result<Option<Request>, RequestError> {
        if self.command.is_none() {
            match self.lines.next_line(MAX_SHORT_LINE)? {
                Some(line) => self.command = Some(line.into()),
                None => return Ok(None),
            }
        }
        if self.key.is_none() {
            match self.lines.next_line(MAX_SHORT_LINE)? {
                Some(line) => self.key = Some(line.into()),
                None => return Ok(None),
            }
        }
        let limit = match self.command.as_deref() {
            Some("auth" | "signal") => self.longest_argument,
            _ => MAX_SHORT_LINE,
        };
        let Some(argument) = self.lines.next_line(limit)? else {
            return Ok(None);
        };
        let request = match (&self.command, &self.key) {
            (Some(command), Some(key)) => Request::decode(command, key, argument),
            _ => None,
        };
        self.command = None;
        self.key = None;
        request.map(Some).ok_or(RequestError::Malformed)
    }
}
