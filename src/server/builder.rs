//! The options of a server, named like the real server's flags.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::event::Event;
use super::listen::Listener;
use super::listener::Server;
use super::options::ServerOptions;
use super::release::Release;
use crate::error::Result;
use crate::protocol::AuthToken;
use crate::types::Ttl;

/// Configures a server. Names and defaults are those of the real server's flags, unless the documentation of an option
/// says otherwise.
#[derive(Clone)]
#[must_use = "a builder does nothing until the server is started"]
pub struct ServerBuilder {
    pub(super) host: String,
    pub(super) port: u16,
    options: ServerOptions,
    /// The result of parsing the name of the release. [`check`](Self::check) returns its error when the server starts.
    release: Result<Release>,
    /// The result of checking the secret, if there is one. [`check`](Self::check) returns its error, too.
    auth_token: Option<Result<AuthToken>>,
}

impl Default for ServerBuilder {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 6388,
            options: ServerOptions::default(),
            release: Ok(Release::NEWEST),
            auth_token: None,
        }
    }
}

impl ServerBuilder {
    /// Sets the address to listen on. Default: `127.0.0.1`.
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.host = host.into();
        self
    }

    /// Sets the port; 0 lets the system choose a free one. Default: 6388.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Limits the number of distinct keys, locks and semaphores together. Free keys count until they are collected.
    /// Default: 1024.
    pub fn max_locks(mut self, keys: usize) -> Self {
        self.options.max_locks = keys;
        self
    }

    /// Limits the number of waiters of one key; 0 for no limit. Default: 0.
    pub fn max_waiters(mut self, waiters: usize) -> Self {
        self.options.max_waiters = waiters;
        self
    }

    /// Limits the number of connections; 0 for no limit. A connection above the limit is closed without an answer.
    /// Default: 0.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.options.max_connections = connections;
        self
    }

    /// Sets the TTL of leases for which the client sends none, in acquires and in renewals. Default: 33 s.
    pub fn default_lease_ttl(mut self, ttl: Ttl) -> Self {
        self.options.default_lease_ttl = ttl;
        self
    }

    /// Sets how often the server looks for expired leases. Default: 1 s.
    pub fn lease_sweep_interval(mut self, interval: Duration) -> Self {
        self.options.lease_sweep_interval = interval;
        self
    }

    /// Sets how often the server looks for unused keys. Default: 5 s.
    pub fn gc_interval(mut self, interval: Duration) -> Self {
        self.options.gc_interval = interval;
        self
    }

    /// Sets how long a key must be unused before the server forgets it. Default: 60 s.
    pub fn gc_max_idle(mut self, idle: Duration) -> Self {
        self.options.gc_max_idle = idle;
        self
    }

    /// Sets whether the end of a connection releases the leases that were acquired over it. From
    /// [release](Self::release) 1.15 on, its queue positions are released in any case. Default: true.
    pub fn auto_release_on_disconnect(mut self, release: bool) -> Self {
        self.options.auto_release_on_disconnect = release;
        self
    }

    /// Sets which release of the real server to imitate: `1.10` to `1.16`, `2.0`, `2.1`, or `cluster` for the builds
    /// that can form clusters. A number may have a third part, see [`Release`]. Default: [`Release::NEWEST`].
    ///
    /// | since | behaviour | before |
    /// | --- | --- | --- |
    /// | 1.10.1 | a `w` for a grant that was made in the queue and has been swept is answered with `error_lease_expired` | `ok` with the old token |
    /// | 1.11 | `listen`, `unlisten` and `signal` exist; from 2.0 on they are errors again | errors |
    /// | 1.11.2 | a payload of blanks, and `unlisten` of an invalid pattern, are errors; without listeners, their list in `stats` is empty | `ok`; `null` |
    /// | 1.14 | `ping` exists | an error |
    /// | 1.14 | locks and semaphores have separate namespaces | they share one, in which a lock is a semaphore of limit 1 |
    /// | 1.15 | the server closes a connection as soon as its client closes it or its sending half, even while a request blocks on it | the server notices this only when the request ends: until then the request keeps its queue position and the connection its leases, and a client that closed only its sending half gets the answer |
    /// | 1.15 | the server closes a connection if 4,096 bytes arrive behind a request that blocks | the bytes wait |
    /// | 1.15 | a queue position ends with its connection | without [`auto_release_on_disconnect`](Self::auto_release_on_disconnect) it stays, and is granted in its turn |
    /// | 1.15 | a `w` for a grant that was made in the queue and has expired is answered with `error_lease_expired`, and after the sweep with `error_not_enqueued` (for a grant that was made at once, in all releases up to 2.1) | the lease starts again if it was not swept yet |
    /// | 1.15 | the argument lines of `auth` and of `signal` can have 64 KiB | 256 bytes |
    /// | 1.16 | a server that [shuts down](Server::shutdown) answers requests with `error_draining` and closes the connection | it serves requests, but none of them can wait |
    /// | 1.16 | blanks around the server's own [secret](Self::auth_token) are ignored | no client can present such a secret |
    /// | 2.1 | the first half of a token is its fence; fences start at the server's start time in nanoseconds | tokens are random |
    /// | `cluster` | `barrier` and `stable-ref` exist, but have no effect on a single server | errors |
    /// | `cluster` | the read timeout starts with the first byte of a request | it starts with the answer to the previous request |
    /// | `cluster` | an expired lease cannot be released; until the sweep, its renewal is answered with `error_lease_expired` | until the sweep, the lease can be released; its renewal is answered with `error` |
    /// | `cluster` | a `w` for a grant that has expired is answered with `error_lease_expired` even after the sweep; in a [`Cluster`](super::Cluster), with `error_not_enqueued` even before the sweep | `error_lease_expired` until the sweep, then `error_not_enqueued` |
    /// | `cluster` | a `w` does not restart the lease of a grant that was made before it | the answer to the `w` restarts the lease |
    /// | `cluster` | a lease belongs to the connection that renewed it last | to the connection that acquired it |
    /// | `cluster` | the greatest limit of a semaphore is 1,048,576 | 9,223,372,036,854,775,807 |
    ///
    /// A [`Cluster`](super::Cluster) always imitates `cluster`, whatever is set here; its fences start at 1.
    ///
    /// Any other name is refused when the server starts, with a message that lists these.
    pub fn release(mut self, release: impl AsRef<str>) -> Self {
        self.release = release.as_ref().parse();
        self
    }

    /// For a [`Cluster`](super::Cluster): sets how long the leases and queue positions of a connection are kept for its
    /// session after the leader has seen the connection end; zero to keep none. Single servers keep none. Default:
    /// zero.
    pub fn orphan_ttl(mut self, ttl: Duration) -> Self {
        self.options.orphan_ttl = ttl;
        self
    }

    /// Limits the time in which a client must complete a line of a request. The time starts when the server begins to
    /// wait for that line: after the answer to the previous request, or after the previous line. A client that takes
    /// longer gets `error`, or `error_auth` if it has not presented the [secret](Self::auth_token) yet, and its
    /// connection is closed. Signals to the client do not extend the time. Default: 23 s.
    pub fn read_timeout(mut self, timeout: Duration) -> Self {
        self.options.read_timeout = timeout;
        self
    }

    /// Sets how long a connection may block the writing of an answer or a signal before it is closed. Default: 5 s.
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.options.write_timeout = timeout;
        self
    }

    /// Sets how long [`Server::shutdown`] waits for clients to finish. Default: 30 s.
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.options.shutdown_timeout = timeout;
        self
    }

    /// Sets the secret that every connection must present first. A secret that cannot be sent, see [`AuthToken::new`],
    /// is refused when the server starts. Default: none.
    pub fn auth_token(mut self, token: impl Into<Box<str>>) -> Self {
        self.auth_token = Some(AuthToken::new(token));
        self
    }

    /// Serves only TLS. [`ServerTls`](super::ServerTls) makes such a configuration from PEM files. Its type is
    /// re-exported in [`dflockd_client::rustls`](crate::rustls). A handshake must finish within the [read
    /// timeout](Self::read_timeout), and its connection counts towards [`max_connections`](Self::max_connections) from
    /// the start. Default: no TLS.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, config: std::sync::Arc<rustls::ServerConfig>) -> Self {
        self.options.tls = Some(crate::tls::TlsAcceptor::new(config));
        self
    }

    /// Limits the number of subscriptions to signals of one connection; 0 for no limit. A subscription above the limit
    /// is answered with `error`. Default: 0.
    pub fn max_subscriptions(mut self, subscriptions: usize) -> Self {
        self.options.max_subscriptions = subscriptions;
        self
    }

    /// Sets how many signals can wait for a connection, in addition to those that are being written; at least 1. When
    /// one more signal comes, the client evidently does not read: its connection is closed, and its locks are released.
    /// Not a flag of the real server. Default: 64.
    pub fn signal_buffer(mut self, signals: usize) -> Self {
        self.options.signal_buffer = signals;
        self
    }

    /// For tests: sets whether the server keeps a record of its events, which [`Server::events`] returns. The record
    /// grows without bound. Default: false.
    pub fn record_events(mut self, record: bool) -> Self {
        self.options.record_events = record;
        self
    }

    /// For benchmarks: sets how long each request takes, whatever it does. The server processes the requests of one
    /// connection one after the other, and those of several connections at the same time. If timers or tasks are late,
    /// requests catch up by up to a millisecond, so that the time is right on average; answers that are due at the same
    /// time are written together. Do not use it on a runtime with paused time. Not a flag of the real server. Default:
    /// zero.
    pub fn request_time(mut self, time: Duration) -> Self {
        self.options.request_time = time;
        self
    }

    /// For reproducible tests: derives tokens from this number, and starts fences after it instead of at the time in
    /// nanoseconds. A server that replaces an earlier one needs a seed that is at least that server's last fence, or
    /// fences are repeated. With a seed, tokens can be guessed. In a [`Cluster`](super::Cluster), fences start at 1
    /// even with a seed. Default: none.
    pub fn seed(mut self, seed: u64) -> Self {
        self.options.seed = Some(seed);
        self
    }

    /// For tests: calls this function for each event, in order, while the server's state is locked and before any
    /// answer reveals the event. So even if the process is killed, the function has seen every event that a client
    /// knows of. It should return quickly. It must not call the server ([`Server::stats`], [`Server::events`]): that
    /// would deadlock. If it panics, the panic is logged and the server continues.
    pub fn on_event(mut self, tell: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.options.on_event = Some(Arc::new(tell));
        self
    }

    /// Wakes a test at each event, in addition to the user's callback.
    pub(crate) fn waking(mut self, changed: &Arc<Notify>) -> Self {
        let (told, changed) = (self.options.on_event.take(), Arc::clone(changed));
        self.options.on_event = Some(Arc::new(move |event| {
            changed.notify_waiters();
            told.iter().for_each(|tell| tell(event));
        }));
        self
    }

    /// Checks the options.
    pub(super) fn check(self) -> Result<ServerOptions> {
        let options = ServerOptions {
            release: self.release?,
            auth_token: self.auth_token.transpose()?,
            ..self.options
        };
        options.check()?;
        Ok(options)
    }

    /// Binds the address and serves in the background, on the current tokio runtime.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the [release](Self::release) is unknown, the
    ///   [secret](Self::auth_token) cannot be sent, or the read or the write timeout is zero. Also if there is no tokio
    ///   runtime, or if it has no timers or no I/O.
    /// - [`ErrorKind::Connect`](crate::ErrorKind::Connect) if the address cannot be bound, or if the operating system
    ///   provides no random numbers.
    ///
    /// # Cancel safety
    ///
    /// Safe: if the future is dropped, nothing listens.
    pub async fn start(self) -> Result<Server> {
        Server::start(self).await
    }

    /// Serves the connections of a listener, which need not be a socket, in the background, on the current tokio
    /// runtime. The runtime needs timers, but no I/O. [`host`](Self::host) and [`port`](Self::port) are ignored;
    /// [`Server::local_addr`] returns `address`. See [`Listener`] for an example.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the [release](Self::release) is unknown, the
    ///   [secret](Self::auth_token) cannot be sent, or the read or the write timeout is zero. Also if there is no tokio
    ///   runtime, or if it has no timers.
    /// - [`ErrorKind::Connect`](crate::ErrorKind::Connect) if the operating system provides no random numbers.
    ///
    /// # Cancel safety
    ///
    /// Safe: if the future is dropped, nothing is served.
    pub async fn start_on(self, listener: impl Listener, address: SocketAddr) -> Result<Server> {
        let options = self.check()?;
        crate::runtime::current("a server", false)?;
        Server::serve_alone((listener, address), options)
    }
}

/// Omits the secret.
impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}
