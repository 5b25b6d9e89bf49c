//! What can be asked of a client, and what it answers.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::{Span, field};

use super::held::{Lease, QueuePlace};
use crate::error::{Budget, Error, ErrorKind, Result, named};
use crate::escape::Escaped;
use crate::human::human;
use crate::lease::policy::RenewPolicy;
use crate::protocol::{Channel, Group, Pattern, Payload};
use crate::shard::progress::{Progress, WaitsFor};
use crate::signal::{SignalConn, SignalOptions};
use crate::stats::Stats;
use crate::types::{Key, Kind, Target, Ttl};

/// An operation. The handles ([`Lock`](crate::Lock) and the others) make these.
#[derive(Debug)]
#[non_exhaustive]
pub enum Request {
    /// Acquires a lock or a slot. Answered with [`Response::Granted`] or [`Response::Busy`].
    Acquire(AcquireRequest),
    /// Acquires it if it is free, and takes a place in its queue if not; does not wait. Answered with
    /// [`Response::Granted`] or [`Response::Queued`].
    Enqueue(AcquireRequest),
    /// Waits at a place that `Enqueue` gave, once. Answered with [`Response::Granted`].
    Collect {
        /// The place.
        place: QueuePlace,
        /// For how long to wait.
        wait: Duration,
    },
    /// Gives a lease back. Answered with [`Response::Released`].
    ///
    /// A release cannot be stopped, only unheard: that of a guard is on its way before the first layer sees this request,
    /// and a lease that is dropped is given back all the same.
    Release(Lease),
    /// The state of a shard's server. Answered with [`Response::Stats`].
    Stats {
        /// The shard's index.
        shard: usize,
    },
    /// Waits until everything that a shard's cluster had committed is visible. Answered with [`Response::Visible`].
    Barrier {
        /// The shard's index.
        shard: usize,
    },
    /// Has a shard's first server serve it again. Answered with [`Response::FailingBack`].
    Failback {
        /// The shard's index.
        shard: usize,
    },
    /// Publishes a signal at the shard of its channel. Answered with [`Response::Delivered`].
    Emit {
        /// Where.
        channel: Channel,
        /// What.
        payload: Payload,
    },
    /// Connects to all shards for signals, and subscribes there. Answered with [`Response::Subscribed`].
    Subscribe(SubscribeRequest),
}

/// Signals that are wanted, from all shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscribeRequest {
    pub(crate) pattern: Pattern,
    pub(crate) group: Option<Group>,
    pub(crate) options: SignalOptions,
}

impl SubscribeRequest {
    /// Asks for all signals of the channels that match.
    #[must_use]
    pub fn new(pattern: Pattern) -> Self {
        Self {
            pattern,
            group: None,
            options: SignalOptions::default(),
        }
    }

    /// Asks for a share of them only: the others go to the other members of the group. What a group can lose is told at [`Group`].
    #[must_use]
    pub fn group(mut self, group: Group) -> Self {
        self.group = Some(group);
        self
    }

    /// How they are received.
    #[must_use]
    pub fn options(mut self, options: SignalOptions) -> Self {
        self.options = options;
        self
    }
}

/// What kind of request it is. It is shown, parsed and serialized by its [name](Self::as_str).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Operation {
    /// [`Request::Acquire`] that waits.
    Acquire,
    /// [`Request::Acquire`] that does not.
    TryAcquire,
    /// [`Request::Enqueue`].
    Enqueue,
    /// [`Request::Collect`].
    Collect,
    /// [`Request::Release`].
    Release,
    /// [`Request::Stats`].
    Stats,
    /// [`Request::Barrier`].
    Barrier,
    /// [`Request::Failback`].
    Failback,
    /// [`Request::Emit`].
    Emit,
    /// [`Request::Subscribe`].
    Subscribe,
}

impl Operation {
    /// All of them, in the order of their declaration.
    pub(crate) const ALL: [Self; 10] = [
        Self::Acquire,
        Self::TryAcquire,
        Self::Enqueue,
        Self::Collect,
        Self::Release,
        Self::Stats,
        Self::Barrier,
        Self::Failback,
        Self::Emit,
        Self::Subscribe,
    ];

    /// Its name as metrics and spans carry it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Acquire => "acquire",
            Self::TryAcquire => "try_acquire",
            Self::Enqueue => "enqueue",
            Self::Collect => "collect",
            Self::Release => "release",
            Self::Stats => "stats",
            Self::Barrier => "barrier",
            Self::Failback => "failback",
            Self::Emit => "emit",
            Self::Subscribe => "subscribe",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Reads a [name](Operation::as_str).
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput), with all names.
impl FromStr for Operation {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        named("operation", name, &Self::ALL, Self::as_str)
    }
}

