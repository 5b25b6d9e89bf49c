//! A mock service, which answers and grants without a server.

mod answer;
mod lease;
mod place;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::{Future, pending};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::time::Instant;
use tower::{Layer, Service, service_fn};

pub use self::answer::{MockAnswer, MockRequest};
pub use self::lease::{GivenBack, MockLease};
use self::place::MockPlace;
use crate::client::Client;
use crate::client::builder::ClientBuilder;
use crate::error::{Error, ErrorKind, Result};
use crate::net::endpoint::Endpoint;
use crate::service::{AcquireRequest, Operation, QueuePlace, Request, Response, UserLayer};
use crate::shard::held::HeldPosition;
use crate::shard::ids::TicketId;
use crate::shard::progress::{Refusal, WaitsFor};
use crate::types::{Fence, Grant, Key, Target, Token, Ttl};

/// A service that gives scripted answers without a server, for tests of [layers](ClientBuilder::layer), and of code
/// that uses a client. Clones share their state.
///
/// By default it grants every acquire, enqueue and wait of a ticket, even for a key that is held: it implements no
/// locks. Leases last until they are released or [lost](MockLease::lose); there are no renewals. It remembers all
/// requests and grants for its whole life. For locks that exclude each other, use [`TestServer`](super::TestServer).
///
/// It is a [`tower::Service`] like a client, so a layer can wrap it:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), dflockd_client::Error> {
/// use dflockd_client::testing::{GivenBack, MockAnswer, MockService};
/// use dflockd_client::tower::limit::ConcurrencyLimitLayer;
/// use dflockd_client::tower::{Layer, Service, ServiceExt};
/// use dflockd_client::{AcquireRequest, Key, LostReason, Request, Response, Target};
///
/// let mock = MockService::new();
/// let mut service = ConcurrencyLimitLayer::new(8).layer(mock.clone());
/// let acquire = || Request::Acquire(AcquireRequest::new(Target::Lock, Key::new("orders/42").unwrap()));
///
/// let Response::Granted(lease) = service.ready().await?.call(acquire()).await? else {
///     panic!("the layer answered something else");
/// };
/// let granted = mock.lease("orders/42").unwrap();
/// granted.lose(LostReason::Expired);
/// assert_eq!(lease.lost().await, LostReason::Expired);
/// drop(lease);
/// assert_eq!(granted.given_back(), Some(GivenBack::Dropped));
///
/// mock.answer_next(MockAnswer::Busy);
/// assert!(matches!(service.ready().await?.call(acquire()).await?, Response::Busy));
/// # Ok(())
/// # }
/// ```
///
/// A client can be built on it, with layers and handles as usual:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), dflockd_client::Error> {
/// use dflockd_client::testing::{GivenBack, MockService};
///
/// let mock = MockService::new();
/// let client = mock.client()?;
/// client.lock("orders/42")?.acquire().await?.release().await?;
/// assert_eq!(mock.leases()[0].given_back(), Some(GivenBack::Released));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct MockService(Arc<MockState>);

/// The state that clones and leases share.
#[derive(Default)]
struct MockState(Mutex<Script>);

#[derive(Default)]
struct Script {
    answers: VecDeque<MockAnswer>,
    failures_of_releases: VecDeque<ErrorKind>,
    requests: Vec<MockRequest>,
    leases: Vec<MockLease>,
    places: BTreeMap<TicketId, MockPlace>,
    last_place: TicketId,
    given_up: Vec<Key>,
}

impl MockState {
    /// Locks the script briefly: never across an await, or while a value of the user is dropped.
    fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the error of the next release, if it should fail.
    fn failure_of_release(&self) -> Option<Error> {
        self.script().failures_of_releases.pop_front().map(failed)
    }

    /// Removes a queue position. `given_up` is its key if the ticket was dropped without a wait.
    fn end_place(&self, id: TicketId, given_up: Option<Key>) {
        let mut script = self.script();
        script.places.remove(&id);
        script.given_up.extend(given_up);
    }
}

fn failed(kind: ErrorKind) -> Error {
    Error::new(kind, "the mock service was told to fail")
}

impl MockService {
    /// Creates a service with the default answers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    // Scripting.

    /// Sets the answer to the next request other than a release. Several calls set the answers to that many requests,
    /// in this order.
    pub fn answer_next(&self, answer: MockAnswer) {
        self.0.script().answers.push_back(answer);
    }

