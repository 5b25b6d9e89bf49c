//! The lines of a record. As text, a record has one JSON object on each line. `docs/testing.md` describes the form.
//!
//! Times and durations are whole nanoseconds. The lines that are judged together share one clock and one start of time.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Nanoseconds since the common start.
    pub at: u64,
    #[serde(flatten)]
    pub what: What,
}

/// The event of a line. In JSON, the field `what` names the event, and the fields of the event stand beside `what`.
///
/// Some comments say when the clock is read for the time of the line (`at`): before or after the event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    /// A client process starts. A client in a simulation counts as a process.
    ProcessStarted(Process),
    /// A client process ends in an orderly way: each of its operations has returned.
    ProcessEnded(Process),
    /// A client process is killed.
    ProcessKilled(Process),
    /// A client process is stopped (for example, by SIGSTOP) until `ProcessThawed`.
    ProcessFrozen(Process),
    ProcessThawed(Process),

    /// An operation begins. The clock is read first.
    Invoke(Invoke),
    /// An operation ends. The clock is read afterwards.
    Return(Return),
    /// A caller gets a *holder*, which is a guard or a permit. The clock is read afterwards.
    Acquired(Acquired),
    /// A caller calls `is_held` on a holder. The clock is read before the call. If `is_held` returns false, the clock
    /// is read again after the call, and the later time counts.
    Use(Use),
    /// A caller learns that the lease of its holder is lost. The clock is read afterwards.
    Lost(Lost),
    /// A caller drops a guard, a permit or a ticket. The clock is read first.
    LetGo(LetGo),

    /// A subscription has a pattern from now on. There is one line for each pattern. Usually the line is recorded after
    /// the acknowledgement of the `listen`. If it is recorded earlier, a line `gap` must say that signals may be
    /// missing until the acknowledgement.
    Subscribed(Subscribed),
    /// A subscription ends, with all its patterns. The clock is read first.
    Unsubscribed(Subscription),
    /// A subscription receives a signal.
    Received(Received),
    /// A subscription learns that signals may be missing.
    Gap(Gap),
    /// A connection that belongs to a signal group becomes half open. The client has closed the connection, or the
    /// network has cut it without notice to either end. The server still counts the connection as a member of the
    /// group. The record has one line for each group of the connection.
    HalfOpenBegun(HalfOpen),
    /// The server ends a half-open connection.
    HalfOpenEnded(ConnectionId),

    /// A server starts. It has no grants of an earlier server.
    ServerStarted(ServerStarted),
    /// A server ends. All its grants end, too.
    ServerEnded(ServerId),
    // The next events concern a lease or a queue position. They have the names of `dflockd_client::server::EventKind`.
    Queued(Entry),
    Left(Entry),
    Granted(Entry),
    Renewed(Entry),
    Released(Entry),
    Disconnected(Entry),
    Expired(Entry),
    Orphaned(Entry),
    Reclaimed(Entry),
    Forgotten(Entry),
    Collected(Entry),
    /// The server refuses a renewal because its token belongs to no lease.
    RenewalRefused(Entry),

    /// A trouble begins: a fault of the network, of a server or of a leader, which no client can repair.
    TroubleBegun(Trouble),
    /// A trouble ends.
    TroubleEnded(Trouble),
}

impl What {
    /// Returns the entry of an event that concerns a lease or a queue position at a server.
    pub fn entry(&self) -> Option<&Entry> {
        match self {
            Self::Queued(entry)
            | Self::Left(entry)
            | Self::Granted(entry)
            | Self::Renewed(entry)
            | Self::Released(entry)
            | Self::Disconnected(entry)
            | Self::Expired(entry)
            | Self::Orphaned(entry)
            | Self::Reclaimed(entry)
            | Self::Forgotten(entry)
            | Self::Collected(entry)
            | Self::RenewalRefused(entry) => Some(entry),
            _ => None,
        }
    }

