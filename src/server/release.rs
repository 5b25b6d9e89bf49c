//! The releases that an embedded server can imitate, and their differences.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::escape::Shortened;
use crate::protocol::{MAX_LONG_LINE, MAX_SHORT_LINE};

/// A release of the real server. [`ServerBuilder::release`](super::ServerBuilder::release) lists the differences
/// between releases.
///
/// It is parsed from its number, with or without a patch number. A patch number selects the last release in this list
/// that is not newer: `1.11.9` stands for 1.11.2, `2.1.1` for 2.1.
///
/// ```
/// use dflockd_client::server::Release;
///
/// let release: Release = "2.1.1".parse()?;
/// assert_eq!((release, release.to_string()), (Release::NEWEST, "2.1".to_owned()));
/// assert!("1.10".parse::<Release>()? < Release::NEWEST);
/// # Ok::<(), dflockd_client::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Release {
    /// 1.10, the oldest release whose behaviour is known well enough.
    V1_10,
    /// 1.10.1.
    V1_10_1,
    /// 1.11, the first release with signals.
    V1_11,
    /// 1.11.2.
    V1_11_2,
    /// 1.12.
    V1_12,
    /// 1.13.
    V1_13,
    /// 1.14, the first release with `ping` and separate namespaces for locks and semaphores.
    V1_14,
    /// 1.15, the first release that notices a disconnect while a request waits.
    V1_15,
    /// 1.16, the last release with signals.
    V1_16,
    /// 2.0.
    V2_0,
    /// 2.1, the first release whose tokens contain a fence.
    V2_1,
    /// The builds after 2.1 that can form clusters. They are not released yet, so they are not the newest release.
    Cluster,
}

impl Release {
    /// All releases, in order.
    pub const ALL: [Self; 12] = [
        Self::V1_10,
        Self::V1_10_1,
        Self::V1_11,
        Self::V1_11_2,
        Self::V1_12,
        Self::V1_13,
        Self::V1_14,
        Self::V1_15,
        Self::V1_16,
        Self::V2_0,
        Self::V2_1,
        Self::Cluster,
    ];

    /// The newest published release: the default of an embedded server.
    pub const NEWEST: Self = Self::V2_1;

    /// Returns the name: the number, or `cluster`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1_10 => "1.10",
            Self::V1_10_1 => "1.10.1",
            Self::V1_11 => "1.11",
            Self::V1_11_2 => "1.11.2",
            Self::V1_12 => "1.12",
            Self::V1_13 => "1.13",
            Self::V1_14 => "1.14",
            Self::V1_15 => "1.15",
            Self::V1_16 => "1.16",
            Self::V2_0 => "2.0",
            Self::V2_1 => "2.1",
            Self::Cluster => "cluster",
        }
    }

    /// Returns the major, minor and patch number; `None` for cluster builds.
    fn number(self) -> Option<[u32; 3]> {
        numbers(self.as_str())
    }

    /// Returns whether `ping` is a command. In earlier releases, it is an error like any unknown command.
    pub(super) fn knows_ping(self) -> bool {
        self >= Self::V1_14
    }

    /// Returns whether a lock and a semaphore of the same name are independent. In earlier releases, a lock is a
    /// semaphore of limit 1.
    pub(super) fn separates_namespaces(self) -> bool {
        self >= Self::V1_14
    }

    /// Returns whether `listen`, `unlisten` and `signal` are commands.
    pub(super) fn knows_signals(self) -> bool {
        (Self::V1_11..=Self::V1_16).contains(&self)
    }

    /// Returns whether the server watches the socket while a request blocks. In earlier releases, it reads nothing
    /// until the request ends.
    pub(super) fn watches_blocked_connections(self) -> bool {
        self >= Self::V1_15
    }

    /// Returns the length of the longest argument line of `auth`, in bytes.
    pub(super) fn longest_secret(self) -> usize {
        match self >= Self::V1_15 {
            true => MAX_LONG_LINE,
            false => MAX_SHORT_LINE,
        }
    }

    /// Returns the length of the longest argument line of `signal`, in bytes.
    pub(super) fn longest_payload(self) -> usize {
        match self >= Self::V1_15 && self.knows_signals() {
            true => MAX_LONG_LINE,
            false => MAX_SHORT_LINE,
        }
    }

    /// Returns whether signals of blanks, and `unlisten` of an invalid pattern, are errors. Also returns whether
    /// `stats` has an empty list instead of `null` if there are no listeners.
    pub(super) fn checks_signals_strictly(self) -> bool {
        self >= Self::V1_11_2
    }

    /// Returns whether the end of a connection releases its queue positions even if it does not release its leases.
    pub(super) fn always_gives_up_places(self) -> bool {
        self >= Self::V1_15
    }

    /// Returns whether the server checks the lease before it answers the `w` of a grant that was made in the queue. In
    /// earlier releases, this `w` restarts an expired lease that was not swept yet.
    pub(super) fn checks_leases_of_queued_grants(self) -> bool {
        self >= Self::V1_15
    }

    /// Returns whether the server closes a connection on which it reads nothing for the read timeout. In later builds,
    /// that time starts with the first byte of a request.
    pub(super) fn closes_idle_connections(self) -> bool {
        !self.is_cluster_build()
    }

    /// Returns whether the server, while it shuts down, answers every request with `error_draining` and closes the
    /// connection.
    pub(super) fn turns_requests_away(self) -> bool {
        self >= Self::V1_16
    }

    /// Returns whether blanks around the server's own secret are ignored. In earlier releases, no presented secret
    /// matches such a secret.
    pub(super) fn trims_its_secret(self) -> bool {
        self >= Self::V1_16
    }

    /// Returns the greatest limit of a semaphore that the release accepts. It is `u64::MAX` if the release accepts
    /// every limit that can be parsed.
    pub(super) fn greatest_limit(self) -> u64 {
        match self.is_cluster_build() {
            true => 1 << 20,
            false => u64::MAX,
        }
    }

    /// Returns whether the `w` of a grant that was made in the queue is refused after the sweep of the lease. In
    /// earlier releases, it is answered with the old grant.
    pub(super) fn refuses_swept_grants(self) -> bool {
        self >= Self::V1_10_1
    }

    /// Returns whether the first half of a token is its fence. In earlier releases, the whole token is random.
    pub(super) fn makes_fences(self) -> bool {
        self >= Self::V2_1
    }

    /// Returns whether the server accepts `stable-ref`, and a renewal makes its connection the owner of the lease.
    pub(super) fn is_cluster_build(self) -> bool {
        self == Self::Cluster
    }
}

