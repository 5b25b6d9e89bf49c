//! The state of one lease, shared by its guard and the shard that keeps it.
//!
//! The shard's actor writes the state, and the guard reads it. Three atomics and the clock tell the guard whether
//! the lease is held. The guard needs no answer from the shard, so it sees the right state even while the runtime is
//! stalled. Readers write only in one case: the first reader that sees that the deadline has passed marks the lease as
//! lost for all. So a lease that any reader has seen lost never becomes held again.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering, fence};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::state::{LeaseState, LostReason};
use crate::clock::{Moment, after};
use crate::error::{Error, Result};
use crate::types::{Fence, Grant, Key, Kind, Token, Ttl};

/// The times of a new lease.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CellTimes {
    /// When the shard handled the grant.
    pub(crate) got: Moment,
    /// The deadline, as seen at `got`.
    pub(crate) deadline: Instant,
    /// If the machine's total suspended time reaches this value, the lease counts as lost even before the deadline.
    pub(crate) lost_when_suspended: Duration,
}

/// The shared state.
pub(crate) struct LeaseCell {
    pub(crate) key: Key,
    pub(crate) kind: Kind,
    pub(crate) token: Token,
    /// Zero without a fence.
    fence: u64,
    has_fence: bool,
    pub(crate) ttl: Ttl,
    /// The origin of `deadline`.
    got_at: Instant,
    /// When the lease counts as lost, in nanoseconds after `got_at`, plus the total suspended time of the machine that
    /// was known when this value was computed.
    deadline: AtomicU64,
    /// If the machine's total suspended time reaches this value, in nanoseconds, the lease counts as lost even before
    /// the deadline.
    lost_when_suspended: AtomicU64,
    state: AtomicU8,
    /// Whether another holder had the key when this lease was requested.
    was_contended: AtomicBool,
    /// The outcome of the release.
    release: AtomicU8,
    /// Created on demand: most leases are never watched, and there may be very many leases.
    watchers: OnceLock<Box<Watchers>>,
}

/// There may be a million cells. With its two reference counts, a cell of this size exactly fills a size class of the
/// allocator.
#[cfg(all(test, target_pointer_width = "64"))]
const _: () = assert!(size_of::<LeaseCell>() <= 120);

/// The tasks that wait for the loss of a lease, or for the end of its release.
struct Watchers {
    changed: Notify,
    /// Created on demand.
    cancellation: OnceLock<CancellationToken>,
    /// The token of the guard that holds this lease together with others.
    shared_cancellation: OnceLock<CancellationToken>,
    /// Why the release failed.
    failure: OnceLock<Error>,
    /// The action for the loss of the lease. The thread that sees the loss first runs it.
    on_loss: OnceLock<OnLoss>,
}

/// An action for the loss of a lease. It may run twice, and must be quick.
type OnLoss = Box<dyn Fn() + Send + Sync>;

/// The outcome of a release, or `None` if there was no answer.
pub(crate) type ReleaseOutcome = Option<Result<()>>;

