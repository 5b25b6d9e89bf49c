//! The FIFO of requests in flight on one connection, and the matching of replies to them. No I/O.
//!
//! This is the only place in the crate where a reply meets its request. The wire has no request ids: the n-th line that
//! arrives answers the n-th request that was written. So everything depends on never losing count. The rules:
//!
//! - A request counts from the moment at which it is encoded. Its reply is consumed even if no caller waits any more.
//! - A line that does not have the shape which its request requires, or that answers no request, makes the connection
//!   fail. Nothing that arrives after it is used.
//! - A bare `error` may answer the oldest request, or a server may send it unasked before it closes the connection
//!   (read timeout). So it is kept back until the next line proves that the connection continues. If the connection
//!   ends instead, the fate of the request is unknown, like that of all others in flight.
//! - On a connection that has listened, a line `sig …` is a signal and answers nothing. No answer begins with that
//!   word. On any other connection, such a line makes the connection fail like any unasked line.
//! - When the connection ends, each request is either *unwritten* or of *unknown* fate. No byte of an unwritten request
//!   was given to the socket, so it may be sent again elsewhere. A request of unknown fate may not be sent again where
//!   that could take two grants.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::time::Instant;

use crate::clock::{Moment, after};
use crate::error::{Error, ErrorKind};
use crate::protocol::{Expect, LineBuffer, MAX_RESPONSE_LINE, Quoted, Request, Response, Signal, Status};

/// The requests in flight, each with a tag that identifies its caller.
#[derive(Debug)]
pub(crate) struct Pipeline<T> {
    out: BytesMut,
    /// The number of bytes that were given to the socket since the connection began.
    written: u64,
    /// The number of bytes that were encoded since the connection began.
    encoded: u64,
    lines: LineBuffer,
    in_flight: VecDeque<InFlight<T>>,
    /// The oldest request, if it was answered with a bare `error` that no later line has confirmed yet.
    unconfirmed: Option<InFlight<T>>,
    reply_timeout: Duration,
    hears_signals: bool,
    /// When the latest of the answered requests was sent.
    heard: Option<Moment>,
    /// Whether a `ping` of the pipeline itself was answered with `error`.
    has_refused_ping: bool,
}

#[derive(Debug)]
struct InFlight<T> {
    /// `None` for a request of the pipeline itself (keepalive, confirmation).
    tag: Option<T>,
    expect: Expect,
    sent_at: Moment,
    answer_by: Instant,
    /// The position of its first byte in the stream.
    starts_at: u64,
}

/// The results of the bytes that were read.
#[derive(Debug)]
pub(crate) struct Received<T> {
    /// Answers, oldest first.
    pub(crate) replies: Vec<Reply<T>>,
    /// Signals, oldest first.
    pub(crate) signals: Vec<Signal>,
    /// Set if the server refused a request of the pipeline itself because the server does not lead. Contains the
    /// leader's address, if the server named one.
    pub(crate) not_leader: Option<Box<Option<Box<str>>>>,
}

impl<T> Received<T> {
    pub(crate) fn nothing() -> Self {
        Self {
            replies: Vec::new(),
            signals: Vec::new(),
            not_leader: None,
        }
    }

    pub(crate) fn is_nothing(&self) -> bool {
        self.replies.is_empty() && self.signals.is_empty() && self.not_leader.is_none()
    }
}

/// An answer, matched to its request.
#[derive(Debug)]
pub(crate) struct Reply<T> {
    pub(crate) tag: T,
    pub(crate) response: Response,
    /// A moment before the request was given to the socket. All effects of the request at the server are later.
    pub(crate) sent_at: Moment,
}

/// The remaining requests of a connection that has ended.
#[derive(Debug)]
pub(crate) struct Leftovers<T> {
    /// At least partly written: the server may have carried them out.
    pub(crate) unknown: Vec<T>,
    /// Not written at all.
    pub(crate) unwritten: Vec<T>,
}

impl<T> Leftovers<T> {
    pub(crate) fn nothing() -> Self {
        Self {
            unknown: Vec::new(),
            unwritten: Vec::new(),
        }
    }
}

impl<T> Pipeline<T> {
    /// Creates an empty pipeline. `reply_timeout` is how long a server may take to answer, in addition to the wait that
    /// a request asks for.
    pub(crate) fn new(reply_timeout: Duration) -> Self {
        Self {
            out: BytesMut::new(),
            written: 0,
            encoded: 0,
            lines: LineBuffer::new(),
            in_flight: VecDeque::new(),
            unconfirmed: None,
            reply_timeout,
            hears_signals: false,
            heard: None,
            has_refused_ping: false,
        }
    }

    /// Sets whether signals may come between the answers.
    pub(crate) fn hearing_signals(mut self, hears: bool) -> Self {
        self.hears_signals = hears;
        self
    }

    /// Encodes a request after the others.
    pub(crate) fn push(&mut self, request: &Request, tag: T, now: Moment) {
        self.push_entry(request, Some(tag), now);
    }

    /// Encodes a request of the pipeline itself: no caller gets its answer.
    pub(crate) fn push_own(&mut self, request: &Request, now: Moment) {
        self.push_entry(request, None, now);
    }

    fn push_entry(&mut self, request: &Request, tag: Option<T>, now: Moment) {
        let before = self.out.len();
        request.encode(&mut self.out);
        let allowed = request.blocks().as_duration().saturating_add(self.reply_timeout);
        self.in_flight.push_back(InFlight {
            tag,
            expect: request.expect(),
            sent_at: now,
            answer_by: after(now.at, allowed),
            starts_at: self.encoded,
        });
        self.encoded += (self.out.len() - before) as u64;
    }

