//! The innermost service: passes a request to the actor of its shard and waits for the answer.
//!
//! A dropped future leaks nothing. Each step is one message with a channel for its answer. Dropping the future closes
//! the channel. The actor then does not send the request, or it releases the grant if the request was sent already. A
//! release has no channel, so it continues when its future is dropped: its answer comes through the cell of its lease.

use std::borrow::Borrow;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{self, Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::PollSemaphore;
use tower::Service;

use super::acquiring::Acquiring;
use super::acquiring::moving::{first_half, joined, reachable, second_half, while_held};
use super::asking::{Reserved, acquire_message, ask, granted, lost, origin};
use super::core::{Core, CoreRef, client_is_gone, error_if_away};
use super::held::{Lease, QueuePlace, Rest};
use super::request::{AcquireRequest, Operation, Request, Response, SubscribeRequest};
use super::span::{Awaited, RequestSpan};
use crate::actor::topology::ShardPlace;
use crate::clock::after;
use crate::error::{Budget, Error, Result};
use crate::lease::release::ReleaseAnswer;
use crate::protocol::{Call, Channel, Group, Payload};
use crate::shard::acquire::Patience;
use crate::shard::held::{Acquired, HeldPosition};
use crate::shard::input::Input;
use crate::shard::progress::{Refusal, WaitsFor};
use crate::shard::question::Question;
use crate::signal::SignalConn;
use crate::types::Key;

pin_project! {
    /// The future of the answer to a request. Acquires that are granted at once and releases, which are the most
    /// frequent requests, need no box.
    #[project = AnswerProjection]
    pub(crate) enum AnswerFuture<'a, C: CoreRef<'a>> {
        Boxed {
            answer: Pin<Box<dyn Future<Output = Result<Response>> + Send + 'a>>,
        },
        Acquire {
            #[pin]
            acquire: Acquiring<'a, C::Held>,
        },
        Release {
            core: C::Held,
            key: Key,
            answer: ReleaseAnswer,
        },
    }
}

impl<'a, C: CoreRef<'a>> AnswerFuture<'a, C> {
    fn boxed(answer: impl Future<Output = Result<Response>> + Send + 'a) -> Self {
        let answer = Box::pin(answer);
        Self::Boxed { answer }
    }
}

impl<'a, C: CoreRef<'a>> Future for AnswerFuture<'a, C> {
    type Output = Result<Response>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Response>> {
        loop {
            match self.as_mut().project() {
                AnswerProjection::Boxed { answer } => return answer.as_mut().poll(cx),
                AnswerProjection::Acquire { acquire } => return acquire.poll(cx),
                AnswerProjection::Release { core, key, answer } => {
                    if let Some(released) = task::ready!(Pin::new(answer).poll(cx)) {
                        return Poll::Ready(released.map(|()| Response::Released));
                    }
                    let lost = lost_with(Arc::clone((*core).borrow()), key.clone());
                    self.set(Self::boxed(lost));
                }
            }
        }
    }
}

/// The service without any layer.
pub(crate) struct Dispatch<C> {
    core: C,
    /// Created when all shards are full. The service is ready as soon as one shard has room.
    queues: Vec<PollSemaphore>,
    /// The room that `poll_ready` has acquired, and its shard.
    reserved: Reserved,
}

impl<C> Dispatch<C> {
    pub(crate) fn new(core: C) -> Self {
        Self {
            core,
            queues: Vec::new(),
            reserved: None,
        }
    }

