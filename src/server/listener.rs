//! A running server: accepting, sweeping, shutting down.

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

/// An embedded server. Dropping it stops it at once; [`shutdown`](Self::shutdown) lets its clients finish.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

/// What a server serves, and as what.
pub(super) struct Served {
    pub(super) options: ServerOptions,
    /// Of one server, or of all members of a cluster.
    pub(super) state: Arc<Mutex<State>>,
    /// Which of the members it is; 0 for a server of its own.
    pub(super) member: usize,
}

impl Server {
    /// Begins to describe a server.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    pub(super) async fn start(builder: ServerBuilder) -> Result<Self> {
        let ServerBuilder { host, port, options } = builder;
        options.check()?;
        crate::runtime::current("a server", true)?;
        let listening = listen(&host, port).await?;
        Self::serve_alone(listening, options)
    }

    /// Serves a state of its own.
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

    /// Serves a state, as one of its members.
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
        // Not tracked: it ends with the server, not before.
        tokio::spawn(until(shared.stopped.clone(), sweep(Arc::clone(&shared))));
        Self { address, shared, tasks }
    }

    /// Its state, in the hands of a test.
    pub(crate) fn control(&self) -> Control {
        Control::of(&self.shared.state)
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Its state, as `stats` tells it, without a connection.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.state().stats(Instant::now())
    }

    /// What has happened since the start, in order, if it was asked to [record](ServerBuilder::record_events) it.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.shared.state().events().to_vec()
    }

    /// Shuts down as the real server does when it is told to end. It takes no new connections, and answers waits that block with
    /// `error`. From 1.16 on it answers every further request with `error_draining` and closes its connection; earlier releases
    /// serve them, except that none waits. It ends when its clients have hung up. What is left when the shutdown timeout is over
    /// is closed. Gives what [`events`](Self::events) gave, to the end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the server at once.
    pub async fn shutdown(self) -> Vec<Event> {
        self.drain().await;
        let shared = Arc::clone(&self.shared);
        // What is left when the time is over is closed.
        self.stop().await;
        shared.state().events().to_vec()
    }

    /// Takes no new connections, turns the others away, and waits for them to end, for so long and no longer.
    pub(super) async fn drain(&self) {
        self.shared.draining.cancel();
        self.shared.state().drain(self.shared.member, Instant::now());
        self.tasks.close();
        drop(timeout(self.shared.options.shutdown_timeout, self.tasks.wait()).await);
    }

    /// For tests: ends at once, as if its process were killed. What it was asked before gets no answer any more, nobody
    /// gets what others had, and when this returns its connections are closed. Gives what [`events`](Self::events) gave,
    /// to the end; what was held then counts as [`Disconnected`](super::EventKind::Disconnected).
    ///
    /// # Cancel safety
    ///
    /// Safe: the server ends all the same.
    pub async fn kill(self) -> Vec<Event> {
        let shared = Arc::clone(&self.shared);
        shared.state().kill(Instant::now());
        self.stop().await;
        shared.state().events().to_vec()
    }

    /// Ends at once; when this returns there is neither listener nor connection.
    pub(super) async fn stop(self) {
        let tasks = self.tasks.clone();
        drop(self);
        tasks.close();
        tasks.wait().await;
    }
}

/// The time of day, which no earlier server of this machine has reached with its fences.
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

/// Ends all tasks, and with them all connections. Only sets flags: works anywhere.
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

/// How long nothing is accepted after that has failed.
const PAUSE_OF_ACCEPT: Duration = Duration::from_millis(100);

async fn accept(mut listener: impl Listener, shared: Arc<Shared>, tasks: TaskTracker) {
    loop {
        match catch_async(listener.accept()).await {
            Ok(Ok(stream)) => {
                admit(stream, &shared, &tasks);
                continue;
            }
            // Out of file descriptors, as a rule: let some connections end.
            Ok(Err(error)) => tracing::warn!(%error, "cannot accept"),
            Err(panic) => tracing::error!(%panic, "the listener panicked"),
        }
        tokio::time::sleep(PAUSE_OF_ACCEPT).await;
    }
}

/// Serves a connection, if there is room for it. One too many is closed without a word.
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

/// The TLS handshake, which a client may not draw out.
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

/// How long a connection's farewell may take.
const FAREWELL: Duration = Duration::from_millis(100);

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, number: u64, end: CancellationToken, shared: &Shared) {
    until(end, connection::serve(&mut stream, number, shared)).await;
    // Before it is closed: a client that sees the end finds what it held free.
    shared.state().disconnect(number, Instant::now());
    // With TLS the end has to be said, so that nobody else can make it up.
    drop(timeout(FAREWELL, stream.shutdown()).await);
}

/// Lets leases expire and forgets what nobody uses.
async fn sweep(shared: Arc<Shared>) {
    let mut leases = interval(shared.options.lease_sweep_interval.max(SHORTEST));
    let mut idle = interval(shared.options.gc_interval.max(SHORTEST));
    leases.set_missed_tick_behavior(MissedTickBehavior::Delay);
    idle.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Where both are due, what ends comes before what is forgotten.
        tokio::select! {
            biased;
            _ = leases.tick() => shared.state().expire(Instant::now()),
            _ = idle.tick() => shared.state().collect(Instant::now()),
        }
    }
}

/// An interval of nothing would be no interval.
const SHORTEST: Duration = Duration::from_millis(1);
