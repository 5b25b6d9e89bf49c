//! The low-level functions: one request and its answer over a stream of your own.
//!
//! They are for tools and tests that want the wire under their hands. Nothing here renews, reconnects or releases by
//! itself; for that use [`Client`](crate::Client).
//!
//! | function | answers | Python |
//! | --- | --- | --- |
//! | [`acquire`], [`sem_acquire`] | [`Grant`] | `acquire`, `sem_acquire` |
//! | [`release`], [`sem_release`] | `()` | `release`, `sem_release` |
//! | [`renew`], [`sem_renew`] | seconds left, where the server says so | `renew`, `sem_renew` |
//! | [`enqueue`], [`sem_enqueue`] | [`Enqueued`] | `enqueue`, `sem_enqueue` |
//! | [`wait`], [`sem_wait`] | [`Grant`] | `wait`, `sem_wait` |
//! | [`stats`] | [`Stats`] | `stats` |
//! | [`sig_emit`] | deliveries | `sig_emit` |
//! | [`auth`], [`ping`] | `()` | |
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use dflockd_client::protocol::functions::{Wire, acquire, release};
//! use dflockd_client::{Key, Ttl, WaitSecs};
//!
//! # let server = dflockd_client::server::Server::builder().port(0).start().await?;
//! # let address = server.local_addr();
//! let mut wire = Wire::new(tokio::net::TcpStream::connect(address).await?);
//! let key = Key::new("orders/42")?;
//! let grant = acquire(&mut wire, &key, WaitSecs::TRY, Ttl::from_secs(30)).await?;
//! release(&mut wire, &key, &grant.token).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Errors
//!
//! All of them give the server's refusal as a typed error ([`ErrorKind`]), `Protocol` for an answer that is none (too
//! long, not UTF-8, of the wrong shape), and `Disconnected` if the stream ends or fails. After the last two the stream
//! is out of step and every further call on it fails.
//!
//! # Cancel safety
//!
//! None of them is cancel safe: a call that is dropped half-way leaves an answer on the way, so the [`Wire`] refuses
//! further calls, and whatever the server granted meanwhile stays granted until the stream is closed.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::MAX_RESPONSE_LINE;
use super::call::{Call, Enqueued};
use super::channel::Channel;
use super::line::LineBuffer;
use super::request::{AuthToken, Request};
use super::response::Response;
use super::signal::Payload;
use crate::error::{Error, ErrorKind, Result};
use crate::stats::Stats;
use crate::types::{Grant, Key, Kind, Limit, Target, Token, Ttl, WaitSecs};

/// A stream to a server, with what was read from it ahead of time.
#[derive(Debug)]
pub struct Wire<S> {
    stream: S,
    exchange: Exchange,
}

/// The state of one request and its answer, without the I/O.
#[derive(Debug, Default)]
struct Exchange {
    out: BytesMut,
    lines: LineBuffer,
    in_step: InStep,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum InStep {
    #[default]
    Yes,
    /// A request was begun and its answer not read.
    No,
}

impl Exchange {
    /// Encodes the request. Until its answer was read, no other can be begun.
    fn begin(&mut self, request: &Request) -> Result<()> {
        if self.in_step == InStep::No {
            return Err(out_of_step());
        }
        self.in_step = InStep::No;
        self.out.clear();
        request.encode(&mut self.out);
        Ok(())
    }

    /// The answer, if all of it has arrived.
    fn answer(&mut self, request: &Request) -> Result<Option<Response>> {
        let line = self.lines.next_line(MAX_RESPONSE_LINE).map_err(protocol_error)?;
        let Some(line) = line else { return Ok(None) };
        let response = Response::decode(request.expect(), line).map_err(protocol_error)?;
        self.in_step = InStep::Yes;
        Ok(Some(response))
    }
}

fn out_of_step() -> Error {
    Error::new(
        ErrorKind::Disconnected,
        "this stream is out of step: an earlier call was dropped or failed half-way; open a new one",
    )
}

fn protocol_error(cause: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Protocol, format!("this is no dflockd server: {cause}")).caused_by(cause)
}

