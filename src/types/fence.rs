//! Fencing tokens: numbers that grow with every grant.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A number that grows with every grant of a key. A resource compares it to reject the writes of earlier holders.
///
/// Servers issue fences from release 2.1 on: they count their grants and put the number into the first half of each
/// token. The tokens of earlier servers are random. Some builds between 1.10 and 2.0 send the fence separately from the
/// token, and the client uses it, too. A [lease](crate::Lease::fence) has a fence only if its server is known to issue
/// fences; [`Fencing`](crate::Fencing) describes how the client finds out.
///
/// The protected resource must compare fences in one place: it stores the largest fence that it has seen, and rejects
/// writes with smaller ones. Fences are comparable
///
/// - between grants of the same key only;
/// - from one server, or from the members of one cluster, which share a counter. Independent servers, such as a
///   [standby](crate::Shard::standby) and its primary, count separately;
/// - across a restart of a standalone server if its clock does not go back, or if it runs with `--fence-state-file`.
///   A standalone server starts to count from the current time. A cluster starts from 0, so a resource that has seen
///   fences of a standalone server rejects those of a cluster that replaces it.
///
/// A fence is a plain number and will stay one: its field is public, and it is shown, parsed and serialized as a
/// number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fence(pub u64);

impl From<u64> for Fence {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl From<Fence> for u64 {
    fn from(fence: Fence) -> Self {
        fence.0
    }
}

impl FromStr for Fence {
    type Err = ParseIntError;

    fn from_str(number: &str) -> Result<Self, ParseIntError> {
        number.parse().map(Self)
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
