//! Several slots of one semaphore.
//!
//! Servers grant one slot at a time. Two callers that take several slots each could both hold a part of the slots and
//! wait for the rest for ever. So a caller that takes several slots first acquires a lock, its turn. Every client
//! derives the key of this lock from the key of the semaphore in the same way. The turn ends when the caller has all
//! slots, or fails.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Budget, Error, ErrorKind, Result};
use crate::handle::guard::SemaphorePermit;
use crate::handle::multi_guard::SemaphorePermits;
use crate::handle::terms::Handle;
use crate::human::human;
use crate::lease::state::LostReason;
use crate::service::Lease;
use crate::types::{Key, MAX_KEY_BYTES, Target};

/// How many slots are requested at once. It is the default of `exclusive_connections_per_key`.
const ASKED_AT_ONCE: usize = 16;

/// The prefix of the keys of turns.
const PREFIX: &str = "dflockd-client-many";

/// Acquires `slots` slots, waiting until `until`. `None` means no wait.
pub(crate) async fn take(handle: &Handle, slots: u32, until: Option<Instant>) -> Result<Taken> {
    check(handle, slots)?;
    if let Some(passed) = until.filter(|until| *until <= Instant::now()) {
        // Sends nothing, and the error names the semaphore's key, not that of the turn.
        return handle.acquire_until(passed).await.map(|_| Taken::TooFew);
    }
    if slots == 1 {
        // The acquire of a single slot is atomic and needs no turn.
        return gather(handle, slots, until).await;
    }
    let turn = handle.turn(turn_key(&handle.key)?);
    let turn = match until {
        Some(until) => {
            let wait = until.saturating_duration_since(Instant::now());
            let turn = turn.acquire_until(until).await;
            turn.map_err(|error| no_turn(error, &handle.key, slots, wait))?
        }
        None => {
            let tried = turn.try_acquire().await;
            match tried.map_err(|error| no_turn(error, &handle.key, slots, Duration::ZERO))? {
                Some(turn) => turn,
                None => return Ok(Taken::NotItsTurn),
            }
        }
    };
    let handle = handle.clone().while_holding(true);
    let gathered = tokio::select! {
        biased;
        reason = turn.lost() => Err(turn_lost(&handle.key, reason)),
        gathered = gather(&handle, slots, until) => gathered,
    };
    // Dropping the turn sends its release. The caller does not wait for the answer.
    drop(turn);
    gathered
}

fn check(handle: &Handle, slots: u32) -> Result<()> {
    let limit = match handle.target {
        Target::Semaphore(limit) => limit.get(),
        Target::Lock => 1,
    };
    if (1..=limit).contains(&slots) {
        return Ok(());
    }
    let remedy = format!(
        "give 1 to {limit}, which is the limit of the semaphore {:?}",
        handle.key
    );
    Err(Error::invalid("number of slots", slots, &remedy))
}

/// Returns the key of the turn: the prefix, a checksum, which distinguishes long keys, and as much of the semaphore's
/// key as fits. If two semaphores had the same turn, callers of one would also wait for callers of the other.
fn turn_key(key: &Key) -> Result<Key> {
    let key = key.as_str();
    let mut text = format!("{PREFIX}/{:08x}/", crc32fast::hash(key.as_bytes()));
    let mut end = key.len().min(MAX_KEY_BYTES - text.len());
    while !key.is_char_boundary(end) {
        end -= 1;
    }
    text.push_str(&key[..end]);
    Key::new(text)
}

/// The result of an acquire of several slots.
pub(crate) enum Taken {
    All(SemaphorePermits),
    /// A server reported that one of the slots is not free.
    TooFew,
    /// A server reported that another caller has the turn. It is not known how many slots are free.
    NotItsTurn,
}

impl Taken {
    /// Returns the slots if the caller got all of them.
    pub(crate) fn all(self) -> Option<SemaphorePermits> {
        match self {
            Self::All(permits) => Some(permits),
            Self::TooFew | Self::NotItsTurn => None,
        }
    }

