//! The requests to a client, and its answers.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::held::{Lease, QueuePlace};
use crate::error::{Budget, Error, ErrorKind, Result, named};
use crate::lease::policy::RenewPolicy;
use crate::protocol::{Channel, Group, Pattern, Payload};
use crate::shard::progress::{Progress, WaitsFor};
use crate::signal::{SignalConn, SignalOptions};
use crate::stats::Stats;
use crate::types::{Key, Kind, Target, Ttl};

/// A request for one [`Operation`]. The handles ([`Lock`](crate::Lock) and the others) create requests.
#[derive(Debug)]
#[non_exhaustive]
pub enum Request {
    /// Acquires a lock or a slot. Answered with [`Response::Granted`] or [`Response::Busy`].
    Acquire(AcquireRequest),
    /// Acquires the key if it is free, and otherwise takes a position in its queue. Does not wait. Answered with
    /// [`Response::Granted`] or [`Response::Queued`].
    Enqueue(AcquireRequest),
    /// Waits once at a position that `Enqueue` returned. Answered with [`Response::Granted`].
    Collect {
        /// The position.
        place: QueuePlace,
        /// How long to wait.
        wait: Duration,
    },
    /// Releases a lease. Answered with [`Response::Released`].
    ///
    /// No layer can stop a release; a layer can only lose its answer. A guard sends its release before the first layer
    /// sees this request, and dropping the lease releases it, too.
    Release(Lease),
    /// Asks for the state of a shard's server. Answered with [`Response::Stats`].
    Stats {
        /// The shard's index.
        shard: usize,
    },
    /// Waits until everything that a shard's cluster has committed is visible. Answered with [`Response::Visible`].
    Barrier {
        /// The shard's index.
        shard: usize,
    },
    /// Makes a shard's first server serve it again. Answered with [`Response::FailingBack`].
    Failback {
        /// The shard's index.
        shard: usize,
    },
    /// Publishes a signal at the shard of its channel. Answered with [`Response::Delivered`].
    Emit {
        /// The destination.
        channel: Channel,
        /// The text.
        payload: Payload,
    },
    /// Connects to all shards for signals, and subscribes at each. Answered with [`Response::Subscribed`].
    Subscribe(SubscribeRequest),
}

/// A subscription to signals, from all shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscribeRequest {
    pub(crate) pattern: Pattern,
    pub(crate) group: Option<Group>,
    pub(crate) options: SignalOptions,
}

impl SubscribeRequest {
    /// Creates a subscription to all signals of the matching channels.
    #[must_use]
    pub fn new(pattern: Pattern) -> Self {
        Self {
            pattern,
            group: None,
            options: SignalOptions::default(),
        }
    }

    /// Makes the subscriber a member of a group. Each signal goes to one member of the group. [`Group`] describes which
    /// signals a group can lose.
    #[must_use]
    pub fn group(mut self, group: Group) -> Self {
        self.group = Some(group);
        self
    }

    /// Sets the options for receiving signals.
    #[must_use]
    pub fn options(mut self, options: SignalOptions) -> Self {
        self.options = options;
        self
    }
}

/// The kind of a request. It is shown, parsed and serialized as its [name](Self::as_str).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Operation {
    /// A [`Request::Acquire`] with a wait.
    Acquire,
    /// A [`Request::Acquire`] without a wait.
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
    /// All kinds, in the order of their declaration.
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

    /// Returns the name of the kind, as metrics and spans use it.
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

/// Parses a [name](Operation::as_str).
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for an unknown name; the message lists all names.
impl FromStr for Operation {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        named("operation", name, &Self::ALL, Self::as_str)
    }
}

impl Request {
    /// Returns the kind of the request.
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

    /// Returns the shard that the request names, or `None` if it names none.
    pub(crate) fn shard(&self) -> Option<usize> {
        match self {
            Self::Stats { shard } | Self::Barrier { shard } | Self::Failback { shard } => Some(*shard),
            _ => None,
        }
    }

