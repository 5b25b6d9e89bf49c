//! A connection for signals: subscriptions, the stream of their events, and emitting.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use tokio::time::timeout;

use super::buffer::Buffer;
use super::event::SignalEvent;
use super::family::Family;
use super::link::Link;
use super::options::SignalOptions;
use crate::config::Config;
use crate::error::{Budget, Error, ErrorKind, Result};
use crate::join::join_all;
use crate::net::health::ShardHealth;
use crate::protocol::{Channel, Group, Pattern, Payload, Signal};
use crate::sharding::Placement;

/// Receives signals from one server, or from all shards of a client, merged.
///
/// It is a [`Stream`] of [`SignalEvent`]s, which report signals and the places where some may be missing.
/// [`next_signal`](Self::next_signal) and [`into_signals`](Self::into_signals) return only the signals. A lost
/// connection is opened again automatically, and all subscriptions are made again. The client never stops reading from
/// its connections. So a slow consumer fills the client's buffer, whose [policy](super::Overflow) applies, and never
/// the buffer of the server.
///
/// Several tasks that subscribe and emit share a [`handle`](Self::handle). Dropping the connection and all its handles
/// closes the connections to the servers.
///
/// Releases 1.11 to 1.16 of the server support signals, and so does the embedded server when it imitates one of them.
/// With any other release, the connection fails at once with an error of kind
/// [`Unsupported`](ErrorKind::Unsupported).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), dflockd_client::Error> {
/// use dflockd_client::SignalConn;
///
/// # let server = dflockd_client::server::Server::builder().release("1.16").port(0).start().await?;
/// # let address = server.local_addr().to_string();
/// let mut signals = SignalConn::connect(address).await?;
/// signals.listen("orders.>", None).await?;
/// assert_eq!(signals.emit("orders.42.paid", "in full").await?, 1);
/// let signal = signals.next_signal().await.expect("it is open");
/// assert_eq!((signal.channel(), signal.payload()), ("orders.42.paid", "in full"));
/// # Ok(())
/// # }
/// ```
pub struct SignalConn {
    handle: SignalHandle,
}

/// Subscribes and emits on the connections of a [`SignalConn`]. Cheap to clone; each task can have its own.
#[derive(Clone)]
pub struct SignalHandle {
    shared: Arc<Shared>,
}

struct Shared {
    links: Vec<Link>,
    placement: Placement,
    request_timeout: Duration,
    buffer: Arc<Buffer>,
}

impl SignalConn {
    /// Starts the connections to all shards. `family` belongs to the client of this connection, if there is one.
    pub(crate) fn start(config: &Config, options: SignalOptions, family: Option<&Family>) -> Result<Self> {
        let (options, heartbeat) = options.check(config.shard.machine.server_read_timeout)?;
        let buffer = Arc::new(Buffer::new(&options));
        let links = (0..config.shards.len())
            .map(|index| Link::start(config, index, heartbeat, Arc::clone(&buffer), family))
            .collect::<Result<Vec<_>>>()?;
        let shared = Shared {
            links,
            placement: config.placement.clone(),
            request_timeout: config.request_timeout,
            buffer,
        };
        Ok(Self {
            handle: SignalHandle {
                shared: Arc::new(shared),
            },
        })
    }

    /// Waits until each shard is connected, or an attempt to connect it has failed. Returns the error of the first
    /// shard that is not connected, if there is one.
    pub(crate) async fn connected(&self) -> Result<()> {
        for connected in join_all(self.handle.shared.links.iter().map(Link::connected)).await {
            connected?;
        }
        Ok(())
    }

    /// Returns a second value for the same connection, which still has only one consumer.
    /// [`Take`](crate::take::Take) uses it: the connection stays open until both values are dropped.
    #[cfg(feature = "blocking")]
    pub(crate) fn share(&self) -> Self {
        Self { handle: self.handle() }
    }

    /// Returns a handle that subscribes and emits.
    #[must_use]
    pub fn handle(&self) -> SignalHandle {
        self.handle.clone()
    }

