//! Signals between the connections that receive them and the consumer that takes them: bounded, with a policy for
//! overflow.
//!
//! The connections' tasks put signals in directly, without a mailbox in between. Every signal that was not consumed yet
//! is in this buffer, so a flood of signals can fill nothing else.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::event::SignalEvent;
use super::options::{Overflow, SignalOptions};
use crate::error::{Error, ErrorKind};
use crate::protocol::Signal;

/// The buffer of one consumer.
pub(crate) struct Buffer {
    state: Mutex<BufferState>,
    capacity: usize,
    overflow: Overflow,
}

struct BufferState {
    events: VecDeque<SignalEvent>,
    /// The number of signals among the events.
    signals: usize,
    dropped: u64,
    /// The reason for the end, if the buffer has ended.
    ended: Option<Error>,
    consumer: Option<Waker>,
}

/// The result of putting signals in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PutReport {
    /// The number of dropped signals, new or old.
    pub(crate) dropped: u64,
    /// Whether there was no room and the policy is to disconnect.
    pub(crate) overflowed: bool,
}

impl Buffer {
    pub(crate) fn new(options: &SignalOptions) -> Self {
        Self {
            state: Mutex::new(BufferState {
                events: VecDeque::new(),
                signals: 0,
                dropped: 0,
                ended: None,
                consumer: None,
            }),
            capacity: options.buffer,
            overflow: options.overflow,
        }
    }

    /// Puts signals in.
    pub(crate) fn put(&self, signals: Vec<Signal>) -> PutReport {
        let mut state = self.state();
        let before = state.dropped;
        for signal in signals {
            if state.ended.is_some() {
                break;
            }
            if state.signals < self.capacity {
                state.push(signal);
                continue;
            }
            match self.overflow {
                Overflow::DropNewest => state.drop_newest(),
                Overflow::DropOldest => {
                    state.drop_oldest();
                    state.push(signal);
                }
                Overflow::Disconnect => {
                    state.dropped += 1;
                    state.ended = Some(too_slow(self.capacity));
                }
            }
        }
        let report = PutReport {
            dropped: state.dropped - before,
            overflowed: self.overflow == Overflow::Disconnect && state.dropped > before,
        };
        wake(state);
        report
    }

    /// Reports the loss of the connection to a shard.
    pub(crate) fn lost(&self, shard: usize, cause: Error) {
        let mut state = self.state();
        // If the last `Lost` and its `Restored` are still in the buffer, with no signal after them, a second loss tells
        // the consumer nothing new. So the `Restored` is removed, and the second loss is not reported. Otherwise a
        // connection that fails again and again would fill the memory if the consumer does not take events.
        if !state.withdraw_restored(shard) {
            state.events.push_back(SignalEvent::Lost { shard, cause });
        }
        wake(state);
    }

    /// Reports that all subscriptions were made again at a shard.
    pub(crate) fn restored(&self, shard: usize) {
        let mut state = self.state();
        state.events.push_back(SignalEvent::Restored { shard });
        wake(state);
    }

    /// Ends the buffer. The consumer can still take the remaining events. An earlier reason stays.
    pub(crate) fn end(&self, why: Error) {
        let mut state = self.state();
        state.ended.get_or_insert(why);
        wake(state);
    }

    /// Returns the next event, or `None` after the last.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<SignalEvent>> {
        let mut state = self.state();
        if let Some(event) = state.events.pop_front() {
            state.signals -= usize::from(matches!(event, SignalEvent::Signal(_)));
            return Poll::Ready(Some(event));
        }
        if state.ended.is_some() {
            return Poll::Ready(None);
        }
        state.consumer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Returns the reason for the end, if the buffer has ended.
    pub(crate) fn ended(&self) -> Option<Error> {
        self.state().ended.clone()
    }

    /// Returns the number of signals that wait for the consumer.
    pub(crate) fn waiting(&self) -> usize {
        self.state().signals
    }

