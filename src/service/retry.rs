//! Retries requests that may succeed later.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, Sleep, sleep};
use tower::retry::Policy;

use super::request::{Operation, Request, Response};
use crate::error::{Error, ErrorKind, Result};
use crate::human::{as_text, human, optional_as_text};
use crate::net::backoff::below;
use crate::types::Kind;

/// Decides which requests are retried after an error, when, and how often.
///
/// It applies to [retryable](Error::is_retryable) errors, such as a lost connection, or a server that is full, shuts
/// down or is not the leader. A client [takes one policy](crate::ClientBuilder::retry) for all its requests, including
/// those of the handles. It is also a [`Policy`] of tower, for a [`RetryLayer`](tower::retry::RetryLayer) among other
/// layers, or around a [`Client`](crate::Client) that is used as a service.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), dflockd_client::Error> {
/// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
/// # let address = server.local_addr().to_string();
/// use std::time::Duration;
///
/// use dflockd_client::{Client, RetryPolicy};
///
/// let policy = RetryPolicy::default()
///     .max_attempts(10)
///     .pauses(Duration::from_millis(20), Duration::from_secs(1));
/// let client = Client::builder().servers([address]).retry(policy).connect().await?;
/// # client.lock("orders/42")?.acquire().await?.release().await
/// # }
/// ```
///
/// **Retries do not extend the time of a request.** An acquire that may wait for ten seconds waits for ten seconds in
/// total, including pauses and further attempts: each attempt gets the time that is left. If no time would be left, the
/// policy makes no further attempt. So an acquire whose key is held for the whole time ends with
/// [`Timeout`](ErrorKind::Timeout), as it does without a policy. For requests that do not wait, such as a try, the
/// limits are [`max_elapsed`](Self::max_elapsed) and, within a client, its [request
/// timeout](crate::ClientBuilder::request_timeout). Around a client, the request timeout applies to each attempt; set
/// `max_elapsed` there.
///
/// **Retried requests**: acquires, tries and enqueues, because the caller holds nothing after an error; `stats`,
/// barriers and subscriptions.
///
/// **Requests that are not retried**, because a retry could do harm or is impossible: acquires of a semaphore after an
/// error that may hide a grant, which are [`Disconnected`](ErrorKind::Disconnected),
/// [`NotLeader`](ErrorKind::NotLeader) and [`ShardGone`](ErrorKind::ShardGone); releases, because the client repeats
/// them itself; waits at a queue position, because an error ends the position; signals, because a server may have
/// delivered them; failbacks, because all clients must make them at the same time.
///
/// If the answer to an acquire is lost, the server keeps the grant until it notices the end of the connection, or until
/// the TTL is over. A lock has only one grant, so the next attempt waits for its end. With a semaphore, each attempt
/// could take another slot.
///
/// A policy is serialized as a map of `max_attempts`, `max_elapsed`, `first_pause` and `longest_pause`, where durations
/// are texts with units. Missing entries have their defaults.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryPolicy {
    max_attempts: u32,
    #[serde(with = "optional_as_text", skip_serializing_if = "Option::is_none")]
    max_elapsed: Option<Duration>,
    #[serde(with = "as_text")]
    first_pause: Duration,
    #[serde(with = "as_text")]
    longest_pause: Duration,
    /// The limit for requests that do not wait. A client sets it.
    #[serde(skip)]
    request_timeout: Option<Duration>,
    /// The request that this clone of the policy is for.
    #[serde(skip)]
    call: Option<Call>,
}

/// The minimum of `first_pause`. Without a pause, the client would repeat a refused request as fast as the server
/// answers.
const SHORTEST: Duration = Duration::from_millis(1);

/// The state of a request under way.
#[derive(Clone, Copy, PartialEq)]
struct Call {
    began: Instant,
    /// The total time that it may wait.
    wait: Duration,
    attempts: u32,
}