    /// Returns the next event, in order, or `None` when the connection is closed and every event was taken.
    ///
    /// # Cancel safety
    ///
    /// Safe: no event is lost.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::server::Server::builder().release("1.16").port(0).start().await?;
    /// # let mut signals = dflockd_client::SignalConn::connect(server.local_addr().to_string()).await?;
    /// use dflockd_client::SignalEvent;
    ///
    /// signals.listen("cache.>", None).await?;
    /// # signals.emit("cache.users", "7").await?;
    /// match signals.next_event().await {
    ///     Some(SignalEvent::Signal(signal)) => println!("forget {}", signal.payload()),
    ///     // Unknown signals were missed.
    ///     Some(SignalEvent::Restored { .. } | SignalEvent::Dropped { .. }) => println!("forget everything"),
    ///     Some(_) => {}
    ///     None => println!("closed"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn next_event(&mut self) -> Option<SignalEvent> {
        poll_fn(|cx| self.handle.shared.buffer.poll_next(cx)).await
    }

    /// Returns the next signal and skips all other events. Returns `None` when the connection is closed and every
    /// signal was taken.
    ///
    /// # Cancel safety
    ///
    /// Safe: no signal is lost.
    ///
    /// [`SignalConn`] has an example.
    pub async fn next_signal(&mut self) -> Option<Signal> {
        poll_fn(|cx| poll_signal(&self.handle.shared.buffer, cx)).await
    }

    /// Converts the connection into a stream of its signals.
    #[must_use]
    pub fn into_signals(self) -> Signals {
        Signals { conn: self }
    }

    /// Returns how many signals were dropped because they were not taken in time.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.handle.shared.buffer.dropped()
    }

    /// Returns how many signals wait to be taken.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.handle.shared.buffer.waiting()
    }

    /// Subscribes to the signals of all channels that match: see [`SignalHandle::listen`].
    ///
    /// # Errors
    ///
    /// As [`SignalHandle::listen`].
    ///
    /// # Cancel safety
    ///
    /// As [`SignalHandle::listen`].
    pub async fn listen<'g>(&self, pattern: impl AsRef<str>, group: impl Into<Option<&'g str>>) -> Result<()> {
        self.handle.listen(pattern, group).await
    }

    /// Ends a subscription that [`listen`](Self::listen) began: see [`SignalHandle::unlisten`].
    ///
    /// # Errors
    ///
    /// As [`SignalHandle::unlisten`].
    ///
    /// # Cancel safety
    ///
    /// As [`SignalHandle::unlisten`].
    pub async fn unlisten<'g>(&self, pattern: impl AsRef<str>, group: impl Into<Option<&'g str>>) -> Result<()> {
        self.handle.unlisten(pattern, group).await
    }

    /// Publishes a signal: see [`SignalHandle::emit`].
    ///
    /// # Errors
    ///
    /// As [`SignalHandle::emit`].
    ///
    /// # Cancel safety
    ///
    /// As [`SignalHandle::emit`].
    pub async fn emit(&self, channel: impl AsRef<str>, payload: impl AsRef<str>) -> Result<u64> {
        self.handle.emit(channel, payload).await
    }

    /// Returns, for each shard, whether it is connected with all its subscriptions, and if not, why.
    #[must_use]
    pub fn health(&self) -> Vec<ShardHealth> {
        self.handle.health()
    }

    /// Returns why the connection is closed, if it is. Possible reasons: [`close`](Self::close) was called, its client
    /// was shut down, or its runtime has ended (all [`Shutdown`](ErrorKind::Shutdown)); the consumer was too slow and
    /// the policy is to disconnect; after a loss of the connection, a server refused to make a subscription again, for
    /// example because it allows fewer; or the client panicked and could not recover
    /// ([`ShardGone`](ErrorKind::ShardGone)).
    #[must_use]
    pub fn closed_because(&self) -> Option<Error> {
        self.handle.shared.buffer.ended()
    }

    /// Closes the connections. Signals that have arrived can still be taken.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future does not stop the closing.
    pub async fn close(&self) {
        join_all(self.handle.shared.links.iter().map(Link::close)).await;
    }
}

