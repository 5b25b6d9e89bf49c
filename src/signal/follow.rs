//! Makes signal connections follow the shard of their client. Standby servers know nothing of each other's
//! subscriptions, so a listener at one server does not receive what is emitted at another.

use std::sync::Arc;

use ractor::ActorRef;
use tokio_util::task::AbortOnDropHandle;

use super::family::HealthWatch;
use super::message::LinkMessage;
use crate::net::health::ConnectionState;

/// Reports the server of a shard to a link, now and after each change, until the client is gone.
pub(super) fn follow(mut shard: HealthWatch, link: ActorRef<LinkMessage>) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        while let Some(message) = news(&mut shard) {
            let is_gone = message.is_some_and(|message| link.send_message(message).is_err());
            if is_gone || shard.changed().await.is_err() {
                break;
            }
        }
        drop(link.send_message(LinkMessage::ShardIsGone));
    }))
}

/// Returns `Some(Some(message))` if the shard is connected, `Some(None)` if there is no message now, and `None` if the
/// shard is closed, so that no message will follow.
fn news(shard: &mut HealthWatch) -> Option<Option<LinkMessage>> {
    let health = shard.borrow_and_update();
    match health.state {
        ConnectionState::Connected => {
            let message = LinkMessage::ShardIsAt(Arc::clone(&health.endpoint), health.last_failover);
            Some(Some(message))
        }
        ConnectionState::Closed => None,
        _ => Some(None),
    }
}