    /// Returns the slots, or the error of an acquire that had no time to wait.
    pub(crate) fn or_busy(self, key: &Key, slots: u32) -> Result<SemaphorePermits> {
        let message = match self {
            Self::All(permits) => return Ok(permits),
            Self::TooFew => {
                format!("fewer than {slots} slots of {key:?} are free, and there was no time to wait for more")
            }
            Self::NotItsTurn => {
                format!("another caller takes several slots of {key:?}, and there was no time to wait for the turn")
            }
        };
        Err(Error::new(ErrorKind::Timeout, message).out_of(Budget::Wait(Duration::ZERO)))
    }
}

/// Converts an error about the turn into one about the semaphore, because the caller knows only the semaphore's key.
fn no_turn(error: Error, key: &Key, slots: u32, wait: Duration) -> Error {
    let message = match error.says_that_it_is_held() {
        true => format!(
            "{slots} slots of {key:?} were not granted within {}: the turn of callers that take several of them was not free",
            human(wait)
        ),
        false => format!(
            "{slots} slots of {key:?} were not asked for, since the turn of callers that take several of them was not granted: {}",
            error.message()
        ),
    };
    error.saying(message)
}

fn turn_lost(key: &Key, reason: LostReason) -> Error {
    let message =
        format!("the turn of callers that take several slots of {key:?} was lost before all were granted: {reason}");
    // The same call may succeed later.
    Error::new(ErrorKind::LeaseLost, message).retryable()
}

type Asked<'a> = Pin<Box<dyn Future<Output = Result<Option<Lease>>> + Send + 'a>>;

/// Acquires all slots, a few at a time. If one is not granted, releases those that were granted.
async fn gather(handle: &Handle, slots: u32, until: Option<Instant>) -> Result<Taken> {
    let terms = handle.renew_terms()?;
    // Until all slots are granted, the client renews the slots that it has, regardless of the handle's policy.
    let handle = &match slots {
        1 => handle.clone(),
        _ => handle.clone().renewed_while_held(),
    };
    let mut held = SemaphorePermits::empty();
    let loss = held.cancellation_token();
    let mut asked: Vec<Asked<'_>> = Vec::new();
    for taken in 0..slots {
        let unasked = usize::try_from(slots - taken).unwrap_or(usize::MAX) - asked.len();
        asked.extend((0..unasked.min(ASKED_AT_ONCE - asked.len())).map(|_| ask(handle, until)));
        tokio::select! {
            biased;
            // One of the slots is lost. The check returns the error.
            () = loss.cancelled() => return held.check().map(|_| Taken::TooFew),
            slot = first_answer(&mut asked) => match slot? {
                Some(slot) => held.push(SemaphorePermit::new(slot)),
                None => return Ok(Taken::TooFew),
            },
        }
    }
    if slots > 1 {
        held.renew_on(terms);
    }
    held.check().map(Taken::All)
}

fn ask(handle: &Handle, until: Option<Instant>) -> Asked<'_> {
    Box::pin(async move {
        match until {
            Some(until) => handle.acquire_until(until).await.map(Some),
            None => handle.try_acquire().await,
        }
    })
}

/// Returns the first answer. The remaining requests continue.
async fn first_answer(asked: &mut Vec<Asked<'_>>) -> Result<Option<Lease>> {
    poll_fn(|cx| {
        for index in 0..asked.len() {
            if let Poll::Ready(answer) = asked[index].as_mut().poll(cx) {
                drop(asked.swap_remove(index));
                return Poll::Ready(answer);
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_turn_lock_of_any_semaphore_has_a_valid_key() {
        let key = |text: &str| Key::new(text).unwrap();
        let turn = turn_key(&key("workers")).unwrap();
        assert_eq!(turn.as_str(), "dflockd-client-many/b82d7dc0/workers");
        let longest = "é".repeat(128);
        let turn = turn_key(&key(&longest)).unwrap();
        assert!(turn.as_str().len() <= MAX_KEY_BYTES && turn.as_str().len() > MAX_KEY_BYTES - 2);
        // Long keys with different ends have different turns.
        let other = format!("{}e{}", "é".repeat(126), "é");
        assert_ne!(turn, turn_key(&key(&other)).unwrap());
    }
}
