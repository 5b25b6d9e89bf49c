//! The low-level functions: one request and its answer over a stream that you provide.
//!
//! They are for tools and tests that work directly with the wire protocol. They do not renew, reconnect or release
//! anything by themselves; for that, use [`Client`](crate::Client).
//!
//! | function | returns | Python |
//! | --- | --- | --- |
//! | [`acquire`], [`sem_acquire`] | [`Grant`] | `acquire`, `sem_acquire` |
//! | [`release`], [`sem_release`] | `()` | `release`, `sem_release` |
//! | [`renew`], [`sem_renew`] | the seconds left, if the server names them | `renew`, `sem_renew` |
//! | [`enqueue`], [`sem_enqueue`] | [`Enqueued`] | `enqueue`, `sem_enqueue` |
//! | [`wait`], [`sem_wait`] | [`Grant`] | `wait`, `sem_wait` |
//! | [`stats`] | [`Stats`] | `stats` |
//! | [`sig_emit`] | deliveries | `sig_emit` |
//! | [`auth`], [`ping`] | `()` | |
//! | [`barrier`], [`stable_ref`] (cluster builds) | `()` | |
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
//! All functions return the server's refusal as a typed error ([`ErrorKind`]), `Protocol` for a malformed answer (too
//! long, not UTF-8, or of the wrong shape), and `Disconnected` if the stream ends or fails. After the last two, the
//! stream is out of step and every further call on it fails, except after an answer to [`stats`] whose JSON cannot be
//! parsed.
//!
//! # Cancel safety
//!
//! No function is cancel safe. A call that is dropped before it completes leaves an answer under way, so the [`Wire`]
//! refuses further calls. Whatever the server has granted meanwhile stays granted until its lease ends or the stream is
//! closed.

use tokio::io::{AsyncRead, AsyncWrite};

use super::auth_token::AuthToken;
use super::call::{Call, Enqueued};
use super::channel::Channel;
use super::signal::Payload;
use super::stable_ref::StableRef;
pub use super::wire::Wire;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;
use crate::stats::Stats;
use crate::types::{Grant, Key, Kind, Limit, Target, Token, Ttl, WaitSecs};

/// Presents the server's auth token. Must be the first call if the server has one, and must not be called otherwise.
///
/// # Errors
///
/// [`Auth`](ErrorKind::Auth) if the token is wrong (the server then closes the connection), or if the server was
/// started without an auth token.
///
/// # Cancel safety
///
/// Not cancel safe, as the [module](self) says.
pub async fn auth<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>, token: AuthToken) -> Result<()> {
    wire.run(Call::auth(token)).await
}

/// Changes nothing, but shows the server that the client is alive.
///
/// # Errors
///
/// [`Unsupported`](ErrorKind::Unsupported) before release 1.14.
///
/// # Cancel safety
///
/// Not cancel safe, as the [module](self) says.
pub async fn ping<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>) -> Result<()> {
    wire.run(Call::ping()).await
}

/// Waits until every write that the cluster committed before this call is visible to this server.
///
/// # Errors
///
/// [`Unsupported`](ErrorKind::Unsupported) if the server is not a cluster build (unreleased after 2.1.1),
/// [`NotLeader`](ErrorKind::NotLeader) if it does not lead its cluster.
///
/// # Cancel safety
///
/// Not cancel safe, as the [module](self) says.
pub async fn barrier<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>) -> Result<()> {
    wire.run(Call::barrier()).await
}

/// Names the session that this connection continues: see [`StableRef`]. Call it at most once per connection, before
/// anything is acquired or enqueued over it.
///
/// # Errors
///
/// [`Unsupported`](ErrorKind::Unsupported) if the server is not a cluster build (unreleased after 2.1.1), or if this
/// connection has presented a ref before.
///
/// # Cancel safety
///
/// Not cancel safe, as the [module](self) says.
pub async fn stable_ref<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>, reference: StableRef) -> Result<()> {
    wire.run(Call::stable_ref(reference)).await
}

/// Acquires a lock, waiting for up to `wait`. With [`WaitSecs::TRY`], it does not wait.
///
/// # Errors
///
/// [`Timeout`](ErrorKind::Timeout) if the lock was not granted in time, [`MaxLocks`](ErrorKind::MaxLocks),
/// [`MaxWaiters`](ErrorKind::MaxWaiters) and the other refusals.
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

/// Releases a lock.
///
/// # Errors
///
/// [`NotHeld`](ErrorKind::NotHeld) if the token does not hold the lock, or no longer does.
///
/// # Cancel safety
///
/// Not cancel safe, as the [module](self) says.
pub async fn release<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>, key: &Key, token: &Token) -> Result<()> {
    wire.run(Call::release(Kind::Lock, key.clone(), *token)).await
}

/// Restarts a lock's lease. Without a TTL, the lease gets the *server's default*, whatever its TTL was before.
///
/// Returns the number of seconds left, if the server names it.
///
/// # Errors
///
/// [`NotHeld`](ErrorKind::NotHeld) if the token does not hold the lock, or no longer does.
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

/// Acquires the lock, or takes a position in its queue, which belongs to this connection. This is the first phase of a
/// two-phase acquire; [`wait`] is the second.
///
/// # Errors
///
/// [`AlreadyEnqueued`](ErrorKind::AlreadyEnqueued) and the other refusals.
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

/// Waits at the position that [`enqueue`] took on the same stream. This is the second phase of a two-phase acquire.
/// The lease runs from the grant. If the grant came before this call, servers up to release 2.1 restart the lease with
/// their answer.
///
/// # Errors
///
/// [`Timeout`](ErrorKind::Timeout), after which the position is given up, unless this is the first wait after an
/// enqueue that reclaimed the position for a [session](StableRef). If the grant expired before it was collected:
/// [`LeaseExpired`](ErrorKind::LeaseExpired), or [`NotEnqueued`](ErrorKind::NotEnqueued) after the server has dropped
/// it. Release 1.10 does not report that: check with [`renew`].
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
/// As [`acquire`], and [`LimitMismatch`](ErrorKind::LimitMismatch) if the key exists with another limit.
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

/// Releases a slot.
///
/// # Errors
///
/// [`NotHeld`](ErrorKind::NotHeld) if the token does not hold a slot, or no longer does.
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

/// Restarts a slot's lease: see [`renew`].
///
/// # Errors
///
/// [`NotHeld`](ErrorKind::NotHeld) if the token does not hold a slot, or no longer does.
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

/// Acquires a slot, or takes a position in its queue: see [`enqueue`].
///
/// # Errors
///
/// As [`enqueue`], and [`LimitMismatch`](ErrorKind::LimitMismatch).
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

/// Waits at the position that [`sem_enqueue`] took: see [`wait`].
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

/// Returns the server's state.
///
/// # Errors
///
/// A server older than 1.0 closes the connection ([`Disconnected`](ErrorKind::Disconnected)), or its answer is reported
/// as [`Unsupported`](ErrorKind::Unsupported).
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
/// [`Unsupported`](ErrorKind::Unsupported) if the server does not support signals (releases before 1.11, and from 2.0
/// on).
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
