//! Finds out from the tokens of grants whether a server makes fences.
//!
//! Servers from 2.1 on count their grants and put the number into the first half of each token. Earlier servers fill
//! that half at random, and no answer names the release. A single token does not show the difference: a standalone
//! server starts counting at its start time in nanoseconds, and a cluster at 0, so no number is too small or too large
//! for a fence. The distance between two grants shows it: counted numbers are near each other, and random numbers
//! hardly ever are. A server that makes many grants is not misjudged more often, because only the first pairs of grants
//! on each connection are compared.
//!
//! | what is known | fence |
//! | --- | --- |
//! | the grant names its fence as a third number (some builds between 1.10 and 2.0) | that number, whatever the token is |
//! | the server is a build with clusters, and all such builds are later than 2.1 | the first half of the token |
//! | two grants were near each other: see [`NEAR`] | the first half, from the second grant on |
//! | two grants over one connection were not near each other | none |
//! | at most one grant | none |
//! | the server counted, but this grant is far from the previous one | none: another server answers at this address |

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result, named};
use crate::types::{Fence, Grant, Key};

/// Whether a client uses fences: see [`ClientBuilder::fencing`](crate::ClientBuilder::fencing).
///
/// It is shown, parsed and serialized as its [name](Self::as_str).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fencing {
    /// Every lease has a [`Fence`]. The client does not use a server that makes none:
    /// [`connect`](crate::ClientBuilder::connect) and acquires fail at once, with a fatal error of kind
    /// [`Unsupported`](ErrorKind::Unsupported) that names the server. If a grant still has no fence, because the server
    /// was replaced unnoticed, the client releases it and its caller gets an error.
    ///
    /// On each new pipelined connection that is opened while no other is up, the client finds out whether the server
    /// makes fences. It takes and releases two slots of `dflockd-client-fences`, a semaphore that all clients share.
    /// That takes four round trips. The semaphore counts as one key against the server's `--max-locks`, for a minute; a
    /// server without room for it cannot be used until it has room. Members of clusters are known to make fences, so
    /// they are not asked.
    Required,
    /// A lease has a [`Fence`] if its server is known to make them. The client sends nothing to find that out. It
    /// compares the server's grants, so the first grant over a new connection may have no fence. Members of clusters,
    /// and servers that name fences beside the token, are known from the first grant on.
    #[default]
    IfKnown,
    /// No lease has a [`Fence`].
    Off,
}

impl Fencing {
    /// All values.
    pub(crate) const ALL: [Self; 3] = [Self::Required, Self::IfKnown, Self::Off];

    /// Returns the name of the value, as configurations use it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::IfKnown => "if_known",
            Self::Off => "off",
        }
    }
}

impl fmt::Display for Fencing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Parses a [name](Fencing::as_str).
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for an unknown name; the message lists all names.
impl FromStr for Fencing {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        named("fencing", name, &Self::ALL, Self::as_str)
    }
}

/// The maximum distance between the first halves of two tokens at which the server is taken to count its grants. Two
/// random halves are that near each other once in 134 million cases (2^37 of 2^64). A server that makes 100,000 grants
/// a second needs eight days for this distance.
const NEAR: u64 = 1 << 36;

/// The same limit for two grants that are requested directly after each other, the second of which must be larger. For
/// random halves, that is true once in 10^12 cases (2^24 of 2^64).
const NEXT: u64 = 1 << 24;

/// What the greeting has shown about a server's fences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FencesShown {
    /// The greeting has not shown that the server makes fences.
    #[default]
    Nothing,
    /// The server counts its grants. The number is that of the last grant, if one was seen.
    Counted(Option<u64>),
    /// The server names its fences beside the tokens.
    Named,
}

impl FencesShown {
    /// Compares two grants that a server made directly after each other.
    pub(crate) fn by_grants(first: &Grant, second: &Grant) -> Self {
        if first.fence.is_some() && second.fence.is_some() {
            return Self::Named;
        }
        let [before, after] = [first, second].map(|grant| grant.token.first_half());
        match after > before && after - before <= NEXT {
            true => Self::Counted(Some(after)),
            false => Self::Nothing,
        }
    }
}

/// The evidence about the fences of the server that serves a shard.
#[derive(Debug, Default)]
pub(crate) struct FenceEvidence {
    known: FenceKnowledge,
    /// The first half of the last grant's token.
    last: Option<u64>,
    /// Whether that grant came from the server that serves now.
    last_is_of_this_server: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum FenceKnowledge {
    #[default]
    Nothing,
    Counts,
    DoesNotCount,
}

impl FenceEvidence {
    /// Notes a new pipelined connection, which may lead to another server. The last grant is still compared with the
    /// next one: if the two are near each other they were counted, whichever server made them.
    pub(crate) fn connected(&mut self, shown: FencesShown) {
        self.last_is_of_this_server = false;
        match shown {
            FencesShown::Counted(last) => {
                self.known = FenceKnowledge::Counts;
                self.last = last;
            }
            FencesShown::Nothing | FencesShown::Named => self.known = FenceKnowledge::Nothing,
        }
    }

