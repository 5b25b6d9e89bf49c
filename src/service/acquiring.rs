//! An acquire: a try, followed by a wait if the key is held and the request has time to wait.
//!
//! The timeout layer limits tries. This module ends an acquire that has a wait, exactly at its deadline. State that
//! most acquires need is stored inline; state that few acquires need is boxed.

pub(super) mod moving;

use std::borrow::Borrow;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, oneshot};
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use self::moving::Move;
use super::asking::{Reserved, acquire_message, ask, granted, lost, room_now};
use super::core::{Core, error_if_away, ready_too_late};
use super::request::{AcquireRequest, Operation, Response};
use super::span::{Awaited, RequestSpan};
use super::timeout::{Scope, unanswered};
use crate::actor::topology::ShardPlace;
use crate::clock::after;
use crate::error::{Budget, Error, Result};
use crate::shard::acquire::Patience;
use crate::shard::ask::Ask;
use crate::shard::held::Acquired;
use crate::shard::input::Input;
use crate::shard::progress::{Progress, Refusal, WaitsFor};

/// An acquire without an answer for this long counts as waiting, whether or not it waits for another holder.
const NOTICEABLE: Duration = Duration::from_millis(250);

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

pin_project! {
    /// An acquire under way.
    pub(crate) struct Acquiring<'a, H> {
        request: AcquireRequest,
        stage: Stage<'a>,
        // The index of its shard, after it has begun.
        shard: usize,
        // `None` if it does not wait.
        until: Option<Instant>,
        // `None` until the acquire counts as waiting.
        span: Option<Box<RequestSpan>>,
        // Fires when the acquire begins to count as waiting, and when its time is over.
        #[pin]
        alarm: Option<Sleep>,
        // Dropped last, so that the client cannot end before the other fields are released.
        core: H,
    }
}

enum Stage<'a> {
    Begins(Reserved),
    /// One half of a key that moves. Its shard and its deadline are known.
    BeginsAt(Reserved),
    NeedsRoom(Boxed<'a, std::result::Result<OwnedSemaphorePermit, AcquireError>>),
    IsTried(oneshot::Receiver<Result<Acquired>>),
    /// The shard was gone before it answered.
    IsLost(Boxed<'a, Result<Response>>),
    /// The boxed future ends at the deadline by itself.
    Waits(Boxed<'a, Result<Response>>),
    /// Answered. The future keeps no state after this, even if it is not dropped.
    Over,
}

impl<H> Acquiring<'_, H> {
    #[inline(always)]
    pub(super) fn new(core: H, request: AcquireRequest, reserved: Reserved) -> Self {
        Self {
            request,
            stage: Stage::Begins(reserved),
            shard: 0,
            until: None,
            span: None,
            alarm: None,
            core,
        }
    }

    /// Creates the acquire of one half of a key that moves, at one of its shards.
    pub(super) fn half(
        core: H,
        request: AcquireRequest,
        reserved: Reserved,
        shard: usize,
        until: Option<Instant>,
    ) -> Self {
        Self {
            stage: Stage::BeginsAt(reserved),
            shard,
            until,
            ..Self::new(core, request, None)
        }
    }
}

impl<'a, H: Borrow<Arc<Core>> + Clone + Send + 'a> Future for Acquiring<'a, H> {
    type Output = Result<Response>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Response>> {
        let answer = ready!(self.as_mut().advance(cx));
        let this = self.project();
        // Drops the state: a grant that comes later is released, and other requests get the room.
        *this.stage = Stage::Over;
        if this.request.wait.is_zero() {
            this.request.waits_for(WaitsFor::Layers);
        }
        if let Some(span) = this.span.take() {
            span.end(&answer);
        }
        Poll::Ready(answer)
    }
}

