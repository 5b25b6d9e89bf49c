//! The messages for a signal connection's actor, and the requests on its connection.

use std::sync::Arc;

use crate::error::Error;
use crate::net::dial::LaneEvent;
use crate::net::failover::FailoverReason;
use crate::net::lane::Caller;
use crate::protocol::{Channel, Group, Pattern, Payload, Request};
use crate::shard::ask::Ask;

/// The identity of a subscription: a connection can have each only once.
pub(crate) type Subscription = (Pattern, Option<Group>);

/// Identifies a connection among those that a link has had.
pub(super) type LinkLaneId = u64;

/// A message for the actor.
pub(crate) enum LinkMessage {
    /// Subscribe.
    Listen(Subscription, Ask<()>),
    /// End a subscription.
    Unlisten(Subscription, Ask<()>),
    /// Publish a signal.
    Emit(Channel, Payload, Ask<u64>),
    /// An event of a connection.
    Lane(LinkLaneId, LaneEvent<LinkRequest>),
    /// The shard that the link follows is now served by this server, for this reason.
    ShardIsAt(Arc<str>, Option<FailoverReason>),
    /// The shard that the link followed no longer exists.
    ShardIsGone,
    /// The consumer was too slow, and the policy is to disconnect.
    Overflowed,
    /// Close the link, for this reason.
    Close(Error),
}

/// A request on the connection, with the caller that gets its answer.
pub(crate) enum LinkRequest {
    Listen(Subscription, Ask<()>),
    /// A subscription that existed before the connection was lost.
    Renew(Subscription),
    Unlisten(Subscription, Ask<()>),
    /// The end of a subscription whose caller was gone before the confirmation.
    Withdraw(Subscription),
    Emit(Channel, Payload, Ask<u64>),
}

impl LinkRequest {
    pub(super) fn request(&self) -> Request {
        match self {
            Self::Listen((pattern, group), _) | Self::Renew((pattern, group)) => Request::Listen {
                pattern: pattern.clone(),
                group: group.clone(),
            },
            Self::Unlisten((pattern, group), _) | Self::Withdraw((pattern, group)) => Request::Unlisten {
                pattern: pattern.clone(),
                group: group.clone(),
            },
            Self::Emit(channel, payload, _) => Request::Signal {
                channel: channel.clone(),
                payload: payload.clone(),
            },
        }
    }
}

impl Caller for LinkRequest {
    fn is_gone(&self) -> bool {
        match self {
            Self::Listen(_, ask) => ask.is_gone(),
            Self::Emit(_, _, ask) => ask.is_gone(),
            // An unwanted subscription must be ended, even if no caller waits for that.
            Self::Renew(_) | Self::Unlisten(..) | Self::Withdraw(_) => false,
        }
    }
}