impl Request {
    /// What kind of request it is.
    #[must_use]
    pub fn operation(&self) -> Operation {
        match self {
            Self::Acquire(acquire) if acquire.wait.is_zero() => Operation::TryAcquire,
            Self::Acquire(_) => Operation::Acquire,
            Self::Enqueue(_) => Operation::Enqueue,
            Self::Collect { .. } => Operation::Collect,
            Self::Release(_) => Operation::Release,
            Self::Stats { .. } => Operation::Stats,
            Self::Barrier { .. } => Operation::Barrier,
            Self::Failback { .. } => Operation::Failback,
            Self::Emit { .. } => Operation::Emit,
            Self::Subscribe(_) => Operation::Subscribe,
        }
    }

    /// The shard that it names, if it is about one.
    pub(crate) fn shard(&self) -> Option<usize> {
        match self {
            Self::Stats { shard } | Self::Barrier { shard } | Self::Failback { shard } => Some(*shard),
            _ => None,
        }
    }

    /// The span that covers it. Names of spans are fixed where they are written, so each operation has its line.
    pub(super) fn span(&self, shard: Option<usize>, client: Option<&str>) -> Span {
        let key = Escaped(self.key().map(Key::as_str).unwrap_or_default());
        let subject = Escaped(match self {
            Self::Emit { channel, .. } => channel.as_str(),
            Self::Subscribe(subscribe) => subscribe.pattern.as_str(),
            _ => "",
        });
        let kind = self.kind().map_or("none", Kind::as_str);
        let wait = human(self.wait());
        let (outcome, contended) = (field::Empty, field::Empty);
        match self.operation() {
            Operation::Acquire => {
                tracing::debug_span!("acquire", client, shard, %key, kind, %wait, contended, outcome)
            }
            Operation::TryAcquire => tracing::debug_span!("try_acquire", client, shard, %key, kind, contended, outcome),
            Operation::Enqueue => tracing::debug_span!("enqueue", client, shard, %key, kind, contended, outcome),
            Operation::Collect => tracing::debug_span!("collect", client, shard, %key, kind, %wait, contended, outcome),
            Operation::Release => tracing::debug_span!("release", client, shard, %key, kind, outcome),
            Operation::Stats => tracing::debug_span!("stats", client, shard, outcome),
            Operation::Barrier => tracing::debug_span!("barrier", client, shard, outcome),
            Operation::Failback => tracing::debug_span!("failback", client, shard, outcome),
            Operation::Emit => tracing::debug_span!("emit", client, shard, channel = %subject, outcome),
            Operation::Subscribe => tracing::debug_span!("subscribe", client, pattern = %subject, outcome),
        }
    }

    /// The key that it is about; none for what is about a shard, and for signals.
    #[must_use]
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::Acquire(acquire) | Self::Enqueue(acquire) => Some(&acquire.key),
            Self::Collect { place, .. } => Some(place.key()),
            Self::Release(lease) => Some(lease.key()),
            _ => None,
        }
    }

    /// Whether it is about a lock or a semaphore; none for what is about a shard, and for signals.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Self::Acquire(acquire) | Self::Enqueue(acquire) => Some(acquire.target.kind()),
            Self::Collect { place, .. } => Some(place.kind()),
            Self::Release(lease) => Some(lease.kind()),
            _ => None,
        }
    }

    /// How long it may wait for other holders. The [timeout layer](crate::TimeoutLayer) allows the request timeout on top
    /// of this.
    #[must_use]
    pub fn wait(&self) -> Duration {
        match self {
            Self::Acquire(acquire) => acquire.wait,
            Self::Collect { wait, .. } => *wait,
            _ => Duration::ZERO,
        }
    }

    /// The same request once more, for a layer that tries again. What holds something (a place, a lease) can be asked for
    /// only once; and a signal is never sent twice by itself: it may have been delivered.
    ///
    /// A second acquire while the first is under way may take a second grant; whichever is not handed on gives itself back.
    #[must_use]
    pub fn try_clone(&self) -> Option<Self> {
        match self {
            Self::Acquire(acquire) => Some(Self::Acquire(acquire.clone())),
            Self::Enqueue(acquire) => Some(Self::Enqueue(acquire.clone())),
            Self::Stats { shard } => Some(Self::Stats { shard: *shard }),
            Self::Barrier { shard } => Some(Self::Barrier { shard: *shard }),
            Self::Failback { shard } => Some(Self::Failback { shard: *shard }),
            Self::Subscribe(subscribe) => Some(Self::Subscribe(subscribe.clone())),
            Self::Collect { .. } | Self::Release(_) | Self::Emit { .. } => None,
        }
    }

    /// Has it tell what it waits for, where that can be told.
    pub(crate) fn track(&mut self) {
        if let Self::Acquire(acquire) | Self::Enqueue(acquire) = self {
            acquire.progress.get_or_insert_default();
        }
    }

    /// So much of its own wait is over already.
    pub(crate) fn spend(&mut self, time: Duration) {
        match self {
            Self::Acquire(acquire) => acquire.wait = acquire.wait.saturating_sub(time),
            Self::Collect { wait, .. } => *wait = wait.saturating_sub(time),
            _ => {}
        }
    }
}