impl<'a, H: Borrow<Arc<Core>> + Clone + Send + 'a> Acquiring<'a, H> {
    /// Advances as far as possible.
    fn advance(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Response>> {
        let mut this = self.project();
        let core: &Arc<Core> = (*this.core).borrow();
        loop {
            let next = match this.stage {
                Stage::Begins(reserved) => {
                    // Consumes a unit of tokio's budget: a task that retries in a loop must yield, even if each acquire
                    // fails at once.
                    ready!(pin!(consume_budget()).poll(cx));
                    let route = core.topology.route(this.request.routed_by())?;
                    match Move::of(&route) {
                        None => {
                            let wait = this.request.wait;
                            *this.shard = route.place.index;
                            if !wait.is_zero() {
                                let now = Instant::now();
                                let until = after(now, wait);
                                *this.until = Some(until);
                                this.alarm.set(Some(first_alarm(now, until)));
                            }
                            begin(core, route.place, this.request, reserved.take())?
                        }
                        Some(way) => begin_both(this.core.clone(), this.request.clone(), way, reserved.take()),
                    }
                }
                Stage::BeginsAt(reserved) => {
                    ready!(pin!(consume_budget()).poll(cx));
                    let reserved = reserved.take();
                    if let Some(until) = *this.until {
                        this.alarm.set(Some(first_alarm(Instant::now(), until)));
                    }
                    begin(core, core.topology.shard(*this.shard)?, this.request, reserved)?
                }
                Stage::NeedsRoom(room) => {
                    let Poll::Ready(room) = room.as_mut().poll(cx) else {
                        break;
                    };
                    let place = core.topology.shard(*this.shard)?;
                    // The semaphore is never closed.
                    send_try(core, place, this.request, room.map_err(|_| place.gone())?)?
                }
                Stage::IsTried(answer) => match Pin::new(answer).poll(cx) {
                    Poll::Ready(Ok(answer)) => match granted_or_refused(answer, core)? {
                        Ok(granted) => return Poll::Ready(Ok(granted)),
                        Err(refused) => match *this.until {
                            Some(until) => {
                                if this.span.is_none() {
                                    *this.span = wait_span(core, *this.shard, this.request);
                                }
                                let wait = wait(this.core.clone(), *this.shard, this.request.clone(), until, refused);
                                Stage::Waits(Box::pin(wait))
                            }
                            None => return Poll::Ready(Ok(Response::Busy)),
                        },
                    },
                    Poll::Ready(Err(_)) => Stage::IsLost(Box::pin(lost(Arc::clone(core), *this.shard))),
                    Poll::Pending => break,
                },
                Stage::IsLost(lost) => match lost.as_mut().poll(cx) {
                    Poll::Ready(lost) => return Poll::Ready(lost),
                    Poll::Pending => break,
                },
                Stage::Waits(wait) => {
                    let _entered = this.span.as_deref().map(RequestSpan::enter);
                    return wait.as_mut().poll(cx);
                }
                Stage::Over => return Poll::Pending,
            };
            if let Stage::Waits(_) = next {
                this.alarm.set(None);
            }
            *this.stage = next;
        }
        let Some(until) = *this.until else {
            return Poll::Pending;
        };
        while let Some(mut alarm) = this.alarm.as_mut().as_pin_mut() {
            ready!(alarm.as_mut().poll(cx));
            if alarm.deadline() >= until {
                break;
            }
            alarm.reset(until);
            *this.span = wait_span(core, *this.shard, this.request);
        }
        let was_sent = !matches!(this.stage, Stage::NeedsRoom(_));
        let place = core.topology.shard(*this.shard)?;
        Poll::Ready(Err(out_of_time(place, this.request, was_sent)))
    }
}

/// Creates a timer for the moment at which the acquire counts as waiting, or for its deadline if that is earlier. If no
/// subscriber wants the span of a wait, the timer is for the deadline only, because setting a timer that fires later
/// seldom has to wake the runtime's driver.
#[inline(always)]
fn first_alarm(now: Instant, until: Instant) -> Sleep {
    match RequestSpan::shows_wait_spans() {
        true => sleep_until(until.min(now + NOTICEABLE)),
        false => sleep_until(until),
    }
}

/// Starts to acquire both halves of a key that moves.
#[cold]
fn begin_both<'a, H>(core: H, request: AcquireRequest, way: Move, reserved: Reserved) -> Stage<'a>
where
    H: Borrow<Arc<Core>> + Clone + Send + 'a,
{
    Stage::Waits(Box::pin(moving::acquire(core, request, way, reserved)))
}