const HELD: u8 = 0;
const SUSPECT: u8 = 1;
const RELEASED: u8 = 2;
/// The code of the first reason.
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

    /// Notes that another holder had the key when the lease was requested. Must be called before the holder gets the
    /// lease.
    pub(crate) fn note_contended(&self) {
        self.was_contended.store(true, Ordering::Relaxed);
    }

    /// Returns the watchers, and creates them on demand. A writer changes the state and then checks for watchers. A
    /// caller of this function has created the watchers and then checks the state. So the writer sees the watchers, or
    /// the caller sees the new state, or both.
    fn watchers(&self) -> &Watchers {
        let watchers = self.watchers.get_or_init(|| {
            Box::new(Watchers {
                changed: Notify::new(),
                cancellation: OnceLock::new(),
                shared_cancellation: OnceLock::new(),
                failure: OnceLock::new(),
                on_loss: OnceLock::new(),
            })
        });
        fence(Ordering::SeqCst);
        watchers
    }

    /// Returns the current state. A lease whose deadline has passed counts as lost even if no task has marked it yet.
    pub(crate) fn state(&self) -> LeaseState {
        self.state_at(Moment::now())
    }

    /// Returns the [`state`](Self::state) at the moment `now`.
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

    /// Returns how long the lease has existed.
    pub(crate) fn age_at(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.got_at)
    }

    /// Returns how long the lease is certainly held if the client receives nothing more from the server.
    pub(crate) fn remaining(&self) -> Duration {
        self.remaining_at(Moment::now())
    }

    /// Returns the [`remaining`](Self::remaining) time at the moment `now`.
    pub(crate) fn remaining_at(&self, now: Moment) -> Duration {
        let suspended = nanos(now.suspended);
        if suspended >= self.lost_when_suspended.load(Ordering::Acquire) {
            return Duration::ZERO;
        }
        let deadline = self.deadline.load(Ordering::Acquire).saturating_sub(suspended);
        Duration::from_nanos(deadline).saturating_sub(self.age_at(now.at))
    }

    /// Returns when the lease has ended, or when it ends if the client receives nothing more from the server. If the
    /// suspended time has reached `lost_when_suspended`, the lease ended at that moment: at `now`, less the suspended
    /// time beyond that value. It may have ended before that, at its deadline.
    pub(crate) fn ends_at(&self, now: Moment) -> Instant {
        let suspended = nanos(now.suspended);
        let deadline = self.deadline.load(Ordering::Acquire).saturating_sub(suspended);
        let end = after(self.got_at, Duration::from_nanos(deadline));
        let lost_when_suspended = self.lost_when_suspended.load(Ordering::Acquire);
        match suspended.checked_sub(lost_when_suspended).map(Duration::from_nanos) {
            Some(since) => end.min(now.at.checked_sub(since).unwrap_or(now.at)),
            None => end,
        }
    }

    /// Waits until the lease is lost and returns the reason. Never completes if the lease is released.
    pub(crate) async fn lost(&self) -> LostReason {
        self.when(|cell| match cell.state() {
            LeaseState::Lost(reason) => Some(reason),
            _ => None,
        })
        .await
    }

    /// Waits until the release has ended.
    pub(super) async fn release_ended(&self) -> ReleaseOutcome {
        self.when(Self::release_outcome).await
    }

    /// Returns the outcome of the release, if it has ended.
    pub(super) fn release_outcome(&self) -> Option<ReleaseOutcome> {
        match self.release.load(Ordering::Acquire) {
            UNANSWERED => None,
            SUCCEEDED => Some(Some(Ok(()))),
            FAILED => Some(self.watchers().failure.get().cloned().map(Err)),
            _ => Some(None),
        }
    }

    /// Waits until `look` returns a value. Calls `look` once, and again after each change.
    async fn when<T>(&self, look: impl Fn(&Self) -> Option<T>) -> T {
        let watchers = self.watchers();
        loop {
            let changed = watchers.changed.notified();
            tokio::pin!(changed);
            // Registered before `look` is called, so that no change in between is missed.
            changed.as_mut().enable();
            if let Some(found) = look(self) {
                return found;
            }
            changed.await;
        }
    }

    /// Returns a token that is cancelled when the lease is lost.
    pub(crate) fn cancellation_token(&self) -> CancellationToken {
        let token = self.watchers().cancellation.get_or_init(CancellationToken::new).clone();
        fence(Ordering::SeqCst);
        // The lease may have been lost before the token was created. In that case no other code cancels the token.
        if let LeaseState::Lost(_) = self.state() {
            token.cancel();
        }
        token
    }

    /// Makes the loss of the lease also cancel the token of a guard that holds this lease together with others.
    pub(crate) fn cancels_too(&self, token: &CancellationToken) {
        drop(self.watchers().shared_cancellation.set(token.clone()));
        fence(Ordering::SeqCst);
        // The lease may have been lost before the token was stored. In that case no other code cancels the token.
        if let LeaseState::Lost(_) = self.state() {
            token.cancel();
        }
    }

    /// Runs `act` when the lease is lost, or at once if it is lost already. Each lease keeps only one action.
    pub(crate) fn when_lost(&self, act: OnLoss) {
        let watchers = self.watchers();
        drop(watchers.on_loss.set(act));
        fence(Ordering::SeqCst);
        // The lease may have been lost before the action was stored. In that case no other code runs it.
        if let (LeaseState::Lost(_), Some(act)) = (self.state(), watchers.on_loss.get()) {
            act();
        }
    }

    /// Returns a token that is cancelled when this lease or `other` is lost. For a pair of leases, always call it on
    /// the same one of the two.
    pub(crate) fn cancellation_token_with(&self, other: &Self) -> CancellationToken {
        let token = self.cancellation_token();
        drop(other.watchers().cancellation.set(token.clone()));
        fence(Ordering::SeqCst);
        if let LeaseState::Lost(_) = other.state() {
            token.cancel();
        }
        token
    }

    // Only the shard's actor (in tests, a mock in its place) calls the functions below, with two exceptions:
    // `end_release` also runs when the shard is gone, and the private functions at the end also serve the readers.

    /// Notes a renewal: the lease is held until `deadline`. Returns false if the lease was already lost or released.
    pub(crate) fn extend(&self, deadline: Instant, now: Moment) -> bool {
        // Checked before the deadline is moved, so that a lease whose time is over stays lost.
        match self.state_at(now) {
            LeaseState::Held | LeaseState::Suspect => {}
            LeaseState::Lost(_) | LeaseState::Released => return false,
        }
        self.deadline
            .store(nanos_between(self.got_at, deadline, now.suspended), Ordering::Release);
        self.change(HELD, HELD) || self.change(SUSPECT, HELD)
    }

    /// Notes that the owning connection was still open. The lease counts as lost before its deadline only when the
    /// machine's total suspended time reaches this new value.
    pub(crate) fn note_open_connection(&self, lost_when_suspended: Duration) {
        self.lost_when_suspended
            .fetch_max(nanos(lost_when_suspended), Ordering::AcqRel);
    }

    /// Makes the lease suspect until `deadline`, unless it is lost. `suspended` is the machine's total suspended time
    /// for which `deadline` was computed.
    pub(crate) fn suspect(&self, deadline: Instant, suspended: Duration) {
        self.deadline
            .fetch_min(nanos_between(self.got_at, deadline, suspended), Ordering::AcqRel);
        self.change(HELD, SUSPECT);
    }

    /// Notes that the lease is being released. Returns false if the lease was already lost or released.
    pub(crate) fn release(&self) -> bool {
        self.change(HELD, RELEASED) || self.change(SUSPECT, RELEASED)
    }

    /// Notes the end of the release. An earlier outcome stays.
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

    /// Marks the lease as lost and wakes its watchers. An earlier reason stays.
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
        let Some(watchers) = self.watchers.get() else { return };
        let tokens = [&watchers.cancellation, &watchers.shared_cancellation];
        let tokens = tokens.into_iter().filter_map(OnceLock::get);
        tokens.for_each(CancellationToken::cancel);
        if let Some(act) = watchers.on_loss.get() {
            act();
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

/// Returns the time between two instants, plus the suspended time.
fn nanos_between(start: Instant, end: Instant, suspended: Duration) -> u64 {
    nanos(end.saturating_duration_since(start).saturating_add(suspended))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Does not show the secret part of the token.
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
    fn every_reason_is_stored_and_read_back() {
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
    async fn all_tasks_learn_of_a_loss_even_those_that_ask_later() {
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
    fn the_action_for_a_loss_runs_if_it_is_set_before_or_after_the_loss() {
        for is_lost_before in [true, false] {
            let (cell, done) = (
                cell(Duration::from_secs(10)),
                std::sync::Arc::new(AtomicBool::new(false)),
            );
            let seen = std::sync::Arc::clone(&done);
            if is_lost_before {
                cell.lose(LostReason::Rejected);
            }
            cell.when_lost(Box::new(move || seen.store(true, Ordering::Relaxed)));
            assert_eq!(done.load(Ordering::Relaxed), is_lost_before);
            cell.lose(LostReason::Rejected);
            assert!(done.load(Ordering::Relaxed));
        }
        let released = cell(Duration::from_secs(10));
        released.when_lost(Box::new(|| panic!("the lease was released, not lost")));
        assert!(released.release());
        released.lose(LostReason::Shutdown);
    }

    #[test]
    fn a_token_of_two_leases_is_cancelled_with_either() {
        for (lost, before) in [(0, false), (1, false), (0, true), (1, true)] {
            let cells = [cell(Duration::from_secs(10)), cell(Duration::from_secs(10))];
            if before {
                cells[lost].lose(LostReason::Rejected);
            }
            let token = cells[0].cancellation_token_with(&cells[1]);
            assert_eq!(token.is_cancelled(), before);
            cells[lost].lose(LostReason::Rejected);
            assert!(token.is_cancelled() && cells[0].cancellation_token_with(&cells[1]).is_cancelled());
        }
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
        // A server may give up a connection over which it has received nothing for 8 s.
        assert_eq!(long.state_at(after(7)), LeaseState::Held);
        assert_eq!(long.remaining_at(after(8)), Duration::ZERO);
        long.note_open_connection(after(15).suspended);
        assert_eq!((left(&long, 14), left(&long, 15)), (586.0, 0.0));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_lease_is_known_before_and_after_it() {
        let cell = cell(Duration::from_secs(10));
        let end = Instant::now() + Duration::from_secs(10);
        assert_eq!(cell.ends_at(Moment::now()), end);
        tokio::time::advance(Duration::from_secs(15)).await;
        assert_eq!(cell.ends_at(Moment::now()), end);
        let mut now = Moment::now();
        now.suspended += Duration::from_secs(3);
        assert_eq!(cell.ends_at(now), end - Duration::from_secs(3));
        let fresh = self::cell(Duration::from_secs(600));
        now.suspended += Duration::from_secs(60);
        let since = Duration::from_secs(63 - 8);
        assert_eq!(
            fresh.ends_at(now),
            now.at - since,
            "a suspend of 8 s ends the lease, and 55 s of suspend came after that"
        );
    }

    #[test]
    fn a_renewal_after_a_suspend_counts_from_its_own_time() {
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
