//! The state of one lease, shared between its guard and the shard that keeps it.
//!
//! The shard's actor writes it. The guard reads: whether the lease is held is known from two atomics and the clock,
//! without asking anybody, so it is right even while the runtime is stalled. Whoever first sees that the deadline has
//! passed says so for all (the one thing that readers write): a lease that anybody saw lost never comes back.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering, fence};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Moment;
use crate::error::{Error, Result, named};
use crate::types::{Fence, Grant, Key, Kind, Token, Ttl};

/// Why a lease was lost.
///
/// `Display` says it in words. It is parsed from its [name](Self::as_str) and serialized as that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LostReason {
    /// It could not be renewed in time: the server may grant it to somebody else soon.
    Expired,
    /// The server says that the token does not hold it (any more).
    Rejected,
    /// The connection that owned it was lost, and the server gives such leases to others at once.
    Disconnected,
    /// As `Disconnected`, by a server that was shutting down.
    ServerDraining,
    /// The actor that kept it panicked, or ended with its runtime.
    ShardGone,
    /// The client was shut down.
    Shutdown,
    /// Its shard went back to its first server, because [that was asked for](crate::Client::failback).
    Failback,
}

impl LostReason {
    /// All of them.
    pub(crate) const ALL: [Self; 7] = [
        Self::Expired,
        Self::Rejected,
        Self::Disconnected,
        Self::ServerDraining,
        Self::ShardGone,
        Self::Shutdown,
        Self::Failback,
    ];

    /// Its name as metrics carry it.
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

    /// Its place among them.
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

/// Reads a [name](LostReason::as_str).
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput), with all names.
impl FromStr for LostReason {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        named("reason of a loss", name, &Self::ALL, Self::as_str)
    }
}

/// What is known about a lease.
///
/// `Display` says it in words. It is serialized by its name in snake case, `Lost` with the name of its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LeaseState {
    /// Held.
    Held,
    /// Held as far as time goes, but the connection that owned it is gone and the server has not confirmed it yet. Only
    /// where leases survive a disconnect.
    Suspect,
    /// Lost.
    Lost(LostReason),
    /// Given back.
    Released,
}

impl fmt::Display for LeaseState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held => f.write_str("held"),
            Self::Suspect => f.write_str("held, but not confirmed since its connection was lost"),
            Self::Lost(reason) => write!(f, "lost: {reason}"),
            Self::Released => f.write_str("released"),
        }
    }
}

/// The times of a lease that is taken up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CellTimes {
    pub(crate) got: Moment,
    /// As it is seen from that moment.
    pub(crate) deadline: Instant,
    /// For how long the machine will have been suspended when the lease is lost by that alone.
    pub(crate) lost_when_suspended: Duration,
}

/// The shared state.
pub(crate) struct LeaseCell {
    pub(crate) key: Key,
    pub(crate) kind: Kind,
    pub(crate) token: Token,
    /// Zero if it has none.
    fence: u64,
    has_fence: bool,
    pub(crate) ttl: Ttl,
    /// Times are kept as nanoseconds since this moment. Those for which the machine was suspended, in all, count.
    got_at: Instant,
    /// When the lease has to be given up as lost.
    deadline: AtomicU64,
    /// The lease has to be given up as lost, too, once the machine has been suspended for so many nanoseconds in all.
    lost_when_suspended: AtomicU64,
    state: AtomicU8,
    /// The key was held when it was asked for.
    was_contended: AtomicBool,
    /// How its release ended.
    release: AtomicU8,
    /// Made when it is first asked for: most leases are never waited for, and there may be very many.
    watchers: OnceLock<Box<Watchers>>,
}

/// There may be a million of them: with its reference counts it fills a piece of the allocator to the last byte.
#[cfg(all(test, target_pointer_width = "64"))]
const _: () = assert!(size_of::<LeaseCell>() <= 120);

/// Those who want to be told when a lease is lost, or its release ends.
struct Watchers {
    changed: Notify,
    /// Made when it is first asked for.
    cancellation: OnceLock<CancellationToken>,
    /// That of the guard which holds this lease with others.
    shared_cancellation: OnceLock<CancellationToken>,
    /// Why its release failed.
    failure: OnceLock<Error>,
}

/// How a release ended: with an answer, or without.
pub(crate) type ReleaseOutcome = Option<Result<()>>;

