//! The options of a server, named as the real server's flags.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::event::Event;
use super::listen::Listener;
use super::listener::Server;
use super::options::ServerOptions;
#[cfg(doc)]
use super::release::Release;
use crate::error::Result;
use crate::protocol::AuthToken;
use crate::types::Ttl;

/// Describes a server. Names and defaults are those of the real server's flags, unless an option says otherwise.
#[derive(Clone)]
#[must_use = "a builder does nothing until the server is started"]
pub struct ServerBuilder {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) options: ServerOptions,
}

impl Default for ServerBuilder {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 6388,
            options: ServerOptions::default(),
        }
    }
}

impl ServerBuilder {
    /// The address to listen on. Default: `127.0.0.1`.
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.host = host.into();
        self
    }

    /// The port; 0 for any that is free. Default: 6388.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// The cap on distinct keys, of locks and semaphores together, those included that are free but not collected yet.
    /// Default: 1024.
    pub fn max_locks(mut self, keys: usize) -> Self {
        self.options.max_locks = keys;
        self
    }

    /// The cap on waiters of one key; 0 for none. Default: 0.
    pub fn max_waiters(mut self, waiters: usize) -> Self {
        self.options.max_waiters = waiters;
        self
    }

    /// The cap on connections; 0 for none. One too many is closed without a word. Default: 0.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.options.max_connections = connections;
        self
    }

    /// The TTL of leases for which the client gives none, when they are acquired and when they are renewed. Default: 33 s.
    pub fn default_lease_ttl(mut self, ttl: Ttl) -> Self {
        self.options.default_lease_ttl = ttl;
        self
    }

    /// How often expired leases are looked for. Default: 1 s.
    pub fn lease_sweep_interval(mut self, interval: Duration) -> Self {
        self.options.lease_sweep_interval = interval;
        self
    }

    /// How often keys that nobody uses are looked for. Default: 5 s.
    pub fn gc_interval(mut self, interval: Duration) -> Self {
        self.options.gc_interval = interval;
        self
    }

    /// After how long without use a key is forgotten. Default: 60 s.
    pub fn gc_max_idle(mut self, idle: Duration) -> Self {
        self.options.gc_max_idle = idle;
        self
    }

    /// Whether a connection that ends gives up what was acquired over it. Its places in queues are given up in any case from
    /// [release](Self::release) 1.15 on. Default: true.
    pub fn auto_release_on_disconnect(mut self, release: bool) -> Self {
        self.options.auto_release_on_disconnect = release;
        self
    }

    /// Which release of the real server it plays: `1.10` to `1.16`, `2.0`, `2.1`, or `cluster` for the builds that can form
    /// clusters. A number may have a third part, see [`Release`]. Default: [`Release::NEWEST`].
    ///
    /// | since | what it does | what was before |
    /// | --- | --- | --- |
    /// | 1.10.1 | `w` for a grant that was made in the queue and swept away since is `error_lease_expired` | `ok` with the old token |
    /// | 1.11 | `listen`, `unlisten` and `signal` are known; from 2.0 on they are errors again | errors |
    /// | 1.11.2 | a payload of blanks, and `unlisten` of an invalid pattern, are errors; `stats` tells of no listeners by an empty list | `ok`; `null` |
    /// | 1.14 | `ping` is known | an error |
    /// | 1.14 | locks and semaphores have a namespace each | they share one, in which a lock is a semaphore of limit 1 |
    /// | 1.15 | a connection is closed as soon as its client closes it, or its sending half, even if a request blocks on it | that is noticed when the request ends: it keeps its place, the connection what it holds, and a client that closed its sending half gets the answer |
    /// | 1.15 | a connection is closed if 4,096 bytes come behind a request that blocks | they wait |
    /// | 1.15 | a place in a queue ends with its connection | without [`auto_release_on_disconnect`](Self::auto_release_on_disconnect) it stays, and is granted in its turn |
    /// | 1.15 | `w` for a grant that was made in the queue and has expired is `error_lease_expired`, and `error_not_enqueued` once it was swept, as always for a grant that was made at once | the lease begins anew if it was not swept yet |
    /// | 1.15 | the argument line of `auth`, and that of `signal`, may have 64 KiB | 256 bytes |
    /// | 1.16 | a server that [shuts down](Server::shutdown) answers requests with `error_draining`, and closes the connection | it serves them, except that none waits |
    /// | 1.16 | blanks around the server's own [secret](Self::auth_token) do not count | no client can present such a secret |
    /// | 2.1 | the first half of a token is its fence; fences begin at the nanosecond of the server's start | tokens are random |
    /// | `cluster` | `barrier` and `stable-ref` are known, and mean nothing for a single server | errors |
    /// | `cluster` | the read timeout begins with the first byte of a request | with the answer to the request before |
    /// | `cluster` | a lease that has expired cannot be released any more, and its renewal is `error_lease_expired`, swept or not | until it is swept, it can be released; its renewal is `error` |
    /// | `cluster` | a lease that was granted before its `w` runs on | it begins anew with the answer to the `w` |
    /// | `cluster` | a lease belongs to the connection that renewed it last | to the one that acquired it |
    /// | `cluster` | a semaphore has a limit of at most 1,048,576 | up to 9,223,372,036,854,775,807 |
    ///
    /// A [`Cluster`](super::Cluster) plays `cluster`, whatever is set here; its fences begin at 1.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if it is none of these. The message names them.
    pub fn release(mut self, release: impl AsRef<str>) -> Result<Self> {
        self.options.release = release.as_ref().parse()?;
        Ok(self)
    }

    /// For a [`Cluster`](super::Cluster): how long the leases and places of a connection that the leader has seen end are kept for its
    /// session; zero not to keep them. Single servers keep nothing. Default: zero.
    pub fn orphan_ttl(mut self, ttl: Duration) -> Self {
        self.options.orphan_ttl = ttl;
        self
    }

    /// How long a client may take for a line of a request. The time begins when the server begins to wait for that line: after the
    /// answer to the request before, or after the line before. A client that takes longer is answered with `error`, and its
    /// connection closed. Signals that it gets do not count. Default: 23 s.
    pub fn read_timeout(mut self, timeout: Duration) -> Self {
        self.options.read_timeout = timeout;
        self
    }

    /// How long a connection may refuse to take an answer or a signal. Default: 5 s.
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.options.write_timeout = timeout;
        self
    }

    /// How long [`Server::shutdown`] waits for clients to be done. Default: 30 s.
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.options.shutdown_timeout = timeout;
        self
    }

    /// The secret that every connection must present first. Default: none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if it cannot be sent: see [`AuthToken::new`].
    pub fn auth_token(mut self, token: impl Into<Box<str>>) -> Result<Self> {
        self.options.auth_token = Some(AuthToken::new(token)?);
        Ok(self)
    }

    /// Serves TLS only. [`ServerTls`](super::ServerTls) makes such a configuration from PEM files; its type is that of
    /// [`dflockd_client::rustls`](crate::rustls). A handshake must be over within the read timeout, and its connection counts
    /// from the start. Default: no TLS.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, config: std::sync::Arc<rustls::ServerConfig>) -> Self {
        self.options.tls = Some(crate::tls::TlsAcceptor::new(config));
        self
    }

    /// The cap on subscriptions to signals of one connection; 0 for none. One too many is answered with `error`.
    /// Default: 0.
    pub fn max_subscriptions(mut self, subscriptions: usize) -> Self {
        self.options.max_subscriptions = subscriptions;
        self
    }

    /// How many signals may wait for a connection, beside those that are being written; at least 1. A connection for which
    /// one more comes does not read: it is closed, and its locks go with it. Not a flag of the real server. Default: 64.
    pub fn signal_buffer(mut self, signals: usize) -> Self {
        self.options.signal_buffer = signals;
        self
    }

    /// For tests: keeps a record of what happens, to be had from [`Server::events`]. It grows without bound. Default: false.
    pub fn record_events(mut self, record: bool) -> Self {
        self.options.record_events = record;
        self
    }

    /// For benchmarks: how long a request takes, whatever it asks for. The requests of a connection are worked on one after the other,
    /// those of several connections at the same time. Where timers are late, or tasks wait for a turn, requests catch up by up to a
    /// millisecond, so that the time holds on average; answers whose time is over together are written together. It is not for runtimes
    /// whose time is paused. Not a flag of the real server. Default: zero.
    pub fn request_time(mut self, time: Duration) -> Self {
        self.options.request_time = time;
        self
    }

    /// For tests whose runs repeat themselves: tokens follow from this number, and fences begin behind it, which is the time in
    /// nanoseconds otherwise. The seed of a server that follows another must be at least the last fence of the first, or fences
    /// come again.
    /// Tokens can be guessed then. In a [`Cluster`](super::Cluster) fences begin at 1 all the same. Default: none.
    pub fn seed(mut self, seed: u64) -> Self {
        self.options.seed = Some(seed);
        self
    }

    /// For tests: calls this for each event, in order, while the server's state is locked and before any answer tells of it. So
    /// the record of a process that is killed misses nothing that its clients know. It should return soon, and must not call the
    /// server ([`Server::stats`], [`Server::events`]), which would wait for itself. If it panics, that is logged, and the server
    /// goes on.
    pub fn on_event(mut self, tell: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.options.on_event = Some(Arc::new(tell));
        self
    }

    /// The same for a test, beside what the user wants to be told.
    pub(crate) fn waking(mut self, changed: &Arc<Notify>) -> Self {
        let (told, changed) = (self.options.on_event.take(), Arc::clone(changed));
        self.options.on_event = Some(Arc::new(move |event| {
            changed.notify_waiters();
            told.iter().for_each(|tell| tell(event));
        }));
        self
    }

    /// Binds the address and serves in the background, on the current tokio runtime.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the read or the write timeout is zero, and without a
    /// runtime, or on one without timers or sockets, [`ErrorKind::Connect`](crate::ErrorKind::Connect) if the address cannot be
    /// bound.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing listens if it is dropped.
    pub async fn start(self) -> Result<Server> {
        Server::start(self).await
    }

    /// Serves what comes from a listener, which need not be a socket, in the background, on the current tokio runtime. That needs
    /// a clock, and no I/O of its own. [`host`](Self::host) and [`port`](Self::port) do not count; the address is what
    /// [`Server::local_addr`] tells. See [`Listener`] for an example.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the read or the write timeout is zero, and without a
    /// runtime, or on one without timers.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is served if it is dropped.
    pub async fn start_on(self, listener: impl Listener, address: SocketAddr) -> Result<Server> {
        self.options.check()?;
        crate::runtime::current("a server", false)?;
        Server::serve_alone((listener, address), self.options)
    }
}

/// Without the secret.
impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}
