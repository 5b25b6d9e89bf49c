//! The stream of events.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{self, Receiver};
use tokio_util::sync::ReusableBoxFuture;

use super::event::ClientEvent;
#[cfg(feature = "blocking")]
use crate::take::Take;

/// A stream of a client's events since the call of [`Client::events`](crate::Client::events). It ends with the client:
/// when all its clones, handles and leases are dropped and its connections are closed.
///
/// It keeps the last 1024 events for a slow reader. Older events are dropped and replaced by
/// [`Missed`](ClientEvent::Missed) with their number.
#[must_use = "a stream does nothing unless it is read"]
pub struct Events {
    /// `None` once it has ended.
    next: Option<ReusableBoxFuture<'static, Received>>,
}

impl Events {
    pub(super) fn new(receiver: broadcast::Receiver<ClientEvent>) -> Self {
        Self {
            next: Some(ReusableBoxFuture::new(receive(receiver))),
        }
    }

    /// Waits for the next event; returns `None` when the client has ended and all events were taken.
    ///
    /// # Cancel safety
    ///
    /// Safe: no event is lost.
    pub async fn next_event(&mut self) -> Option<ClientEvent> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

/// A received event, and the receiver of the next.
type Received = (Result<ClientEvent, RecvError>, Receiver<ClientEvent>);

async fn receive(mut receiver: Receiver<ClientEvent>) -> Received {
    let received = receiver.recv().await;
    (received, receiver)
}

impl Stream for Events {
    type Item = ClientEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ClientEvent>> {
        let Some(next) = &mut self.next else {
            return Poll::Ready(None);
        };
        let (received, receiver) = ready!(next.poll(cx));
        let event = match received {
            Ok(event) => event,
            Err(RecvError::Lagged(count)) => ClientEvent::Missed { count },
            Err(RecvError::Closed) => {
                self.next = None;
                return Poll::Ready(None);
            }
        };
        next.set(receive(receiver));
        Poll::Ready(Some(event))
    }
}

/// Moves the stream out. The value that remains is a stream that has ended.
#[cfg(feature = "blocking")]
impl Take for Events {
    fn take(&mut self) -> Self {
        Self { next: self.next.take() }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}
