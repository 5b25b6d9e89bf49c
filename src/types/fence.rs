//! Numbers that grow with every grant.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A number that grows with every grant of a key, to fence off the writes of earlier holders.
///
/// Servers from 2.1 on make fences: they count their grants, and put the number into the first half of each token. Tokens of earlier
/// servers are random throughout. A [lease](crate::Lease::fence) has a fence only where its server is known to make them, which is found
/// out as [`Fencing`](crate::Fencing) says. Some builds between 1.10 and 2.0 name the fence beside the token; those count, too.
///
/// What a fence guards must be a write to one place that compares: it keeps the largest fence that it has seen, and refuses
/// smaller ones. Fences are comparable
///
/// - between grants of the same key only;
/// - of one server, or of the members of one cluster, which count together. Servers that know nothing of each other (a
///   [standby](crate::Shard::standby) and its primary) count each for itself;
/// - over a restart of a server that stands alone as long as its clock does not go back, or if it runs with `--fence-state-file`: it
///   begins to count at the time of its start. A cluster begins at 0, so what has seen the fences of a server that stands alone refuses
///   those of a cluster that takes its place.
///
/// It is a number and will stay one: it is shown, parsed and serialized as that, and its field is public.
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
