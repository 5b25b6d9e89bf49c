//! `lease`: takes a throw-away lock through grant, renewal, expiry and release, and compares the server's TTL with
//! this machine's clock.

use std::time::Duration;

use dflockd_client::protocol::functions::{acquire, release, renew};
use dflockd_client::{Error, ErrorKind, Grant, Key, Ttl, WaitSecs};
use tokio::time::{Instant, sleep};

use super::cluster::Member;
use super::leftovers::Leftovers;
use super::report::{Check, Finding};
use super::way::{Connection, Way};
use crate::exit::Exit;
use crate::failure::Failure;

/// The TTL of the throw-away lock. It is short, so that nothing is left soon after this process is killed, and long
/// enough that the lease outlasts a slow answer.
const TTL: Duration = Duration::from_secs(2);

/// The interval between two attempts to acquire the expiring lock.
const POLL: Duration = Duration::from_millis(20);

/// How long the check waits for the expiry, in TTLs.
const PATIENCE: u64 = 3;

/// How long the check waits for the expiry.
pub(super) const LONGEST: Duration = Duration::from_secs(TTL.as_secs() * PATIENCE);

/// The tolerated difference between the expiry and the TTL, as a part of the TTL. Clients count a lease as lost when
/// this part of its TTL is left.
const TOLERANCE: f64 = 0.05;

/// The default of the servers' `--lease-sweep-interval`, in seconds. An old server may end a lease this much later
/// although its clock runs well.
const SWEEP: f64 = 1.0;

/// If the first halves of the tokens of two consecutive grants differ by less than this, the server counts its grants.
/// Random tokens are that close only once in 10^12 cases.
const NEXT: u64 = 1 << 24;

/// Makes all steps over one connection, and notes in `member` whether the server granted the lease or had no room for
/// a key. Locks are not reentrant, so the server grants the second acquire only after the first lease has expired.
///
/// # Cancel safety
///
/// If the future is dropped, `leftovers` lists the lease that is still held at the server.
pub(super) async fn check(
    connection: &mut Connection,
    way: &Way,
    leftovers: &Leftovers,
    member: &mut Member,
) -> Result<Finding, Failure> {
    let key = Key::new(format!("dflock-doctor-{:016x}", fastrand::u64(..)))?;
    let ttl = Ttl::new(TTL)?;
    let first = match ask(connection, way, leftovers, &key, ttl).await {
        Ok(grant) => grant,
        Err(error) if error.kind() == ErrorKind::MaxLocks => {
            member.is_full = true;
            return Ok(Finding::fail(Check::Lease, full(error)));
        }
        Err(error) => return Err(error.into()),
    };
    member.grants = true;
    let sent = Instant::now();
    match renew(connection, &key, &first.token, Some(ttl)).await {
        Err(error) if error.kind() == ErrorKind::NotHeld => return Err(gone(error)),
        renewed => {
            renewed?;
        }
    }
    let answered = Instant::now();
    // If the server grants a longer lease than requested, its expiry is not measured.
    let clock = match first.ttl.as_duration() > TTL {
        true => None,
        false => expiry(connection, way, leftovers, &key, ttl, Renewal { sent, answered }).await?,
    };
    let finding = match &clock {
        Some((took, second)) => took.judge(TTL).fact("fences", are_counted(&first, second)),
        None if first.ttl.as_duration() > TTL => Finding::warn(
            Check::Lease,
            format!(
                "granted, renewed and released; the server grants no lease of {TTL:?}, but of {}s",
                first.ttl.as_secs()
            ),
            "see whether a proxy or another server answers here",
        ),
        None => Finding::warn(
            Check::Lease,
            format!("a lease of {TTL:?} had not expired after {LONGEST:?}"),
            "look at the clock of the server's machine: locks of clients that die are kept too long",
        ),
    };
    let last = clock.map_or(first, |(_, second)| second);
    match release(connection, &key, &last.token).await {
        Err(error) if error.kind() == ErrorKind::NotHeld => return Err(gone(error)),
        released => released?,
    }
    leftovers.gave_back(&key);
    Ok(finding)
}

/// When the lease was renewed.
struct Renewal {
    sent: Instant,
    answered: Instant,
}

/// Tries to acquire the key until its lease has expired. Returns how long that took, and the next grant; `None` if the
/// lease does not expire in time.
async fn expiry(
    connection: &mut Connection,
    way: &Way,
    leftovers: &Leftovers,
    key: &Key,
    ttl: Ttl,
    Renewal { sent, answered }: Renewal,
) -> Result<Option<(Span, Grant)>, Error> {
    let mut refused_at = answered;
    while sent.elapsed() < LONGEST {
        let asked = Instant::now();
        match ask(connection, way, leftovers, key, ttl).await {
            Ok(second) => {
                let took = Span {
                    least: refused_at.saturating_duration_since(answered),
                    most: sent.elapsed(),
                };
                return Ok(Some((took, second)));
            }
            Err(error) if error.kind() == ErrorKind::Timeout => refused_at = asked,
            Err(error) => return Err(error),
        }
        sleep(POLL).await;
    }
    Ok(None)
}