impl AsRef<str> for Release {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Release {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        if name == Self::Cluster.as_str() {
            return Ok(Self::Cluster);
        }
        let wanted = numbers(name);
        let not_newer = Self::ALL.into_iter().rev().find(|release| {
            wanted
                .zip(release.number())
                .is_some_and(|(wanted, number)| wanted[..2] == number[..2] && wanted[2] >= number[2])
        });
        not_newer.ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|release| release.as_str()).collect();
            let remedy = format!("the embedded server imitates one of {}", known.join(", "));
            Error::invalid("server release", Shortened(name), &remedy)
        })
    }
}

/// Parses a number such as `1.10` or `1.10.1`.
fn numbers(name: &str) -> Option<[u32; 3]> {
    let mut parts = name.split('.').map(|part| {
        let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| part.parse().ok()).flatten()
    });
    let number = [parts.next()??, parts.next()??, parts.next().unwrap_or(Some(0))?];
    parts.next().is_none().then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_release_parses_from_its_own_name() {
        for (index, release) in Release::ALL.into_iter().enumerate() {
            assert_eq!(release.to_string().parse::<Release>().ok(), Some(release));
            assert!(Release::ALL[..index].iter().all(|earlier| *earlier < release));
        }
    }

    #[test]
    fn a_patch_number_selects_the_last_release_that_is_not_newer() {
        for (name, selected) in [
            ("1.10.0", Release::V1_10),
            ("1.10.1", Release::V1_10_1),
            ("1.10.7", Release::V1_10_1),
            ("1.11.1", Release::V1_11),
            ("1.11.9", Release::V1_11_2),
            ("1.16.1", Release::V1_16),
            ("2.1.1", Release::V2_1),
        ] {
            assert_eq!(name.parse::<Release>().ok(), Some(selected), "{name}");
        }
    }

    #[test]
    fn an_unknown_release_is_refused_with_the_names_of_the_known_ones() {
        for name in [
            "",
            "1",
            "1.9",
            "1.17",
            "2.2",
            "3.0",
            "2",
            "v2.1",
            "1.10.",
            "1.+10",
            "2.1.1.1",
            "Cluster",
            " 2.1",
            "99999999999.1",
        ] {
            let said = name.parse::<Release>().expect_err(name).to_string();
            assert!(said.contains(&format!("{name:?}")), "{said}");
            assert!(
                said.contains("1.10, 1.10.1, 1.11") && said.contains("2.1, cluster"),
                "{said}"
            );
        }
    }
}
