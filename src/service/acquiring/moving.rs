//! Acquires keys that move from one shard to another: first on the previous shard, then on the current one.
//!
//! The client holds and renews the previous half while the acquire waits for the current half. If the acquire is
//! dropped meanwhile, both halves are released: each half is a lease or a queue position, and the future of the acquire
//! owns both.

use std::borrow::Borrow;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Acquiring;
use crate::actor::topology::Route;
use crate::clock::after;
use crate::error::{Budget, Error, ErrorKind, Result};
use crate::lease::policy::{RenewPolicy, RenewTerms};
use crate::service::asking::Reserved;
use crate::service::core::{Core, error_if_away};
use crate::service::held::Lease;
use crate::service::request::{AcquireRequest, Response};

/// The two shards of a key that moves.
#[derive(Clone, Copy, Debug)]
pub(in crate::service) struct Move {
    pub(in crate::service) from: usize,
    pub(in crate::service) to: usize,
}

impl Move {
    /// Returns the two shards of a route's key, if the key moves.
    pub(in crate::service) fn of(route: &Route<'_>) -> Option<Self> {
        let from = route.previous?.index;
        Some(Self {
            from,
            to: route.place.index,
        })
    }
}

/// Acquires both halves, one after the other, within one time limit.
pub(in crate::service) async fn acquire<'a, H>(
    core: H,
    request: AcquireRequest,
    way: Move,
    reserved: Reserved,
) -> Result<Response>
where
    H: Borrow<Arc<Core>> + Clone + Send + 'a,
{
    let until = (!request.wait.is_zero()).then(|| after(Instant::now(), request.wait));
    let first = first_half(core.borrow(), &request);
    // Gives up room that was reserved at another shard, so that other callers can use it.
    let reserved = reserved.filter(|(shard, _)| *shard == way.from);
    reachable(core.borrow(), way.to, request.wait, until).await?;
    match Acquiring::half(core.clone(), first, reserved, way.from, until).await? {
        Response::Granted(previous) => second_half(core, request, way.to, previous, until).await,
        other => Ok(other),
    }
}

/// Returns the request for the previous shard. The client renews its lease until the current half is granted,
/// regardless of the request's renewal policy.
pub(in crate::service) fn first_half(core: &Core, request: &AcquireRequest) -> AcquireRequest {
    let policy = request.renew_policy.unwrap_or(core.config.renew_policy);
    AcquireRequest {
        renew_policy: Some(RenewPolicy {
            renew: true,
            max_hold: None,
            ..policy
        }),
        ..request.clone()
    }
}

/// Acquires the current half while the previous one is held.
pub(in crate::service) async fn second_half<'a, H>(
    core: H,
    mut request: AcquireRequest,
    shard: usize,
    previous: Lease,
    until: Option<Instant>,
) -> Result<Response>
where
    H: Borrow<Arc<Core>> + Clone + Send + 'a,
{
    let terms = core.borrow().config.renewal(request.renew_policy.as_ref())?;
    request.holding = true;
    let acquiring = Acquiring::half(core, request, None, shard, until);
    let answer = while_held(&previous, acquiring).await?;
    joined(answer, previous, terms)
}

/// Waits for the current half. Fails if the previous half is lost meanwhile, because the current half alone is useless.
pub(in crate::service) async fn while_held(
    previous: &Lease,
    answer: impl Future<Output = Result<Response>>,
) -> Result<Response> {
    tokio::select! {
        biased;
        reason = previous.lost() => {
            let message = format!(
                "the lease of {:?} on the shard that the key moves from was lost before the shard that it moves to granted it: {reason}",
                previous.key()
            );
            // The same call may succeed later.
            Err(Error::new(ErrorKind::LeaseLost, message).retryable())
        }
        answer = answer => answer,
    }
}

/// Combines both halves into one lease if the second was granted and the first is still held. Otherwise both are
/// dropped, which releases them.
pub(in crate::service) fn joined(answer: Response, previous: Lease, terms: RenewTerms) -> Result<Response> {
    let Response::Granted(current) = answer else {
        return Ok(answer);
    };
    // A task reports losses and may be late, so this checks the clock.
    previous.check().map_err(Error::retryable)?;
    Ok(Response::Granted(current.joined(previous, terms)))
}

/// Waits until the current shard is connected. This happens before the previous half is acquired, because a holder of
/// the previous half excludes clients that do not use the current shard at all. If `wait` is zero, the timeout layer
/// limits this.
pub(in crate::service) async fn reachable(
    core: &Arc<Core>,
    shard: usize,
    wait: Duration,
    until: Option<Instant>,
) -> Result<()> {
    let place = core.topology.shard(shard)?;
    let Some(away) = error_if_away(place) else {
        return Ok(());
    };
    if core.config.shard.machine.fail_fast {
        return Err(away);
    }
    let mut health = place.health.clone();
    let is_there = health.wait_for(|health| health.is_connected() || health.closed_because().is_some());
    let in_time = match until {
        Some(until) => timeout_at(until, is_there).await.is_ok(),
        None => {
            drop(is_there.await);
            true
        }
    };
    match (in_time, error_if_away(place)) {
        (false, Some(away)) => Err(away.out_of(Budget::Unanswered(wait))),
        _ => Ok(()),
    }
}