    /// Returns the key, or `None` for requests about a shard and about signals.
    #[must_use]
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::Acquire(acquire) | Self::Enqueue(acquire) => Some(&acquire.key),
            Self::Collect { place, .. } => Some(place.key()),
            Self::Release(lease) => Some(lease.key()),
            _ => None,
        }
    }

    /// Returns whether the request is about a lock or a semaphore, or `None` for requests about a shard and about
    /// signals.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Self::Acquire(acquire) | Self::Enqueue(acquire) => Some(acquire.target.kind()),
            Self::Collect { place, .. } => Some(place.kind()),
            Self::Release(lease) => Some(lease.kind()),
            _ => None,
        }
    }

    /// Returns how long the request may wait for other holders. The [timeout layer](crate::TimeoutLayer) allows the
    /// request timeout in addition.
    #[must_use]
    pub fn wait(&self) -> Duration {
        match self {
            Self::Acquire(acquire) => acquire.wait,
            Self::Collect { wait, .. } => *wait,
            _ => Duration::ZERO,
        }
    }

    /// Returns a copy of the request, for a layer that retries. Returns `None` for a request that contains a queue
    /// position or a lease, because it can be sent only once. Also returns `None` for a signal, because a server may
    /// have delivered it, so the client never sends it again.
    ///
    /// If you send the copy of an acquire while the first is under way, both may be granted. The client releases a
    /// lease whose response is dropped.
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

    /// Starts to record what the request waits for, if it is an acquire or an enqueue.
    pub(crate) fn track(&mut self) {
        if let Self::Acquire(acquire) | Self::Enqueue(acquire) = self {
            acquire.progress.get_or_insert_default();
        }
    }

    /// Subtracts a time that has passed from the request's own wait.
    pub(crate) fn spend(&mut self, time: Duration) {
        match self {
            Self::Acquire(acquire) => acquire.wait = acquire.wait.saturating_sub(time),
            Self::Collect { wait, .. } => *wait = wait.saturating_sub(time),
            _ => {}
        }
    }
}

/// A request for a lock or a slot.
#[derive(Clone, PartialEq)]
pub struct AcquireRequest {
    pub(crate) target: Target,
    pub(crate) key: Key,
    /// If another key's shard serves this request: that other key.
    pub(crate) routing_key: Option<Key>,
    pub(crate) wait: Duration,
    pub(crate) ttl: Option<Ttl>,
    /// `None` means the client's policy.
    pub(crate) renew_policy: Option<RenewPolicy>,
    /// Whether the caller holds other leases of this client while it waits.
    pub(crate) holding: bool,
    /// Records what the request waits for, if the timeout layer needs it.
    pub(crate) progress: Option<Progress>,
}

impl fmt::Debug for AcquireRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquireRequest")
            .field("target", &self.target)
            .field("key", &self.key)
            .field("acquire_timeout", &self.wait)
            .field("lease_ttl", &self.ttl)
            .field("renew_policy", &self.renew_policy)
            .finish_non_exhaustive()
    }
}

impl AcquireRequest {
    /// Creates a request without a wait and with the server's default TTL.
    #[must_use]
    pub fn new(target: Target, key: Key) -> Self {
        Self {
            target,
            key,
            routing_key: None,
            wait: Duration::ZERO,
            ttl: None,
            renew_policy: None,
            holding: false,
            progress: None,
        }
    }

    /// Returns the key that determines the shard.
    pub(crate) fn routed_by(&self) -> &Key {
        self.routing_key.as_ref().unwrap_or(&self.key)
    }

    /// Records what the request waits for from now on.
    pub(crate) fn waits_for(&self, what: WaitsFor) {
        if let Some(progress) = &self.progress {
            progress.waits_for(what);
        }
    }

    /// Makes the request wait for up to `timeout`. If the key is held, a request without a wait gets
    /// [`Response::Busy`]. A request with a wait ends with an error when its time is over: of kind
    /// [`Timeout`](crate::ErrorKind::Timeout) if a server has reported the key as held, and of kind
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if no server answered.
    #[must_use]
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.wait = timeout;
        self
    }

    /// Sets how long the lease lasts unless it is renewed.
    #[must_use]
    pub fn lease_ttl(mut self, ttl: Ttl) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Sets how the lease is renewed. The default is the client's policy. With an invalid policy, the request fails
    /// with [`InvalidInput`](crate::ErrorKind::InvalidInput), and the client sends nothing.
    #[must_use]
    pub fn renew_policy(mut self, policy: RenewPolicy) -> Self {
        self.renew_policy = Some(policy);
        self
    }
}

/// The answer to a request.
///
/// Dropping a response that contains a lease releases the lease. A layer must pass the response on to the caller.
#[non_exhaustive]
pub enum Response {
    /// The key is held until the lease is released, dropped or lost.
    Granted(Lease),
    /// A server reported the key as held, and the request does not wait.
    Busy,
    /// A server reported the key as held. The request has this position in its queue.
    Queued(QueuePlace),
    /// The lease was released, and the server has confirmed it.
    Released,
    /// The state of a server.
    Stats(Stats),
    /// Everything that the cluster committed before the request is visible.
    Visible,
    /// The first server will serve the shard after this time. Until then, no server serves it.
    FailingBack(Duration),
    /// The number of deliveries of the signal.
    Delivered(u64),
    /// The connection that receives the signals.
    Subscribed(SignalConn),
}

impl Response {
    /// Returns the error for a response that does not fit its request. Only a layer can create such a response.
    pub(crate) fn out_of_place(&self) -> Error {
        Error::new(
            ErrorKind::Protocol,
            format!("{self:?} is not a valid response to this request: a layer of this client created it"),
        )
    }
}

/// Returns the error of an acquire without time to wait, if the key is held.
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