impl SignalHandle {
    /// Subscribes to the signals of all channels that match, at every shard. `*` matches one token of a channel, and
    /// `>` at the end matches all remaining tokens, at least one. With a group, each signal reaches one member of the
    /// group, in rotation; a group belongs to its pattern, and each shard has its own rotation. When a member's
    /// connection breaks silently, a group can lose signals without a report, for as long as [`Group`] says.
    /// Subscribing twice has the same effect as subscribing once.
    ///
    /// After a loss of the connection, the subscription is made again, until [`unlisten`](Self::unlisten) ends it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if the pattern or the group is invalid (see [`Pattern::new`]; an empty group means
    /// no group), [`Unsupported`](ErrorKind::Unsupported) if the server refuses the subscription,
    /// [`Unavailable`](ErrorKind::Unavailable) if not all servers answered within the request timeout. After an error,
    /// some shards may have the subscription.
    ///
    /// # Cancel safety
    ///
    /// Safe: if the future is dropped, the client ends the subscription at each shard that has not confirmed it
    /// yet. At the other shards, the subscription stays until [`unlisten`](Self::unlisten).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::server::Server::builder().release("1.16").port(0).start().await?;
    /// # let signals = dflockd_client::SignalConn::connect(server.local_addr().to_string()).await?;
    /// signals.listen("orders.>", None).await?; // all of them
    /// signals.listen("jobs", "workers").await?; // a share of them
    /// # Ok(())
    /// # }
    /// ```
    pub async fn listen<'g>(&self, pattern: impl AsRef<str>, group: impl Into<Option<&'g str>>) -> Result<()> {
        let subscription = subscription(pattern.as_ref(), group.into())?;
        let links = self.shared.links.iter().map(|link| link.listen(subscription.clone()));
        self.in_time("a subscription", all(join_all(links))).await
    }

    /// Ends a subscription that [`listen`](Self::listen) began with the same pattern and group. Signals that have
    /// arrived can still be taken. Without such a subscription, nothing happens.
    ///
    /// # Errors
    ///
    /// As [`listen`](Self::listen).
    ///
    /// # Cancel safety
    ///
    /// Safe: if the future is dropped, the request still goes on.
    pub async fn unlisten<'g>(&self, pattern: impl AsRef<str>, group: impl Into<Option<&'g str>>) -> Result<()> {
        let subscription = subscription(pattern.as_ref(), group.into())?;
        let links = self.shared.links.iter().map(|link| link.unlisten(subscription.clone()));
        self.in_time("the end of a subscription", all(join_all(links))).await
    }

    /// Publishes a signal on a channel, at the shard that the sharding strategy names for it. Returns the number of
    /// deliveries.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if the channel or the payload is invalid (see [`Channel::new`] and
    /// [`Payload::new`]); [`Disconnected`](ErrorKind::Disconnected) if the connection was lost before the answer: the
    /// signal may have been delivered, and is never sent again; [`Unavailable`](ErrorKind::Unavailable) if no server
    /// answered within the request timeout.
    ///
    /// # Cancel safety
    ///
    /// Safe: if the future is dropped before the signal is sent, the signal is not sent.
    ///
    /// [`SignalConn`] has an example.
    pub async fn emit(&self, channel: impl AsRef<str>, payload: impl AsRef<str>) -> Result<u64> {
        let channel = Channel::new(channel)?;
        let payload = Payload::new(&channel, payload)?;
        let shard = self.shared.placement.emits_at(channel.as_str())?;
        let link = self.shared.links.get(shard);
        let link = link.ok_or_else(|| Error::invalid("shard index", shard, "there is no such shard"))?;
        self.in_time("a signal", link.emit(channel, payload)).await
    }

    /// Returns, for each shard, whether it is connected with all its subscriptions, and if not, why.
    #[must_use]
    pub fn health(&self) -> Vec<ShardHealth> {
        let links = self.shared.links.iter();
        links.map(|link| link.health.borrow().clone()).collect()
    }

    async fn in_time<T>(&self, what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let request_timeout = self.shared.request_timeout;
        match timeout(request_timeout, work).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let budget = Budget::Total {
                    wait: Duration::ZERO,
                    request_timeout,
                };
                let away = self.health().into_iter().find_map(|shard| shard.last_error().cloned());
                let error = match away {
                    Some(why) => Error::new(
                        ErrorKind::Unavailable,
                        format!("not connected for signals: {}", why.message()),
                    )
                    .with_source_of(&why),
                    None => Error::new(
                        ErrorKind::Unavailable,
                        format!("{what} was not answered within {budget}"),
                    ),
                };
                Err(error.out_of(budget))
            }
        }
    }
}

fn subscription(pattern: &str, group: Option<&str>) -> Result<(Pattern, Option<Group>)> {
    let group = group.filter(|group| !group.is_empty()).map(Group::new).transpose()?;
    Ok((Pattern::new(pattern)?, group))
}

async fn all(outcomes: impl Future<Output = Vec<Result<()>>>) -> Result<()> {
    outcomes.await.into_iter().collect()
}

fn poll_signal(buffer: &Buffer, cx: &mut Context<'_>) -> Poll<Option<Signal>> {
    loop {
        match std::task::ready!(buffer.poll_next(cx)) {
            Some(SignalEvent::Signal(signal)) => return Poll::Ready(Some(signal)),
            Some(_) => {}
            None => return Poll::Ready(None),
        }
    }
}

impl Stream for SignalConn {
    type Item = SignalEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<SignalEvent>> {
        self.handle.shared.buffer.poll_next(cx)
    }
}

/// The signals of a [`SignalConn`], without other events.
#[derive(Debug)]
pub struct Signals {
    conn: SignalConn,
}

impl Signals {
    /// Returns the connection.
    #[must_use]
    pub fn conn(&self) -> &SignalConn {
        &self.conn
    }
}

impl Stream for Signals {
    type Item = Signal;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Signal>> {
        poll_signal(&self.conn.handle.shared.buffer, cx)
    }
}

impl fmt::Debug for SignalConn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignalConn")
            .field("waiting", &self.waiting())
            .field("dropped", &self.dropped())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SignalHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignalHandle").finish_non_exhaustive()
    }
}
