//! Requests of a client: three lines each.

use std::fmt;

use bytes::{BufMut, BytesMut};

use super::auth_token::AuthToken;
use super::channel::{Channel, Group, Pattern};
use super::raw_request::{RawRequest, RequestLines};
use super::signal::Payload;
use super::stable_ref::StableRef;
use super::{MAX_RESPONSE_LINE, MAX_STATS_LINE};
use crate::types::{Key, Kind, Limit, MAX_SECONDS, Target, Token, Ttl, WaitSecs};

/// A request, valid by construction: every value can be sent.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request {
    /// `auth`: presents the server's auth token. Must be the first request if the server has one, and must not be sent
    /// otherwise.
    Auth {
        /// The auth token.
        token: AuthToken,
    },
    /// `l`, `sl`: acquires, waiting for up to `wait`. Blocks its connection while it waits.
    Acquire {
        /// A lock or a slot.
        target: Target,
        /// The name of the lock or semaphore.
        key: Key,
        /// How long the server may block.
        wait: WaitSecs,
        /// The TTL of the lease; the server's default if absent.
        ttl: Option<Ttl>,
    },
    /// `e`, `se`: acquires the lock, or takes a position in its queue.
    Enqueue {
        /// A lock or a slot.
        target: Target,
        /// The name of the lock or semaphore.
        key: Key,
        /// The TTL of the lease; the server's default if absent.
        ttl: Option<Ttl>,
    },
    /// `w`, `sw`: waits at the position that an `Enqueue` on the same connection took. Blocks its connection.
    Wait {
        /// The namespace.
        kind: Kind,
        /// The name.
        key: Key,
        /// How long the server may block.
        wait: WaitSecs,
    },
    /// `r`, `sr`: releases the grant of a token.
    Release {
        /// The namespace.
        kind: Kind,
        /// The name.
        key: Key,
        /// The token of the grant.
        token: Token,
    },
    /// `n`, `sn`: restarts the lease.
    Renew {
        /// The namespace.
        kind: Kind,
        /// The name.
        key: Key,
        /// The token of the grant.
        token: Token,
        /// The TTL of the lease; absent means the *server's default*, not the TTL that was asked for before.
        ttl: Option<Ttl>,
    },
    /// `stats`: asks for the server's state.
    Stats,
    /// `ping`: does nothing and is answered with `ok`. Releases before 1.14 do not support it.
    Ping,
    /// `barrier`: is answered with `ok` once every write that was committed before is visible to this server. Cluster
    /// builds support it.
    Barrier,
    /// `stable-ref`: names the session that this connection continues, so that the next connection with the same ref
    /// can reclaim the leases and queue positions of this one. At most once per connection. It should come before the
    /// connection acquires anything, but servers do not check that. Cluster builds support it.
    StableRef {
        /// The session.
        reference: StableRef,
    },
    /// `listen`: subscribes the connection to the signals of all channels that match; they come between answers (see
    /// [`Signal`](super::Signal)). Releases 1.11 to 1.16 support this and the next two requests.
    Listen {
        /// The channels.
        pattern: Pattern,
        /// The group that shares the signals of this pattern; if absent, the connection gets all of them.
        group: Option<Group>,
    },
    /// `unlisten`: ends the subscription that a `Listen` with the same pattern and group began. Without such a
    /// subscription, nothing happens.
    Unlisten {
        /// The channels.
        pattern: Pattern,
        /// The group, if the `Listen` named one.
        group: Option<Group>,
    },
    /// `signal`: publishes a signal.
    Signal {
        /// The destination.
        channel: Channel,
        /// The text.
        payload: Payload,
    },
}

/// The shape that the answer to a request must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expect {
    /// `ok`.
    Done,
    /// `ok <token> <ttl>` or `timeout`.
    Grant,
    /// `acquired <token> <ttl>` or `queued`.
    Place,
    /// `ok [<seconds>]`.
    Renewal,
    /// `ok <number>`.
    Count,
    /// `ok <json>`.
    Json,
}

impl Expect {
    /// Returns the length, in bytes, of the longest line that the client accepts as this answer.
    #[must_use]
    pub fn longest_line(self) -> usize {
        match self {
            Self::Json => MAX_STATS_LINE,
            Self::Done | Self::Grant | Self::Place | Self::Renewal | Self::Count => MAX_RESPONSE_LINE,
        }
    }
}

impl Request {
    /// Returns the shape that the answer must have.
    #[must_use]
    pub fn expect(&self) -> Expect {
        match self {
            Self::Auth { .. }
            | Self::Release { .. }
            | Self::Ping
            | Self::Barrier
            | Self::StableRef { .. }
            | Self::Listen { .. }
            | Self::Unlisten { .. } => Expect::Done,
            Self::Acquire { .. } | Self::Wait { .. } => Expect::Grant,
            Self::Enqueue { .. } => Expect::Place,
            Self::Renew { .. } => Expect::Renewal,
            Self::Signal { .. } => Expect::Count,
            Self::Stats => Expect::Json,
        }
    }

