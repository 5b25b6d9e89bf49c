//! A running server: accepts connections, sweeps leases, and shuts down.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::builder::ServerBuilder;
use super::connection;
use super::control::Control;
use super::event::Event;
use super::listen::{Listener, cannot_listen};
use super::options::ServerOptions;
use super::random::Random;
use super::shared::Shared;
use super::state::State;
use crate::error::Result;
use crate::stats::Stats;
use crate::tls::TlsAcceptor;
use crate::unwind::catch_async;

/// An embedded server. Dropping it stops it at once; [`shutdown`](Self::shutdown) lets its clients finish first.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

/// The options of a server, the state that it serves, and the number of the member that it is.
pub(super) struct Served {
    pub(super) options: ServerOptions,
    /// The state of one server, or the state that all members of a cluster share.
    pub(super) state: Arc<Mutex<State>>,
    /// The number of this member; 0 for a server that stands alone.
    pub(super) member: usize,
}

impl Server {
    /// Returns a builder with the default options.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    pub(super) async fn start(builder: ServerBuilder) -> Result<Self> {
        let (host, port) = (builder.host.clone(), builder.port);
        let options = builder.check()?;
        crate::runtime::current("a server", true)?;
        let listening = listen(&host, port).await?;
        Self::serve_alone(listening, options)
    }

    /// Serves a new state that belongs to this server alone.
    pub(super) fn serve_alone(listening: (impl Listener, SocketAddr), options: ServerOptions) -> Result<Self> {
        let first_fence = options.seed.unwrap_or_else(nanoseconds);
        let state = State::new(options.clone(), Random::of(options.seed)?).fences_above(first_fence);
        let state = Arc::new(Mutex::new(state));
        Ok(Self::serve(
            listening,
            Served {
                options,
                state,
                member: 0,
            },
        ))
    }

    /// Serves a state as one of the members that share it.
    pub(super) fn serve(
        (listener, address): (impl Listener, SocketAddr),
        Served { options, state, member }: Served,
    ) -> Self {
        let shared = Arc::new(Shared {
            options,
            state,
            member,
            draining: CancellationToken::new(),
            stopped: CancellationToken::new(),
        });
        let tasks = TaskTracker::new();
        tasks.spawn(until(
            shared.draining.clone(),
            accept(listener, Arc::clone(&shared), tasks.clone()),
        ));
        // Not tracked: the sweep ends when the server stops, and must not delay a shutdown.
        tokio::spawn(until(shared.stopped.clone(), sweep(Arc::clone(&shared))));
        Self { address, shared, tasks }
    }

    /// Returns the state in a form that tests can control.
    pub(crate) fn control(&self) -> Control {
        Control::of(&self.shared.state)
    }

    /// Returns the address that the server listens on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Returns the content of `stats` without a connection.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.state().stats(Instant::now())
    }

    /// Returns the events since the start in order, if the server [records](ServerBuilder::record_events) them.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.shared.state().events().to_vec()
    }

    /// Shuts down as the real server does on SIGTERM. The server accepts no new connections, and answers requests that
    /// are blocked in a wait with `error`. From release 1.16 on, it answers every further request with `error_draining`
    /// and closes the connection; earlier releases still serve requests, but no request can wait. The future resolves
    /// when all clients have disconnected, or when the shutdown timeout is over; then the server closes the remaining
    /// connections. Returns all [`events`](Self::events), up to the end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the server at once.
    pub async fn shutdown(self) -> Vec<Event> {
        self.drain().await;
        let shared = Arc::clone(&self.shared);
        // Closes the connections that are left after the timeout.
        self.stop().await;
        shared.state().events().to_vec()
    }

    /// Starts the shutdown: accepts no new connections, refuses blocked requests, and from release 1.16 on all further
    /// requests. Waits until the existing connections end, at most for the shutdown timeout.
    pub(super) async fn drain(&self) {
        self.shared.draining.cancel();
        self.shared.state().drain(self.shared.member, Instant::now());
        self.tasks.close();
        drop(timeout(self.shared.options.shutdown_timeout, self.tasks.wait()).await);
    }

    /// For tests: ends the server at once, as if its process were killed. Requests that are not answered yet get no
    /// answer, no waiter is granted a key whose lease ends this way, and all connections are closed when the future
    /// resolves. Returns all [`events`](Self::events), up to the end; leases that were held count as
    /// [`Disconnected`](super::EventKind::Disconnected).
    ///
    /// # Cancel safety
    ///
    /// Safe: the server ends even if the future is dropped.
    pub async fn kill(self) -> Vec<Event> {
        let shared = Arc::clone(&self.shared);
        shared.state().kill(Instant::now());
        self.stop().await;
        shared.state().events().to_vec()
    }

    /// Ends at once. When it returns, the listener and all connections are closed.
    pub(super) async fn stop(self) {
        let tasks = self.tasks.clone();
        drop(self);
        tasks.close();
        tasks.wait().await;
    }
}