    /// Returns the number of dropped signals since the beginning.
    pub(crate) fn dropped(&self) -> u64 {
        self.state().dropped
    }

    fn state(&self) -> MutexGuard<'_, BufferState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes the consumer after releasing the lock.
fn wake(mut state: MutexGuard<'_, BufferState>) {
    let consumer = match state.events.is_empty() && state.ended.is_none() {
        true => None,
        false => state.consumer.take(),
    };
    drop(state);
    if let Some(consumer) = consumer {
        consumer.wake();
    }
}

impl BufferState {
    fn push(&mut self, signal: Signal) {
        self.events.push_back(SignalEvent::Signal(signal));
        self.signals += 1;
    }

    /// Drops the signal that has just arrived, and records the drop at its position.
    fn drop_newest(&mut self) {
        self.dropped += 1;
        match self.events.back_mut() {
            Some(SignalEvent::Dropped { count }) => *count += 1,
            _ => self.events.push_back(SignalEvent::Dropped { count: 1 }),
        }
    }

    /// Drops the oldest signal, and records the drop at its position.
    fn drop_oldest(&mut self) {
        let oldest = self
            .events
            .iter()
            .position(|event| matches!(event, SignalEvent::Signal(_)));
        let Some(index) = oldest else { return };
        self.dropped += 1;
        self.signals -= 1;
        let before = index.checked_sub(1).and_then(|before| self.events.get_mut(before));
        if let Some(SignalEvent::Dropped { count }) = before {
            *count += 1;
            self.events.remove(index);
        } else if let Some(event) = self.events.get_mut(index) {
            *event = SignalEvent::Dropped { count: 1 };
        }
    }

    /// Removes the last `Restored` of this shard, if the `Lost` before it is in the buffer, too, and no signal has come
    /// since that `Lost`. Returns whether it did.
    fn withdraw_restored(&mut self, shard: usize) -> bool {
        let since_the_last_signal = self
            .events
            .iter()
            .rev()
            .take_while(|event| !matches!(event, SignalEvent::Signal(_) | SignalEvent::Dropped { .. }));
        let restored = since_the_last_signal
            .take_while(|event| !matches!(event, SignalEvent::Lost { shard: other, .. } if *other == shard))
            .position(|event| matches!(event, SignalEvent::Restored { shard: other } if *other == shard));
        match restored {
            // The `Lost` before it then stands for both losses. If that `Lost` were not in the buffer, the consumer would
            // never learn of the new loss.
            Some(from_the_end) if self.is_lost_here(shard) => {
                let index = self.events.len() - 1 - from_the_end;
                self.events.remove(index);
                true
            }
            _ => false,
        }
    }

