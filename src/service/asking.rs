//! Sends a request to a shard: takes a permit for room, sends a message, and waits for the answer.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::core::Core;
use super::held::{Lease, Origin};
use super::request::{AcquireRequest, Response};
use crate::actor::topology::ShardPlace;
use crate::error::Result;
use crate::shard::acquire::Acquire;
use crate::shard::ask::Ask;
use crate::shard::held::{Acquired, HeldLease};

/// A permit for room that `poll_ready` has acquired, with the index of its shard.
pub(super) type Reserved = Option<(usize, OwnedSemaphorePermit)>;

/// Waits for room, sends a message, and waits for its answer.
pub(super) async fn ask<T>(
    place: &ShardPlace,
    room: &Arc<Semaphore>,
    reserved: Reserved,
    send: impl FnOnce(Ask<T>) -> Result<()>,
) -> Result<T> {
    let (reply, answer) = oneshot::channel();
    let _room = take_room(place, room, reserved).await?;
    send(Ask { reply, _room })?;
    match answer.await {
        Ok(answer) => answer,
        Err(_) => Err(place.lost().await),
    }
}

async fn take_room(place: &ShardPlace, room: &Arc<Semaphore>, reserved: Reserved) -> Result<OwnedSemaphorePermit> {
    match room_now(place, room, reserved) {
        Some(room) => Ok(room),
        // The semaphore is never closed.
        None => Arc::clone(room).acquire_owned().await.map_err(|_| place.gone()),
    }
}

/// Takes a permit for room if one is available now.
pub(super) fn room_now(place: &ShardPlace, room: &Arc<Semaphore>, reserved: Reserved) -> Option<OwnedSemaphorePermit> {
    match reserved {
        Some((shard, room)) if shard == place.index => Some(room),
        _ => Arc::clone(room).try_acquire_owned().ok(),
    }
}

/// Returns the error for a shard that ended before it answered.
pub(super) async fn lost(core: Arc<Core>, shard: usize) -> Result<Response> {
    Err(core.topology.shard(shard)?.lost().await)
}

pub(super) fn acquire_message(core: &Core, request: &AcquireRequest, ask: Ask<Acquired>) -> Result<Box<Acquire>> {
    let terms = core.config.renewal(request.renew_policy.as_ref())?;
    let mut acquire = Acquire::new(request.target, request.key.clone(), request.ttl, terms, ask);
    acquire.holding = request.holding;
    Ok(acquire)
}

pub(super) fn origin(core: &Arc<Core>) -> Origin {
    Arc::<Core>::clone(core)
}

pub(super) fn granted(held: HeldLease, contended: bool, core: &Arc<Core>) -> Response {
    if contended {
        held.cell.note_contended();
    }
    Response::Granted(Lease::new(held, origin(core)))
}