impl<S> Wire<S> {
    /// Puts the protocol on a stream.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            exchange: Exchange::default(),
        }
    }

    /// The stream, if it is in step: no answer is on its way, and nothing was read that nobody asked for.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Disconnected`] or [`ErrorKind::Protocol`] if it is not.
    pub fn into_stream(self) -> Result<S> {
        if self.exchange.in_step == InStep::No {
            return Err(out_of_step());
        }
        if self.exchange.lines.pending() > 0 {
            return Err(Error::new(
                ErrorKind::Protocol,
                "this is no dflockd server: it said more than it was asked for",
            ));
        }
        Ok(self.stream)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Sends a request and reads its answer: what all functions of this module do.
    ///
    /// # Errors
    ///
    /// As the [module](self) says.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe, as the [module](self) says.
    pub async fn run<T>(&mut self, call: Call<T>) -> Result<T> {
        self.exchange.begin(call.request())?;
        let lost = |error| Error::new(ErrorKind::Disconnected, "the stream failed before the answer").caused_by(error);
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
                return Err(Error::new(
                    ErrorKind::Disconnected,
                    format!("the server closed the stream before it answered {:?}", call.request()),
                ));
            }
        }
    }
}

/// Presents the server's secret. Must be the first call where the server has one, and never made otherwise.
///
/// # Errors
///
/// [`ErrorKind::Auth`] if the secret is wrong (the server closes then) or none is wanted.
///
/// # Cancel safety
///
/// Not cancel safe, as the [module](self) says.
pub async fn auth<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>, token: AuthToken) -> Result<()> {
    wire.run(Call::auth(token)).await
}

/// Does nothing, and keeps the connection from being silent.
///
/// # Errors
///
/// [`ErrorKind::Unsupported`] before release 1.14.
///
/// # Cancel safety
///
/// Not cancel safe, as the [module](self) says.
pub async fn ping<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>) -> Result<()> {
    wire.run(Call::ping()).await
}

/// Acquires a lock, waiting for up to `wait`; with [`WaitSecs::TRY`] it does not wait.
///
/// # Errors
///
/// [`ErrorKind::Timeout`] if it was not granted in time, [`ErrorKind::MaxLocks`], [`ErrorKind::MaxWaiters`] and the
/// other refusals.
///
/// # Cancel safety
///
/// Not cancel safe, as the [module](self) says.
pub async fn acquire<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    key: &Key,
    wait: WaitSecs,
    ttl: Option<Ttl>,
) -> Result<Grant> {
    wire.run(Call::acquire(Target::Lock, key.clone(), wait, ttl)).await
}

/// Gives up a lock.
///
/// # Errors
///
/// [`ErrorKind::NotHeld`] if the token does not hold it (any more).
///
/// # Cancel safety
///
/// Not cancel safe, as the [module](self) says.
pub async fn release<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>, key: &Key, token: &Token) -> Result<()> {
    wire.run(Call::release(Kind::Lock, key.clone(), *token)).await
}

/// Makes a lock's lease run anew. Without a TTL it becomes the *server's default*, whatever it was before.
///
/// Returns the seconds left, where the server says so.
///
/// # Errors
///
/// [`ErrorKind::NotHeld`] if the token does not hold it (any more).
///
/// # Cancel safety
///
/// Not cancel safe, as the [module](self) says.
pub async fn renew<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    key: &Key,
    token: &Token,
    ttl: Option<Ttl>,
) -> Result<Option<u64>> {
    wire.run(Call::renew(Kind::Lock, key.clone(), *token, ttl)).await
}

/// First phase of two: takes the lock, or a place in its queue that belongs to this connection.
///
/// # Errors
///
/// [`ErrorKind::AlreadyEnqueued`] and the other refusals.
///
/// # Cancel safety
///
/// Not cancel safe, as the [module](self) says.
pub async fn enqueue<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    key: &Key,
    ttl: Option<Ttl>,
) -> Result<Enqueued> {
    wire.run(Call::enqueue(Target::Lock, key.clone(), ttl)).await
}