/// Tries to acquire the key without waiting.
async fn ask(
    connection: &mut Connection,
    way: &Way,
    leftovers: &Leftovers,
    key: &Key,
    ttl: Ttl,
) -> Result<Grant, Error> {
    let _asking = leftovers.asks().await;
    let grant = acquire(connection, key, WaitSecs::TRY, Some(ttl)).await?;
    leftovers.holds(way, key, grant.token);
    Ok(grant)
}

fn full(error: Error) -> Failure {
    Failure::from(error).remedy("raise --max-locks of the server, or use fewer keys: `dflock stats` shows them")
}

/// Returns the failure for a lease that was over before it could be renewed or released.
fn gone(error: Error) -> Failure {
    Failure::from(error).remedy(format!(
        "look at the clock of the server's machine, and at the latency: a lease of {TTL:?} ended before it could be used"
    ))
}

/// Returns whether the first halves of the tokens are fences.
fn are_counted(first: &Grant, second: &Grant) -> bool {
    let named = first.fence.is_some() && second.fence.is_some();
    let distance = second.token.first_half().wrapping_sub(first.token.first_half());
    named || (1..NEXT).contains(&distance)
}

/// Bounds of the time that a lease lasted by this machine's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    /// From the moment at which the renewal was answered until the moment at which the last refused request was sent.
    least: Duration,
    /// From the renewal to the answer that granted the next lease.
    most: Duration,
}

impl Span {
    /// Judges by the bounds: network delays widen the span, and so never cause a false alarm.
    fn judge(self, ttl: Duration) -> Finding {
        let (least, most) = (self.least.as_secs_f64(), self.most.as_secs_f64());
        let nominal = ttl.as_secs_f64();
        let finding = if most < nominal * (1.0 - TOLERANCE) {
            Finding::fail(
                Check::Lease,
                Failure::new(
                    Exit::REFUSED,
                    format!("a lease of {ttl:?} ended after {most:.2}s at most: the server's TTL runs faster than the clock here"),
                )
                .remedy("look at the clocks of both machines: a lock can have two holders; raise loss_margin until that is repaired"),
            )
        } else if least > nominal * (1.0 + TOLERANCE) + SWEEP {
            Finding::warn(
                Check::Lease,
                format!(
                    "a lease of {ttl:?} lasted {least:.2}s at least: the server ends leases late by the clock here"
                ),
                "look at the clocks of both machines, and at --lease-sweep-interval: locks of clients that die are kept longer",
            )
        } else {
            Finding::ok(
                Check::Lease,
                format!("granted, renewed, expired and released; a lease of {ttl:?} lasted {least:.2}s to {most:.2}s"),
            )
        };
        finding
            .fact("ttl_s", nominal)
            .fact("least_s", least)
            .fact("most_s", most)
    }
}

#[cfg(test)]
mod tests {
    use dflockd_client::Token;

    use super::*;
    use crate::commands::doctor::report::Verdict;

    #[test]
    fn a_fault_of_the_servers_clock_is_reported_only_if_it_is_certain() {
        for (least, most, verdict) in [
            (1_960, 2_040, Verdict::Ok),
            // After slow answers the span is too wide for a conclusion.
            (0, 6_000, Verdict::Ok),
            (0, 1_900, Verdict::Ok),
            (0, 1_899, Verdict::Fail),
            (800, 1_000, Verdict::Fail),
            (3_100, 4_000, Verdict::Ok),
            (3_101, 4_000, Verdict::Warn),
        ] {
            let span = Span {
                least: Duration::from_millis(least),
                most: Duration::from_millis(most),
            };
            let finding = span.judge(TTL);
            assert_eq!(finding.verdict, verdict, "{span:?}");
        }
    }

    #[test]
    fn fences_are_distinguished_from_random_tokens() {
        let grant = |first_half: u64| {
            Grant::new(
                Token::new(format!("{first_half:016x}{:016x}", 0)).unwrap(),
                Ttl::DEFAULT,
            )
        };
        let counted = |first, second| are_counted(&grant(first), &grant(second));
        assert!(counted(7, 8) && counted(u64::MAX, 0) && counted(7, 7 + NEXT - 1));
        assert!(!counted(7, 7) && !counted(8, 7) && !counted(7, 7 + NEXT));
    }
}