    /// Makes the next release fail with an error of this kind. This does not affect dropped or lost leases.
    pub fn fail_next_release(&self, kind: ErrorKind) {
        self.0.script().failures_of_releases.push_back(kind);
    }

    // Observing.

    /// Returns all requests so far, in order. They include releases, but not dropped leases.
    #[must_use]
    pub fn requests(&self) -> Vec<MockRequest> {
        self.0.script().requests.clone()
    }

    /// Returns all granted leases, in order.
    #[must_use]
    pub fn leases(&self) -> Vec<MockLease> {
        self.0.script().leases.clone()
    }

    /// Returns the last lease that was granted for a key.
    #[must_use]
    pub fn lease(&self, key: impl AsRef<str>) -> Option<MockLease> {
        let script = self.0.script();
        let mut newest_first = script.leases.iter().rev();
        newest_first.find(|lease| lease.key().as_str() == key.as_ref()).cloned()
    }

    /// Returns the keys of all tickets that were dropped without a wait, in order.
    #[must_use]
    pub fn given_up(&self) -> Vec<Key> {
        self.0.script().given_up.clone()
    }

    // Using it.

    /// Grants a request. Call it in a service of your own that decides which requests to grant. The lease is among
    /// [`leases`](Self::leases).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// use dflockd_client::testing::MockService;
    /// use dflockd_client::tower::{ServiceExt, service_fn};
    /// use dflockd_client::{AcquireRequest, Error, Key, Request, Response, Target};
    ///
    /// let mock = MockService::new();
    /// let granting = mock.clone();
    /// let service = service_fn(move |request: Request| {
    ///     let mock = granting.clone();
    ///     async move {
    ///         Ok::<_, Error>(match &request {
    ///             Request::Acquire(acquire) => mock.grant(acquire),
    ///             _ => Response::Busy,
    ///         })
    ///     }
    /// });
    /// let acquire = AcquireRequest::new(Target::Lock, Key::new("orders/42")?);
    /// let response = service.oneshot(Request::Acquire(acquire)).await?;
    /// assert!(matches!(response, Response::Granted(_)));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "a lease that is dropped is released"]
    pub fn grant(&self, request: &AcquireRequest) -> Response {
        self.granted(request.target, request.key.clone(), request.ttl, false)
    }

    /// Builds a client on this service. It has no server, and its health shows that.
    ///
    /// # Errors
    ///
    /// As [`ClientBuilder::build`].
    pub fn client(&self) -> Result<Client> {
        self.client_builder().build()
    }

    /// Returns a builder for a client on this service. The [layers](ClientBuilder::layer) that you add to the builder
    /// get each request first, and then this service answers it. The client never connects, so use
    /// [`build`](ClientBuilder::build); [`connect`](ClientBuilder::connect) would fail.
    pub fn client_builder(&self) -> ClientBuilder {
        let nowhere = service_fn(|_: Endpoint| pending::<io::Result<DuplexStream>>());
        Client::builder()
            .connector(nowhere)
            .innermost(UserLayer::new(self.clone()))
    }