    /// Returns whether a `Lost` of this shard is in the buffer, with no signal after it.
    fn is_lost_here(&self, shard: usize) -> bool {
        self.events
            .iter()
            .rev()
            .take_while(|event| !matches!(event, SignalEvent::Signal(_) | SignalEvent::Dropped { .. }))
            .any(|event| matches!(event, SignalEvent::Lost { shard: other, .. } if *other == shard))
    }
}

fn too_slow(capacity: usize) -> Error {
    Error::new(
        ErrorKind::Disconnected,
        format!(
            "the consumer of signals was too slow: its buffer, with room for {capacity}, was full, and its policy is to disconnect"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(capacity: usize, overflow: Overflow) -> Buffer {
        Buffer::new(&SignalOptions::default().buffer(capacity).overflow(overflow))
    }

    fn signals(numbers: impl IntoIterator<Item = u32>) -> Vec<Signal> {
        let signal = |number| Signal::decode(&format!("sig c {number}")).unwrap();
        numbers.into_iter().map(signal).collect()
    }

    fn away() -> Error {
        Error::new(ErrorKind::Disconnected, "away")
    }

    /// Takes all events that are available, and returns one word for each.
    fn take(buffer: &Buffer) -> String {
        let mut words = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            words.push(match buffer.poll_next(&mut cx) {
                Poll::Pending => return words.join(" "),
                Poll::Ready(None) => "end".to_owned(),
                Poll::Ready(Some(SignalEvent::Signal(signal))) => signal.payload().to_owned(),
                Poll::Ready(Some(SignalEvent::Lost { shard, .. })) => format!("lost{shard}"),
                Poll::Ready(Some(SignalEvent::Restored { shard })) => format!("restored{shard}"),
                Poll::Ready(Some(SignalEvent::Dropped { count })) => format!("-{count}"),
            });
            if words.last().is_some_and(|word| word == "end") {
                return words.join(" ");
            }
        }
    }

    #[test]
    fn drop_newest_drops_new_signals_and_counts_them_at_their_position() {
        let buffer = buffer(3, Overflow::DropNewest);
        assert_eq!(buffer.put(signals(1..=5)).dropped, 2);
        assert_eq!(buffer.put(signals([6])).dropped, 1);
        assert_eq!((buffer.waiting(), buffer.dropped()), (3, 3));
        assert_eq!(take(&buffer), "1 2 3 -3");
        assert_eq!(buffer.put(signals([7])), PutReport::default());
        assert_eq!(take(&buffer), "7");
    }

    #[test]
    fn drop_oldest_drops_the_oldest_signals_and_counts_them_at_their_position() {
        let buffer = buffer(3, Overflow::DropOldest);
        buffer.put(signals([1]));
        buffer.lost(0, away());
        buffer.restored(0);
        assert_eq!(buffer.put(signals(2..=5)).dropped, 2);
        assert_eq!(buffer.waiting(), 3);
        assert_eq!(take(&buffer), "-1 lost0 restored0 -1 3 4 5");
        buffer.put(signals(0..100));
        assert_eq!(take(&buffer), "-97 97 98 99");
    }

    #[test]
    fn disconnect_delivers_the_buffered_signals_and_then_the_end() {
        let buffer = buffer(2, Overflow::Disconnect);
        assert_eq!(buffer.put(signals([1, 2])), PutReport::default());
        let report = buffer.put(signals([3, 4]));
        assert!(report.overflowed && report.dropped == 1, "{report:?}");
        assert_eq!(take(&buffer), "1 2 end");
        assert!(buffer.ended().unwrap().to_string().contains("too slow"));
        assert_eq!(buffer.put(signals([5])).dropped, 0, "the buffer has ended");
    }

    #[test]
    fn the_events_of_a_gap_keep_their_position() {
        let buffer = buffer(9, Overflow::DropNewest);
        buffer.put(signals([1]));
        buffer.lost(0, away());
        buffer.restored(0);
        buffer.put(signals([2]));
        buffer.lost(0, away());
        assert_eq!(take(&buffer), "1 lost0 restored0 2 lost0");
        buffer.restored(0);
        buffer.lost(0, away());
        assert_eq!(
            take(&buffer),
            "restored0 lost0",
            "the consumer had seen the loss before this one"
        );
    }

    #[test]
    fn a_connection_that_fails_again_and_again_does_not_fill_the_buffer() {
        let buffer = buffer(9, Overflow::DropNewest);
        for _ in 0..1000 {
            for shard in [0, 1] {
                buffer.lost(shard, away());
                buffer.restored(shard);
            }
        }
        buffer.lost(1, away());
        assert_eq!(take(&buffer), "lost0 lost1 restored0");
    }

    #[test]
    fn the_end_comes_last_and_the_first_reason_stays() {
        let buffer = buffer(9, Overflow::DropNewest);
        buffer.put(signals([1]));
        buffer.end(away());
        buffer.end(Error::new(ErrorKind::Shutdown, "closed"));
        buffer.put(signals([2]));
        assert_eq!(take(&buffer), "1 end");
        assert_eq!(buffer.ended().map(|error| error.kind()), Some(ErrorKind::Disconnected));
    }
}