/// Second phase: waits at the place that [`enqueue`] took over the same stream. The lease runs from the grant, not from
/// this call.
///
/// # Errors
///
/// [`ErrorKind::Timeout`] (the place is given up then), [`ErrorKind::NotEnqueued`], [`ErrorKind::LeaseExpired`] if the
/// grant ran out before it was collected. Servers before 1.14 do not tell the last one: check with [`renew`].
///
/// # Cancel safety
///
/// Not cancel safe, as the [module](self) says.
pub async fn wait<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>, key: &Key, wait: WaitSecs) -> Result<Grant> {
    wire.run(Call::wait(Kind::Lock, key.clone(), wait)).await
}

/// Acquires a slot of a semaphore, waiting for up to `wait`.
///
/// # Errors
///
/// As [`acquire`], and [`ErrorKind::LimitMismatch`] if the key exists with another limit.
///
/// # Cancel safety
///
/// Not cancel safe, as the [module](self) says.
pub async fn sem_acquire<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    key: &Key,
    wait: WaitSecs,
    limit: Limit,
    ttl: Option<Ttl>,
) -> Result<Grant> {
    wire.run(Call::acquire(Target::Semaphore(limit), key.clone(), wait, ttl))
        .await
}

/// Gives up a slot.
///
/// # Errors
///
/// [`ErrorKind::NotHeld`] if the token does not hold one (any more).
///
/// # Cancel safety
///
/// Not cancel safe, as the [module](self) says.
pub async fn sem_release<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    key: &Key,
    token: &Token,
) -> Result<()> {
    wire.run(Call::release(Kind::Semaphore, key.clone(), *token)).await
}

/// Makes a slot's lease run anew; see [`renew`].
///
/// # Errors
///
/// [`ErrorKind::NotHeld`] if the token does not hold one (any more).
///
/// # Cancel safety
///
/// Not cancel safe, as the [module](self) says.
pub async fn sem_renew<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    key: &Key,
    token: &Token,
    ttl: Option<Ttl>,
) -> Result<Option<u64>> {
    wire.run(Call::renew(Kind::Semaphore, key.clone(), *token, ttl)).await
}

/// First phase of two for a slot; see [`enqueue`].
///
/// # Errors
///
/// As [`enqueue`], and [`ErrorKind::LimitMismatch`].
///
/// # Cancel safety
///
/// Not cancel safe, as the [module](self) says.
pub async fn sem_enqueue<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    key: &Key,
    limit: Limit,
    ttl: Option<Ttl>,
) -> Result<Enqueued> {
    wire.run(Call::enqueue(Target::Semaphore(limit), key.clone(), ttl))
        .await
}

/// Second phase of two for a slot; see [`wait`].
///
/// # Errors
///
/// As [`wait`].
///
/// # Cancel safety
///
/// Not cancel safe, as the [module](self) says.
pub async fn sem_wait<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    key: &Key,
    wait: WaitSecs,
) -> Result<Grant> {
    wire.run(Call::wait(Kind::Semaphore, key.clone(), wait)).await
}

/// The server's state.
///
/// # Errors
///
/// [`ErrorKind::Unsupported`] before release 1.0.
///
/// # Cancel safety
///
/// Not cancel safe, as the [module](self) says.
pub async fn stats<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>) -> Result<Stats> {
    wire.run(Call::stats()).await
}

/// Publishes a signal on a literal channel. Returns the number of deliveries.
///
/// # Errors
///
/// [`ErrorKind::Unsupported`] if the server knows no signals (before 1.11, and from 2.0 on).
///
/// # Cancel safety
///
/// Not cancel safe, as the [module](self) says.
pub async fn sig_emit<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    channel: Channel,
    payload: Payload,
) -> Result<u64> {
    wire.run(Call::emit(channel, payload)).await
}
