//! The spans that an exporter of traces gets from a client: which requests have a span, and the parent, the fields and
//! the end of the span.
//!
//! The subscriber of a test sees only the spans of one thread. So each async test runs on one thread, and the test of
//! the blocking client makes its calls on that thread.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::proxy::Proxy;
use crate::support::spans::observe;
use crate::support::until;
use dflockd_client::server::{Server, ServerBuilder};
use dflockd_client::{
    Client, ClientBuilder, Enqueued, ErrorKind, LockGuard, LockLayer, OnUnavailable, ReconnectPolicy, blocking,
};
use opentelemetry::trace::{SpanId, SpanKind, Status, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tower::{Layer as _, ServiceExt, service_fn};
use tracing::subscriber::DefaultGuard;
use tracing::{Instrument, info_span};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::{EnvFilter, registry};

/// The filter that the guide recommends.
const AT_INFO: &str = "info,ractor=off,dflockd_client::tasks=off";
const AT_DEBUG: &str = "debug,ractor=off,dflockd_client::tasks=off";

/// The spans that were exported on this thread.
struct Traces {
    exporter: InMemorySpanExporter,
    _provider: SdkTracerProvider,
    _installed: DefaultGuard,
}

impl Traces {
    fn at(filter: &str) -> Self {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(exporter.clone())
            .build();
        let layer = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("test"))
            .with_filter(EnvFilter::new(filter));
        Self {
            exporter,
            _installed: observe(registry().with(layer)),
            _provider: provider,
        }
    }

    fn all(&self) -> Vec<SpanData> {
        self.exporter.get_finished_spans().unwrap()
    }

    fn named(&self, name: &str) -> Vec<SpanData> {
        self.all().into_iter().filter(|span| span.name == name).collect()
    }

    /// Returns the only span with this name.
    fn only(&self, name: &str) -> SpanData {
        let mut named = self.named(name);
        assert_eq!(named.len(), 1, "{name}: {:?}", self.all());
        named.remove(0)
    }

    /// Returns the names of the client's own spans.
    fn ours(&self) -> Vec<String> {
        let all = self.all().into_iter().map(|span| span.name.into_owned());
        all.filter(|name| name.starts_with("dflockd")).collect()
    }
}

fn attributes(span: &SpanData) -> BTreeMap<String, String> {
    let all = span.attributes.iter();
    let ours = all.filter(|pair| {
        ["dflockd.", "server.", "error."]
            .iter()
            .any(|start| pair.key.as_str().starts_with(start))
    });
    let mut named = BTreeMap::new();
    for pair in ours {
        let twice = named.insert(pair.key.to_string(), pair.value.to_string());
        assert!(twice.is_none(), "{} stands twice in {span:?}", pair.key);
    }
    named
}

fn is_child(span: &SpanData, parent: &SpanData) {
    assert_eq!(span.parent_span_id, parent.span_context.span_id());
    assert_eq!(span.span_context.trace_id(), parent.span_context.trace_id());
}

fn failed(span: &SpanData, kind: ErrorKind) {
    let attributes = attributes(span);
    assert_eq!(attributes["error.type"], kind.as_str(), "{span:?}");
    assert_eq!(attributes["dflockd.outcome"], kind.as_str());
    assert!(matches!(&span.status, Status::Error { description } if !description.is_empty()));
    assert!(!attributes.contains_key("dflockd.contended"));
}

fn builder(address: &str) -> ClientBuilder {
    let pauses = ReconnectPolicy::exponential(Duration::from_millis(5), Duration::from_millis(20));
    Client::builder().servers([address]).reconnect(pauses)
}

async fn served(options: ServerBuilder) -> (Server, String) {
    let server = options.port(0).start().await.unwrap();
    let address = server.local_addr().to_string();
    (server, address)
}

/// A lock that another client holds.
struct Held {
    server: Server,
    address: String,
    client: Client,
    guard: LockGuard,
}