    /// Returns how long the server may block the connection before it answers. Nothing may be pipelined behind a
    /// request that blocks.
    #[must_use]
    pub fn blocks(&self) -> WaitSecs {
        match self {
            Self::Acquire { wait, .. } | Self::Wait { wait, .. } => *wait,
            _ => WaitSecs::TRY,
        }
    }

    /// Returns the subject of the request, for messages: the key, channel or pattern, or otherwise the command.
    #[must_use]
    pub fn subject(&self) -> &str {
        match self {
            Self::Acquire { key, .. }
            | Self::Enqueue { key, .. }
            | Self::Wait { key, .. }
            | Self::Release { key, .. }
            | Self::Renew { key, .. } => key.as_str(),
            Self::Listen { pattern, .. } | Self::Unlisten { pattern, .. } => pattern.as_str(),
            Self::Signal { channel, .. } => channel.as_str(),
            Self::Auth { .. } => "auth",
            Self::Stats => "stats",
            Self::Ping => "ping",
            Self::Barrier => "barrier",
            // Not the ref, which is a secret.
            Self::StableRef { .. } => "stable-ref",
        }
    }

    /// Appends the three lines to a buffer.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Auth { token } => {
                // The buffer must not be reallocated once the token is in it, because that would leave a copy behind.
                out.reserve(token.expose().len() + 16);
                three_lines(out, "auth", "_", |out| text(out, token.expose()));
            }
            Self::Acquire { target, key, wait, ttl } => {
                three_lines(out, either(target.kind(), "l", "sl"), key.as_str(), |out| {
                    number(out, wait.as_secs());
                    limit_and_ttl(out, *target, *ttl);
                })
            }
            Self::Enqueue { target, key, ttl } => {
                three_lines(out, either(target.kind(), "e", "se"), key.as_str(), |out| {
                    let start = out.len();
                    limit_and_ttl(out, *target, *ttl);
                    // A blank precedes each field, except the first one of the line.
                    if out.len() > start {
                        let fields = out.split_off(start);
                        out.extend_from_slice(&fields[1..]);
                    }
                });
            }
            Self::Wait { kind, key, wait } => three_lines(out, either(*kind, "w", "sw"), key.as_str(), |out| {
                number(out, wait.as_secs());
            }),
            Self::Release { kind, key, token } => three_lines(out, either(*kind, "r", "sr"), key.as_str(), |out| {
                out.extend_from_slice(token.as_bytes());
            }),
            Self::Renew { kind, key, token, ttl } => three_lines(out, either(*kind, "n", "sn"), key.as_str(), |out| {
                out.extend_from_slice(token.as_bytes());
                if let Some(ttl) = ttl {
                    out.put_u8(b' ');
                    number(out, ttl.as_secs());
                }
            }),
            Self::Stats => three_lines(out, "stats", "_", |out| text(out, "_")),
            Self::Ping => three_lines(out, "ping", "_", |out| text(out, "_")),
            Self::Barrier => three_lines(out, "barrier", "_", |_| {}),
            Self::StableRef { reference } => three_lines(out, "stable-ref", reference.expose(), |_| {}),
            Self::Listen { pattern, group } => subscription(out, "listen", pattern, group.as_ref()),
            Self::Unlisten { pattern, group } => subscription(out, "unlisten", pattern, group.as_ref()),
            Self::Signal { channel, payload } => {
                three_lines(out, "signal", channel.as_str(), |out| text(out, payload.as_str()))
            }
        }
    }

    /// Parses the three lines of a request, as a server does. Returns `None` for requests that servers answer with
    /// `error`, and for requests that servers accept although they are not valid in this crate, such as a key with a
    /// NUL.
    #[must_use]
    pub fn decode(command: &str, key: &str, argument: &str) -> Option<Self> {
        Self::read(RequestLines {
            command: command.as_bytes(),
            key: key.as_bytes(),
            argument: argument.as_bytes(),
        })
    }

    pub(super) fn read(lines: RequestLines<'_>) -> Option<Self> {
        Some(match RawRequest::read(lines)? {
            RawRequest::Auth { token } => Self::Auth {
                token: AuthToken::new(as_text(token)?).ok()?,
            },
            RawRequest::Acquire {
                kind,
                key,
                limit,
                wait,
                ttl,
            } => Self::Acquire {
                target: target(kind, limit)?,
                key: read_key(key)?,
                wait,
                ttl,
            },
            RawRequest::Enqueue { kind, key, limit, ttl } => Self::Enqueue {
                target: target(kind, limit)?,
                key: read_key(key)?,
                ttl,
            },
            RawRequest::Wait { kind, key, wait } => Self::Wait {
                kind,
                key: read_key(key)?,
                wait,
            },
            RawRequest::Release { kind, key, token } => Self::Release {
                kind,
                key: read_key(key)?,
                token,
            },
            RawRequest::Renew { kind, key, token, ttl } => Self::Renew {
                kind,
                key: read_key(key)?,
                token,
                ttl,
            },
            RawRequest::Stats => Self::Stats,
            RawRequest::Ping => Self::Ping,
            RawRequest::Barrier => Self::Barrier,
            RawRequest::StableRef { reference } => Self::StableRef {
                reference: StableRef::new(as_text(reference)?).ok()?,
            },
            RawRequest::Listen { pattern, group } => Self::Listen {
                pattern: Pattern::new(as_text(pattern)?).ok()?,
                group: read_group(group)?,
            },
            RawRequest::Unlisten { pattern, group } => Self::Unlisten {
                pattern: Pattern::new(as_text(pattern)?).ok()?,
                group: read_group(group)?,
            },
            RawRequest::Signal { channel, payload } => {
                let channel = Channel::new(as_text(channel)?).ok()?;
                let payload = Payload::new(&channel, as_text(payload)?).ok()?;
                Self::Signal { channel, payload }
            }
        })
    }
}