const HELD: u8 = 0;
const SUSPECT: u8 = 1;
const RELEASED: u8 = 2;
/// The first of the reasons.
const LOST: u8 = 3;

const UNANSWERED: u8 = 0;
const SUCCEEDED: u8 = 1;
const FAILED: u8 = 2;
const NEVER_ANSWERED: u8 = 3;

impl LeaseCell {
    /// Creates the state of a lease.
    pub(crate) fn new(key: Key, kind: Kind, grant: Grant, times: CellTimes) -> Self {
        let CellTimes { got, deadline, .. } = times;
        Self {
            key,
            kind,
            token: grant.token,
            fence: grant.fence.map_or(0, |fence| fence.0),
            has_fence: grant.fence.is_some(),
            was_contended: AtomicBool::new(false),
            ttl: grant.ttl,
            got_at: got.at,
            deadline: AtomicU64::new(nanos_between(got.at, deadline, got.suspended)),
            lost_when_suspended: AtomicU64::new(nanos(times.lost_when_suspended)),
            state: AtomicU8::new(HELD),
            release: AtomicU8::new(UNANSWERED),
            watchers: OnceLock::new(),
        }
    }

    pub(crate) fn fence(&self) -> Option<Fence> {
        self.has_fence.then_some(Fence(self.fence))
    }

    pub(crate) fn was_contended(&self) -> bool {
        self.was_contended.load(Ordering::Relaxed)
    }

    /// Notes that the key was held when the lease was asked for: before its holder gets it.
    pub(crate) fn note_contended(&self) {
        self.was_contended.store(true, Ordering::Relaxed);
    }

    /// A change of the state is followed by a look for watchers, and this by a look at the state, so one of them sees the other.
    fn watchers(&self) -> &Watchers {
        let watchers = self.watchers.get_or_init(|| {
            Box::new(Watchers {
                changed: Notify::new(),
                cancellation: OnceLock::new(),
                shared_cancellation: OnceLock::new(),
                failure: OnceLock::new(),
            })
        });
        fence(Ordering::SeqCst);
        watchers
    }

    /// What is known now. A lease whose deadline has passed counts as lost even if nobody had the time to say so.
    pub(crate) fn state(&self) -> LeaseState {
        self.state_at(Moment::now())
    }

    /// As [`state`](Self::state), at a moment that the caller names.
    pub(crate) fn state_at(&self, now: Moment) -> LeaseState {
        match self.state.load(Ordering::Acquire) {
            held @ (HELD | SUSPECT) if self.remaining_at(now).is_zero() => {
                if self.change(held, code(LostReason::Expired)) {
                    self.tell_of_loss();
                }
                self.state_at(now)
            }
            HELD => LeaseState::Held,
            SUSPECT => LeaseState::Suspect,
            RELEASED => LeaseState::Released,
            lost => LeaseState::Lost(reason(lost)),
        }
    }