    /// Returns ready while at least one shard has room. The shard of a request is known only at the call. If that shard
    /// has no room while other shards have, the call waits for room, within the request's time.
    pub(crate) fn poll_ready<'a>(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>>
    where
        C: CoreRef<'a>,
    {
        let Some(core) = self.core.hold() else {
            return Poll::Ready(Err(client_is_gone()));
        };
        let shards = &core.borrow().topology.shards;
        if self.reserved.is_some() || shards.iter().any(|shard| shard.room.available_permits() > 0) {
            return Poll::Ready(Ok(()));
        }
        if self.queues.is_empty() {
            self.queues = shards
                .iter()
                .map(|shard| PollSemaphore::new(Arc::clone(&shard.room)))
                .collect();
        }
        for (index, queue) in self.queues.iter_mut().enumerate() {
            if let Poll::Ready(Some(room)) = queue.poll_acquire(cx) {
                self.reserved = Some((index, room));
                self.queues.clear();
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Pending
    }

    #[inline(always)]
    pub(crate) fn call<'a>(&mut self, request: Request) -> AnswerFuture<'a, C>
    where
        C: CoreRef<'a>,
    {
        let Some(core) = self.core.hold() else {
            return AnswerFuture::boxed(ready(Err(client_is_gone())));
        };
        let reserved = self.reserved.take();
        match request {
            Request::Acquire(request) => AnswerFuture::Acquire {
                acquire: Acquiring::new(core, request, reserved),
            },
            Request::Enqueue(request) => AnswerFuture::boxed(enqueue(core, request)),
            Request::Collect { place, wait } => AnswerFuture::boxed(collect(core, place, wait)),
            Request::Release(lease) => release(core, lease),
            Request::Stats { shard } => AnswerFuture::boxed(stats(core, shard, reserved)),
            Request::Barrier { shard } => AnswerFuture::boxed(barrier(core, shard, reserved)),
            Request::Failback { shard } => AnswerFuture::boxed(failback(core, shard, reserved)),
            Request::Emit { channel, payload } => AnswerFuture::boxed(emit(core, channel, payload)),
            Request::Subscribe(request) => AnswerFuture::boxed(subscribe(core, request)),
        }
    }
}

/// A clone has no reserved room.
impl<C: Clone> Clone for Dispatch<C> {
    fn clone(&self) -> Self {
        Self::new(self.core.clone())
    }
}

impl Service<Request> for Dispatch<Weak<Core>> {
    type Response = Response;
    type Error = Error;
    type Future = AnswerFuture<'static, Weak<Core>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Self::poll_ready(self, cx)
    }

    fn call(&mut self, request: Request) -> AnswerFuture<'static, Weak<Core>> {
        Self::call(self, request)
    }
}

/// Acquires a free key, or takes a position in its queue. A position needs a connection of its own. If the limits allow
/// no further connection, the request waits for one.
async fn enqueue(core: impl Borrow<Arc<Core>>, request: AcquireRequest) -> Result<Response> {
    let core = core.borrow();
    let route = core.topology.route(request.routed_by())?;
    let Some(from) = route.previous else {
        return enqueue_at(core, route.place, &request).await;
    };
    let terms = core.config.renewal(request.renew_policy.as_ref())?;
    reachable(core, route.place.index, Duration::ZERO, None).await?;
    match enqueue_at(core, from, &first_half(core, &request)).await? {
        Response::Granted(previous) => {
            let second = AcquireRequest {
                holding: true,
                ..request
            };
            let answer = while_held(&previous, enqueue_at(core, route.place, &second)).await?;
            match answer {
                Response::Queued(place) => Ok(Response::Queued(place.with_rest(Rest::Previous(previous, terms)))),
                other => joined(other, previous, terms),
            }
        }
        Response::Queued(place) => {
            let (ttl, policy) = (request.ttl, request.renew_policy);
            Ok(Response::Queued(place.with_rest(Rest::Current { ttl, policy })))
        }
        other => Ok(other),
    }
}

async fn enqueue_at(core: &Arc<Core>, place: &ShardPlace, request: &AcquireRequest) -> Result<Response> {
    let asked = ask(place, &place.waiting_room, None, |ask| {
        let mut acquire = acquire_message(core, request, ask)?;
        acquire.progress.clone_from(&request.progress);
        place.tell(Input::Acquire(acquire, Patience::Enqueue))
    });
    let answer = asked.await;
    request.waits_for(WaitsFor::Layers);
    Ok(match answer? {
        Acquired::Lease(lease) => granted(lease, false, core),
        Acquired::Queued(ticket) => Response::Queued(QueuePlace::new(ticket, origin(core))),
        Acquired::Busy(_) => Response::Busy,
    })
}

async fn collect(core: impl Borrow<Arc<Core>>, queued: QueuePlace, wait: Duration) -> Result<Response> {
    let core = core.borrow();
    let until = after(Instant::now(), wait);
    let (ticket, rest) = queued.into_parts();
    let route = core.topology.route(&ticket.key)?;
    match rest {
        None => collect_at(core, route.place, ticket, wait, until).await,
        Some(Rest::Previous(previous, terms)) => {
            let answer = while_held(&previous, collect_at(core, route.place, ticket, wait, until)).await?;
            joined(answer, previous, terms)
        }
        Some(Rest::Current { ttl, policy }) => {
            let from = route.previous.unwrap_or(route.place);
            let (target, key) = (ticket.target, ticket.key.clone());
            match collect_at(core, from, ticket, wait, until).await? {
                Response::Granted(previous) => {
                    let request = AcquireRequest {
                        wait,
                        ttl,
                        renew_policy: policy,
                        ..AcquireRequest::new(target, key)
                    };
                    let until = (!wait.is_zero()).then_some(until);
                    second_half(core, request, route.place.index, previous, until).await
                }
                other => Ok(other),
            }
        }
    }
}

