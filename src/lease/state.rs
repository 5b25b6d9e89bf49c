//! What a client knows about a lease, and why one is lost.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, named};
use crate::escape::Shortened;

/// Why a lease was lost.
///
/// `Display` describes the reason in words. A reason is parsed from, and serialized as, its [name](Self::as_str).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LostReason {
    /// The lease could not be renewed in time: the server may soon grant it to another client.
    Expired,
    /// The server says that the token does not hold the lease, or no longer does.
    Rejected,
    /// The connection that owned the lease was lost, and the server grants such leases to others at once.
    Disconnected,
    /// As `Disconnected`, but the server was shutting down.
    ServerDraining,
    /// The actor that kept the lease panicked, or ended with its runtime.
    ShardGone,
    /// The client was shut down.
    Shutdown,
    /// The lease's shard went back to its first server, because [`failback`](crate::Client::failback) was called.
    Failback,
}

impl LostReason {
    /// All reasons.
    pub(crate) const ALL: [Self; 7] = [
        Self::Expired,
        Self::Rejected,
        Self::Disconnected,
        Self::ServerDraining,
        Self::ShardGone,
        Self::Shutdown,
        Self::Failback,
    ];

    /// Returns the name of the reason, as metrics use it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::Disconnected => "disconnected",
            Self::ServerDraining => "server_draining",
            Self::ShardGone => "shard_gone",
            Self::Shutdown => "shutdown",
            Self::Failback => "failback",
        }
    }

    /// Returns the reason's index in [`ALL`](Self::ALL).
    pub(crate) fn index(self) -> usize {
        Self::ALL.iter().position(|reason| *reason == self).unwrap_or_default()
    }
}

impl fmt::Display for LostReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "it could not be renewed in time",
            Self::Rejected => "the server says that it is not held",
            Self::Disconnected => "the connection that owned it was lost",
            Self::ServerDraining => "the server that granted it shut down",
            Self::ShardGone => "the actor of its shard died",
            Self::Shutdown => "the client was shut down",
            Self::Failback => "its shard went back to its first server",
        })
    }
}

/// Parses a [name](LostReason::as_str).
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for an unknown name; the message lists all names.
impl FromStr for LostReason {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        named("reason of a loss", name, &Self::ALL, Self::as_str)
    }
}

/// What the client knows about a lease.
///
/// `Display` describes the state in words. A state is serialized as its name in snake case, and `Lost` with the name of
/// its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LeaseState {
    /// The lease is held.
    Held,
    /// The lease is held until its deadline, but the server has not confirmed it since its connection was lost or its
    /// cluster's leader changed. A lost connection leaves a lease suspect only where leases survive a disconnect.
    Suspect,
    /// The lease is lost.
    Lost(LostReason),
    /// The holder has released the lease.
    Released,
}

impl fmt::Display for LeaseState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held => f.write_str("held"),
            Self::Suspect => {
                f.write_str("held, but not confirmed since its connection was lost or its cluster's leader changed")
            }
            Self::Lost(reason) => write!(f, "lost: {reason}"),
            Self::Released => f.write_str("released"),
        }
    }
}

/// Parses the text that `Display` writes. Also accepts `suspect`, and the [name](LostReason::as_str) of a reason
/// instead of its words.
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for anything else.
impl FromStr for LeaseState {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let all = [Self::Held, Self::Suspect, Self::Released]
            .into_iter()
            .chain(LostReason::ALL.map(Self::Lost));
        let is_meant = |state: &Self| match state {
            Self::Suspect if text == "suspect" => true,
            Self::Lost(reason) if text.strip_prefix("lost: ") == Some(reason.as_str()) => true,
            state => state.to_string() == text,
        };
        all.into_iter().find(is_meant).ok_or_else(|| {
            let remedy = "write held, suspect, released, or \"lost: \" and a reason, such as \"lost: expired\"";
            Error::invalid("state of a lease", Shortened(text), remedy)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_parsed_as_it_is_shown() {
        let lost = LostReason::ALL.map(LeaseState::Lost);
        for state in [LeaseState::Held, LeaseState::Suspect, LeaseState::Released]
            .into_iter()
            .chain(lost)
        {
            assert_eq!(state.to_string().parse::<LeaseState>().unwrap(), state);
        }
        assert_eq!("suspect".parse::<LeaseState>().unwrap(), LeaseState::Suspect);
        let expired = LeaseState::Lost(LostReason::Expired);
        assert_eq!("lost: expired".parse::<LeaseState>().unwrap(), expired);
        for wrong in ["", "lost", "lost: ", "lost: gone", "Held"] {
            assert!(wrong.parse::<LeaseState>().is_err(), "{wrong}");
        }
    }
}
