//! Keys that move from one shard to another: taken on the previous shard first, and on the current one second.
//!
//! The previous half is held, and renewed, while the current one is waited for. What is dropped on the way gives back what it has: a half
//! is a lease, or a place in a queue, in the future that waits for the other.

use std::borrow::Borrow;
use std::future::Future;
use std::sync::Arc;

use tokio::time::Instant;

use super::Acquiring;
use crate::actor::topology::Route;
use crate::clock::after;
use crate::error::{Error, ErrorKind, Result};
use crate::lease::policy::{RenewPolicy, RenewTerms};
use crate::service::asking::Reserved;
use crate::service::core::Core;
use crate::service::held::Lease;
use crate::service::request::{AcquireRequest, Response};

/// The two shards of a key that moves.
#[derive(Clone, Copy, Debug)]
pub(in crate::service) struct Move {
    pub(in crate::service) from: usize,
    pub(in crate::service) to: usize,
}

impl Move {
    /// Where the key of a route moves, if it does.
    pub(in crate::service) fn of(route: &Route<'_>) -> Option<Self> {
        let from = route.previous?.index;
        Some(Self {
            from,
            to: route.place.index,
        })
    }
}

/// Acquires both halves, one after the other. Its time counts for both.
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
    match Acquiring::half(core.clone(), first, reserved, way.from, until).await? {
        Response::Granted(previous) => second_half(core, request, way.to, previous, until).await,
        other => Ok(other),
    }
}

/// What is asked of the previous shard: a lease that lasts until the other half is there, however it is to be renewed then.
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
    Ok(joined(answer, previous, terms))
}

/// Waits for the current half. If the previous one is lost meanwhile, there is nothing to wait for any more.
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
            // The same call may well succeed later.
            Err(Error::new(ErrorKind::LeaseLost, message).passing())
        }
        answer = answer => answer,
    }
}

/// Makes one lease of both halves if the second was granted. Otherwise the first is given back.
pub(in crate::service) fn joined(answer: Response, previous: Lease, terms: RenewTerms) -> Response {
    match answer {
        Response::Granted(current) => Response::Granted(current.joined(previous, terms)),
        other => other,
    }
}
