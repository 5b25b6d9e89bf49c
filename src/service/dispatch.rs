//! The leaf of the service: hands a request to the actor of its shard and waits for the answer.
//!
//! A dropped future leaks nothing. Each step is one message with a channel for its answer; when the future is dropped
//! the channel closes, and the actor either does not send the request at all, or gives back what comes of it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ractor::ActorRef;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::PollSemaphore;
use tower::Service;

use super::request::{AcquireRequest, Request, Response};
use crate::actor::message::{Acquire, Acquired, Ask, Patience, ShardMessage};
use crate::actor::router::RouterMessage;
use crate::actor::shard::unavailable;
use crate::actor::topology::{ShardPlace, Topology};
use crate::clock::after;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::guard::Lease;
use crate::stats::Stats;
use crate::ticket::QueuePlace;

/// The answer to a request, on its way.
pub type ResponseFuture = Pin<Box<dyn Future<Output = Result<Response>> + Send>>;

/// What all clones of a client, and all its leases, keep alive together.
pub(crate) struct Core {
    pub(crate) topology: Arc<Topology>,
    pub(crate) config: Config,
    router: ActorRef<RouterMessage>,
}

/// How long the shards may take to give back what is on its way when the last user of a client is gone.
const LAST_RELEASES: Duration = Duration::from_secs(5);

impl Core {
    pub(crate) fn start(config: Config) -> Result<Arc<Self>> {
        let (router, topology) = crate::actor::router::start(&config)?;
        Ok(Arc::new(Self {
            topology,
            config,
            router,
        }))
    }
}

/// Nobody uses the client any more. Only sends a message: works outside of a runtime, and during a panic.
impl Drop for Core {
    fn drop(&mut self) {
        let until = Instant::now() + LAST_RELEASES;
        drop(self.router.send_message(RouterMessage::Close { until }));
    }
}

/// The service without any layer.
pub(crate) struct Dispatch {
    core: Arc<Core>,
    /// Made when all shards are full: whoever gets room first makes the service ready.
    queues: Vec<PollSemaphore>,
    /// Room that was got by waiting for it, and of which shard.
    reserved: Option<(usize, OwnedSemaphorePermit)>,
}

impl Dispatch {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self {
            core,
            queues: Vec::new(),
            reserved: None,
        }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }
}

/// A clone has reserved nothing.
impl Clone for Dispatch {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.core))
    }
}

impl Service<Request> for Dispatch {
    type Response = Response;
    type Error = Error;
    type Future = ResponseFuture;

    /// Ready while any shard has room. Which shard a request goes to is known only when it is called: if that one has no
    /// room while others have, the call itself waits for it, within its time.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let shards = &self.core.topology.shards;
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

    fn call(&mut self, request: Request) -> Self::Future {
        let core = Arc::clone(&self.core);
        let reserved = self.reserved.take();
        match request {
            Request::Acquire(request) => Box::pin(acquire(core, request, reserved)),
            Request::Enqueue(request) => Box::pin(enqueue(core, request)),
            Request::Collect { place, wait } => Box::pin(collect(core, place, wait)),
            Request::Release(lease) => {
                let (key, answer) = lease.give_back();
                Box::pin(async move {
                    let place = core.topology.route(&key)?;
                    let until = after(Instant::now(), core.config.request_timeout);
                    match timeout_at(until, answer).await {
                        Ok(answer) => answer.map_err(|_| place.gone())?.map(|()| Response::Released),
                        Err(_) => Err(out_of_time(
                            place,
                            "the release was not answered in time; it is still on its way",
                        )),
                    }
                })
            }
            Request::Stats { shard } => Box::pin(async move {
                let place = core.topology.shards.get(shard).ok_or_else(|| {
                    let remedy = format!("this client has {} shards, counted from 0", core.topology.shards.len());
                    Error::invalid("shard index", shard, &remedy)
                })?;
                let until = after(Instant::now(), core.config.request_timeout);
                match timeout_at(until, stats(place, reserved)).await {
                    Ok(stats) => stats.map(Response::Stats),
                    Err(_) => Err(out_of_time(place, "the server did not answer in time")),
                }
            }),
        }
    }
}

type Reserved = Option<(usize, OwnedSemaphorePermit)>;

async fn acquire(core: Arc<Core>, request: AcquireRequest, reserved: Reserved) -> Result<Response> {
    let place = core.topology.route(&request.key)?;
    let only_try = request.wait.is_zero();
    let budget = if only_try {
        core.config.request_timeout
    } else {
        request.wait
    };
    let until = after(Instant::now(), budget);
    let attempts = async {
        let first = if only_try { Patience::Try } else { Patience::TryThenWait };
        let held = acquire_once(place, &request, first, &place.room, reserved).await?;
        if held.is_some() || only_try {
            return Ok(held);
        }
        acquire_once(place, &request, Patience::Until(until), &place.waiting_room, None).await
    };
    match timeout_at(until, attempts).await {
        Ok(Ok(Some(held))) => Ok(Response::Granted(Lease::new(held, Arc::clone(&core)))),
        Ok(Ok(None)) => Ok(Response::Busy),
        Ok(Err(error)) => Err(error),
        Err(_) if only_try => Err(out_of_time(place, "the server did not answer in time")),
        Err(_) => Err(out_of_time(
            place,
            &format!(
                "{:?} was not granted within {budget:?}: somebody else holds it",
                request.key
            ),
        )),
    }
}

