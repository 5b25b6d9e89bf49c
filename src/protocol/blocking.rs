//! The low-level functions for threads: one request and its answer over any stream that implements [`Read`] and
//! [`Write`].
//!
//! The functions have the names of those in [`functions`], and share everything with them except the I/O. The stream
//! must block. A stream that returns `WouldBlock`, or whose own timeout has passed, counts as failed, and its [`Wire`]
//! is out of step.
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let server = dflockd_client::server::Server::builder().port(0).start().await?;
//! # let address = server.local_addr();
//! use dflockd_client::protocol::blocking::{Wire, acquire, release};
//! use dflockd_client::{Key, Ttl, WaitSecs};
//!
//! let mut wire = Wire::new(std::net::TcpStream::connect(address)?);
//! let key = Key::new("orders/42")?;
//! let grant = acquire(&mut wire, &key, WaitSecs::TRY, Ttl::from_secs(30))?;
//! release(&mut wire, &key, &grant.token)?;
//! # Ok(())
//! # }
//! ```
//!
//! # Errors
//!
//! As [`functions`].

use std::io::{ErrorKind, Read, Write};

use super::auth_token::AuthToken;
use super::call::{Call, Enqueued};
use super::channel::Channel;
#[cfg(doc)]
use super::functions;
use super::signal::Payload;
use super::stable_ref::StableRef;
pub use super::wire::Wire;
use super::wire::{closed, lost};
use crate::error::Result;
use crate::stats::Stats;
use crate::types::{Grant, Key, Kind, Limit, Target, Token, Ttl, WaitSecs};

/// The maximum number of bytes per read.
const READ_AT_ONCE: usize = 4096;

impl<S: Read + Write> Wire<S> {
    /// Sends a request and reads its answer. All functions of this module use it.
    ///
    /// # Errors
    ///
    /// As [`functions`].
    pub fn run_blocking<T>(&mut self, call: Call<T>) -> Result<T> {
        self.exchange.begin(call.request())?;
        self.stream.write_all(&self.exchange.out).map_err(lost)?;
        self.stream.flush().map_err(lost)?;
        let mut bytes = [0; READ_AT_ONCE];
        loop {
            if let Some(response) = self.exchange.answer(call.request())? {
                return call.finish(response);
            }
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(closed(call.request())),
                Ok(count) => self.exchange.lines.extend(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(lost(error)),
            }
        }
    }
}

/// Presents the server's auth token. Must be the first call if the server has one, and must not be called otherwise.
///
/// # Errors
///
/// As [`functions::auth`].
pub fn auth<S: Read + Write>(wire: &mut Wire<S>, token: AuthToken) -> Result<()> {
    wire.run_blocking(Call::auth(token))
}

/// Changes nothing, but shows the server that the client is alive.
///
/// # Errors
///
/// As [`functions::ping`].
pub fn ping<S: Read + Write>(wire: &mut Wire<S>) -> Result<()> {
    wire.run_blocking(Call::ping())
}

/// Waits until every write that the cluster committed before this call is visible to this server.
///
/// # Errors
///
/// As [`functions::barrier`].
pub fn barrier<S: Read + Write>(wire: &mut Wire<S>) -> Result<()> {
    wire.run_blocking(Call::barrier())
}

/// Names the session that this connection continues: see [`StableRef`]. Call it at most once per connection, before
/// anything is acquired or enqueued over it.
///
/// # Errors
///
/// As [`functions::stable_ref`].
pub fn stable_ref<S: Read + Write>(wire: &mut Wire<S>, reference: StableRef) -> Result<()> {
    wire.run_blocking(Call::stable_ref(reference))
}

/// Acquires a lock, waiting for up to `wait`. With [`WaitSecs::TRY`], it does not wait.
///
/// # Errors
///
/// As [`functions::acquire`].
pub fn acquire<S: Read + Write>(wire: &mut Wire<S>, key: &Key, wait: WaitSecs, ttl: Option<Ttl>) -> Result<Grant> {
    wire.run_blocking(Call::acquire(Target::Lock, key.clone(), wait, ttl))
}

/// Releases a lock.
///
/// # Errors
///
/// As [`functions::release`].
pub fn release<S: Read + Write>(wire: &mut Wire<S>, key: &Key, token: &Token) -> Result<()> {
    wire.run_blocking(Call::release(Kind::Lock, key.clone(), *token))
}