    /// Returns whether the server is known to count its grants, as releases from 2.1 on do.
    pub(crate) fn is_counting(&self) -> bool {
        self.known == FenceKnowledge::Counts
    }

    /// Returns the fence of a grant, if it has one that may be shown.
    ///
    /// # Errors
    ///
    /// An error if fences are required and the grant has none. The grant must then be released.
    pub(crate) fn fence(&mut self, fencing: Fencing, key: &Key, grant: &Grant) -> Result<Option<Fence>> {
        let counted = self.known == FenceKnowledge::Counts;
        let fence = self.judge(grant);
        match fencing {
            Fencing::Off => Ok(None),
            Fencing::Required if fence.is_none() => Err(refusal(key, counted)),
            Fencing::Required | Fencing::IfKnown => Ok(fence),
        }
    }

    fn judge(&mut self, grant: &Grant) -> Option<Fence> {
        if grant.fence.is_some() {
            return grant.fence;
        }
        let half = grant.token.first_half();
        let before = self.last.replace(half);
        let same_server = std::mem::replace(&mut self.last_is_of_this_server, true);
        let is_near = before.map(|before| before.abs_diff(half) <= NEAR);
        self.known = match (self.known, is_near) {
            (FenceKnowledge::Counts, Some(false)) => FenceKnowledge::Nothing,
            // The same token again proves nothing.
            (FenceKnowledge::Nothing, Some(true)) if before != Some(half) => FenceKnowledge::Counts,
            (FenceKnowledge::Nothing, Some(false)) if same_server => FenceKnowledge::DoesNotCount,
            (known, _) => known,
        };
        (self.known == FenceKnowledge::Counts).then_some(Fence(half))
    }
}

/// Returns the error for a server that was asked for fences and makes none.
pub(crate) fn makes_none() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "the server is not used, because its tokens carry no fences and fencing is Required: servers make fences from release 2.1 on. \
         Use such a server, or a ClientBuilder::fencing that does not require fences",
    )
}