impl Held {
    async fn of(options: ServerBuilder) -> Self {
        let (server, address) = served(options).await;
        let holder = builder(&address).connect().await.unwrap();
        Self {
            guard: holder.lock("k").unwrap().acquire().await.unwrap(),
            client: builder(&address).connect().await.unwrap(),
            server,
            address,
        }
    }

    async fn until_waiters(&self, count: u64) {
        until("the callers wait at the server", || {
            self.server.stats().locks[0].waiters == count
        })
        .await;
    }
}

#[tokio::test]
async fn requests_that_are_answered_at_once_have_no_span_at_info() {
    let traces = Traces::at(AT_INFO);
    let (_server, address) = served(Server::builder()).await;
    let client = builder(&address).connect().await.unwrap();
    let work = async {
        let guard = client.lock("k").unwrap().acquire().await.unwrap();
        assert!(client.lock("k").unwrap().try_acquire().await.unwrap().is_none());
        guard.release().await.unwrap();
        client.stats().await.unwrap();
        let _slot = client.semaphore("s", 2).unwrap().acquire().await.unwrap();
        let refused = client.semaphore("s", 3).unwrap().acquire().await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::LimitMismatch);
    };
    work.instrument(info_span!("work")).await;
    assert_eq!(traces.only("work").span_kind, SpanKind::Internal);
    assert!(traces.ours().is_empty(), "{:?}", traces.ours());
}

#[tokio::test]
async fn the_span_of_an_acquire_that_waits_is_a_child_of_its_callers_span() {
    let traces = Traces::at(AT_INFO);
    let held = Held::of(Server::builder()).await;
    let lock = held.client.lock("k").unwrap().acquire_timeout(Duration::from_secs(60));
    let waiting = tokio::spawn(async move { lock.acquire().await.unwrap() }.instrument(info_span!("work")));
    held.until_waiters(1).await;
    held.guard.release().await.unwrap();
    let guard = waiting.await.unwrap();
    let (work, wait) = (traces.only("work"), traces.only("dflockd.wait"));
    assert_eq!(traces.ours(), ["dflockd.wait"]);
    is_child(&wait, &work);
    assert_eq!((wait.span_kind, wait.status), (SpanKind::Client, Status::Unset));
    assert!(wait.start_time >= work.start_time && wait.end_time <= work.end_time);
    let (host, port) = held.address.split_once(':').unwrap();
    let expected = [
        ("dflockd.contended", "true"),
        ("dflockd.key", "k"),
        ("dflockd.kind", "lock"),
        ("dflockd.operation", "acquire"),
        ("dflockd.outcome", "granted"),
        ("dflockd.shard", "0"),
        ("dflockd.wait", "60s"),
        ("server.address", host),
        ("server.port", port),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let wait = traces.only("dflockd.wait");
    assert_eq!(attributes(&wait), BTreeMap::from(expected));
    assert!(guard.is_held());
}

#[tokio::test]
async fn the_span_of_a_failed_wait_has_the_reason() {
    let traces = Traces::at(AT_INFO);
    let held = Held::of(Server::builder().max_waiters(1)).await;
    let lock = held.client.lock("k").unwrap();
    let brief = lock.clone().acquire_timeout(Duration::from_millis(50));
    assert_eq!(brief.acquire().await.unwrap_err().kind(), ErrorKind::Timeout);
    failed(&traces.only("dflockd.wait"), ErrorKind::Timeout);
    traces.exporter.reset();

    let waiting = tokio::spawn(async move { lock.acquire().await.map(drop) });
    held.until_waiters(1).await;
    let other = builder(&held.address).connect().await.unwrap();
    let refused = other.lock("k").unwrap().acquire().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::MaxWaiters);
    assert!(traces.ours().is_empty(), "the request failed at once");
    other.shutdown(Duration::from_secs(5)).await;

    held.client.shutdown(Duration::from_secs(5)).await;
    let ended = waiting.await.unwrap().unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::Shutdown);
    failed(&traces.only("dflockd.wait"), ErrorKind::Shutdown);
}

