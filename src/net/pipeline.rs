//! The FIFO of requests in flight on one connection, and the matching of replies to them. No I/O.
//!
//! This is the only place in the crate where a reply meets its request. The wire has no request ids: the n-th line
//! that arrives answers the n-th request that was written, so everything depends on never losing count. The rules:
//!
//! - A request is counted from the moment it is encoded; its reply is consumed whether or not anybody still waits.
//! - A line that does not have the shape which its request calls for, or that nobody asked for, condemns the
//!   connection. Nothing that arrives after it is believed.
//! - A bare `error` may be the answer to the oldest request, or what a server says, unasked, before it closes
//!   (read timeout). So it is kept back until the next line proves that the connection goes on. If the connection
//!   ends instead, the request's fate is unknown, like that of all others in flight.
//! - On a connection that has listened, a line `sig …` is a signal and answers nothing; it is told from an answer by its
//!   first word, which no answer has. On any other connection it is a breach like any line that nobody asked for.
//! - When the connection ends, each request is either *unwritten* (not one of its bytes was given to the
//!   socket: it may be sent again elsewhere) or of *unknown* fate (it must not be, where that could take two grants).

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::time::Instant;

use crate::clock::{Moment, after};
use crate::error::{Error, ErrorKind};
use crate::escape::Shortened;
use crate::protocol::{Expect, LineBuffer, MAX_RESPONSE_LINE, Request, Response, Signal, Status};

/// Requests in flight, each with a tag that says whose it is.
#[derive(Debug)]
pub(crate) struct Pipeline<T> {
    out: BytesMut,
    /// How many bytes were given to the socket since the connection began.
    written: u64,
    /// How many bytes were encoded since the connection began.
    encoded: u64,
    lines: LineBuffer,
    in_flight: VecDeque<InFlight<T>>,
    /// The oldest request, answered with a bare `error` that no later line has confirmed yet.
    unconfirmed: Option<InFlight<T>>,
    reply_timeout: Duration,
    hears_signals: bool,
    /// When the last of the requests that were answered was sent.
    heard: Option<Moment>,
    /// A `ping` of the pipeline's own was answered with `error`.
    has_refused_ping: bool,
}

#[derive(Debug)]
struct InFlight<T> {
    /// `None`: the pipeline's own (keepalive, confirmation).
    tag: Option<T>,
    expect: Expect,
    sent_at: Moment,
    answer_by: Instant,
    /// Where in the stream its first byte stands.
    starts_at: u64,
}

/// What came out of the bytes read.
#[derive(Debug)]
pub(crate) struct Received<T> {
    /// Answers, oldest first.
    pub(crate) replies: Vec<Reply<T>>,
    /// Signals, oldest first.
    pub(crate) signals: Vec<Signal>,
    /// What the server said of its leader, when it refused one of the pipeline's own requests because it does not lead.
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

/// An answer, matched.
#[derive(Debug)]
pub(crate) struct Reply<T> {
    pub(crate) tag: T,
    pub(crate) response: Response,
    /// A moment before the request was given to the socket: whatever the server did because of it, it did later.
    pub(crate) sent_at: Moment,
}

/// What becomes of the requests that a dying connection leaves behind.
#[derive(Debug)]
pub(crate) struct Leftovers<T> {
    /// In flight, at least partly written: the server may have carried them out.
    pub(crate) unknown: Vec<T>,
    /// Never written.
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
    /// An empty pipeline. `reply_timeout` is what a server may take to answer, on top of the wait it was asked for.
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

    /// The same, for a connection on which signals may come between the answers.
    pub(crate) fn hearing_signals(mut self, hears: bool) -> Self {
        self.hears_signals = hears;
        self
    }

    /// Encodes a request behind the others.
    pub(crate) fn push(&mut self, request: &Request, tag: T, now: Moment) {
        self.push_entry(request, Some(tag), now);
    }

    /// Encodes a request whose answer nobody waits for: its arrival is what counts.
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

    /// What waits to be written.
    pub(crate) fn unwritten(&self) -> &[u8] {
        &self.out
    }