/// A lock or a slot that is wanted.
#[derive(Clone, PartialEq)]
pub struct AcquireRequest {
    pub(crate) target: Target,
    pub(crate) key: Key,
    pub(crate) wait: Duration,
    pub(crate) ttl: Option<Ttl>,
    /// None: as the client says.
    pub(crate) renew_policy: Option<RenewPolicy>,
    /// Its caller holds other leases of this client meanwhile.
    pub(crate) holding: bool,
    /// What it waits for, while the timeout layer wants to know.
    pub(crate) progress: Option<Progress>,
}

impl fmt::Debug for AcquireRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquireRequest")
            .field("target", &self.target)
            .field("key", &self.key)
            .field("wait", &self.wait)
            .field("ttl", &self.ttl)
            .field("renew_policy", &self.renew_policy)
            .finish_non_exhaustive()
    }
}

impl AcquireRequest {
    /// Asks for it without waiting, with the server's default TTL.
    #[must_use]
    pub fn new(target: Target, key: Key) -> Self {
        Self {
            target,
            key,
            wait: Duration::ZERO,
            ttl: None,
            renew_policy: None,
            holding: false,
            progress: None,
        }
    }

    /// Notes what it waits for from now on.
    pub(crate) fn waits_for(&self, what: WaitsFor) {
        if let Some(progress) = &self.progress {
            progress.waits_for(what);
        }
    }

    /// Waits for it, for up to `timeout`. Without a wait a lock that is held is answered with [`Response::Busy`]. With one
    /// it is an error of kind [`Timeout`](crate::ErrorKind::Timeout) when the time is over, if a server has said that the key is
    /// held, and of kind [`Unavailable`](crate::ErrorKind::Unavailable) if no server said anything.
    #[must_use]
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.wait = timeout;
        self
    }

    /// How long the lease lasts unless it is renewed.
    #[must_use]
    pub fn lease_ttl(mut self, ttl: Ttl) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// How the lease is renewed; as the client's other leases unless it is said here. A policy that is invalid is refused, with
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput), before anything is sent.
    #[must_use]
    pub fn renew_policy(mut self, policy: RenewPolicy) -> Self {
        self.renew_policy = Some(policy);
        self
    }
}

/// What came of a request.
///
/// A response that carries a lease must reach somebody who keeps it: dropping it gives the lease back.
#[non_exhaustive]
pub enum Response {
    /// It is held until the lease is released, dropped or lost.
    Granted(Lease),
    /// A server says that it is held, and the request did not want to wait.
    Busy,
    /// A server says that it is held; this is a place in its queue.
    Queued(QueuePlace),
    /// It was given back, and the server has said so.
    Released,
    /// The state of a server.
    Stats(Stats),
    /// Everything that was committed before is visible.
    Visible,
    /// The first server will serve the shard, after so long in which nobody does.
    FailingBack(Duration),
    /// The signal was delivered so many times.
    Delivered(u64),
    /// The signals come here.
    Subscribed(SignalConn),
}

impl Response {
    /// It is no answer to what was asked: a layer put it there.
    pub(crate) fn out_of_place(&self) -> Error {
        Error::new(
            ErrorKind::Protocol,
            format!("{self:?} is no answer to what was asked: a layer of this client put it there"),
        )
    }
}

/// Returns the error of an acquire that had no time to wait, and whose try was refused.
pub(crate) fn busy(key: &Key) -> Error {
    let message = format!("{key:?} is held, and there was no time to wait for it");
    Error::new(ErrorKind::Timeout, message).out_of(Budget::Wait(Duration::ZERO))
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Granted(lease) => f.debug_tuple("Granted").field(lease).finish(),
            Self::Busy => f.write_str("Busy"),
            Self::Queued(place) => f.debug_tuple("Queued").field(place).finish(),
            Self::Released => f.write_str("Released"),
            Self::Stats(stats) => f.debug_tuple("Stats").field(stats).finish(),
            Self::Visible => f.write_str("Visible"),
            Self::FailingBack(delay) => f.debug_tuple("FailingBack").field(delay).finish(),
            Self::Delivered(count) => f.debug_tuple("Delivered").field(count).finish(),
            Self::Subscribed(signals) => f.debug_tuple("Subscribed").field(signals).finish(),
        }
    }
}