    /// Returns the bytes that wait to be written.
    pub(crate) fn unwritten(&self) -> &[u8] {
        &self.out
    }

    /// Notes that the first `count` bytes of [`unwritten`](Self::unwritten) were given to the socket.
    pub(crate) fn wrote(&mut self, count: usize) {
        self.out.advance(count);
        self.written += count as u64;
    }

    /// Returns the buffer to read answers into.
    pub(crate) fn read_space(&mut self) -> &mut BytesMut {
        self.lines.read_space()
    }

    /// Matches all complete lines that were read so far, and appends the answers and the signals.
    ///
    /// # Errors
    ///
    /// The peer is out of step: close the connection. What was appended before remains valid.
    pub(crate) fn receive(&mut self, received: &mut Received<T>) -> Result<(), Error> {
        let into = &mut received.replies;
        loop {
            // Between two answers, a signal may come instead of the expected answer. The limit of any answer is large
            // enough for a signal.
            let expected = self.in_flight.front().map(|oldest| oldest.expect);
            let longest = expected.map_or(MAX_RESPONSE_LINE, Expect::longest_line);
            let Some(line) = self.lines.next_line(longest).map_err(not_dflockd)? else {
                return Ok(());
            };
            if self.hears_signals {
                if let Some(signal) = Signal::decode(line) {
                    // The connection continues, so the `error` before was an answer.
                    into.extend(confirmed(&mut self.unconfirmed));
                    received.signals.push(signal);
                    continue;
                }
            }
            // The answer is decoded before its request is removed, so that the request is not lost if decoding fails
            // or panics.
            let Some(oldest) = self.in_flight.front() else {
                return Err(unasked(line));
            };
            let response = Response::decode(oldest.expect, line).map_err(not_dflockd)?;
            let Some(entry) = self.in_flight.pop_front() else {
                return Ok(());
            };
            // Another line came, so the connection continues, and the `error` before was an answer.
            into.extend(confirmed(&mut self.unconfirmed));
            self.heard = Some(entry.sent_at);
            match response {
                Response::Refused(Status::Error) if entry.tag.is_some() => self.unconfirmed = Some(entry),
                Response::Refused(Status::NotLeader(leader)) if entry.tag.is_none() => {
                    received.not_leader = Some(Box::new(leader));
                }
                // For the renewal of a lease that does not exist, `error` is the right answer.
                Response::Refused(Status::Error) if entry.expect == Expect::Done => self.has_refused_ping = true,
                response => into.extend(entry.into_reply(response)),
            }
        }
    }

    /// Returns whether an answer is kept back and no request is in flight whose answer would confirm it. If so, send a
    /// request.
    pub(crate) fn wants_confirmation(&self) -> bool {
        self.unconfirmed.is_some() && self.in_flight.is_empty()
    }

    /// Returns when the oldest request has been unanswered for too long.
    pub(crate) fn answer_by(&self) -> Option<Instant> {
        self.in_flight.front().map(|entry| entry.answer_by)
    }

    /// Returns whether the server refused a `ping` of the pipeline itself because it does not support it.
    pub(crate) fn has_refused_ping(&self) -> bool {
        self.has_refused_ping
    }

    /// Returns when the latest of the answered requests was sent. The server was reachable at that moment, or later.
    pub(crate) fn heard(&self) -> Option<Moment> {
        self.heard
    }

    /// Returns the number of requests in flight.
    pub(crate) fn len(&self) -> usize {
        self.in_flight.len() + usize::from(self.unconfirmed.is_some())
    }

    /// Treats all encoded bytes as written, because it is unknown how many were given to the socket.
    pub(crate) fn assume_written(&mut self) {
        self.written = self.encoded;
    }

    /// Ends the pipeline. Returns all unanswered requests, oldest first.
    pub(crate) fn into_leftovers(self) -> Leftovers<T> {
        let mut leftovers = Leftovers::nothing();
        for entry in self.unconfirmed.into_iter().chain(self.in_flight) {
            if entry.starts_at < self.written {
                leftovers.unknown.extend(entry.tag);
            } else {
                leftovers.unwritten.extend(entry.tag);
            }
        }
        leftovers
    }
}

impl<T> InFlight<T> {
    fn into_reply(self, response: Response) -> Option<Reply<T>> {
        Some(Reply {
            tag: self.tag?,
            response,
            sent_at: self.sent_at,
        })
    }
}

/// Returns the answer that was kept back, if there is one.
fn confirmed<T>(unconfirmed: &mut Option<InFlight<T>>) -> Option<Reply<T>> {
    let entry = unconfirmed.take()?;
    entry.into_reply(Response::Refused(Status::Error))
}

fn not_dflockd(cause: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::Protocol,
        format!("the peer is not a dflockd server, or out of step: {cause}"),
    )
}

/// Returns the error of a line that answers no request. A bare `error` is what a server says before it closes a silent
/// connection.
fn unasked(line: &str) -> Error {
    if line == "error" {
        return Error::new(
            ErrorKind::Disconnected,
            "the server gave the connection up (it says `error` unasked when it has read nothing for its read timeout)",
        );
    }
    Error::new(
        ErrorKind::Protocol,
        format!("the peer sent {:?}, which answers no request", Quoted::of(line)),
    )
}

#[cfg(test)]
mod tests;
