//! The times of a command that runs under a lease: how long before its end the lease must count as lost, so that the
//! command is stopped before another holder can get the lease. Pure.

use std::time::Duration;

use crate::exit::Exit;
use crate::failure::Failure;

/// The default grace of a command. For a short TTL, `MOST_GRACE_PART` limits it.
const GRACE: Duration = Duration::from_secs(5);

/// The default grace is at most the TTL divided by this.
const MOST_GRACE_PART: u32 = 4;

/// The time between KILL and the moment at which the server may grant the lease to another holder is the TTL divided
/// by this, as in the library.
const MARGIN_PART: u32 = 20;

/// The minimum of that time, even for the shortest TTL, because the system takes some time to end killed processes.
const LEAST_MARGIN: Duration = Duration::from_millis(100);

/// When a command is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) ttl: Duration,
    /// Between TERM and KILL.
    pub(crate) grace: Duration,
    /// Between KILL and the end of the lease on the server.
    pub(crate) margin: Duration,
}

impl Times {
    /// Checks that the times fit into a TTL. `margin` is set if the user set it.
    pub(crate) fn new(ttl: Duration, grace: Option<Duration>, margin: Option<Duration>) -> Result<Self, Failure> {
        // Servers count whole seconds, and clients round up.
        let ttl = Duration::from_secs(ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0)));
        let times = Self {
            ttl,
            grace: grace.unwrap_or(GRACE.min(ttl / MOST_GRACE_PART)),
            margin: margin.unwrap_or((ttl / MARGIN_PART).max(LEAST_MARGIN)),
        };
        match times.fits(ttl) {
            true => Ok(times),
            false => Err(times.too_long(ttl)),
        }
    }

    /// Returns how long before its end on the server the lease counts as lost.
    pub(crate) fn loss_margin(&self) -> Duration {
        self.grace.saturating_add(self.margin)
    }

    /// Returns the part of the TTL that passes before a renewal: half of the time until the lease counts as lost.
    pub(crate) fn renew_ratio(&self) -> f64 {
        let lifetime = self.ttl.saturating_sub(self.loss_margin());
        (lifetime.as_secs_f64() / self.ttl.as_secs_f64() / 2.0).clamp(0.01, 0.99)
    }

    /// Returns whether the times fit into a lease of this TTL: the loss margin of clients is at most half of the TTL.
    pub(crate) fn fits(&self, ttl: Duration) -> bool {
        self.loss_margin() <= ttl / 2
    }

    /// Returns the failure for a lease whose TTL is too short.
    pub(crate) fn too_long(&self, ttl: Duration) -> Failure {
        let most = (ttl / 2).saturating_sub(self.margin);
        // Long enough for a fixed margin, and for one that grows with the TTL.
        let least = self
            .loss_margin()
            .saturating_mul(2)
            .max(self.grace.saturating_mul(20) / 9);
        let least = Duration::from_secs(least.as_secs().saturating_add(1));
        Failure::new(
            Exit::USAGE,
            format!(
                "a grace of {:?} and a margin of {:?} are more than half of the TTL of {ttl:?}: the command could not be stopped \
                 before the lease can be granted to another holder",
                self.grace, self.margin,
            ),
        )
        .remedy(format!(
            "--grace {most:?} at most for this TTL, or --ttl {least:?} for this grace"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(ttl_ms: u64, grace_ms: Option<u64>) -> Result<Times, Failure> {
        Times::new(Duration::from_millis(ttl_ms), grace_ms.map(Duration::from_millis), None)
    }

    #[test]
    fn the_default_fits_into_every_ttl() {
        for secs in (1..200).chain([3600, 9_223_372_036]) {
            let times = times(secs * 1000, None).unwrap();
            assert!(times.loss_margin() <= times.ttl / 2, "{times:?}");
            assert!(times.renew_ratio() > 0.0 && times.renew_ratio() < 1.0, "{times:?}");
            // A failed renewal can be repeated before the lease counts as lost.
            let renewal = times.ttl.mul_f64(times.renew_ratio());
            assert!(renewal.mul_f64(1.9) < times.ttl - times.loss_margin(), "{times:?}");
        }
        assert_eq!(times(30_000, None).unwrap().grace, GRACE);
        assert_eq!(times(1_500, None).unwrap().ttl, Duration::from_secs(2));
        assert!(Times::new(Duration::MAX, None, None).is_ok());
    }

    #[test]
    fn a_grace_that_does_not_fit_is_refused_and_one_that_fits_is_named() {
        assert!(times(10_000, Some(4_500)).is_ok());
        let refused = times(10_000, Some(4_501)).unwrap_err();
        let said = format!("{refused:?}");
        for part in ["4.5s", "500ms", "TTL of 10s", "--grace 4.5s", "--ttl 11s"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(times(11_000, Some(4_501)).is_ok());
        // The recommended value is not rounded up to one that would be rejected again.
        let said = format!("{:?}", times(33_000, Some(20_000)).unwrap_err());
        assert!(said.contains("--grace 14.85s at most"), "{said}");
        assert!(times(33_000, Some(14_850)).is_ok());
        let said = format!("{:?}", times(10_000, Some(100_000)).unwrap_err());
        assert!(
            said.contains("--ttl 223s") && times(223_000, Some(100_000)).is_ok(),
            "{said}"
        );
    }

    /// Checks that the margin is the library's, except for the shortest TTL, where it is larger.
    #[cfg(feature = "server")]
    #[tokio::test]
    async fn the_margin_is_that_of_the_library() {
        use dflockd_client::tokio::time::Instant;

        let server = dflockd_client::server::Server::builder().port(0).start().await.unwrap();
        let client = dflockd_client::Client::builder()
            .servers([server.local_addr().to_string()])
            .connect()
            .await
            .unwrap();
        for secs in [2, 30, 3600] {
            let ttl = Duration::from_secs(secs);
            let before = Instant::now();
            let lock = client.lock(format!("key-{secs}")).unwrap().lease_ttl(ttl);
            let guard = lock.acquire().await.unwrap();
            // The TTL counts from the sending of the request, which was between these two moments.
            let (least, most) = (before + ttl, Instant::now() + ttl);
            let end = guard.held_until() + Times::new(ttl, None, None).unwrap().margin;
            assert!((least..=most).contains(&end), "{secs} s: {:?}", end - least);
        }
    }
}