async fn acquire_once(
    place: &ShardPlace,
    request: &AcquireRequest,
    patience: Patience,
    room: &Arc<Semaphore>,
    reserved: Reserved,
) -> Result<Option<crate::actor::message::Lease>> {
    let (told, answer) = oneshot::channel();
    let ask = Ask {
        told,
        _room: take_room(place, room, reserved).await?,
    };
    let acquire = Acquire {
        target: request.target,
        key: request.key.clone(),
        ttl: request.ttl,
        policy: request.policy,
        ask,
    };
    place.tell(ShardMessage::Acquire(acquire, patience))?;
    match answer.await.map_err(|_| place.gone())?? {
        Acquired::Lease(lease) => Ok(Some(lease)),
        // A place that nobody asked for is given up by being dropped.
        Acquired::Busy | Acquired::Queued(_) => Ok(None),
    }
}

/// Takes what is free, or a place in its queue. That needs a connection of its own: where all are taken it waits for one.
async fn enqueue(core: Arc<Core>, request: AcquireRequest) -> Result<Response> {
    let place = core.topology.route(&request.key)?;
    let budget = core.config.request_timeout;
    let attempt = async {
        let (told, answer) = oneshot::channel();
        let ask = Ask {
            told,
            _room: take_room(place, &place.waiting_room, None).await?,
        };
        let acquire = Acquire {
            target: request.target,
            key: request.key.clone(),
            ttl: request.ttl,
            policy: request.policy,
            ask,
        };
        place.tell(ShardMessage::Acquire(acquire, Patience::Enqueue))?;
        answer.await.map_err(|_| place.gone())?
    };
    match timeout_at(after(Instant::now(), budget), attempt).await {
        Ok(acquired) => Ok(into_response(acquired?, &core)),
        Err(_) => Err(out_of_time(
            place,
            &format!(
                "{:?} got no place in its queue within {budget:?}: the connections for waits (exclusive_connections, and \
                 exclusive_connections_per_key) are all in use, or the server does not answer",
                request.key
            ),
        )),
    }
}

async fn collect(core: Arc<Core>, queued: QueuePlace, wait: Duration) -> Result<Response> {
    let key = queued.key().clone();
    let place = core.topology.route(&key)?;
    let until = after(Instant::now(), wait);
    // Without a wait it is asked whether the turn has come: that takes an answer.
    let patience = if wait.is_zero() {
        core.config.request_timeout
    } else {
        wait
    };
    let attempt = async {
        let (told, answer) = oneshot::channel();
        let ask = Ask {
            told,
            _room: take_room(place, &place.waiting_room, None).await?,
        };
        queued.into_inner().collect(until, ask);
        answer.await.map_err(|_| place.gone())?
    };
    // The server counts whole seconds; the time of the caller is kept exactly here.
    match timeout_at(after(Instant::now(), patience), attempt).await {
        Ok(acquired) => Ok(into_response(acquired?, &core)),
        Err(_) => Err(out_of_time(
            place,
            &format!("the turn of {key:?} did not come within {wait:?}: somebody else holds it"),
        )),
    }
}

fn into_response(acquired: Acquired, core: &Arc<Core>) -> Response {
    match acquired {
        Acquired::Lease(lease) => Response::Granted(Lease::new(lease, Arc::clone(core))),
        Acquired::Queued(ticket) => Response::Queued(QueuePlace::new(ticket, Arc::clone(core))),
        Acquired::Busy => Response::Busy,
    }
}

async fn stats(place: &ShardPlace, reserved: Reserved) -> Result<Stats> {
    let (told, answer) = oneshot::channel();
    let ask = Ask {
        told,
        _room: take_room(place, &place.room, reserved).await?,
    };
    place.tell(ShardMessage::Stats(ask))?;
    answer.await.map_err(|_| place.gone())?
}

async fn take_room(place: &ShardPlace, room: &Arc<Semaphore>, reserved: Reserved) -> Result<OwnedSemaphorePermit> {
    match reserved {
        Some((shard, room)) if shard == place.index => Ok(room),
        // Rooms are never closed.
        _ => Arc::clone(room).acquire_owned().await.map_err(|_| place.gone()),
    }
}

/// The time is over: because the shard is away, or for the reason given.
fn out_of_time(place: &ShardPlace, otherwise: &str) -> Error {
    if let Some(error) = place.health.borrow().last_error() {
        return unavailable(place.index, &place.endpoint, error);
    }
    Error::new(ErrorKind::Timeout, otherwise.to_owned()).at(place.endpoint.as_text())
}