async fn collect_at(
    core: &Arc<Core>,
    place: &ShardPlace,
    ticket: HeldPosition,
    wait: Duration,
    until: Instant,
) -> Result<Response> {
    let (target, key, enqueued) = (ticket.target, ticket.key.clone(), ticket.refusal);
    let not_its_turn = |refused: Refusal| refused.not_its_turn(target, &key, wait).at(&place.endpoint());
    let asked = ask(place, &place.ticket_room, None, |ask| {
        ticket.collect(until, ask);
        Ok(())
    });
    let collect = async {
        match asked.await? {
            Acquired::Lease(lease) => Ok(granted(lease, true, core)),
            Acquired::Busy(_) | Acquired::Queued(_) => Err(not_its_turn(enqueued)),
        }
    };
    // A zero wait is a poll; the timeout layer bounds it.
    if wait.is_zero() {
        return collect.await;
    }
    let awaited = Awaited {
        operation: Operation::Collect,
        key: &key,
        kind: target.kind(),
        wait,
    };
    let span = RequestSpan::of_wait(&awaited, place, core);
    // Servers wait for whole seconds. This timeout ends the wait at the caller's exact time.
    let collect = async {
        let outcome = timeout_at(until, collect).await;
        outcome.unwrap_or_else(|_| {
            Err(match error_if_away(place) {
                Some(away) => away.out_of(Budget::Unanswered(wait)),
                None => not_its_turn(enqueued),
            })
        })
    };
    match span {
        Some(span) => span.cover(collect).await,
        None => collect.await,
    }
}

/// Sends the release if it was not sent before.
fn release<'a, C: CoreRef<'a>>(core: C::Held, lease: Lease) -> AnswerFuture<'a, C> {
    let (key, answer, previous) = lease.give_back();
    if let Some(previous) = previous {
        return AnswerFuture::boxed(both_released(Arc::clone(core.borrow()), key, answer, previous));
    }
    AnswerFuture::Release { core, key, answer }
}

/// Returns the error of a release whose shard ended before it answered.
async fn lost_with(core: Arc<Core>, key: Key) -> Result<Response> {
    let shard = core.topology.route(&key)?.place.index;
    lost(core, shard).await
}

/// Waits for the outcomes of the releases of both halves of a key that moves. Returns the first error, if there is one.
async fn both_released(core: Arc<Core>, key: Key, current: ReleaseAnswer, previous: ReleaseAnswer) -> Result<Response> {
    let route = core.topology.route(&key)?;
    let (to, from) = (route.place.index, route.previous.unwrap_or(route.place).index);
    let current = released(&core, to, current).await;
    let previous = released(&core, from, previous).await;
    current.and(previous)
}

/// Waits for the outcome of one release.
async fn released(core: &Arc<Core>, shard: usize, answer: ReleaseAnswer) -> Result<Response> {
    match answer.await {
        Some(released) => released.map(|()| Response::Released),
        None => lost(Arc::clone(core), shard).await,
    }
}

async fn stats(core: impl Borrow<Arc<Core>>, shard: usize, reserved: Reserved) -> Result<Response> {
    let core = core.borrow();
    let place = core.topology.shard(shard)?;
    let asked = ask(place, &place.room, reserved, |ask| {
        place.tell(Input::Ask(Question::of_any(Call::stats(), ask)))
    });
    asked.await?.read().map(Response::Stats)
}

async fn barrier(core: impl Borrow<Arc<Core>>, shard: usize, reserved: Reserved) -> Result<Response> {
    let core = core.borrow();
    let place = core.topology.shard(shard)?;
    let asked = ask(place, &place.room, reserved, |ask| {
        place.tell(Input::Ask(Question::of_the_leader(Call::barrier(), ask)))
    });
    asked.await?.read().map(|()| Response::Visible)
}

async fn failback(core: impl Borrow<Arc<Core>>, shard: usize, reserved: Reserved) -> Result<Response> {
    let core = core.borrow();
    let place = core.topology.shard(shard)?;
    let asked = ask(place, &place.room, reserved, |ask| place.tell(Input::Failback(ask)));
    asked.await.map(Response::FailingBack)
}

async fn emit(core: impl Borrow<Arc<Core>>, channel: Channel, payload: Payload) -> Result<Response> {
    let core = core.borrow();
    let shard = core.routes.placement.emits_at(channel.as_str())?;
    let delivered = core.emitter(shard)?.emit(channel, payload).await?;
    Ok(Response::Delivered(delivered))
}

async fn subscribe(core: impl Borrow<Arc<Core>>, request: SubscribeRequest) -> Result<Response> {
    let core = core.borrow();
    let signals = SignalConn::start(&core.config, request.options, Some(&core.signals))?;
    let group = request.group.as_ref().map(Group::as_str);
    signals.listen(request.pattern.as_str(), group).await?;
    Ok(Response::Subscribed(signals))
}
