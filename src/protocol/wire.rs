//! Runs the protocol over a stream: one request, then its answer. After a call that was dropped or failed half-way, the
//! stream is out of step: the next line may not be the answer to the next request. Every further call then fails.
//!
//! Everything except the I/O is in [`Exchange`], so that it is the same for async and for blocking streams.

use std::fmt;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroize;

use super::call::Call;
use super::line::LineBuffer;
use super::request::Request;
use super::response::Response;
use crate::error::{Error, ErrorKind, Result};

/// A stream to a server, with the bytes that were read from it in advance.
pub struct Wire<S> {
    pub(super) stream: S,
    pub(super) exchange: Exchange,
}

/// Does not show the bytes under way, which may contain a secret.
impl<S: fmt::Debug> fmt::Debug for Wire<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

/// The state of one request and its answer, without the I/O.
#[derive(Default)]
pub(super) struct Exchange {
    pub(super) out: BytesMut,
    pub(super) lines: LineBuffer,
    /// A limit for the length of all answers, in addition to the limit of each kind.
    longest_line: Option<usize>,
    in_step: InStep,
}

#[derive(Default, PartialEq, Eq)]
enum InStep {
    #[default]
    Yes,
    /// A request was begun, and its answer was not read.
    No,
}

impl Exchange {
    /// Encodes the request. No other request can begin until its answer has been read.
    pub(super) fn begin(&mut self, request: &Request) -> Result<()> {
        if self.in_step == InStep::No {
            return Err(out_of_step());
        }
        self.in_step = InStep::No;
        // The previous request may have contained a secret.
        self.out.zeroize();
        self.out.clear();
        request.encode(&mut self.out);
        Ok(())
    }

    /// Returns the answer, if it has arrived completely.
    pub(super) fn answer(&mut self, request: &Request) -> Result<Option<Response>> {
        let longest = request
            .expect()
            .longest_line()
            .min(self.longest_line.unwrap_or(usize::MAX));
        let line = self.lines.next_line(longest);
        let line = line.map_err(protocol_error)?;
        let Some(line) = line else { return Ok(None) };
        let response = Response::decode(request.expect(), line).map_err(protocol_error)?;
        self.in_step = InStep::Yes;
        Ok(Some(response))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.out.zeroize();
    }
}

/// Returns the error for a stream that failed while a request was under way.
pub(super) fn lost(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Disconnected, "the stream failed before the answer").caused_by(error)
}

/// Returns the error for a stream that ended while a request was under way.
pub(super) fn closed(request: &Request) -> Error {
    Error::new(
        ErrorKind::Disconnected,
        format!("the server closed the stream before it answered {request:?}"),
    )
}

/// Returns the error for a stream on which every further call fails.
fn out_of_step() -> Error {
    Error::new(
        ErrorKind::Disconnected,
        "this stream is out of step: an earlier call was dropped or failed half-way; open a new one",
    )
    .fatal()
}

fn protocol_error(cause: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::Protocol,
        format!("the peer is not a dflockd server: {cause}"),
    )
}

impl<S> Wire<S> {
    /// Wraps a stream.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            exchange: Exchange::default(),
        }
    }

    /// Limits the length of every answer, in bytes, in addition to the limit of its kind.
    pub(crate) fn with_longest_line(mut self, bytes: usize) -> Self {
        self.exchange.longest_line = Some(bytes);
        self
    }

    /// Returns the stream, if it is in step: no answer is under way, and no unasked bytes were read.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Disconnected`] or [`ErrorKind::Protocol`] if the stream is out of step.
    pub fn into_stream(self) -> Result<S> {
        if self.exchange.in_step == InStep::No {
            return Err(out_of_step());
        }
        if self.exchange.lines.pending() > 0 {
            return Err(Error::new(
                ErrorKind::Protocol,
                "the peer is not a dflockd server: it sent more than it was asked for",
            ));
        }
        Ok(self.stream)
    }
}

/// The last bytes of a peer before its stream ended, beyond the lines that were understood.
pub(crate) struct FinalBytes {
    /// The bytes that were read and not returned as lines.
    pub(crate) bytes: BytesMut,
    /// The error with which the stream ended, if it did not end properly.
    pub(crate) error: Option<Error>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Returns the last bytes of the peer, after a call that failed with `Disconnected`. Reads once more, because a
    /// call that failed while writing has read nothing.
    pub(crate) async fn final_bytes(&mut self) -> FinalBytes {
        let read = self.stream.read_buf(self.exchange.lines.read_space()).await;
        let error = read.err().map(lost);
        FinalBytes {
            bytes: self.exchange.lines.read_space().clone(),
            error,
        }
    }

    /// Sends a request and reads its answer. All [functions](super::functions) use it.
    ///
    /// # Errors
    ///
    /// As the [functions](super::functions).
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe, like the [functions](super::functions).
    pub async fn run<T>(&mut self, call: Call<T>) -> Result<T> {
        self.exchange.begin(call.request())?;
        self.stream.write_all(&self.exchange.out).await.map_err(lost)?;
        self.stream.flush().await.map_err(lost)?;
        loop {
            if let Some(response) = self.exchange.answer(call.request())? {
                return call.finish(response);
            }
            let read = self
                .stream
                .read_buf(self.exchange.lines.read_space())
                .await
                .map_err(lost)?;
            if read == 0 {
                return Err(closed(call.request()));
            }
        }
    }
}