    /// Returns the server of an event that happens at a server.
    pub fn server(&self) -> Option<&Name> {
        match self {
            Self::ServerStarted(started) => Some(&started.server),
            Self::ServerEnded(server) => Some(&server.server),
            _ => self.entry().map(|entry| &entry.server),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub process: Name,
}

/// An operation that a caller begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invoke {
    pub process: Name,
    /// The number of the calling task. The operations of one task do not overlap.
    pub caller: u64,
    /// The number of the operation. It is unique in the process.
    pub op: u64,
    pub action: Action,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// The key. `None` for an operation on several keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
    /// The requested TTL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u64>,
    /// For a renewal or a release: the holder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<u64>,
    /// For a `wait` at a ticket: the number of the `enqueue` operation that returned the ticket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<u64>,
    /// The channel of an emit, or the pattern of a `listen`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<Name>,
    /// The payload of an emit. It is unique among the payloads on the same channel in the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Name>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Acquire,
    Try,
    Enqueue,
    Wait,
    Reclaim,
    Renew,
    Release,
    Emit,
    Listen,
    Unlisten,
    /// An operation that affects no lock and no signal.
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Return {
    pub process: Name,
    pub op: u64,
    pub outcome: Outcome,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The caller holds the keys. The `acquired` line of each key comes before this line.
    Granted,
    /// The caller has a ticket. Other lines name the ticket by the number of this operation.
    Queued,
    /// A try found that the key was held.
    Busy,
    TimedOut,
    /// A server acknowledged the operation: for example, a renewal, a release or an emit.
    Done,
    Failed,
    /// The caller dropped the future of the operation.
    Cancelled,
}

/// A caller gets a holder: a guard or a permit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acquired {
    pub process: Name,
    /// The number of the holder. It is unique in the process.
    pub holder: u64,
    /// The operation that returned the holder.
    pub op: u64,
    pub kind: Kind,
    pub key: Name,
    pub limit: u64,
    pub token: Token,
    /// The fence that the client shows to the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
    /// Whether the caller waits for the loss of the lease. If so, a loss causes a `lost` line.
    pub watched: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    pub process: Name,
    pub holder: u64,
    /// The result of `is_held`.
    pub held: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    pub process: Name,
    pub holder: u64,
    /// The client's name for the reason: `disconnected`, `expired`, `rejected`, ...
    pub reason: Name,
}

/// A caller drops a holder or a ticket. The number of the ticket is the number of its `enqueue` operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetGo {
    pub process: Name,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribed {
    pub process: Name,
    /// The number of the subscription. It is unique in the process.
    pub subscription: u64,
    pub pattern: Name,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Name>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    pub process: Name,
    pub subscription: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    pub process: Name,
    pub subscription: u64,
    pub channel: Name,
    pub payload: Name,
}

/// A gap was reported: signals may be missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    pub process: Name,
    pub subscription: u64,
    pub extent: Extent,
}

/// A half-open connection, and one signal group to which the connection still belongs at its server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HalfOpen {
    /// The number of the connection. It is unique in the record.
    pub connection: u64,
    pub pattern: Name,
    pub group: Name,
    /// The read timeout of the server. The server ends the connection after this time at the latest.
    pub read_timeout: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionId {
    pub connection: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extent {
    /// The gap lasts until a report of its end.
    Begins,
    Ends,
    /// The gap does not last: signals may be missing only between the signals before and after this report.
    Here,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStarted {
    pub server: Name,
    /// The previous server at the same address, if any. The new server must issue greater fences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succeeds: Option<Name>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerId {
    pub server: Name,
}

/// An event at a server that concerns a lease or a queue position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The server that has the lease or the queue. A restarted server is a different server. A cluster counts as one
    /// server, even after a change of its leader.
    pub server: Name,
    pub connection: u64,
    pub kind: Kind,
    pub key: Name,
    /// How many callers may hold the key at once: 1 for a lock.
    pub limit: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// The fence, if the server issues fences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
    /// The number of the queue position. Positions are numbered in the order in which they were taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<u64>,
    /// The end of the lease if no renewal follows, counted from the same start as `at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// The name of the trouble. When the trouble has ended, a later trouble may have the same name.
    pub trouble: Name,
    /// The affected server. The trouble also affects all other servers at the same address. `None` if the trouble may
    /// affect every server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<Name>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Lock,
    Semaphore,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lock => "lock",
            Self::Semaphore => "semaphore",
        })
    }
}

/// A name that is cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<T: AsRef<str>> From<T> for Name {
    fn from(name: T) -> Self {
        Self(name.as_ref().into())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

/// A token: 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u128);

impl FromStr for Token {
    type Err = std::num::ParseIntError;

    fn from_str(digits: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(digits, 16).map(Self)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let digits = String::deserialize(deserializer)?;
        digits.parse().map_err(D::Error::custom)
    }
}
