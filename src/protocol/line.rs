//! Cuts lines out of bytes, however the bytes arrive.

use std::fmt;

use bytes::{Buf, BytesMut};

/// Collects bytes and returns the complete lines among them, without copying.
///
/// A line ends with `\n`; one `\r` before it is dropped. Bytes are searched only once, so a line that arrives byte by
/// byte costs no more than one that arrives whole. Memory is bounded by the limit given to
/// [`next_line`](Self::next_line) plus one read.
#[derive(Default)]
pub struct LineBuffer {
    bytes: BytesMut,
    /// The number of bytes that belong to lines which were returned or refused already.
    consumed: usize,
    /// The number of bytes that are known to hold no further `\n`. Never less than `consumed`.
    searched: usize,
}

/// Does not show the bytes, which may contain the token of a grant.
impl fmt::Debug for LineBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineBuffer")
            .field("unread_bytes", &(self.bytes.len() - self.consumed))
            .finish_non_exhaustive()
    }
}

/// Why the bytes are not a line. After such an error, the stream is out of step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LineError {
    /// There is no `\n` within the limit, in bytes.
    #[non_exhaustive]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// The line is not UTF-8.
    NotUtf8,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { limit } => write!(f, "a line is longer than {limit} bytes"),
            Self::NotUtf8 => f.write_str("a line is not UTF-8"),
        }
    }
}

impl std::error::Error for LineError {}

/// The maximum capacity, in bytes, that an empty buffer keeps.
const KEPT_CAPACITY: usize = 64 * 1024;

impl LineBuffer {
    /// Creates an empty buffer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the buffer to read more bytes into. Only append to it.
    pub fn read_space(&mut self) -> &mut BytesMut {
        self.bytes.advance(self.consumed);
        self.searched -= self.consumed;
        self.consumed = 0;
        // Memory that one long line needed is freed before short lines follow.
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT_CAPACITY {
            self.bytes = BytesMut::new();
        }
        if self.bytes.capacity() - self.bytes.len() < 4096 {
            self.bytes.reserve(16 * 1024);
        }
        &mut self.bytes
    }

    /// Appends bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.read_space().extend_from_slice(bytes);
    }

    /// Returns the next complete line of at most `limit` bytes, not counting the line end, if there is one.
    ///
    /// # Errors
    ///
    /// [`LineError`] if the line is too long (as soon as that is known, even before its end), or not UTF-8.
    pub fn next_line(&mut self, limit: usize) -> Result<Option<&str>, LineError> {
        let Some(offset) = memchr::memchr(b'\n', &self.bytes[self.searched..]) else {
            self.searched = self.bytes.len();
            // One byte more than the limit may still become a line: the last byte can be the `\r`.
            return if self.searched - self.consumed > limit + 1 {
                Err(LineError::TooLong { limit })
            } else {
                Ok(None)
            };
        };
        let end = self.searched + offset;
        let line = &self.bytes[self.consumed..end];
        self.consumed = end + 1;
        self.searched = end + 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > limit {
            return Err(LineError::TooLong { limit });
        }
        std::str::from_utf8(line).map(Some).map_err(|_| LineError::NotUtf8)
    }

    /// Returns the number of bytes that are not part of a returned line.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.bytes.len() - self.consumed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]], limit: usize) -> Result<Vec<String>, LineError> {
        let mut buffer = LineBuffer::new();
        let mut out = Vec::new();
        for piece in pieces {
            buffer.extend(piece);
            while let Some(line) = buffer.next_line(limit)? {
                out.push(line.to_owned());
            }
        }
        Ok(out)
    }

    #[test]
    fn lines_can_be_split_anywhere_and_several_can_come_in_one_read() {
        assert_eq!(
            lines(&[b"a\nb", b"b\r", b"\nc\n\n"], 9).as_deref(),
            Ok(&["a", "bb", "c", ""].map(String::from)[..])
        );
    }

    #[test]
    fn only_one_carriage_return_is_dropped() {
        assert_eq!(lines(&[b"a\r\r\n"], 9).as_deref(), Ok(&["a\r".to_owned()][..]));
    }

    #[test]
    fn the_limit_counts_the_line_without_its_end() {
        assert_eq!(lines(&[b"abc\r\n"], 3).map(|l| l.len()), Ok(1));
        assert_eq!(lines(&[b"abcd\n"], 3), Err(LineError::TooLong { limit: 3 }));
        assert_eq!(lines(&[b"abc\r"], 3).map(|l| l.len()), Ok(0));
        assert_eq!(lines(&[b"abcde"], 3), Err(LineError::TooLong { limit: 3 }));
    }

    #[test]
    fn the_memory_of_a_long_line_is_freed() {
        let mut buffer = LineBuffer::new();
        let long = vec![b'x'; 4 * 1024 * 1024];
        buffer.extend(&long);
        buffer.extend(b"\nab");
        assert_eq!(
            buffer.next_line(long.len()).map(|line| line.map(str::len)),
            Ok(Some(long.len()))
        );
        buffer.extend(b"c\n");
        assert_eq!(buffer.next_line(9), Ok(Some("abc")));
        assert!(buffer.read_space().capacity() <= KEPT_CAPACITY);
    }

    #[test]
    fn invalid_utf8_is_an_error() {
        assert_eq!(lines(&[b"\xff\n"], 3), Err(LineError::NotUtf8));
    }
}
