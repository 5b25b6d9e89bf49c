//! The events of a client, for threads.

use std::time::Duration;

use super::process::Ours;
use super::runtime::block_on;
use crate::error::Result;
use crate::events::{self, ClientEvent};

/// The events of a client since the call of [`Client::events`](super::Client::events); see [`crate::Events`].
#[derive(Debug)]
pub struct Events(Ours<events::Events>);

impl Events {
    pub(super) fn new(events: events::Events) -> Self {
        Self(Ours::new(events))
    }

    /// Waits for the next event. Returns `None` when the client has ended and you have taken all events.
    ///
    /// # Errors
    ///
    /// [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block.
    pub fn next_event(&mut self) -> Result<Option<ClientEvent>> {
        let events = &mut self.0;
        block_on(|| events.next_event())
    }

    /// Waits for the next event, for up to `timeout`. Returns `None` if no event came in that time, or if the client
    /// has ended.
    ///
    /// # Errors
    ///
    /// [`Misuse`](crate::ErrorKind::Misuse) on a thread that must not block.
    pub fn next_within(&mut self, timeout: Duration) -> Result<Option<ClientEvent>> {
        let events = &mut self.0;
        block_on(|| tokio::time::timeout(timeout, events.next_event())).map(|next| next.ok().flatten())
    }
}