    /// Returns the scripted answer to a request, or the default one.
    fn answer(&self, request: Request) -> Result<Option<Response>> {
        let operation = request.operation();
        let told = self.0.script().answers.pop_front();
        let subject = request.key().map_or_else(String::new, |key| key.as_str().to_owned());
        let answer = match (told, operation) {
            (Some(told), _) => told,
            (None, Operation::Barrier) => return Ok(Some(Response::Visible)),
            (None, _) => MockAnswer::default_for(operation).ok_or_else(|| {
                let message = format!("a mock service has no answer of its own to {operation}");
                Error::new(ErrorKind::Unsupported, message)
            })?,
        };
        // The ticket has waited now, regardless of the answer.
        let asked = match request {
            Request::Collect { place, wait } => Asked::Collect(self.collect(place)?, wait),
            other => Asked::Other(other),
        };
        Ok(Some(match answer {
            MockAnswer::Never => return Ok(None),
            MockAnswer::Refuse(status) => return Err(status.to_error(&subject)),
            MockAnswer::Fail(kind) => return Err(failed(kind)),
            MockAnswer::Stats(stats) => Response::Stats(stats),
            MockAnswer::Delivered(times) => Response::Delivered(times),
            MockAnswer::Grant => match asked {
                Asked::Other(Request::Acquire(acquire) | Request::Enqueue(acquire)) => self.grant(&acquire),
                Asked::Collect((held, known), _) => self.granted(known.target, held.key.clone(), known.ttl, true),
                Asked::Other(_) => return Err(out_of_place(operation)),
            },
            MockAnswer::Queue => match asked {
                Asked::Other(Request::Acquire(acquire) | Request::Enqueue(acquire)) => self.queued(acquire),
                Asked::Collect(..) | Asked::Other(_) => return Err(out_of_place(operation)),
            },
            MockAnswer::Busy => match asked {
                Asked::Collect((held, known), wait) => {
                    return Err(known.refusal.not_its_turn(known.target, &held.key, wait));
                }
                Asked::Other(Request::Acquire(acquire)) if acquire.wait.is_zero() => Response::Busy,
                Asked::Other(Request::Acquire(acquire)) => {
                    let refusal = Refusal {
                        at: Instant::now(),
                        own: 0,
                    };
                    let AcquireRequest { target, key, wait, .. } = acquire;
                    return Err(refusal.not_granted(target, &key, wait, WaitsFor::Turn));
                }
                // A server answers an enqueue of a held key with a queue position.
                Asked::Other(_) => return Err(out_of_place(operation)),
            },
        }))
    }

    fn granted(&self, target: Target, key: Key, ttl: Option<Ttl>, contended: bool) -> Response {
        let mut script = self.0.script();
        let number = script.leases.len() as u64 + 1;
        let fence = Fence(number);
        let grant = Grant {
            fence: Some(fence),
            ..Grant::new(Token::compose(fence, number), ttl.unwrap_or(Ttl::DEFAULT))
        };
        let (lease, granted) = MockLease::grant(key, target.kind(), grant, &self.0);
        if contended {
            granted.note_contended();
        }
        script.leases.push(granted);
        Response::Granted(lease)
    }

    fn queued(&self, request: AcquireRequest) -> Response {
        let mut script = self.0.script();
        script.last_place += 1;
        let id = script.last_place;
        let (place, known) = MockPlace::give(id, request, &self.0);
        script.places.insert(id, known);
        Response::Queued(place)
    }

    /// Notes that a ticket waits.
    fn collect(&self, place: QueuePlace) -> Result<(HeldPosition, MockPlace)> {
        let (held, _) = place.into_parts();
        let known = self.0.script().places.get(&held.id()).cloned();
        let known = known.ok_or_else(|| {
            let message = format!(
                "the queue position for {:?} does not belong to this mock service",
                held.key
            );
            Error::new(ErrorKind::NotEnqueued, message)
        })?;
        known.collect();
        Ok((held, known))
    }
}

/// A request, with the queue position at which it waits.
enum Asked {
    Collect((HeldPosition, MockPlace), Duration),
    Other(Request),
}

fn out_of_place(operation: Operation) -> Error {
    Error::new(
        ErrorKind::Protocol,
        format!("the mock service was told an answer that does not fit {operation}"),
    )
}

/// The future of a mock service's answer.
type MockFuture = Pin<Box<dyn Future<Output = Result<Response>> + Send>>;

impl Service<Request> for MockService {
    type Response = Response;
    type Error = Error;
    type Future = MockFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> MockFuture {
        self.0.script().requests.push(MockRequest::from(&request));
        let mock = self.clone();
        Box::pin(async move {
            if let Request::Release(lease) = request {
                let (_, answer, _) = lease.give_back();
                return match answer.await {
                    Some(released) => released.map(|()| Response::Released),
                    None => Err(failed(ErrorKind::Unavailable)),
                };
            }
            match mock.answer(request)? {
                Some(response) => Ok(response),
                None => pending().await,
            }
        })
    }
}

/// Replaces the inner service, which gets no requests.
impl<S> Layer<S> for MockService {
    type Service = Self;

    fn layer(&self, _: S) -> Self {
        self.clone()
    }
}

impl fmt::Debug for MockService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let script = self.0.script();
        f.debug_struct("MockService")
            .field("answers", &script.answers)
            .field("leases", &script.leases)
            .finish_non_exhaustive()
    }
}
