//! Distributes events.

use std::fmt;
use std::sync::{Arc, OnceLock};

use tokio::sync::broadcast;

use super::event::ClientEvent;
use super::stream::Events;
use crate::unwind::catch;

/// The maximum number of events that a stream keeps for a slow reader.
const KEPT: usize = 1024;

/// A callback of the user for each event.
pub(crate) type Callback = Arc<dyn Fn(&ClientEvent) + Send + Sync>;

/// Passes the events of one client to its callbacks and streams.
#[derive(Clone, Default)]
pub(crate) struct EventHub(Arc<Receivers>);

/// The receivers of events.
#[derive(Default)]
struct Receivers {
    callbacks: Vec<Callback>,
    /// Created with the first stream.
    streams: OnceLock<broadcast::Sender<ClientEvent>>,
}

impl EventHub {
    pub(crate) fn new(callbacks: Vec<Callback>) -> Self {
        Self(Arc::new(Receivers {
            callbacks,
            streams: OnceLock::new(),
        }))
    }

    /// Returns a stream of the events from now on.
    pub(crate) fn subscribe(&self) -> Events {
        let streams = self.0.streams.get_or_init(|| broadcast::Sender::new(KEPT));
        Events::new(streams.subscribe())
    }

    /// Returns a view for one shard.
    pub(crate) fn of_shard(&self, shard: usize) -> ShardEvents {
        ShardEvents {
            hub: self.clone(),
            shard,
        }
    }

    fn is_wanted(&self) -> bool {
        !self.0.callbacks.is_empty() || self.0.streams.get().is_some_and(|streams| streams.receiver_count() > 0)
    }

    fn tell(&self, event: ClientEvent) {
        for callback in &self.0.callbacks {
            if let Err(panic) = catch(|| callback(&event)) {
                // The log may run the user's code, too.
                drop(catch(|| tracing::error!(%panic, "a callback for events panicked")));
            }
        }
        if let Some(streams) = self.0.streams.get() {
            // Sending fails only if there is no reader.
            drop(streams.send(event));
        }
    }
}

impl fmt::Debug for EventHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventHub")
            .field("callbacks", &self.0.callbacks.len())
            .finish_non_exhaustive()
    }
}

/// Passes the events of one shard to the client's hub.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShardEvents {
    hub: EventHub,
    shard: usize,
}

impl ShardEvents {
    /// Returns whether there is any receiver.
    pub(crate) fn is_wanted(&self) -> bool {
        self.hub.is_wanted()
    }

    /// Emits an event. `event` makes it from the shard's index, only if there is a receiver.
    pub(crate) fn tell(&self, event: impl FnOnce(usize) -> ClientEvent) {
        if self.is_wanted() {
            self.hub.tell(event(self.shard));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::error::{Error, ErrorKind};

    fn gap(shard: usize) -> ClientEvent {
        let cause = Error::new(ErrorKind::Disconnected, "cut");
        ClientEvent::SignalsGap { shard, cause }
    }

    #[test]
    fn no_event_is_created_without_a_receiver() {
        let hub = EventHub::default();
        hub.of_shard(1).tell(|_| panic!("there is no receiver"));
        drop(hub.subscribe());
        hub.of_shard(1).tell(|_| panic!("there is no receiver any more"));
    }

    #[test]
    fn a_callback_that_panics_does_not_affect_the_others() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let second = Arc::clone(&told);
        let hub = EventHub::new(vec![
            Arc::new(|_| panic!("no")),
            Arc::new(move |event| second.lock().unwrap().push(format!("{event:?}"))),
        ]);
        hub.of_shard(3).tell(gap);
        assert!(told.lock().unwrap()[0].starts_with("SignalsGap { shard: 3"));
    }

    #[tokio::test]
    async fn a_stream_that_is_not_read_says_how_much_is_missing_and_ends_with_the_client() {
        let hub = EventHub::default();
        let mut events = hub.subscribe();
        for shard in 0..KEPT + 5 {
            hub.of_shard(shard).tell(gap);
        }
        assert!(matches!(
            events.next_event().await,
            Some(ClientEvent::Missed { count: 5 })
        ));
        for shard in 5..KEPT + 5 {
            let event = events.next_event().await;
            assert!(matches!(event, Some(ClientEvent::SignalsGap { shard: told, .. }) if told == shard));
        }
        drop(hub);
        assert!(events.next_event().await.is_none());
    }
}