    /// Takes note that the first `count` bytes of [`unwritten`](Self::unwritten) were given to the socket.
    pub(crate) fn wrote(&mut self, count: usize) {
        self.out.advance(count);
        self.written += count as u64;
    }

    /// The place to read answers into.
    pub(crate) fn read_space(&mut self) -> &mut BytesMut {
        self.lines.read_space()
    }

    /// Matches all complete lines among the bytes read so far and appends the answers, and the signals.
    ///
    /// # Errors
    ///
    /// The peer is out of step: close the connection. What was appended before stands.
    pub(crate) fn receive(&mut self, received: &mut Received<T>) -> Result<(), Error> {
        let into = &mut received.replies;
        while let Some(line) = self.lines.next_line(MAX_RESPONSE_LINE).map_err(not_dflockd)? {
            if self.hears_signals {
                if let Some(signal) = Signal::decode(line) {
                    // It goes on, so the `error` before it was an answer.
                    into.extend(confirmed(&mut self.unconfirmed));
                    received.signals.push(signal);
                    continue;
                }
            }
            // Decoded before it is taken: whatever happens meanwhile, nothing in flight is forgotten.
            let Some(oldest) = self.in_flight.front() else {
                return Err(unasked(line));
            };
            let response = Response::decode(oldest.expect, line).map_err(not_dflockd)?;
            let Some(entry) = self.in_flight.pop_front() else {
                return Ok(());
            };
            // Another line came, so the connection goes on, and the `error` before it was an answer.
            into.extend(confirmed(&mut self.unconfirmed));
            self.heard = Some(entry.sent_at);
            match response {
                Response::Refused(Status::Error) if entry.tag.is_some() => self.unconfirmed = Some(entry),
                Response::Refused(Status::NotLeader(leader)) if entry.tag.is_none() => {
                    received.not_leader = Some(Box::new(leader));
                }
                // To the renewal of a lease that does not exist, `error` is the right answer.
                Response::Refused(Status::Error) if entry.expect == Expect::Done => self.has_refused_ping = true,
                response => into.extend(entry.into_reply(response)),
            }
        }
        Ok(())
    }

    /// Whether an answer is kept back and nothing is in flight whose answer would confirm it: ask for something.
    pub(crate) fn wants_confirmation(&self) -> bool {
        self.unconfirmed.is_some() && self.in_flight.is_empty()
    }

    /// The moment at which the oldest request has been unanswered for too long.
    pub(crate) fn answer_by(&self) -> Option<Instant> {
        self.in_flight.front().map(|entry| entry.answer_by)
    }

    /// Whether the server has said, to a request of the pipeline's own, that it does not know `ping`.
    pub(crate) fn has_refused_ping(&self) -> bool {
        self.has_refused_ping
    }

    /// When the last of the requests that were answered was sent: the server was there at that time, or later.
    pub(crate) fn heard(&self) -> Option<Moment> {
        self.heard
    }

    /// How many requests are in flight.
    pub(crate) fn len(&self) -> usize {
        self.in_flight.len() + usize::from(self.unconfirmed.is_some())
    }

    /// How much was given to the socket is not known: it may have been all that was encoded.
    pub(crate) fn assume_written(&mut self) {
        self.written = self.encoded;
    }

    /// The connection is over: everything that was not answered, oldest first.
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

/// The answer that was kept back, if there is one.
fn confirmed<T>(unconfirmed: &mut Option<InFlight<T>>) -> Option<Reply<T>> {
    let entry = unconfirmed.take()?;
    entry.into_reply(Response::Refused(Status::Error))
}

fn not_dflockd(cause: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::Protocol,
        format!("the peer is no dflockd server, or out of step: {cause}"),
    )
}

/// A line that answers nothing. A bare `error` is what a server says before it closes a silent connection.
fn unasked(line: &str) -> Error {
    if line == "error" {
        return Error::new(
            ErrorKind::Disconnected,
            "the server gave the connection up (it says `error` unasked when it read nothing for its read timeout)",
        );
    }
    Error::new(
        ErrorKind::Protocol,
        format!("the peer said {:?} though nothing was asked", Shortened(line)),
    )
}

#[cfg(test)]
mod tests;