/// Sends the try, if there is room for it.
#[inline(always)]
fn begin<'a>(core: &Core, place: &ShardPlace, request: &AcquireRequest, reserved: Reserved) -> Result<Stage<'a>> {
    match room_now(place, &place.room, reserved) {
        Some(room) => send_try(core, place, request, room),
        None => Ok(Stage::NeedsRoom(Box::pin(Arc::clone(&place.room).acquire_owned()))),
    }
}

/// Creates the span of an acquire that waits, from now to its end.
fn wait_span(core: &Core, shard: usize, request: &AcquireRequest) -> Option<Box<RequestSpan>> {
    let place = core.topology.shard(shard).ok()?;
    let awaited = Awaited {
        operation: Operation::Acquire,
        key: &request.key,
        kind: request.target.kind(),
        wait: request.wait,
    };
    RequestSpan::of_wait(&awaited, place, core).map(Box::new)
}

/// Sends the try.
fn send_try<'a>(
    core: &Core,
    place: &ShardPlace,
    request: &AcquireRequest,
    room: OwnedSemaphorePermit,
) -> Result<Stage<'a>> {
    let patience = match request.wait.is_zero() {
        true => Patience::Try,
        false => Patience::TryThenWait,
    };
    if patience == Patience::Try {
        request.waits_for(WaitsFor::Answer);
    }
    let (reply, answer) = oneshot::channel();
    let ask = Ask { reply, _room: room };
    place.tell(Input::Acquire(acquire_message(core, request, ask)?, patience))?;
    Ok(Stage::IsTried(answer))
}

/// Interprets the answer to a try: a grant, or the server's answer that the key is held.
fn granted_or_refused(answer: Result<Acquired>, core: &Arc<Core>) -> Result<std::result::Result<Response, Refusal>> {
    Ok(match answer? {
        Acquired::Lease(held) => Ok(granted(held, false, core)),
        // Dropping a queue position that was not requested gives it up.
        Acquired::Queued(place) => Err(place.refusal),
        Acquired::Busy(refused) => Err(refused),
    })
}

/// Waits for the grant until `until`.
async fn wait(
    core: impl Borrow<Arc<Core>>,
    shard: usize,
    request: AcquireRequest,
    until: Instant,
    refused: Refusal,
) -> Result<Response> {
    let core = core.borrow();
    let place = core.topology.shard(shard)?;
    // Set when the message to the shard is created. The shard updates it.
    let mut progress = None;
    let asked = ask(place, &place.waiting_room, None, |ask| {
        let mut acquire = acquire_message(core, &request, ask)?;
        acquire.progress = Some(progress.insert(Progress::default()).clone());
        place.tell(Input::Acquire(acquire, Patience::Until(until, refused)))
    });
    match timeout_at(until, asked).await {
        Ok(answer) => match answer? {
            Acquired::Lease(held) => Ok(granted(held, true, core)),
            Acquired::Busy(refused) => Err(not_granted(place, &request, refused, WaitsFor::Turn)),
            Acquired::Queued(at) => Err(not_granted(place, &request, at.refusal, WaitsFor::Turn)),
        },
        Err(_) => Err(match error_if_away(place) {
            Some(away) => away.out_of(Budget::Unanswered(request.wait)),
            None => {
                let waits_for = progress.map_or(WaitsFor::Layers, |progress| progress.get());
                not_granted(place, &request, refused, waits_for)
            }
        }),
    }
}

/// Returns the error of an acquire whose deadline passed before a server answered.
fn out_of_time(place: &ShardPlace, request: &AcquireRequest, was_sent: bool) -> Error {
    let budget = Budget::Unanswered(request.wait);
    match error_if_away(place) {
        Some(away) => away.out_of(budget),
        None if was_sent => {
            let about = Scope::Key(request.routed_by().clone());
            unanswered(Operation::Acquire, &about, budget).at(&place.endpoint())
        }
        None => ready_too_late(budget).at(&place.endpoint()),
    }
}

fn not_granted(place: &ShardPlace, request: &AcquireRequest, refused: Refusal, waits_for: WaitsFor) -> Error {
    let error = refused.not_granted(request.target, &request.key, request.wait, waits_for);
    error.at(&place.endpoint())
}
