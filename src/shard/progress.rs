//! The progress of an acquire that is under way. The shard writes the progress. If the acquire times out, its error
//! shows the progress.
//!
//! An error must not say more than the client knows. Only a server knows that a key is held, so the server's answer
//! ([`Refusal`]) goes with the acquire. [`Progress`] records what the acquire waits for.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Budget, Error, ErrorKind};
use crate::types::{Key, Target};

/// What an acquire waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitsFor {
    /// A user's layer: the acquire has not reached the innermost service (`service::dispatch`) yet, or the shard has
    /// answered it already.
    Layers,
    /// A connection of its own: all the connections that the limits allow are in use, or another caller of its key is
    /// the next to get one. `ahead` other waits came before it.
    Connection { ahead: u32 },
    /// A connection of its own: no attempt to open one has succeeded so far.
    Opening,
    /// A connection of its own: the server accepts no more connections.
    Full,
    /// The server's answer.
    Answer,
    /// Its turn: the server blocks the request until the key is free.
    Turn,
}

impl WaitsFor {
    /// The number of bits that hold the number of waits.
    const AHEAD: u32 = 32;

    fn to_bits(self) -> u64 {
        let (stage, ahead) = match self {
            Self::Layers => (0, 0),
            Self::Connection { ahead } => (1, ahead),
            Self::Opening => (2, 0),
            Self::Answer => (3, 0),
            Self::Turn => (4, 0),
            Self::Full => (5, 0),
        };
        stage << Self::AHEAD | u64::from(ahead)
    }

    fn from_bits(bits: u64) -> Self {
        match bits >> Self::AHEAD {
            1 => Self::Connection { ahead: bits as u32 },
            2 => Self::Opening,
            3 => Self::Answer,
            4 => Self::Turn,
            5 => Self::Full,
            _ => Self::Layers,
        }
    }
}

/// Writes the end of a message that has already said that the key was not granted. Writes nothing if the acquire waited
/// only for the key.
impl fmt::Display for WaitsFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection { ahead } => write!(
                f,
                "no connection was free for this wait (other waits before it: {ahead}; see exclusive_connections and \
                 exclusive_connections_per_key)"
            ),
            Self::Opening => f.write_str("no connection for this wait could be established in time"),
            Self::Full => f.write_str(
                "the server takes no more connections (usually because of its --max-connections), so this wait had no place in the \
                 server's queue",
            ),
            Self::Layers | Self::Answer | Self::Turn => Ok(()),
        }
    }
}

/// What one acquire waits for now. Clones share the value.
#[derive(Clone, Default)]
pub(crate) struct Progress(Arc<AtomicU64>);

impl Progress {
    /// Notes what the acquire waits for from now on.
    pub(crate) fn waits_for(&self, what: WaitsFor) {
        self.0.store(what.to_bits(), Ordering::Release);
    }

    /// Returns what the acquire waits for.
    pub(crate) fn get(&self) -> WaitsFor {
        WaitsFor::from_bits(self.0.load(Ordering::Acquire))
    }
}

/// All values are equal, so that progress does not count when two requests are compared.
impl PartialEq for Progress {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Progress {}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.get(), f)
    }
}

/// A server's answer that a key is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// When the answer came.
    pub(crate) at: Instant,
    /// How many leases on the key this client held then.
    pub(crate) own: u32,
}

/// If a server answers that a key is held, the answer also counts for other callers for this time. The shard skips their
/// own tries during this time.
const FRESH: Duration = Duration::from_millis(100);

/// Whether a server's answer from `at` is recent enough to count for other callers.
pub(crate) fn is_fresh(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < FRESH
}

impl Refusal {
    /// Returns the error of an acquire that was not granted in time.
    pub(crate) fn not_granted(self, target: Target, key: &Key, wait: Duration, waits_for: WaitsFor) -> Error {
        let budget = Budget::Wait(wait);
        let what = match target {
            Target::Lock => format!("{key:?} was not granted within {budget}"),
            Target::Semaphore(_) => format!("no slot of {key:?} was granted within {budget}"),
        };
        let holder = match (target, self.own) {
            (Target::Lock, 0) => "another holder has it".to_owned(),
            (Target::Lock, _) => "this client itself held it, and locks are not reentrant".to_owned(),
            (Target::Semaphore(_), 0) => "all slots are taken".to_owned(),
            (Target::Semaphore(limit), own) => format!(
                "all slots are taken, {own} of the {limit} by this client itself",
                limit = limit.get()
            ),
        };
        let and = match waits_for {
            WaitsFor::Connection { .. } | WaitsFor::Opening | WaitsFor::Full => format!("; {waits_for}"),
            WaitsFor::Layers | WaitsFor::Answer | WaitsFor::Turn => String::new(),
        };
        Error::new(ErrorKind::Timeout, format!("{what}: {holder}{and}")).out_of(budget)
    }