fn three_lines(out: &mut BytesMut, command: &str, key: &str, argument: impl FnOnce(&mut BytesMut)) {
    out.reserve(command.len() + key.len() + 64);
    text(out, command);
    out.put_u8(b'\n');
    text(out, key);
    out.put_u8(b'\n');
    argument(out);
    out.put_u8(b'\n');
}

fn subscription(out: &mut BytesMut, command: &str, pattern: &Pattern, group: Option<&Group>) {
    three_lines(out, command, pattern.as_str(), |out| {
        text(out, group.map_or("", Group::as_str));
    });
}

fn text(out: &mut BytesMut, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

/// Appends a number in decimal digits.
pub(super) fn number(out: &mut BytesMut, mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

fn limit_and_ttl(out: &mut BytesMut, target: Target, ttl: Option<Ttl>) {
    if let Target::Semaphore(limit) = target {
        out.put_u8(b' ');
        number(out, u64::from(limit.get()));
    }
    if let Some(ttl) = ttl {
        out.put_u8(b' ');
        number(out, ttl.as_secs());
    }
}

fn either(kind: Kind, lock: &'static str, semaphore: &'static str) -> &'static str {
    match kind {
        Kind::Lock => lock,
        Kind::Semaphore => semaphore,
    }
}

/// Parses a number that consists only of decimal digits: no sign, no blank, no fraction. Returns `None` if it is
/// greater than [`MAX_SECONDS`].
pub(super) fn read_number(field: &str) -> Option<u64> {
    if field.is_empty() || !field.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    field.parse().ok().filter(|number| *number <= MAX_SECONDS)
}

fn as_text(line: &[u8]) -> Option<&str> {
    std::str::from_utf8(line).ok()
}

fn read_key(line: &[u8]) -> Option<Key> {
    Key::new(as_text(line)?).ok()
}

/// Reads a group. An empty line means no group.
fn read_group(line: &[u8]) -> Option<Option<Group>> {
    match line {
        [] => Some(None),
        name => Group::new(as_text(name)?).ok().map(Some),
    }
}

fn target(kind: Kind, limit: u64) -> Option<Target> {
    match kind {
        Kind::Lock => Some(Target::Lock),
        Kind::Semaphore => Limit::new(limit.try_into().ok()?).ok().map(Target::Semaphore),
    }
}

/// Shows the request and its fields, with secrets left out or shortened.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auth { .. } => f.write_str("auth"),
            Self::Acquire { target, key, wait, ttl } => {
                write!(f, "acquire({target:?}, {key:?}, wait {}s, ttl {ttl:?})", wait.as_secs())
            }
            Self::Enqueue { target, key, ttl } => write!(f, "enqueue({target:?}, {key:?}, ttl {ttl:?})"),
            Self::Wait { kind, key, wait } => write!(f, "wait({kind:?}, {key:?}, {}s)", wait.as_secs()),
            Self::Release { kind, key, token } => write!(f, "release({kind:?}, {key:?}, {token})"),
            Self::Renew { kind, key, token, ttl } => write!(f, "renew({kind:?}, {key:?}, {token}, ttl {ttl:?})"),
            Self::Stats => f.write_str("stats"),
            Self::Ping => f.write_str("ping"),
            Self::Barrier => f.write_str("barrier"),
            Self::StableRef { reference } => write!(f, "stable-ref({reference:?})"),
            Self::Listen { pattern, group } => write!(f, "listen({pattern:?}, group {group:?})"),
            Self::Unlisten { pattern, group } => write!(f, "unlisten({pattern:?}, group {group:?})"),
            Self::Signal { channel, payload } => {
                write!(f, "signal({:?}, {} bytes)", channel.as_str(), payload.as_str().len())
            }
        }
    }
}