/// Returns a policy of five attempts. The first pause lasts 50 to 100 ms, and pauses double up to 2.5 to 5 s.
impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 5,
            max_elapsed: None,
            first_pause: Duration::from_millis(50),
            longest_pause: Duration::from_secs(5),
            request_timeout: None,
            call: None,
        }
    }
}

impl RetryPolicy {
    /// Sets the maximum number of attempts, including the first. 0 counts as 1, which means no retries. Default: 5.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// Sets after which time no further attempt starts, counted from the start of the first attempt. Default: only the
    /// request's own time limits the attempts.
    #[must_use]
    pub fn max_elapsed(mut self, elapsed: Duration) -> Self {
        self.max_elapsed = Some(elapsed);
        self
    }

    /// Sets the pauses between attempts. The first lasts between `first` and twice `first`, and each further one twice
    /// as long, until the longest pauses, which last between half of `longest` and `longest`. The length within each
    /// range is random. A `longest` below `first` counts as `first`, and no pause is shorter than half a millisecond.
    /// Default: 50 ms and 5 s.
    #[must_use]
    pub fn pauses(mut self, first: Duration, longest: Duration) -> Self {
        (self.first_pause, self.longest_pause) = (first, longest);
        self
    }

    /// Returns the policy with this limit for requests that do not wait.
    pub(crate) fn within(mut self, request_timeout: Duration) -> Self {
        self.request_timeout = Some(request_timeout);
        self
    }

    /// Returns the pause after `attempts` attempts. `random` is in [0, 1).
    fn pause(&self, attempts: u32, random: f64) -> Duration {
        let first = self.first_pause.max(SHORTEST);
        let bound = first.saturating_mul(2_u32.saturating_pow(attempts));
        below(bound.min(self.longest_pause.max(first)), random)
    }

    /// Returns the pause before the next attempt, and how long that attempt may wait. Returns `None` if there is no
    /// further attempt.
    fn next(&self, call: Call, now: Instant, random: f64) -> Option<(Duration, Duration)> {
        if call.attempts >= self.max_attempts {
            return None;
        }
        let pause = self.pause(call.attempts, random);
        let elapsed = now.saturating_duration_since(call.began).saturating_add(pause);
        let is_too_late = |limit: Option<Duration>| limit.is_some_and(|limit| elapsed >= limit);
        let left = call.wait.saturating_sub(elapsed);
        let is_over = match call.wait.is_zero() {
            true => is_too_late(self.request_timeout),
            false => left.is_zero(),
        };
        (!is_over && !is_too_late(self.max_elapsed)).then_some((pause, left))
    }
}

impl Policy<Request, Response, Error> for RetryPolicy {
    type Future = Sleep;

    fn retry(&mut self, request: &mut Request, result: &mut Result<Response>) -> Option<Sleep> {
        let error = result.as_ref().err()?;
        let operation = request.operation();
        if !(error.is_retryable() && is_safe(request, error)) {
            return None;
        }
        let mut call = self.call?;
        call.attempts = call.attempts.saturating_add(1);
        self.call = Some(call);
        let (pause, left) = self.next(call, Instant::now(), fastrand::f64())?;
        request.spend(request.wait().saturating_sub(left));
        let (attempts, retry_in) = (call.attempts, human(pause));
        tracing::debug!(%operation, attempts, %retry_in, error = %error.chain(), "a request is repeated after an error");
        Some(sleep(pause))
    }

    fn clone_request(&mut self, request: &Request) -> Option<Request> {
        // The policy that all requests share never counts attempts. So if this policy has counted no attempts,
        // `request` is not a repetition.
        if self.call.is_none_or(|call| call.attempts == 0) {
            self.call = Some(Call {
                began: Instant::now(),
                wait: request.wait(),
                attempts: 0,
            });
        }
        request.try_clone()
    }
}

