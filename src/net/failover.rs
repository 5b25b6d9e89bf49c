//! Which of a shard's endpoints is tried next. Pure: no sockets, no clocks but the caller's.
//!
//! | policy | endpoints | when the one in use is lost |
//! | --- | --- | --- |
//! | single | one | tried again |
//! | cluster | members that share their state | tried again, then the next; a member that names the leader is believed if that is a member, or [may become one](Admission) |
//! | standby | servers that know nothing of each other | tried again until every lease of its may be over; only then the next |

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

/// How the endpoints of a shard stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    Single,
    Cluster,
    Standby,
}

/// Why another endpoint than before serves. It is shown, parsed and serialized by its [name](Self::as_str).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailoverReason {
    /// The one before was lost.
    Lost,
    /// The one before does not lead its cluster any more.
    Deposed,
    /// It was [asked for](crate::Client::failback).
    Requested,
}

impl FailoverReason {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Lost, Self::Deposed, Self::Requested];

    /// Its name as metrics and logs carry it.
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

/// Reads a [name](FailoverReason::as_str).
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput), with all names.
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
    /// The same, but after this time at the latest.
    AfterAPauseOfAtMost(Duration),
}

/// An attempt that begins when the next server may be asked gets so much time.
const LAST_CHANCE: Duration = Duration::from_millis(200);

/// The most members that are known besides those that were given.
const MOST_FOUND: usize = 16;

/// The least pause before a connection that was lost is made again, unless the reconnect policy makes a shorter one.
const BREATH: Duration = Duration::from_millis(50);

impl Pace {
    /// Returns the time to the next attempt, and counts the one that failed.
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

/// The state of one shard's choice.
#[derive(Clone, Debug)]
pub(crate) struct Failover {
    policy: Policy,
    /// There is at least one. Those that were given come first, then those that were found.
    endpoints: Vec<Endpoint>,
    /// How many were given.
    given: usize,
    /// Where members may be found that were not given.
    admission: Admission,
    /// Which of those that were found is replaced next, if there are too many.
    replaced: usize,
    current: usize,
    /// How many attempts in a row failed without a pause.
    tried: usize,
    /// How many redirects were followed since an endpoint proved itself.
    followed: usize,
    /// The endpoint that was connected last.
    served: Option<usize>,
    /// Why the one that was connected last is not any more.
    why: Option<FailoverReason>,
}

/// Another endpoint than before serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Switch {
    pub(crate) from: usize,
    pub(crate) why: FailoverReason,
}

impl Failover {
    /// Begins with an endpoint that is among them, or else with the first.
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

    /// Lets members be found that were not given. `at`: where to begin, if it is one of these.
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

    /// How many endpoints there are.
    pub(crate) fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// The index of the one that is connected, or tried.
    pub(crate) fn at(&self) -> usize {
        self.current
    }

    /// The one that is connected, or tried.
    pub(crate) fn current(&self) -> &Endpoint {
        &self.endpoints[self.current]
    }

    /// One of them.
    pub(crate) fn endpoint(&self, index: usize) -> &Endpoint {
        self.endpoints.get(index).unwrap_or(&self.endpoints[0])
    }

    /// It is connected. Which one was before, if it was another.
    pub(crate) fn connected(&mut self) -> Option<Switch> {
        let why = self.why.take().unwrap_or(FailoverReason::Lost);
        let from = self.served.replace(self.current)?;
        (from != self.current).then_some(Switch { from, why })
    }

    /// It has done what was asked of it: from here on attempts are counted anew.
    pub(crate) fn proved(&mut self) {
        self.tried = 0;
        self.followed = 0;
    }

    /// The connection was lost. A leader that was cut off may still lead, so it is asked first. `proved`: it was of use.
    /// `guarded_until`: before that, no other server may be asked for what this one may have granted.
    pub(crate) fn lost(&mut self, proved: bool, now: Instant, guarded_until: Instant) -> Pace {
        self.why.get_or_insert(FailoverReason::Lost);
        match self.policy {
            Policy::Cluster if proved && self.endpoints.len() > 1 => Pace::AtOnce,
            Policy::Cluster => self.next(),
            Policy::Standby if now < guarded_until => Pace::AfterAPauseOfAtMost((guarded_until - now).max(BREATH)),
            Policy::Single | Policy::Standby => Pace::AfterAPause,
        }
    }

    /// An attempt failed. `guarded_until`: as in [`lost`](Self::lost). The last attempt before that begins right then, so that the next
    /// server is asked in time, however long the pauses of the reconnect policy are by now.
    pub(crate) fn failed(&mut self, now: Instant, guarded_until: Instant) -> Pace {
        match self.policy {
            Policy::Single => Pace::AfterAPause,
            Policy::Standby if now < guarded_until => Pace::AfterAPauseOfAtMost(guarded_until - now),
            Policy::Cluster | Policy::Standby => self.next(),
        }
    }

    /// When an attempt that begins then is given up even if the connect timeout is not over: because the next server may be asked.
    pub(crate) fn give_up_at(&self, begins: Instant, guarded_until: Instant) -> Option<Instant> {
        let is_guarded = self.is_standby() && begins <= guarded_until;
        is_guarded.then(|| guarded_until.max(after(begins, LAST_CHANCE)))
    }

    /// The member that was asked does not lead; it may have said who does. Only a member is believed in, and only so often in
    /// a row: members that point at each other are no better than members that know nothing.
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

    /// The first endpoint is to serve again.
    pub(crate) fn go_back(&mut self) {
        self.why = Some(FailoverReason::Requested);
        self.current = 0;
        self.tried = 0;
    }

    /// Somebody else has chosen, if it is one of them: whether that is another than before.
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

    /// The leader names the members of its cluster. Those that may join are from here on tried like those that were given. Names that
    /// are no addresses say nothing.
    pub(crate) fn note_members<'a>(&mut self, members: impl IntoIterator<Item = &'a str>) {
        for member in members {
            self.admit(member);
        }
    }

    /// The index of an address that is known, whatever the case of its letters. One that is not known joins if it may, and so changes the
    /// list: when there are too many, it takes the place of one that was found before and is not in use.
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

    /// The next in turn: a pause is made when all were tried.
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
