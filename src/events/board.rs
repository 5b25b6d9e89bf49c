//! Publishes the health of a shard, and its changes as events.

use std::sync::Arc;

use tokio::sync::watch;

use super::event::ClientEvent;
use super::hub::ShardEvents;
use crate::error::Error;
use crate::net::health::{ConnectionState, ShardHealth};

/// Publishes the health of one shard. All parts that change the health share one board.
#[derive(Clone, Debug)]
pub(crate) struct HealthBoard {
    health: watch::Sender<ShardHealth>,
    events: ShardEvents,
}

impl HealthBoard {
    pub(crate) fn new(health: ShardHealth, events: ShardEvents) -> Self {
        Self {
            health: watch::Sender::new(health),
            events,
        }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<ShardHealth> {
        self.health.subscribe()
    }

    /// Returns the current health.
    pub(crate) fn current(&self) -> ShardHealth {
        self.health.borrow().clone()
    }

    pub(crate) fn endpoint(&self) -> Arc<str> {
        Arc::clone(&self.health.borrow().endpoint)
    }

    /// Changes the health.
    pub(crate) fn change(&self, change: impl FnOnce(&mut ShardHealth)) {
        self.change_if(|health| {
            change(health);
            true
        });
    }

    /// Marks the shard as closed permanently, unless it is closed already.
    pub(crate) fn close(&self, why: &Error) {
        self.change_if(|health| health.close(why));
    }

    fn change_if(&self, change: impl FnOnce(&mut ShardHealth) -> bool) {
        let mut news = Vec::new();
        self.health.send_if_modified(|health| {
            let before = self.events.is_wanted().then(|| health.clone());
            let changed = change(health);
            news = before.map(|before| news_between(&before, health)).unwrap_or_default();
            changed
        });
        // `send_if_modified` locks the health, so no event is emitted there: callbacks are user code, which may read
        // the health.
        for event in news {
            self.events.tell(|_| event);
        }
    }
}

/// Returns the events between one state of health and the next.
fn news_between(before: &ShardHealth, now: &ShardHealth) -> Vec<ClientEvent> {
    use ConnectionState::{Closed, Connected, Connecting, Reconnecting};
    let (shard, endpoint) = (now.shard, Arc::clone(&now.endpoint));
    let mut news = Vec::new();
    match (&before.state, &now.state) {
        (Closed, _) | (_, Connecting) => {}
        (_, Closed) => news.extend(now.closed_because().map(|cause| ClientEvent::Closed {
            shard,
            cause: cause.clone(),
        })),
        (was, Connected) => {
            if let Some(reason) = now.last_failover.filter(|_| now.failovers != before.failovers) {
                news.push(ClientEvent::ServingChanged {
                    shard,
                    endpoint: Arc::clone(&endpoint),
                    reason,
                });
            }
            if !matches!(was, Connected) || now.endpoint != before.endpoint {
                news.push(ClientEvent::Connected { shard, endpoint });
            }
        }
        (was, Reconnecting { attempt, last_error }) => {
            news.push(match was {
                Connected => ClientEvent::Disconnected {
                    shard,
                    endpoint: Arc::clone(&before.endpoint),
                    cause: last_error.clone(),
                },
                _ => ClientEvent::Reconnecting {
                    shard,
                    endpoint,
                    attempt: *attempt,
                    error: last_error.clone(),
                },
            });
        }
    }
    news
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::hub::EventHub;
    use super::*;
    use crate::error::ErrorKind;
    use crate::net::endpoint::Endpoint;
    use crate::net::failover::FailoverReason;

    fn error(kind: ErrorKind) -> Error {
        Error::new(kind, "no")
    }

    fn away(attempt: u32, kind: ErrorKind) -> ConnectionState {
        let last_error = error(kind);
        ConnectionState::Reconnecting { attempt, last_error }
    }

    #[test]
    fn changes_are_reported_once_and_in_order() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let callback = Arc::clone(&told);
        let hub = EventHub::new(vec![Arc::new(move |event: &ClientEvent| {
            let text = format!("{event:?}");
            let name = text.split(' ').next().unwrap_or_default().to_owned();
            callback.lock().unwrap().push(name);
        })]);
        let health = ShardHealth::connecting(2, &Endpoint::parse("a:1").unwrap());
        let board = HealthBoard::new(health, hub.of_shard(2));
        // Changes the health, and returns the names of the events that this caused.
        let after = |change: &dyn Fn(&mut ShardHealth)| {
            board.change(change);
            std::mem::take(&mut *told.lock().unwrap())
        };
        let become_state = |state: ConnectionState| after(&|health| health.change(state.clone()));

        assert_eq!(become_state(away(1, ErrorKind::Connect)), ["Reconnecting"]);
        assert_eq!(become_state(away(2, ErrorKind::Auth)), ["Reconnecting"]);
        assert_eq!(become_state(away(3, ErrorKind::Auth)), ["Reconnecting"]);
        assert_eq!(become_state(ConnectionState::Connected), ["Connected"]);
        assert!(become_state(ConnectionState::Connected).is_empty());
        assert_eq!(become_state(away(1, ErrorKind::Disconnected)), ["Disconnected"]);
        assert_eq!(become_state(away(2, ErrorKind::Connect)), ["Reconnecting"]);
        let taken_over = after(&|health| {
            health.endpoint = "b:1".into();
            health.failovers += 1;
            health.last_failover = Some(FailoverReason::Lost);
            health.change(ConnectionState::Connected);
        });
        assert_eq!(taken_over, ["ServingChanged", "Connected"]);
        assert!(become_state(ConnectionState::Connecting).is_empty());
        board.close(&error(ErrorKind::Shutdown));
        assert_eq!(std::mem::take(&mut *told.lock().unwrap()), ["Closed"]);
        board.close(&error(ErrorKind::Shutdown));
        assert!(become_state(ConnectionState::Connected).is_empty());
    }
}
