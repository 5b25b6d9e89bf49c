//! A queue position without a server.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::MockState;
use crate::error::{Error, ErrorKind};
use crate::lease::release::ReleaseReply;
use crate::service::{AcquireRequest, Origin, QueuePlace};
use crate::shard::ask::Ask;
use crate::shard::held::{Acquired, FromHolder, HeldPosition, WayBack};
use crate::shard::ids::{LeaseId, TicketId};
use crate::shard::progress::Refusal;
use crate::types::{Key, Target, Ttl};

/// The mock's view of a queue position. Clones share it.
#[derive(Clone)]
pub(super) struct MockPlace {
    pub(super) target: Target,
    /// The TTL that the enqueue requested.
    pub(super) ttl: Option<Ttl>,
    pub(super) refusal: Refusal,
    is_collected: Arc<AtomicBool>,
}

impl MockPlace {
    /// Creates a queue position and the mock's view of it.
    pub(super) fn give(id: TicketId, request: AcquireRequest, mock: &Arc<MockState>) -> (QueuePlace, Self) {
        let AcquireRequest { target, key, ttl, .. } = request;
        let refusal = Refusal {
            at: Instant::now(),
            own: 0,
        };
        let place = Self {
            target,
            ttl,
            refusal,
            is_collected: Arc::default(),
        };
        let keeper: WayBack = Arc::new(Box::new(Keeper {
            key: key.clone(),
            place: place.clone(),
            mock: Arc::downgrade(mock),
        }));
        let origin: Origin = Arc::<MockState>::clone(mock);
        let held = HeldPosition::new(id, target, key, refusal, keeper);
        (QueuePlace::new(held, origin), place)
    }

    /// Notes that the ticket waits, so its end does not give up the position.
    pub(super) fn collect(&self) {
        self.is_collected.store(true, Ordering::Relaxed);
    }
}

/// Receives the end of a queue position, as a shard does.
struct Keeper {
    key: Key,
    place: MockPlace,
    mock: Weak<MockState>,
}

impl FromHolder for Keeper {
    /// Does nothing, because a queue position has no lease.
    fn release(&self, _: LeaseId, _: Option<ReleaseReply>) {}

    fn renew_for(&self, _: LeaseId, _: Duration) {}

    /// Returns an error: the request reached a client's dispatch instead of the mock service.
    fn collect(&self, _: TicketId, _: Instant, ask: Ask<Acquired>) {
        ask.tell(Err(Error::new(
            ErrorKind::NotEnqueued,
            format!("the queue position for {:?} belongs to a mock service", self.key),
        )));
    }

    fn give_up(&self, id: TicketId) {
        if let Some(mock) = self.mock.upgrade() {
            mock.end_place(
                id,
                (!self.place.is_collected.load(Ordering::Relaxed)).then(|| self.key.clone()),
            );
        }
    }
}