/// Returns the error for a grant without a required fence.
fn refusal(key: &Key, counted: bool) -> Error {
    let (kind, why) = match counted {
        true => (
            ErrorKind::Disconnected,
            "its number does not follow the numbers of earlier grants, so another server now answers at this address",
        ),
        false => (
            ErrorKind::Unsupported,
            "the server is not known to make fences (servers do from release 2.1 on)",
        ),
    };
    Error::new(
        kind,
        format!("{key:?} was granted without a fence and was released, because fencing is Required: {why}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Token, Ttl};

    fn grant(first_half: u64) -> Grant {
        let token = Token::new(format!("{first_half:016x}{:016x}", fastrand::u64(..))).unwrap();
        Grant::new(token, Ttl::DEFAULT)
    }

    /// Returns the fences of grants over one connection.
    fn shown(evidence: &mut FenceEvidence, halves: &[u64]) -> Vec<Option<u64>> {
        let fences = halves.iter().map(|half| evidence.judge(&grant(*half)));
        fences.map(|fence| fence.map(|fence| fence.0)).collect()
    }

    fn connected() -> FenceEvidence {
        let mut evidence = FenceEvidence::default();
        evidence.connected(FencesShown::Nothing);
        evidence
    }

    /// Counters that began at 0, at a recent time in nanoseconds, and elsewhere.
    const COUNTERS: [u64; 4] = [1, 1_790_000_000_000_000_000, 1 << 48, u64::MAX - NEAR - 3];

    #[test]
    fn numbers_that_were_counted_are_fences_from_the_second_on() {
        for first in COUNTERS {
            let halves = [first, first + 1, first + 2, first + 2 + NEAR];
            let fences = [None, Some(halves[1]), Some(halves[2]), Some(halves[3])];
            assert_eq!(shown(&mut connected(), &halves), fences, "{first}");
        }
    }

    #[test]
    fn the_order_in_which_grants_are_received_does_not_matter() {
        assert_eq!(shown(&mut connected(), &[9, 7, 8]), [None, Some(7), Some(8)]);
        assert_eq!(shown(&mut connected(), &[9, 9, 10]), [None, None, Some(10)]);
    }

    #[test]
    fn random_halves_are_never_fences() {
        // Observed on a server of release 1.10.
        let seen = [
            5_534_528_162_369_677_836,
            2_139_844_681_355_570_311,
            17_204_283_224_735_815_010,
        ];
        assert_eq!(shown(&mut connected(), &seen), [None; 3]);
        // This holds for any number of random halves, even if two later ones are near each other.
        let mut evidence = connected();
        for _ in 0..100_000 {
            assert_eq!(evidence.judge(&grant(fastrand::u64(..))), None);
        }
        assert_eq!(shown(&mut evidence, &[7, 8, 9]), [None; 3]);
        // Only the first pair of a connection, and the pair with the previous connection's last grant, can show that a
        // server counts.
        evidence.connected(FencesShown::Nothing);
        assert_eq!(shown(&mut evidence, &[1 << 60, 1, 2, 3]), [None; 4]);
    }

    #[test]
    fn a_server_that_was_only_cut_off_is_known_at_its_next_grant() {
        for first in COUNTERS {
            let mut evidence = connected();
            shown(&mut evidence, &[first]);
            evidence.connected(FencesShown::Nothing);
            assert_eq!(shown(&mut evidence, &[first + 5]), [Some(first + 5)]);
        }
    }

    #[test]
    fn a_server_that_was_restarted_is_known_at_its_second_grant() {
        let mut evidence = connected();
        shown(&mut evidence, &[1 << 60, (1 << 60) + 1]);
        evidence.connected(FencesShown::Nothing);
        let later = (1 << 60) + (1 << 50);
        assert_eq!(shown(&mut evidence, &[later, later + 1]), [None, Some(later + 1)]);
    }

    #[test]
    fn a_server_that_was_replaced_by_an_earlier_release_has_no_fences() {
        let mut evidence = connected();
        shown(&mut evidence, &[7, 8]);
        let random = [1 << 63, 1 << 61, 1 << 62, (1 << 62) + 1];
        assert_eq!(shown(&mut evidence, &random), [None; 4], "over the old connection");
        let mut evidence = connected();
        shown(&mut evidence, &[7, 8]);
        evidence.connected(FencesShown::Nothing);
        assert_eq!(shown(&mut evidence, &random), [None; 4]);
    }

    #[test]
    fn a_client_that_was_idle_for_very_long_compares_grants_again() {
        let mut evidence = connected();
        let later = 8 + NEAR + 1;
        assert_eq!(
            shown(&mut evidence, &[7, 8, later, later + 1]),
            [None, Some(8), None, Some(later + 1)]
        );
    }

    #[test]
    fn fences_that_the_greeting_has_shown_apply_from_the_first_grant_on() {
        let mut evidence = connected();
        shown(&mut evidence, &[1 << 60]);
        evidence.connected(FencesShown::Counted(None));
        assert_eq!(shown(&mut evidence, &[7, 8]), [Some(7), Some(8)]);
        evidence.connected(FencesShown::Counted(Some(1 << 60)));
        assert_eq!(shown(&mut evidence, &[7]), [None], "of another server");
        assert_eq!(shown(&mut evidence, &[8]), [Some(8)]);
    }

    #[test]
    fn two_grants_one_after_the_other_show_whether_they_were_counted() {
        let by = |first, second| FencesShown::by_grants(&grant(first), &grant(second));
        for first in COUNTERS {
            for step in [1, 1000, NEXT] {
                assert_eq!(by(first, first + step), FencesShown::Counted(Some(first + step)));
            }
        }
        for (first, second) in [(8, 7), (7, 7), (7, 8 + NEXT), (1 << 60, 1 << 61)] {
            assert_eq!(by(first, second), FencesShown::Nothing, "{first} {second}");
        }
        for _ in 0..100_000 {
            assert_eq!(by(fastrand::u64(..), fastrand::u64(..)), FencesShown::Nothing);
        }
    }

    #[test]
    fn a_number_after_the_token_is_a_fence_whatever_the_token() {
        let named = |number| Grant {
            fence: Some(Fence(number)),
            ..grant(fastrand::u64(..))
        };
        let mut evidence = connected();
        for number in [9, 3, u64::MAX] {
            assert_eq!(evidence.judge(&named(number)), Some(Fence(number)));
        }
        assert_eq!(FencesShown::by_grants(&named(1), &named(2)), FencesShown::Named);
        assert_eq!(FencesShown::by_grants(&named(1), &grant(1)), FencesShown::Nothing);
    }

    #[test]
    fn a_grant_without_a_required_fence_is_refused_with_the_reason() {
        let key = Key::new("orders/42").unwrap();
        let mut evidence = connected();
        let mut ask = |fencing, half| evidence.fence(fencing, &key, &grant(half));
        let error = ask(Fencing::Required, 7).unwrap_err();
        assert!(error.is_fatal() && error.to_string().contains("2.1"), "{error}");
        assert_eq!(ask(Fencing::Required, 8).unwrap(), Some(Fence(8)));
        assert_eq!(ask(Fencing::Off, 9).unwrap(), None);
        let error = ask(Fencing::Required, 1 << 60).unwrap_err();
        assert!(
            error.is_retryable() && error.to_string().contains("another server"),
            "{error}"
        );
        assert_eq!(ask(Fencing::IfKnown, 1 << 62).unwrap(), None);
    }
}