    /// For how long it has been there.
    pub(crate) fn age_at(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.got_at)
    }

    /// How long the lease is sure to be held if nothing more is heard from the server.
    pub(crate) fn remaining(&self) -> Duration {
        self.remaining_at(Moment::now())
    }

    /// As [`remaining`](Self::remaining), at a moment that the caller names.
    pub(crate) fn remaining_at(&self, now: Moment) -> Duration {
        let suspended = nanos(now.suspended);
        if suspended >= self.lost_when_suspended.load(Ordering::Acquire) {
            return Duration::ZERO;
        }
        let deadline = self.deadline.load(Ordering::Acquire).saturating_sub(suspended);
        Duration::from_nanos(deadline).saturating_sub(self.age_at(now.at))
    }

    /// Resolves with the reason once the lease is lost; never if it is released.
    pub(crate) async fn lost(&self) -> LostReason {
        self.when(|cell| match cell.state() {
            LeaseState::Lost(reason) => Some(reason),
            _ => None,
        })
        .await
    }

    /// Resolves once its release has ended.
    pub(super) async fn release_ended(&self) -> ReleaseOutcome {
        self.when(Self::release_outcome).await
    }

    /// How its release ended, if it has.
    pub(super) fn release_outcome(&self) -> Option<ReleaseOutcome> {
        match self.release.load(Ordering::Acquire) {
            UNANSWERED => None,
            SUCCEEDED => Some(Some(Ok(()))),
            FAILED => Some(self.watchers().failure.get().cloned().map(Err)),
            _ => Some(None),
        }
    }

    /// Resolves once `look` finds something. It looks after each change that watchers are told of.
    async fn when<T>(&self, look: impl Fn(&Self) -> Option<T>) -> T {
        let watchers = self.watchers();
        loop {
            let changed = watchers.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so that no change falls between the two.
            changed.as_mut().enable();
            if let Some(found) = look(self) {
                return found;
            }
            changed.await;
        }
    }

    /// A token that is cancelled when the lease is lost.
    pub(crate) fn cancellation_token(&self) -> CancellationToken {
        let token = self.watchers().cancellation.get_or_init(CancellationToken::new).clone();
        fence(Ordering::SeqCst);
        // The loss may have come between: then nobody else will cancel it.
        if let LeaseState::Lost(_) = self.state() {
            token.cancel();
        }
        token
    }

    /// Has a token cancelled when the lease is lost, besides its own: that of the one guard which holds it with others.
    pub(crate) fn cancels_too(&self, token: &CancellationToken) {
        drop(self.watchers().shared_cancellation.set(token.clone()));
        fence(Ordering::SeqCst);
        // The loss may have come between: then nobody else will cancel it.
        if let LeaseState::Lost(_) = self.state() {
            token.cancel();
        }
    }

    // What follows is for the shard's actor alone, but for the end of a release whose shard is gone.

    /// Renewed: held until `deadline`. False if it was seen lost before.
    pub(crate) fn extend(&self, deadline: Instant, now: Moment) -> bool {
        // Looked at before the deadline is moved, so that a lease whose time is up stays lost.
        match self.state_at(now) {
            LeaseState::Held | LeaseState::Suspect => {}
            LeaseState::Lost(_) | LeaseState::Released => return false,
        }
        self.deadline
            .store(nanos_between(self.got_at, deadline, now.suspended), Ordering::Release);
        self.change(HELD, HELD) || self.change(SUSPECT, HELD)
    }

    /// The connection that owns it stood: it is lost by suspends alone only once they have taken so long in all.
    pub(crate) fn stood(&self, lost_when_suspended: Duration) {
        self.lost_when_suspended
            .fetch_max(nanos(lost_when_suspended), Ordering::AcqRel);
    }

    /// Held as far as is known, until `deadline`, as that is seen after the machine was `suspended` for so long, and not lost
    /// already.
    pub(crate) fn suspect(&self, deadline: Instant, suspended: Duration) {
        self.deadline
            .fetch_min(nanos_between(self.got_at, deadline, suspended), Ordering::AcqRel);
        self.change(HELD, SUSPECT);
    }

    /// Being given back. False if it was lost before.
    pub(crate) fn release(&self) -> bool {
        self.change(HELD, RELEASED) || self.change(SUSPECT, RELEASED)
    }

    /// Its release has ended. What was said of that before stays.
    pub(super) fn end_release(&self, outcome: ReleaseOutcome) {
        if self.release.load(Ordering::Acquire) != UNANSWERED {
            return;
        }
        let code = match outcome {
            Some(Ok(())) => SUCCEEDED,
            Some(Err(failure)) => {
                drop(self.watchers().failure.set(failure));
                FAILED
            }
            None => NEVER_ANSWERED,
        };
        self.release.store(code, Ordering::Release);
        self.tell_watchers();
    }

    /// Lost, and told to whoever waits for it. A reason given before stays.
    pub(crate) fn lose(&self, why: LostReason) {
        if self.change(HELD, code(why)) || self.change(SUSPECT, code(why)) {
            self.tell_of_loss();
        }
    }

    fn change(&self, from: u8, to: u8) -> bool {
        self.state
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    fn tell_of_loss(&self) {
        self.tell_watchers();
        if let Some(watchers) = self.watchers.get() {
            let tokens = [&watchers.cancellation, &watchers.shared_cancellation];
            let tokens = tokens.into_iter().filter_map(OnceLock::get);
            tokens.for_each(CancellationToken::cancel);
        }
    }

    fn tell_watchers(&self) {
        fence(Ordering::SeqCst);
        if let Some(watchers) = self.watchers.get() {
            watchers.changed.notify_waiters();
        }
    }
}

fn code(why: LostReason) -> u8 {
    LOST + why.index() as u8
}

