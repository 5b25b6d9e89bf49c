//! Signals, for threads.

use std::fmt;
use std::time::Duration;

use super::process::Ours;
use super::runtime::block_on;
use crate::client::builder::ClientBuilder;
use crate::error::{Error, Result};
use crate::net::health::ShardHealth;
use crate::protocol::Signal;
use crate::signal::{self, SignalEvent, SignalOptions};

/// Signals from one server, or from all shards of a client, merged; see [`crate::SignalConn`].
///
/// It is an [`Iterator`] of the signals, which ends when the connection is closed. [`next_event`](Self::next_event)
/// returns other events, too. The client receives the signals in the background.
///
/// ```
/// # let runtime = tokio::runtime::Runtime::new().unwrap();
/// # let server = runtime.block_on(dflockd_client::server::Server::builder().release("1.16").port(0).start())?;
/// # let address = server.local_addr().to_string();
/// use dflockd_client::blocking::SignalConn;
///
/// let mut signals = SignalConn::connect(address)?;
/// signals.listen("orders.>", None)?;
/// signals.emit("orders.42.paid", "in full")?;
/// for signal in &mut signals {
///     assert_eq!(signal.payload(), "in full");
///     break; // or go on
/// }
/// # Ok::<_, dflockd_client::Error>(())
/// ```
pub struct SignalConn(Ours<signal::SignalConn>);

/// A handle that subscribes and emits on the connections of a [`SignalConn`]. It is cheap to clone, and any thread may
/// use it.
#[derive(Clone, Debug)]
pub struct SignalHandle(Ours<signal::SignalHandle>);

impl SignalConn {
    pub(super) fn new(conn: signal::SignalConn) -> Self {
        Self(Ours::new(conn))
    }

    /// Connects to a server with default settings.
    ///
    /// # Errors
    ///
    /// As [`crate::SignalConn::connect`], and [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block;
    /// see the [module](super).
    pub fn connect(server: impl Into<String>) -> Result<Self> {
        block_on(|| signal::SignalConn::connect(server))?.map(Self::new)
    }

    /// Connects to all servers of these client settings.
    ///
    /// # Errors
    ///
    /// As [`crate::SignalConn::open`], and [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block.
    pub fn open(settings: ClientBuilder, options: SignalOptions) -> Result<Self> {
        block_on(|| signal::SignalConn::open(settings, options))?.map(Self::new)
    }

    /// Returns a handle to subscribe and emit from other threads.
    #[must_use]
    pub fn handle(&self) -> SignalHandle {
        SignalHandle(Ours::new(self.0.handle()))
    }

    /// Subscribes to all channels that match a pattern; see [`crate::SignalHandle::listen`].
    ///
    /// # Errors
    ///
    /// As the method of the async client, and [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block.
    pub fn listen<'g>(&self, pattern: impl AsRef<str>, group: impl Into<Option<&'g str>>) -> Result<()> {
        block_on(|| self.0.listen(pattern, group))?
    }

    /// Ends a subscription that [`listen`](Self::listen) made; see [`crate::SignalHandle::unlisten`].
    ///
    /// # Errors
    ///
    /// As the method of the async client, and [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block.
    pub fn unlisten<'g>(&self, pattern: impl AsRef<str>, group: impl Into<Option<&'g str>>) -> Result<()> {
        block_on(|| self.0.unlisten(pattern, group))?
    }

    /// Publishes a signal and returns the number of deliveries; see [`crate::SignalHandle::emit`].
    ///
    /// # Errors
    ///
    /// As the method of the async client, and [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block.
    pub fn emit(&self, channel: impl AsRef<str>, payload: impl AsRef<str>) -> Result<u64> {
        block_on(|| self.0.emit(channel, payload))?
    }

    /// Waits for the next event, in order. Returns `None` when the connection is closed and you have taken all events.
    ///
    /// # Errors
    ///
    /// [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block.
    pub fn next_event(&mut self) -> Result<Option<SignalEvent>> {
        let conn = &mut self.0;
        block_on(|| conn.next_event())
    }

    /// Waits for the next signal, for up to `timeout`. Returns `None` if no signal came in that time, or if the
    /// connection is closed and you have taken all signals; [`closed_because`](Self::closed_because) distinguishes
    /// these.
    ///
    /// # Errors
    ///
    /// [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let runtime = tokio::runtime::Runtime::new().unwrap();
    /// # let server = runtime.block_on(dflockd_client::server::Server::builder().release("1.16").port(0).start())?;
    /// # let mut signals = dflockd_client::blocking::SignalConn::connect(server.local_addr().to_string())?;
    /// signals.listen("orders.>", None)?;
    /// assert!(signals.next_within(Duration::from_millis(20))?.is_none());
    /// # Ok::<_, dflockd_client::Error>(())
    /// ```
    pub fn next_within(&mut self, timeout: Duration) -> Result<Option<Signal>> {
        let conn = &mut self.0;
        block_on(|| tokio::time::timeout(timeout, conn.next_signal())).map(|next| next.ok().flatten())
    }

    /// Returns the number of signals that were dropped because you did not take them in time.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped()
    }

    /// Returns the number of received signals that you have not taken yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.waiting()
    }

    /// Returns the health of each shard: whether it is connected with all its subscriptions, and if not, why.
    #[must_use]
    pub fn health(&self) -> Vec<ShardHealth> {
        self.0.health()
    }

    /// Returns why the connection is closed, if it is.
    #[must_use]
    pub fn closed_because(&self) -> Option<Error> {
        self.0.closed_because()
    }

    /// Closes the connections. You can still take the signals that were received.
    ///
    /// # Errors
    ///
    /// [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block.
    pub fn close(&self) -> Result<()> {
        block_on(|| self.0.close())
    }
}

/// Iterates over the signals while the connection is open. It ends at once on a thread that must not block.
impl Iterator for SignalConn {
    type Item = Signal;

    fn next(&mut self) -> Option<Signal> {
        let conn = &mut self.0;
        block_on(|| conn.next_signal()).ok().flatten()
    }
}

impl SignalHandle {
    /// Subscribes; see [`SignalConn::listen`].
    ///
    /// # Errors
    ///
    /// As the method of [`SignalConn`].
    pub fn listen<'g>(&self, pattern: impl AsRef<str>, group: impl Into<Option<&'g str>>) -> Result<()> {
        block_on(|| self.0.listen(pattern, group))?
    }

    /// Ends a subscription; see [`SignalConn::unlisten`].
    ///
    /// # Errors
    ///
    /// As the method of [`SignalConn`].
    pub fn unlisten<'g>(&self, pattern: impl AsRef<str>, group: impl Into<Option<&'g str>>) -> Result<()> {
        block_on(|| self.0.unlisten(pattern, group))?
    }

    /// Publishes a signal; see [`SignalConn::emit`].
    ///
    /// # Errors
    ///
    /// As the method of [`SignalConn`].
    pub fn emit(&self, channel: impl AsRef<str>, payload: impl AsRef<str>) -> Result<u64> {
        block_on(|| self.0.emit(channel, payload))?
    }

    /// Returns the health of each shard: whether it is connected with all its subscriptions, and if not, why.
    #[must_use]
    pub fn health(&self) -> Vec<ShardHealth> {
        self.0.health()
    }
}

impl fmt::Debug for SignalConn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}
