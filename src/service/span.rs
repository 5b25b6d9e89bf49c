//! The spans of requests: their names, their fields, and how they end.
//!
//! Fields have the names of OpenTelemetry's semantic conventions where these define a name
//! (`docs/guide/src/observability-reference.md`, "OpenTelemetry"). Spans contain keys, but never tokens.

use std::time::Duration;

use tracing::span::Entered;
use tracing::{Instrument, Level, Span, field};

use super::core::{Core, Explainer};
use super::outcome::Outcome;
use super::request::{Operation, Request, Response};
use crate::actor::topology::ShardPlace;
use crate::error::Result;
use crate::escape::Escaped;
use crate::human::human;
use crate::net::endpoint::Endpoint;
use crate::types::{Key, Kind};

/// Creates a span with the fields of all requests and with further ones. This is a macro because the names in a span
/// must be literals.
macro_rules! client_span {
    ($level:ident, $name:literal, $site:ident $(, $($field:ident).+ = $value:expr)*) => {
        tracing::span!(
            Level::$level,
            $name,
            otel.kind = "client",
            otel.status_code = field::Empty,
            otel.status_description = field::Empty,
            error.type = field::Empty,
            server.address = $site.server.as_ref().and_then(Endpoint::address_text),
            server.port = $site.server.as_ref().and_then(Endpoint::port),
            dflockd.client = $site.client,
            dflockd.shard = $site.shard,
            $($($field).+ = $value,)*
            dflockd.outcome = field::Empty
        )
    };
}

/// The destination of a request.
pub(super) struct Site<'a> {
    /// The name of the client.
    client: Option<&'a str>,
    shard: Option<usize>,
    /// The server that serves the shard, or to which the client tries to connect.
    server: Option<Endpoint>,
}

impl<'a> Site<'a> {
    /// Returns the destination of a request that is about to be sent.
    pub(super) fn of(request: &Request, explainer: &'a Explainer) -> Self {
        let Explainer { routes, topology, .. } = explainer;
        let client = routes.client.as_deref();
        let place = routes.shard_of(request).and_then(|shard| topology.shard(shard).ok());
        match place {
            Some(place) => Self::at(place, client),
            None => Self {
                client,
                shard: None,
                server: None,
            },
        }
    }

    pub(super) fn at(place: &ShardPlace, client: Option<&'a str>) -> Self {
        Self {
            client,
            shard: Some(place.index),
            server: Endpoint::parse(&place.endpoint()).ok(),
        }
    }
}

/// What an acquire waits for.
pub(super) struct Awaited<'a> {
    pub(super) operation: Operation,
    pub(super) key: &'a Key,
    pub(super) kind: Kind,
    /// The maximum wait.
    pub(super) wait: Duration,
}

/// The span of a request, or of a wait. It records the outcome, even if its future is dropped.
pub(super) struct RequestSpan(Span);

impl RequestSpan {
    /// Creates the span of a request. It has debug level, so that a production log at info level costs only a
    /// comparison.
    pub(super) fn of_request(request: &Request, site: &Site<'_>) -> Self {
        let key = field::display(Escaped(request.key().map(Key::as_str).unwrap_or_default()));
        let subject = field::display(Escaped(match request {
            Request::Emit { channel, .. } => channel.as_str(),
            Request::Subscribe(subscribe) => subscribe.pattern.as_str(),
            _ => "",
        }));
        let kind = request.kind().map_or("none", Kind::as_str);
        let wait = field::display(human(request.wait()));
        let empty = field::Empty;
        Self(match request.operation() {
            Operation::Acquire => {
                client_span!(
                    DEBUG,
                    "dflockd.acquire",
                    site,
                    dflockd.key = key,
                    dflockd.kind = kind,
                    dflockd.wait = wait,
                    dflockd.contended = empty
                )
            }
            Operation::TryAcquire => {
                client_span!(
                    DEBUG,
                    "dflockd.try_acquire",
                    site,
                    dflockd.key = key,
                    dflockd.kind = kind,
                    dflockd.contended = empty
                )
            }
            Operation::Enqueue => {
                client_span!(
                    DEBUG,
                    "dflockd.enqueue",
                    site,
                    dflockd.key = key,
                    dflockd.kind = kind,
                    dflockd.contended = empty
                )
            }
            Operation::Collect => {
                client_span!(
                    DEBUG,
                    "dflockd.collect",
                    site,
                    dflockd.key = key,
                    dflockd.kind = kind,
                    dflockd.wait = wait,
                    dflockd.contended = empty
                )
            }
            Operation::Release => client_span!(DEBUG, "dflockd.release", site, dflockd.key = key, dflockd.kind = kind),
            Operation::Stats => client_span!(DEBUG, "dflockd.stats", site),
            Operation::Barrier => client_span!(DEBUG, "dflockd.barrier", site),
            Operation::Failback => client_span!(DEBUG, "dflockd.failback", site),
            Operation::Emit => client_span!(DEBUG, "dflockd.emit", site, dflockd.channel = subject),
            Operation::Subscribe => client_span!(DEBUG, "dflockd.subscribe", site, dflockd.pattern = subject),
        })
    }

    /// Returns whether any subscriber may want the span of a wait.
    pub(super) fn shows_wait_spans() -> bool {
        tracing::enabled!(Level::INFO)
    }

    /// Creates the span of an acquire that waits, if any subscriber wants it. It has info level, because a trace of the
    /// caller's work should show the wait.
    pub(super) fn of_wait(awaited: &Awaited<'_>, place: &ShardPlace, core: &Core) -> Option<Self> {
        if !Self::shows_wait_spans() {
            return None;
        }
        let site = Site::at(place, core.routes.client.as_deref());
        let Awaited {
            operation,
            key,
            kind,
            wait,
        } = awaited;
        Some(Self(client_span!(
            INFO,
            "dflockd.wait",
            site,
            dflockd.operation = operation.as_str(),
            dflockd.key = field::display(Escaped(key.as_str())),
            dflockd.kind = kind.as_str(),
            dflockd.wait = field::display(human(*wait)),
            dflockd.contended = field::Empty
        )))
    }

    pub(super) fn enter(&self) -> Entered<'_> {
        self.0.enter()
    }

    /// Runs the work within the span, and records its outcome.
    pub(super) async fn cover(self, work: impl Future<Output = Result<Response>>) -> Result<Response> {
        let answer = work.instrument(self.0.clone()).await;
        self.end(&answer);
        answer
    }

    /// Records the outcome.
    pub(super) fn end(mut self, answer: &Result<Response>) {
        // Replaces the span, so that the drop records nothing more.
        let span = std::mem::replace(&mut self.0, Span::none());
        span.record("dflockd.outcome", Outcome::of(answer).as_str());
        match answer {
            Ok(Response::Granted(lease)) => {
                span.record("dflockd.contended", lease.was_contended());
            }
            Ok(_) => {}
            Err(error) => {
                span.record("otel.status_code", "ERROR");
                span.record("otel.status_description", field::display(error.chain()));
                span.record("error.type", error.kind().as_str());
            }
        }
    }
}

impl Drop for RequestSpan {
    fn drop(&mut self) {
        self.0.record("dflockd.outcome", Outcome::Dropped.as_str());
    }
}