/// Returns the time since the Unix epoch, in nanoseconds. The fences of earlier servers on this machine are smaller.
fn nanoseconds() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |since| since.as_nanos() as u64)
}

/// Binds an address.
pub(super) async fn listen(host: &str, port: u16) -> Result<(TcpListener, SocketAddr)> {
    let failed = |error| cannot_listen(&format!("{host}:{port}"), error);
    let listener = TcpListener::bind((host, port)).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// Ends all tasks and all connections. This only sets flags, so it works on any thread, inside or outside of a runtime.
impl Drop for Server {
    fn drop(&mut self) {
        self.shared.draining.cancel();
        self.shared.stopped.cancel();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

async fn until(end: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        () = end.cancelled() => {}
        () = work => {}
    }
}

/// The pause after a failed accept.
const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(100);

async fn accept(mut listener: impl Listener, shared: Arc<Shared>, tasks: TaskTracker) {
    loop {
        match catch_async(listener.accept()).await {
            Ok(Ok(stream)) => {
                admit(stream, &shared, &tasks);
                continue;
            }
            // The usual cause is a lack of file descriptors. The pause lets some connections end.
            Ok(Err(error)) => tracing::warn!(%error, "cannot accept a connection"),
            Err(panic) => tracing::error!(%panic, "the listener panicked"),
        }
        tokio::time::sleep(ACCEPT_RETRY_PAUSE).await;
    }
}

/// Serves a connection if the cap on connections allows it. Otherwise closes it without an answer.
fn admit<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, shared: &Arc<Shared>, tasks: &TaskTracker) {
    let end = shared.stopped.child_token();
    let Some(number) = shared.state().connect_until(shared.member, end.clone()) else {
        return;
    };
    let shared = Arc::clone(shared);
    tasks.spawn(async move {
        match &shared.options.tls {
            None => serve(stream, number, end, &shared).await,
            Some(tls) => match secured(tls, stream, &end, &shared).await {
                Some(stream) => serve(stream, number, end, &shared).await,
                None => shared.state().disconnect(number, Instant::now()),
            },
        }
    });
}

/// Performs the TLS handshake, within the read timeout.
async fn secured<S: AsyncRead + AsyncWrite + Unpin>(
    tls: &TlsAcceptor,
    stream: S,
    end: &CancellationToken,
    shared: &Shared,
) -> Option<impl AsyncRead + AsyncWrite + Unpin + use<S>> {
    let handshake = timeout(shared.options.read_timeout, tls.accept(stream));
    let accepted = end.run_until_cancelled(handshake).await?;
    match accepted {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
    None
}

/// The time limit for shutting down the stream of a connection.
const SHUTDOWN_LIMIT: Duration = Duration::from_millis(100);

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, number: u64, end: CancellationToken, shared: &Shared) {
    until(end, connection::serve(&mut stream, number, shared)).await;
    // The keys are released before the stream is closed, so that a client that sees the end finds its keys free.
    shared.state().disconnect(number, Instant::now());
    // TLS requires an explicit end of the stream, so that no third party can forge one.
    drop(timeout(SHUTDOWN_LIMIT, stream.shutdown()).await);
}

/// Expires leases and collects unused keys at their intervals.
async fn sweep(shared: Arc<Shared>) {
    let mut leases = interval(shared.options.lease_sweep_interval.max(SHORTEST));
    let mut idle = interval(shared.options.gc_interval.max(SHORTEST));
    leases.set_missed_tick_behavior(MissedTickBehavior::Delay);
    idle.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // If both are due, leases expire before keys are collected.
        tokio::select! {
            biased;
            _ = leases.tick() => shared.state().expire(Instant::now()),
            _ = idle.tick() => shared.state().collect(Instant::now()),
        }
    }
}

/// The shortest interval: tokio panics on an interval of zero.
const SHORTEST: Duration = Duration::from_millis(1);
