//! Chooses the endpoint of a shard that is tried next. Pure: no sockets, and the caller provides the time.
//!
//! | policy | endpoints | after the loss of the current one |
//! | --- | --- | --- |
//! | single | one | it is tried again |
//! | cluster | members that share their state | it is tried again, then the next one; if a member names the leader, the client goes there, provided that it is a known member or [may become one](Admission) |
//! | standby | independent servers | it is tried again until all its leases must be over, and only then the next one |

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::admission::Admission;
use super::backoff::Attempts;
use super::endpoint::Endpoint;
use crate::clock::after;
use crate::error::{Error, Result, named};

/// The relation between the endpoints of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    Single,
    Cluster,
    Standby,
}

/// Why the serving endpoint changed. It is shown, parsed and serialized as its [name](Self::as_str).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailoverReason {
    /// The previous endpoint was lost.
    Lost,
    /// The previous endpoint no longer leads its cluster.
    Deposed,
    /// [`failback`](crate::Client::failback) was called.
    Requested,
}

impl FailoverReason {
    /// All reasons.
    pub(crate) const ALL: [Self; 3] = [Self::Lost, Self::Deposed, Self::Requested];

    /// Returns the name of the reason, as metrics and logs use it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Deposed => "deposed",
            Self::Requested => "requested",
        }
    }
}

impl fmt::Display for FailoverReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Parses a [name](FailoverReason::as_str).
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for an unknown name; the message lists all names.
impl FromStr for FailoverReason {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        named("reason of a failover", name, &Self::ALL, Self::as_str)
    }
}

/// When the next attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    AtOnce,
    /// After the next pause of the reconnect policy.
    AfterAPause,
    /// After the next pause of the reconnect policy, but at most after this time.
    AfterAPauseOfAtMost(Duration),
}

/// The minimum time for the last attempt at a server, even if the next server may be asked earlier.
const LAST_ATTEMPT: Duration = Duration::from_millis(200);

/// The maximum number of members that are known in addition to the configured ones.
const MOST_FOUND: usize = 16;

/// With standby servers: the takeover delay may shorten the pause before a lost connection is opened again, but not to
/// less than this.
const REOPEN_PAUSE: Duration = Duration::from_millis(50);

impl Pace {
    /// Returns the time to the next attempt, and counts the failed one.
    pub(crate) fn pause(self, attempts: &mut Attempts) -> Duration {
        match self {
            Self::AtOnce => {
                attempts.failed_here();
                Duration::ZERO
            }
            Self::AfterAPause => attempts.failed(),
            Self::AfterAPauseOfAtMost(longest) => attempts.failed().min(longest),
        }
    }
}

/// The state of one shard's choice of an endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Failover {
    policy: Policy,
    /// At least one endpoint. The configured ones come first, then those that were found.
    endpoints: Vec<Endpoint>,
    /// The number of configured endpoints.
    given: usize,
    /// The hosts where unconfigured members may be found.
    admission: Admission,
    /// The found endpoint that is replaced next when there are too many.
    replaced: usize,
    current: usize,
    /// The number of successive attempts that failed without a pause.
    tried: usize,
    /// The number of redirects that were followed since an endpoint last proved useful.
    followed: usize,
    /// The endpoint of the last successful connection.
    served: Option<usize>,
    /// Why the serving endpoint is no longer connected.
    why: Option<FailoverReason>,
}

/// A change of the serving endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Switch {
    pub(crate) from: usize,
    pub(crate) why: FailoverReason,
}

impl Failover {
    /// Begins with the endpoint `at` if it is in the list, and otherwise with the first.
    pub(crate) fn new(policy: Policy, endpoints: Vec<Endpoint>, at: &str) -> Self {
        let current = endpoints.iter().position(|endpoint| &**endpoint.shared_text() == at);
        Self {
            policy,
            given: endpoints.len(),
            admission: Admission::default(),
            replaced: 0,
            endpoints,
            current: current.unwrap_or_default(),
            tried: 0,
            followed: 0,
            served: None,
            why: None,
        }
    }

    /// Permits unconfigured members. Begins with the endpoint `at` if it is one of them.
    pub(crate) fn admitting(mut self, admission: Admission, at: &str) -> Self {
        self.admission = admission;
        if let Some(found) = self.admit(at) {
            self.current = found;
        }
        self
    }

    pub(crate) fn is_cluster(&self) -> bool {
        self.policy == Policy::Cluster
    }

    pub(crate) fn is_standby(&self) -> bool {
        self.policy == Policy::Standby
    }

    /// Returns the number of endpoints.
    pub(crate) fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Returns the index of the endpoint that is connected or tried.
    pub(crate) fn at(&self) -> usize {
        self.current
    }

    /// Returns the endpoint that is connected or tried.
    pub(crate) fn current(&self) -> &Endpoint {
        &self.endpoints[self.current]
    }

    /// Returns the endpoint with this index.
    pub(crate) fn endpoint(&self, index: usize) -> &Endpoint {
        self.endpoints.get(index).unwrap_or(&self.endpoints[0])
    }

    /// Notes that the current endpoint is connected. Returns the change, if another endpoint was connected before.
    pub(crate) fn connected(&mut self) -> Option<Switch> {
        let why = self.why.take().unwrap_or(FailoverReason::Lost);
        let from = self.served.replace(self.current)?;
        (from != self.current).then_some(Switch { from, why })
    }