fn reason(code: u8) -> LostReason {
    LostReason::ALL
        .get(usize::from(code.saturating_sub(LOST)))
        .copied()
        .unwrap_or(LostReason::Expired)
}

/// The time between two instants, and that for which the machine was suspended.
fn nanos_between(start: Instant, end: Instant, suspended: Duration) -> u64 {
    nanos(end.saturating_duration_since(start).saturating_add(suspended))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Without the token.
impl fmt::Debug for LeaseCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("key", &self.key)
            .field("kind", &self.kind)
            .field("token", &self.token)
            .field("ttl", &self.ttl)
            .field("state", &self.state())
            .field("remaining", &self.remaining())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(lasts: Duration) -> LeaseCell {
        let token = Token::new("00000000000000070123456789abcdef").unwrap();
        let key = Key::new("k").unwrap();
        let ttl = Ttl::from_secs(10).unwrap();
        let got = Moment::now();
        let times = CellTimes {
            got,
            deadline: got.at + lasts,
            lost_when_suspended: got.suspended + Duration::from_secs(8),
        };
        LeaseCell::new(key, Kind::Lock, Grant::new(token, ttl), times)
    }

    #[test]
    fn every_reason_survives_the_atomic() {
        for why in LostReason::ALL {
            let cell = cell(Duration::from_secs(10));
            cell.lose(why);
            assert_eq!(cell.state(), LeaseState::Lost(why));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_alone_ends_a_lease() {
        let cell = cell(Duration::from_secs(10));
        assert_eq!(cell.state(), LeaseState::Held);
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(cell.remaining(), Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(cell.state(), LeaseState::Lost(LostReason::Expired));
    }

    #[tokio::test]
    async fn loss_is_told_to_all_any_number_of_times_and_after_the_fact() {
        let cell = std::sync::Arc::new(cell(Duration::from_secs(10)));
        let token = cell.cancellation_token();
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let cell = std::sync::Arc::clone(&cell);
                tokio::spawn(async move { cell.lost().await })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(!token.is_cancelled());
        cell.lose(LostReason::Rejected);
        for waiter in waiters {
            assert_eq!(waiter.await.unwrap(), LostReason::Rejected);
        }
        assert_eq!(cell.lost().await, LostReason::Rejected);
        assert!(token.is_cancelled() && cell.cancellation_token().is_cancelled());
    }

    #[test]
    fn a_suspend_counts_as_time_and_a_long_one_ends_a_lease() {
        let (long, short) = (cell(Duration::from_secs(600)), cell(Duration::from_secs(5)));
        let now = Moment::now();
        let after = |secs| Moment {
            suspended: now.suspended + Duration::from_secs(secs),
            ..now
        };
        let left = |cell: &LeaseCell, secs| cell.remaining_at(after(secs)).as_secs_f64().round();
        assert_eq!((left(&long, 0), left(&long, 4)), (600.0, 596.0));
        assert_eq!((left(&short, 0), left(&short, 4)), (5.0, 1.0));
        assert_eq!(short.state_at(after(5)), LeaseState::Lost(LostReason::Expired));
        // The server may have given up a connection of which it heard nothing for so long.
        assert_eq!(long.state_at(after(7)), LeaseState::Held);
        assert_eq!(long.remaining_at(after(8)), Duration::ZERO);
        long.stood(after(15).suspended);
        assert_eq!((left(&long, 14), left(&long, 15)), (586.0, 0.0));
    }

    #[test]
    fn what_is_extended_after_a_suspend_counts_from_there() {
        let cell = cell(Duration::from_secs(10));
        let mut now = Moment::now();
        now.suspended += Duration::from_secs(6);
        assert!(cell.extend(now.at + Duration::from_secs(10), now));
        let left = cell.remaining_at(now).as_secs_f64().round();
        assert!((left - 10.0).abs() < 0.5, "{left}");
        cell.suspect(now.at + Duration::from_secs(3), now.suspended);
        assert!(cell.remaining_at(now) <= Duration::from_secs(3));
        now.suspended += Duration::from_secs(1);
        assert!(cell.remaining_at(now) <= Duration::from_secs(2));
    }

    #[test]
    fn debug_keeps_the_token_secret() {
        assert!(!format!("{:?}", cell(Duration::from_secs(1))).contains("0123456789abcdef"));
    }
}