/// Restarts a lock's lease. Without a TTL, the lease gets the *server's default*, whatever its TTL was before.
///
/// # Errors
///
/// As [`functions::renew`].
pub fn renew<S: Read + Write>(wire: &mut Wire<S>, key: &Key, token: &Token, ttl: Option<Ttl>) -> Result<Option<u64>> {
    wire.run_blocking(Call::renew(Kind::Lock, key.clone(), *token, ttl))
}

/// Acquires the lock, or takes a position in its queue, which belongs to this connection. This is the first phase of a
/// two-phase acquire; [`wait`] is the second.
///
/// # Errors
///
/// As [`functions::enqueue`].
pub fn enqueue<S: Read + Write>(wire: &mut Wire<S>, key: &Key, ttl: Option<Ttl>) -> Result<Enqueued> {
    wire.run_blocking(Call::enqueue(Target::Lock, key.clone(), ttl))
}

/// Waits at the position that [`enqueue`] took on the same stream. This is the second phase of a two-phase acquire.
/// The lease runs from the grant. If the grant came before this call, servers up to release 2.1 restart the lease with
/// their answer.
///
/// # Errors
///
/// As [`functions::wait`].
pub fn wait<S: Read + Write>(wire: &mut Wire<S>, key: &Key, wait: WaitSecs) -> Result<Grant> {
    wire.run_blocking(Call::wait(Kind::Lock, key.clone(), wait))
}

/// Acquires a slot of a semaphore, waiting for up to `wait`.
///
/// # Errors
///
/// As [`functions::sem_acquire`].
pub fn sem_acquire<S: Read + Write>(
    wire: &mut Wire<S>,
    key: &Key,
    wait: WaitSecs,
    limit: Limit,
    ttl: Option<Ttl>,
) -> Result<Grant> {
    wire.run_blocking(Call::acquire(Target::Semaphore(limit), key.clone(), wait, ttl))
}

/// Releases a slot.
///
/// # Errors
///
/// As [`functions::sem_release`].
pub fn sem_release<S: Read + Write>(wire: &mut Wire<S>, key: &Key, token: &Token) -> Result<()> {
    wire.run_blocking(Call::release(Kind::Semaphore, key.clone(), *token))
}

/// Restarts a slot's lease: see [`functions::renew`].
///
/// # Errors
///
/// As [`functions::sem_renew`].
pub fn sem_renew<S: Read + Write>(
    wire: &mut Wire<S>,
    key: &Key,
    token: &Token,
    ttl: Option<Ttl>,
) -> Result<Option<u64>> {
    wire.run_blocking(Call::renew(Kind::Semaphore, key.clone(), *token, ttl))
}

/// Acquires a slot, or takes a position in its queue: see [`functions::enqueue`].
///
/// # Errors
///
/// As [`functions::sem_enqueue`].
pub fn sem_enqueue<S: Read + Write>(wire: &mut Wire<S>, key: &Key, limit: Limit, ttl: Option<Ttl>) -> Result<Enqueued> {
    wire.run_blocking(Call::enqueue(Target::Semaphore(limit), key.clone(), ttl))
}

/// Waits at the position that [`sem_enqueue`] took: see [`functions::wait`].
///
/// # Errors
///
/// As [`functions::sem_wait`].
pub fn sem_wait<S: Read + Write>(wire: &mut Wire<S>, key: &Key, wait: WaitSecs) -> Result<Grant> {
    wire.run_blocking(Call::wait(Kind::Semaphore, key.clone(), wait))
}

/// Returns the server's state.
///
/// # Errors
///
/// As [`functions::stats`].
pub fn stats<S: Read + Write>(wire: &mut Wire<S>) -> Result<Stats> {
    wire.run_blocking(Call::stats())
}

/// Publishes a signal on a literal channel. Returns the number of deliveries.
///
/// # Errors
///
/// As [`functions::sig_emit`].
pub fn sig_emit<S: Read + Write>(wire: &mut Wire<S>, channel: Channel, payload: Payload) -> Result<u64> {
    wire.run_blocking(Call::emit(channel, payload))
}
