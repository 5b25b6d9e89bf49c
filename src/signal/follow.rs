//! Signals go where the shard of their client is: servers that stand in reserve for each other know nothing of each other's
//! subscriptions, so who listens at one hears nothing of what is emitted at another.

use std::sync::Arc;

use ractor::ActorRef;
use tokio_util::task::AbortOnDropHandle;

use super::family::HealthWatch;
use super::message::LinkMessage;
use crate::net::health::ConnectionState;

/// Tells a link by which server its shard is served, from now on, until the client is gone.
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

/// What there is to tell; `None` if nothing ever will be.
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