    /// Notes that the current endpoint proved useful, so that attempts are counted from zero again.
    pub(crate) fn proved(&mut self) {
        self.tried = 0;
        self.followed = 0;
    }

    /// Notes the loss of the connection. In a cluster, a leader that was cut off may still lead, so it is tried first.
    /// `proved` says whether the connection was useful. With standby servers, no other server may be asked before
    /// `guarded_until`, because this one may have granted leases.
    pub(crate) fn lost(&mut self, proved: bool, now: Instant, guarded_until: Instant) -> Pace {
        self.why.get_or_insert(FailoverReason::Lost);
        match self.policy {
            Policy::Cluster if proved && self.endpoints.len() > 1 => Pace::AtOnce,
            Policy::Cluster => self.next(),
            Policy::Standby if now < guarded_until => {
                Pace::AfterAPauseOfAtMost((guarded_until - now).max(REOPEN_PAUSE))
            }
            Policy::Single | Policy::Standby => Pace::AfterAPause,
        }
    }

    /// Notes a failed attempt. `guarded_until` is as in [`lost`](Self::lost). With standby servers, if `now` is before
    /// `guarded_until`, the next attempt at this server begins no later than `guarded_until`. So the next server is
    /// asked in time even if the pauses of the reconnect policy have become long.
    pub(crate) fn failed(&mut self, now: Instant, guarded_until: Instant) -> Pace {
        match self.policy {
            Policy::Single => Pace::AfterAPause,
            Policy::Standby if now < guarded_until => Pace::AfterAPauseOfAtMost(guarded_until - now),
            Policy::Cluster | Policy::Standby => self.next(),
        }
    }

    /// Returns when an attempt that begins at `begins` ends even before its connect timeout, so that the next server is
    /// asked. `None` if only the connect timeout applies.
    pub(crate) fn give_up_at(&self, begins: Instant, guarded_until: Instant) -> Option<Instant> {
        let is_guarded = self.is_standby() && begins <= guarded_until;
        is_guarded.then(|| guarded_until.max(after(begins, LAST_ATTEMPT)))
    }

    /// Notes that the member does not lead. It may have named the leader. The client follows the name only if it is the
    /// address of a member, and only a limited number of times in a row, because members may name each other.
    pub(crate) fn redirected(&mut self, leader: Option<&str>) -> Pace {
        self.why.get_or_insert(FailoverReason::Deposed);
        let known = leader.and_then(|leader| self.admit(leader));
        match known {
            Some(member) if member != self.current && self.followed < self.endpoints.len() => {
                self.followed += 1;
                self.current = member;
                Pace::AtOnce
            }
            _ => self.next(),
        }
    }

    /// Goes back to the first endpoint.
    pub(crate) fn go_back(&mut self) {
        self.why = Some(FailoverReason::Requested);
        self.current = 0;
        self.tried = 0;
    }

    /// Adopts an endpoint chosen elsewhere, if it is in the list. Returns whether the endpoint changed.
    pub(crate) fn follow(&mut self, endpoint: &str, why: Option<FailoverReason>) -> bool {
        let chosen = self
            .endpoints
            .iter()
            .position(|known| &**known.shared_text() == endpoint);
        let Some(chosen) = chosen.filter(|chosen| *chosen != self.current) else {
            return false;
        };
        self.why = why;
        self.current = chosen;
        true
    }

    /// Notes the members that the leader has named. Those that are allowed are tried from now on like the configured
    /// ones. Names that are not addresses are ignored.
    pub(crate) fn note_members<'a>(&mut self, members: impl IntoIterator<Item = &'a str>) {
        for member in members {
            self.admit(member);
        }
    }

    /// Returns the index of a known address, ignoring the case of letters. An unknown address is added if it is
    /// allowed; if there are too many, it replaces a found one that is not in use.
    fn admit(&mut self, address: &str) -> Option<usize> {
        let same = |endpoint: &Endpoint| endpoint.shared_text().eq_ignore_ascii_case(address);
        if let Some(known) = self.endpoints.iter().position(same) {
            return Some(known);
        }
        let endpoint = Endpoint::parse(address).ok()?;
        if !self.is_cluster() || !self.admission.admits(&endpoint) {
            return None;
        }
        if self.endpoints.len() < self.given + MOST_FOUND {
            self.endpoints.push(endpoint);
            return Some(self.endpoints.len() - 1);
        }
        let is_in_use = |index: usize| index == self.current || Some(index) == self.served;
        let found = (0..MOST_FOUND).map(|after| self.given + (self.replaced + after) % MOST_FOUND);
        let replaced = found.into_iter().find(|index| !is_in_use(*index))?;
        self.replaced = replaced - self.given + 1;
        self.endpoints[replaced] = endpoint;
        Some(replaced)
    }

    /// Moves on to the next endpoint. There is a pause after all of them were tried.
    fn next(&mut self) -> Pace {
        self.current = (self.current + 1) % self.endpoints.len();
        self.tried += 1;
        if self.tried < self.endpoints.len() {
            return Pace::AtOnce;
        }
        self.tried = 0;
        self.followed = 0;
        Pace::AfterAPause
    }
}

#[cfg(test)]
mod tests;
