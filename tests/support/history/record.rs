//! The form of a record: one JSON object for each line, with its time and its event. `docs/testing.md` describes it.
//!
//! Times and durations are whole nanoseconds. All lines that are judged together count from the same start, on one clock.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One line of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Nanoseconds since the common start.
    pub at: u64,
    #[serde(flatten)]
    pub what: What,
}

/// The event of a line. Its name is the field `what`; its other fields are beside that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    /// A client process begins. A client in a simulation counts as one.
    ProcessStarted(Process),
    /// A client process ends in an orderly way: each of its operations has returned.
    ProcessEnded(Process),
    /// A client process is killed.
    ProcessKilled(Process),
    /// A client process is frozen, until it is thawed.
    ProcessFrozen(Process),
    ProcessThawed(Process),

    /// An operation begins.
    Invoke(Invoke),
    /// An operation ends. Read the clock after that.
    Return(Return),
    /// A caller has a guard or a permit. Read the clock after that.
    Acquired(Acquired),
    /// A caller uses its holder. Read the clock before `is_held`, and again after it if it returns false.
    Use(Use),
    /// A caller learns that its holder is lost. Read the clock after that.
    Lost(Lost),
    /// A guard or a ticket is dropped. Read the clock before that.
    LetGo(LetGo),

    /// A subscription has a pattern: the `listen` was acknowledged. It may have several.
    Subscribed(Subscribed),
    /// A subscription has no patterns any more. Read the clock before that.
    Unsubscribed(Subscription),
    /// A subscription got a signal.
    Received(Received),
    /// A gap is reported to a subscription.
    Gap(Gap),
    /// A connection that has joined a group becomes half open: it was cut in silence, or its client has closed it, and its server still
    /// takes it for a member. One line for each of its groups.
    HalfOpenBegun(HalfOpen),
    /// The server has ended that connection.
    HalfOpenEnded(ConnectionId),

    /// A server begins, without the grants of any earlier one.
    ServerStarted(ServerStarted),
    /// A server is gone. Its grants have ended.
    ServerEnded(ServerId),
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
    /// A renewal of a token that holds nothing.
    RenewalRefused(Entry),

    /// Trouble of the network, a server or a leader begins, which no client can mend.
    TroubleBegun(Trouble),
    /// The trouble ends.
    TroubleEnded(Trouble),
}

impl What {
    /// Returns the entry of a server's line about a lease or a queue position.
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

    /// Returns the server that a line is about.
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

/// An operation of a client's caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invoke {
    pub process: Name,
    /// The calling task. Its operations do not overlap.
    pub caller: u64,
    /// The number of the operation: unique in its process.
    pub op: u64,
    pub action: Action,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// The key. `None` for an operation on several keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// The timeout of the operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
    /// The requested TTL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u64>,
    /// The holder whose token is renewed or released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<u64>,
    /// The `enqueue` operation whose ticket is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<u64>,
    /// The channel of an emit, or the pattern of a `listen`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<Name>,
    /// The payload of an emit: unique among those of its channel in a record.
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
    /// The caller holds the keys: there is an `acquired` line for each, before this one.
    Granted,
    /// The caller has a ticket, named by the number of this operation.
    Queued,
    /// A try found the key held.
    Busy,
    TimedOut,
    /// Renewed, released, emitted, ...: a server has acknowledged it.
    Done,
    Failed,
    /// Its future was dropped.
    Cancelled,
}

/// A holder: a guard or a permit of a caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acquired {
    pub process: Name,
    /// The number of the holder: unique in its process.
    pub holder: u64,
    /// The operation that returned it.
    pub op: u64,
    pub kind: Kind,
    pub key: Name,
    pub limit: u64,
    pub token: Token,
    /// The fence that the client shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
    /// The caller waits for its loss, and there will be a `lost` line.
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
    /// The reason in the client's words: `disconnected`, `expired`, `rejected`, ...
    pub reason: Name,
}

/// The dropped thing: a holder, or the ticket of an `enqueue`.
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
    /// The number of the subscription: unique in its process.
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

/// A report to a subscription that signals may be missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    pub process: Name,
    pub subscription: u64,
    pub extent: Extent,
}

/// A half-open connection, and a group of which its server takes it for a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HalfOpen {
    /// The number of the connection: unique in the record.
    pub connection: u64,
    pub pattern: Name,
    pub group: Name,
    /// The read timeout of the server, after which it ends the connection at the latest.
    pub read_timeout: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionId {
    pub connection: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extent {
    /// The gap is open until its end is reported.
    Begins,
    Ends,
    /// The gap is at this place only.
    Here,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStarted {
    pub server: Name,
    /// The server whose place it takes: its fences are greater than those of that server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succeeds: Option<Name>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerId {
    pub server: Name,
}

/// An event of a server about a lease or a queue position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The server whose leases and queues the event is about: one server from its start to its end, or a cluster,
    /// whichever of its members leads.
    pub server: Name,
    pub connection: u64,
    pub kind: Kind,
    pub key: Name,
    /// How many may hold the key: 1 for a lock.
    pub limit: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// The fence, if the server issues fences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
    /// The queue position, numbered in the order in which positions were taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<u64>,
    /// When the lease ends unless it is renewed, counted like `at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// Its name. A trouble with the same name can begin again after this one has ended.
    pub trouble: Name,
    /// The only server that it affects, with all servers at the same address. `None` if it may affect all.
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

/// A name that is cheap to copy.
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