/// Returns whether a retry after this error is harmless.
fn is_safe(request: &Request, error: &Error) -> bool {
    let may_be_granted = matches!(
        error.kind(),
        ErrorKind::Disconnected | ErrorKind::NotLeader | ErrorKind::ShardGone
    );
    match request.operation() {
        Operation::Acquire | Operation::TryAcquire | Operation::Enqueue => {
            request.kind() == Some(Kind::Lock) || !may_be_granted
        }
        Operation::Stats | Operation::Barrier | Operation::Subscribe => true,
        Operation::Collect | Operation::Release | Operation::Emit | Operation::Failback => false,
    }
}

/// Describes the policy in words.
impl fmt::Display for RetryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.max_attempts <= 1 {
            return f.write_str("off");
        }
        write!(f, "{} attempts", self.max_attempts)?;
        if let Some(elapsed) = self.max_elapsed {
            write!(f, " within {elapsed:?}")?;
        }
        write!(f, ", pauses of {:?} to {:?}", self.first_pause, self.longest_pause)
    }
}

impl fmt::Debug for RetryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryPolicy")
            .field("max_attempts", &self.max_attempts)
            .field("max_elapsed", &self.max_elapsed)
            .field("first_pause", &self.first_pause)
            .field("longest_pause", &self.longest_pause)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Channel, Payload};
    use crate::service::AcquireRequest;
    use crate::types::{Key, Limit, Target};

    const SECOND: Duration = Duration::from_secs(1);

    fn acquire(wait: Duration) -> Request {
        Request::Acquire(AcquireRequest::new(Target::Lock, Key::new("k").unwrap()).acquire_timeout(wait))
    }

    fn failed(kind: ErrorKind) -> Result<Response> {
        Err(Error::new(kind, ""))
    }

    /// Makes a request that fails at once each time. Returns the number of attempts, the total time, and how long the
    /// last attempt may wait.
    async fn fails(policy: &RetryPolicy, request: Request, kind: ErrorKind) -> (u32, Duration, Duration) {
        let mut shared = policy.clone();
        let kept = shared.clone_request(&request);
        let (mut policy, mut attempts, began) = (shared.clone(), 1, Instant::now());
        let Some(mut request) = kept else {
            return (attempts, Duration::ZERO, request.wait());
        };
        while let Some(pause) = policy.retry(&mut request, &mut failed(kind)) {
            pause.await;
            request = policy.clone_request(&request).unwrap();
            attempts += 1;
        }
        (attempts, began.elapsed(), request.wait())
    }

    #[tokio::test(start_paused = true)]
    async fn the_given_number_of_attempts_is_made_with_growing_pauses() {
        let policy = RetryPolicy::default();
        let (attempts, took, _) = fails(&policy, acquire(60 * SECOND), ErrorKind::MaxLocks).await;
        assert_eq!(attempts, 5);
        let ms = Duration::from_millis;
        assert!(
            took >= ms(50 + 100 + 200 + 400) && took <= ms(100 + 200 + 400 + 800 + 4),
            "{took:?}"
        );
        for attempts in [0, 1] {
            let policy = RetryPolicy::default().max_attempts(attempts);
            assert_eq!(fails(&policy, acquire(SECOND), ErrorKind::MaxLocks).await.0, 1);
        }
        for attempts in 1..200 {
            let policy = RetryPolicy::default().pauses(ms(10), SECOND);
            let (least, most) = (policy.pause(attempts, 0.999), policy.pause(attempts, 0.0));
            assert!(
                least >= ms(10) && most <= SECOND && most <= 2 * least,
                "{attempts}: {least:?} {most:?}"
            );
        }
        assert_eq!(RetryPolicy::default().pauses(SECOND, ms(1)).pause(9, 0.0), SECOND);
        let none = RetryPolicy::default().pauses(Duration::ZERO, Duration::ZERO);
        assert!(
            none.pause(1, 0.0) >= ms(1),
            "a server is not asked as fast as it answers"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn retries_do_not_exceed_the_time_of_the_request() {
        let policy = RetryPolicy::default().max_attempts(u32::MAX).pauses(SECOND, SECOND);
        let (attempts, took, left) = fails(&policy, acquire(10 * SECOND), ErrorKind::MaxLocks).await;
        assert!(took < 10 * SECOND && attempts >= 10, "{attempts} {took:?}");
        assert!(
            left + took <= 10 * SECOND + Duration::from_millis(50) && !left.is_zero(),
            "{left:?} {took:?}"
        );
        // A request that does not wait ends with the request timeout, or with the set limit.
        let of_client = policy.clone().within(5 * SECOND);
        let (_, took, left) = fails(&of_client, acquire(Duration::ZERO), ErrorKind::MaxLocks).await;
        assert!(took < 5 * SECOND && left.is_zero(), "{took:?}");
        let (_, took, _) = fails(
            &policy.max_elapsed(3 * SECOND),
            acquire(60 * SECOND),
            ErrorKind::MaxLocks,
        )
        .await;
        assert!(took < 3 * SECOND, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn each_request_has_the_whole_policy_to_itself() {
        let mut shared = RetryPolicy::default().max_attempts(u32::MAX).pauses(SECOND, SECOND);
        for _ in 0..3 {
            let request = acquire(10 * SECOND);
            assert!(shared.clone_request(&request).is_some());
            tokio::time::sleep(8 * SECOND).await;
        }
        let (attempts, _, _) = fails(&shared, acquire(10 * SECOND), ErrorKind::MaxLocks).await;
        assert!(attempts >= 10, "{attempts}");
    }

    #[tokio::test(start_paused = true)]
    async fn only_safe_requests_are_repeated_and_only_after_retryable_errors() {
        let again = async |policy: &RetryPolicy, request: Request, kind| fails(policy, request, kind).await.0 > 1;
        let policy = RetryPolicy::default();
        for kind in ErrorKind::ALL {
            let retryable = Error::new(kind, "").is_retryable();
            assert_eq!(again(&policy, acquire(60 * SECOND), kind).await, retryable, "{kind:?}");
        }
        // A server may have granted a slot, so each attempt could take another one.
        let slots = Target::Semaphore(Limit::new(3).unwrap());
        for wait in [60 * SECOND, Duration::ZERO] {
            let slot = || Request::Acquire(AcquireRequest::new(slots, Key::new("k").unwrap()).acquire_timeout(wait));
            for kind in [ErrorKind::Disconnected, ErrorKind::NotLeader, ErrorKind::ShardGone] {
                assert!(!again(&policy, slot(), kind).await, "{kind:?}");
                assert!(again(&policy, acquire(wait), kind).await, "{kind:?}");
            }
            assert!(again(&policy, slot(), ErrorKind::Draining).await);
        }
        assert!(again(&policy, Request::Stats { shard: 0 }, ErrorKind::Disconnected).await);
        assert!(!again(&policy, Request::Failback { shard: 0 }, ErrorKind::Connect).await);
        let channel = Channel::new("a").unwrap();
        let payload = Payload::new(&channel, "b").unwrap();
        assert!(!again(&policy, Request::Emit { channel, payload }, ErrorKind::Unavailable).await);
    }

    #[test]
    fn a_policy_is_shown_in_words_and_read_as_it_was_written() {
        let policy = RetryPolicy::default().max_elapsed(90 * SECOND);
        assert_eq!(policy.to_string(), "5 attempts within 90s, pauses of 50ms to 5s");
        assert_eq!(policy.clone().max_attempts(1).to_string(), "off");
        let text = serde_json::to_string(&policy).unwrap();
        let written = r#"{"max_attempts":5,"max_elapsed":"90s","first_pause":"50ms","longest_pause":"5s"}"#;
        assert_eq!(text, written);
        assert_eq!(serde_json::from_str::<RetryPolicy>(&text).unwrap(), policy);
        assert!(serde_json::from_str::<RetryPolicy>(r#"{"first_pause": 5}"#).is_err());
    }
}