    /// Returns the error of a wait at a queue position whose turn did not come in time.
    pub(crate) fn not_its_turn(self, target: Target, key: &Key, wait: Duration) -> Error {
        let budget = Budget::Wait(wait);
        let what = match wait.is_zero() {
            true => format!("the turn of {key:?} has not come"),
            false => format!("the turn of {key:?} did not come within {budget}"),
        };
        let holder = match (target, self.own) {
            (Target::Lock, 0) => "another holder had it when the caller enqueued".to_owned(),
            (Target::Lock, _) => "this client itself held it, and locks are not reentrant".to_owned(),
            (Target::Semaphore(_), 0) => "all slots were taken when the caller enqueued".to_owned(),
            (Target::Semaphore(limit), own) => format!(
                "all slots were taken when the caller enqueued, {own} of the {limit} by this client itself",
                limit = limit.get()
            ),
        };
        Error::new(ErrorKind::Timeout, format!("{what}: {holder}")).out_of(budget)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Limit;

    const SECOND: Duration = Duration::from_secs(1);

    fn refusal(own: u32) -> Refusal {
        Refusal {
            at: Instant::now(),
            own,
        }
    }

    fn key() -> Key {
        Key::new("k").unwrap()
    }

    #[test]
    fn progress_is_read_as_it_was_written() {
        let progress = Progress::default();
        assert_eq!(progress.get(), WaitsFor::Layers);
        for what in [
            WaitsFor::Connection { ahead: 0 },
            WaitsFor::Connection { ahead: u32::MAX },
            WaitsFor::Opening,
            WaitsFor::Full,
            WaitsFor::Answer,
            WaitsFor::Turn,
            WaitsFor::Layers,
        ] {
            progress.clone().waits_for(what);
            assert_eq!(progress.get(), what);
        }
    }

    #[test]
    fn the_error_names_the_holder_as_far_as_it_is_known() {
        let slots = Target::Semaphore(Limit::new(3).unwrap());
        for (target, own, said) in [
            (
                Target::Lock,
                0,
                "\"k\" was not granted within 1s: another holder has it",
            ),
            (
                Target::Lock,
                1,
                "\"k\" was not granted within 1s: this client itself held it, and locks are not reentrant",
            ),
            (slots, 0, "no slot of \"k\" was granted within 1s: all slots are taken"),
            (
                slots,
                2,
                "no slot of \"k\" was granted within 1s: all slots are taken, 2 of the 3 by this client itself",
            ),
        ] {
            let error = refusal(own).not_granted(target, &key(), SECOND, WaitsFor::Turn);
            assert_eq!(error.to_string(), said);
            assert_eq!(
                (error.kind(), error.budget()),
                (ErrorKind::Timeout, Some(Budget::Wait(SECOND)))
            );
        }
    }

    #[test]
    fn the_error_of_a_wait_without_a_connection_says_so() {
        let waits_for = WaitsFor::Connection { ahead: 7 };
        let error = refusal(0).not_granted(Target::Lock, &key(), SECOND, waits_for);
        let text = error.to_string();
        assert!(text.contains("another holder has it; no connection was free"), "{text}");
        assert!(
            text.contains("(other waits before it: 7; see exclusive_connections"),
            "{text}"
        );
        let error = refusal(0).not_granted(Target::Lock, &key(), SECOND, WaitsFor::Opening);
        assert!(error.to_string().ends_with("could be established in time"), "{error}");
        let error = refusal(0).not_granted(Target::Lock, &key(), SECOND, WaitsFor::Full);
        let text = error.to_string();
        assert!(
            text.contains("another holder has it; the server takes no more connections"),
            "{text}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_of_a_server_expires() {
        let at = Instant::now();
        assert!(is_fresh(at, Instant::now()));
        tokio::time::advance(FRESH).await;
        assert!(!is_fresh(at, Instant::now()));
    }
}
