//! The times of one lease. Pure arithmetic.
//!
//! All times count from the moment at which the request that acquired or renewed the lease was *sent*. The server's
//! lease runs from its grant, which was later. So the times that this module computes are early, never late.

use std::num::NonZeroU64;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::{Moment, after};
use crate::error::{Error, Result};
use crate::types::Ttl;

/// The parameters of lease times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    /// The pace of renewals, unless a lease has its own.
    pub(crate) pace: Pace,
    /// The time between the deadline, when the holder learns of the loss, and the end of the TTL, when the server may
    /// grant the key to another client; `None` for the default.
    pub(crate) margin: Option<Duration>,
    /// How long the machine may be suspended before a server that receives nothing gives up the connection, and with it
    /// the lease; `None` where leases outlive their connections.
    pub(crate) longest_suspend: Option<Duration>,
}

/// The part of a lease's TTL that passes before its renewal: more than 0 and less than 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RenewRatio(NonZeroU64);

impl RenewRatio {
    fn new(ratio: f64) -> Result<Self> {
        // Stored as bits. No number in this range has only zero bits, so an optional ratio needs no more space.
        if let Some(bits) = NonZeroU64::new(ratio.to_bits()).filter(|_| ratio > 0.0 && ratio < 1.0) {
            return Ok(Self(bits));
        }
        Err(Error::invalid(
            "renew ratio",
            ratio,
            "give the part of the TTL after which to renew: more than 0 and less than 1",
        ))
    }

    fn get(self) -> f64 {
        f64::from_bits(self.0.get())
    }
}

/// When leases are renewed. Jitter makes renewals earlier, never later.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pace {
    ratio: RenewRatio,
    /// The part of the time to a renewal that jitter may remove.
    jitter: f64,
}

impl Pace {
    /// Checks the numbers of a policy.
    pub(crate) fn new(ratio: f64, jitter: f64) -> Result<Self> {
        let ratio = RenewRatio::new(ratio)?;
        if !(0.0..1.0).contains(&jitter) {
            return Err(Error::invalid(
                "renew jitter",
                jitter,
                "give the part of the time before a renewal that jitter may remove: 0 or more, and less than 1",
            ));
        }
        Ok(Self { ratio, jitter })
    }
}

/// The default margin is the TTL divided by this number.
const MARGIN_PART: u32 = 20;

/// The minimum of the default margin.
const LEAST_MARGIN: Duration = Duration::from_millis(100);

/// The minimum is at most the TTL divided by this number. This matters only for very short TTLs.
const MOST_MARGIN_PART: u32 = 15;

impl Schedule {
    /// Returns how long before the end of the TTL the lease counts as lost.
    pub(crate) fn margin(&self, ttl: Ttl) -> Duration {
        let ttl = ttl.as_duration();
        match self.margin {
            // A margin as long as the TTL would make every lease lost at once.
            Some(margin) => margin.min(ttl / 2),
            None => (ttl / MARGIN_PART).max(LEAST_MARGIN.min(ttl / MOST_MARGIN_PART)),
        }
    }

    /// Returns when a lease with this TTL, acquired or renewed by a request sent at `sent_at`, counts as lost.
    pub(crate) fn deadline(&self, sent_at: Instant, ttl: Ttl) -> Instant {
        after(sent_at, ttl.as_duration() - self.margin(ttl))
    }

    /// Returns when to renew the lease: at the lease's own pace, or at the client's. `random` is in [0, 1).
    pub(crate) fn renew_at(&self, sent_at: Instant, ttl: Ttl, own: Option<Pace>, random: f64) -> Instant {
        let lifetime = ttl.as_duration() - self.margin(ttl);
        let pace = own.unwrap_or(self.pace);
        let part = pace.ratio.get() * (1.0 - pace.jitter * random);
        let wanted = ttl.as_duration().mul_f64(part.clamp(0.0, 1.0));
        // Even with a ratio close to 1, the renewal must have some time before the deadline.
        after(sent_at, wanted.min(lifetime.mul_f64(0.9)))
    }

    /// Returns a limit for the machine's total suspended time. Once that time reaches the limit, the server may have
    /// given up a connection over which it has received nothing since `sent`.
    pub(crate) fn lost_when_suspended(&self, sent: Moment) -> Duration {
        match self.longest_suspend {
            Some(longest) => sent.suspended.saturating_add(longest),
            None => Duration::MAX,
        }
    }

    /// Returns whether a grant can be handed out without a confirmation: more than half of its TTL is certainly left.
    /// Otherwise a renewal must confirm it first.
    pub(crate) fn is_fresh(sent_at: Instant, ttl: Ttl, now: Instant) -> bool {
        now.saturating_duration_since(sent_at) < ttl.as_duration() / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(renew_ratio: f64) -> Schedule {
        Schedule {
            pace: Pace::new(renew_ratio, 0.1).unwrap(),
            margin: None,
            longest_suspend: None,
        }
    }

    fn ttl(secs: u64) -> Ttl {
        Ttl::from_secs(secs).unwrap()
    }

    #[test]
    fn the_margin_is_a_twentieth_of_the_ttl_and_at_least_100_ms_except_for_very_short_ttls() {
        let margin = |secs| schedule(0.5).margin(ttl(secs)).as_millis();
        assert_eq!((margin(30), margin(10), margin(2)), (1500, 500, 100));
        assert_eq!(margin(1), 66);
        let own = Schedule {
            margin: Some(Duration::from_secs(3)),
            ..schedule(0.5)
        };
        assert_eq!(own.margin(ttl(30)), Duration::from_secs(3));
        assert_eq!(own.margin(ttl(2)), Duration::from_secs(1), "at most half of the TTL");
    }

    #[test]
    fn renewals_come_early_never_late_and_before_the_deadline() {
        let sent = Instant::now();
        for secs in [1, 2, 10, 30, 120, crate::types::MAX_SECONDS] {
            for ratio in [0.01, 0.5, 0.99] {
                for random in [0.0, 0.5, 0.999] {
                    let schedule = schedule(ratio);
                    let renew = schedule.renew_at(sent, ttl(secs), None, random);
                    assert!(renew < schedule.deadline(sent, ttl(secs)), "{secs} {ratio} {random}");
                    let exact = schedule.renew_at(sent, ttl(secs), None, 0.0);
                    assert!(renew <= exact);
                    assert!(renew - sent >= (exact - sent).mul_f64(0.89));
                }
            }
        }
        let own = Pace::new(0.2, 0.0).ok();
        for (own, due) in [(None, 5), (own, 2)] {
            let renew = schedule(0.5).renew_at(sent, ttl(10), own, 0.0);
            assert_eq!(renew, sent + Duration::from_secs(due));
        }
        for (jitter, due) in [(0.0, 5.0), (0.1, 4.75), (0.8, 3.0)] {
            let renew = schedule(0.5).renew_at(sent, ttl(10), Pace::new(0.5, jitter).ok(), 0.5);
            assert_eq!(renew, sent + Duration::from_secs_f64(due), "{jitter}");
        }
    }

    #[test]
    fn a_grant_is_fresh_for_half_its_ttl() {
        let sent = Instant::now();
        assert!(Schedule::is_fresh(sent, ttl(10), sent + Duration::from_millis(4999)));
        assert!(!Schedule::is_fresh(sent, ttl(10), sent + Duration::from_secs(5)));
    }
}