#[tokio::test]
async fn the_span_of_a_dropped_wait_has_that_outcome_and_no_error() {
    let traces = Traces::at(AT_INFO);
    let held = Held::of(Server::builder()).await;
    let lock = held.client.lock("k").unwrap();
    let waiting = tokio::spawn(async move { lock.acquire().await.map(drop) });
    held.until_waiters(1).await;
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    let wait = traces.only("dflockd.wait");
    let attributes = attributes(&wait);
    assert_eq!(attributes["dflockd.outcome"], "dropped");
    assert!(!attributes.contains_key("error.type") && wait.status == Status::Unset);
}

/// First the server does not answer. Then the shard has no connection.
#[tokio::test]
async fn an_acquire_without_an_answer_for_a_while_has_a_span() {
    let traces = Traces::at(AT_INFO);
    let (_server, address) = served(Server::builder()).await;
    let proxy = Proxy::start(&address).await;
    let client = builder(&proxy.address).connect().await.unwrap();
    proxy.change(|treatment| treatment.stall_down = true);
    let lock = client.lock("k").unwrap();
    let work = async move { lock.acquire().await.unwrap() };
    let work = tokio::spawn(work.instrument(info_span!("work")));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(traces.ours().is_empty());
    proxy.pass_everything();
    let guard = work.await.unwrap();
    let wait = traces.only("dflockd.wait");
    is_child(&wait, &traces.only("work"));
    let told = attributes(&wait);
    assert_eq!(
        (&*told["dflockd.outcome"], &*told["dflockd.contended"]),
        ("granted", "false")
    );
    guard.release().await.unwrap();
    traces.exporter.reset();

    proxy.change(|treatment| treatment.refuse = true);
    proxy.cut();
    until("the client is disconnected", || !client.health()[0].is_connected()).await;
    let lock = client.lock("k").unwrap().acquire_timeout(Duration::from_millis(500));
    assert_eq!(lock.acquire().await.unwrap_err().kind(), ErrorKind::Unavailable);
    failed(&traces.only("dflockd.wait"), ErrorKind::Unavailable);
    traces.exporter.reset();

    let quick = builder(&proxy.address).on_unavailable(OnUnavailable::FailFast);
    let quick = quick.build().unwrap();
    until("the client is disconnected", || !quick.health()[0].is_connected()).await;
    let lock = quick.lock("k").unwrap();
    assert_eq!(lock.acquire().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(traces.named("dflockd.wait").is_empty(), "the request failed at once");
    proxy.pass_everything();
    until("the client is connected again", || client.health()[0].is_connected()).await;
    let reconnect = traces.named("dflockd.reconnect");
    let (host, port) = proxy.address.split_once(':').unwrap();
    let told = attributes(&reconnect[0]);
    assert_eq!((&*told["server.address"], &*told["server.port"]), (host, port));
    assert_eq!(reconnect[0].parent_span_id, SpanId::INVALID);
}

#[tokio::test]
async fn a_wait_of_a_ticket_has_a_span() {
    let traces = Traces::at(AT_INFO);
    let held = Held::of(Server::builder()).await;
    let lock = held.client.lock("k").unwrap();
    let Enqueued::Queued(ticket) = lock.enqueue().await.unwrap() else {
        panic!("the key is held");
    };
    assert!(traces.ours().is_empty());
    held.guard.release().await.unwrap();
    let guard = ticket.wait(Duration::from_secs(60)).await.unwrap();
    assert!(guard.was_contended());
    let told = attributes(&traces.only("dflockd.wait"));
    assert_eq!(
        (&*told["dflockd.operation"], &*told["dflockd.outcome"]),
        ("collect", "granted")
    );
}

#[tokio::test]
async fn the_span_of_stopped_work_says_that_the_lease_was_lost() {
    let traces = Traces::at(AT_INFO);
    let (_server, address) = served(Server::builder()).await;
    let proxy = Proxy::start(&address).await;
    let client = builder(&proxy.address).name("billing").connect().await.unwrap();
    for by_layer in [false, true] {
        let lock = client.lock("k").unwrap();
        // The work itself signals that it runs. The server's stats would show the grant too early, because the client
        // does not have the answer at that moment.
        let (runs, begun) = std::sync::mpsc::channel();
        let tells = runs.clone();
        let service = service_fn(move |(): ()| {
            tells.send(()).unwrap();
            std::future::pending::<Result<(), std::io::Error>>()
        });
        let locked = LockLayer::new(&client, |(): &()| "k").layer(service);
        let work = async move {
            if by_layer {
                return drop(locked.oneshot(()).await.unwrap_err());
            }
            let guard = lock.acquire().await.unwrap();
            runs.send(()).unwrap();
            drop(guard.run(std::future::pending::<()>()).await.unwrap_err());
        };
        let work = tokio::spawn(work.instrument(info_span!("work")));
        until("the work runs", || begun.try_recv().is_ok()).await;
        proxy.cut();
        work.await.unwrap();
        let events = traces.only("work").events.events;
        let told: Vec<_> = events.iter().map(|event| event.name.as_ref()).collect();
        assert_eq!(told, ["stopped: the lease was lost"], "{events:?}");
        let said: BTreeMap<_, _> = events[0]
            .attributes
            .iter()
            .map(|pair| (pair.key.as_str(), pair.value.to_string()))
            .collect();
        let expected = [("client", "billing"), ("key", "k"), ("reason", "disconnected")];
        assert!(expected.iter().all(|(name, value)| said[name] == *value), "{said:?}");
        assert!(traces.named("dflockd.wait").is_empty());
        traces.exporter.reset();
    }
}

#[tokio::test]
async fn the_spans_of_layers_and_requests_are_between_a_wait_and_its_caller() {
    let traces = Traces::at(AT_DEBUG);
    let (server, address) = served(Server::builder()).await;
    let layered = builder(&address).layer(tower::buffer::BufferLayer::new(8));
    let client = layered.connect().await.unwrap();
    let held = client.lock("k").unwrap().acquire().await.unwrap();
    traces.exporter.reset();
    let lock = client.lock("k").unwrap();
    let work = async move { lock.acquire().await.unwrap() };
    let work = tokio::spawn(work.instrument(info_span!("work")));
    until("it waits at the server", || server.stats().locks[0].waiters == 1).await;
    held.release().await.unwrap();
    let guard = work.await.unwrap();
    let [acquire, wait] = ["dflockd.acquire", "dflockd.wait"].map(|name| traces.only(name));
    is_child(&acquire, &traces.only("work"));
    is_child(&wait, &acquire);
    assert_eq!(attributes(&acquire)["dflockd.outcome"], "granted");
    let release = info_span!("release");
    guard.release().instrument(release).await.unwrap();
    is_child(&traces.named("dflockd.release").pop().unwrap(), &traces.only("release"));
}

#[test]
fn the_client_for_threads_has_the_same_spans() {
    let traces = Traces::at(AT_INFO);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (server, address) = runtime.block_on(served(Server::builder()));
    let client = blocking::Client::connect(&format!("dflockd://{address}")).unwrap();
    let held = client.lock("k").unwrap().acquire().unwrap();
    let releases = std::thread::spawn(move || {
        crate::support::until_now("it waits at the server", || server.stats().locks[0].waiters == 1);
        held.release().unwrap();
        server
    });
    let guard = info_span!("work").in_scope(|| client.lock("k").unwrap().acquire().unwrap());
    is_child(&traces.only("dflockd.wait"), &traces.only("work"));
    guard.release().unwrap();
    releases.join().unwrap();
}

/// No task of a client keeps the span open in which the client was built.
#[tokio::test]
async fn a_client_may_be_built_within_a_span() {
    for filter in [AT_INFO, AT_DEBUG, "info"] {
        let traces = Traces::at(filter);
        let (_server, address) = served(Server::builder().release("1.16")).await;
        let work = async {
            let client = builder(&address).name("billing").connect().await.unwrap();
            let signals = client.subscribe("orders.*").await.unwrap();
            (client, signals)
        };
        let client = work.instrument(info_span!("work")).await;
        assert_eq!(traces.only("work").name, "work", "{filter}");
        drop(client);
    }
}
