//! What a signal connection's actor is told, and what travels over its connection.

use std::sync::Arc;

use crate::error::Error;
use crate::net::dial::LaneEvent;
use crate::net::failover::FailoverReason;
use crate::net::lane::Caller;
use crate::protocol::{Channel, Group, Pattern, Payload, Request};
use crate::shard::ask::Ask;

/// What a connection may listen to once.
pub(crate) type Subscription = (Pattern, Option<Group>);

/// Names a connection among those that a link has had.
pub(super) type LinkLaneId = u64;

/// What the actor is told.
pub(crate) enum LinkMessage {
    /// A subscription is wanted.
    Listen(Subscription, Ask<()>),
    /// A subscription is not wanted any more.
    Unlisten(Subscription, Ask<()>),
    /// A signal is to be sent.
    Emit(Channel, Payload, Ask<u64>),
    /// Something happened on a connection.
    Lane(LinkLaneId, LaneEvent<LinkRequest>),
    /// The shard that it follows is served there, and why not where it was before.
    ShardIsAt(Arc<str>, Option<FailoverReason>),
    /// There is no shard to follow any more.
    ShardIsGone,
    /// The consumer was too slow, and wants to be disconnected then.
    Overflowed,
    /// End, for this reason.
    Close(Error),
}

/// Whose a request is, and what its answer is for.
pub(crate) enum LinkRequest {
    Listen(Subscription, Ask<()>),
    /// A subscription that was there before the connection was lost.
    Renew(Subscription),
    Unlisten(Subscription, Ask<()>),
    /// A subscription whose caller was gone before it was confirmed.
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
            // What nobody wants any more must be taken back, whoever still waits to hear of it.
            Self::Renew(_) | Self::Unlisten(..) | Self::Withdraw(_) => false,
        }
    }
}
