//! Traces with OpenTelemetry: each wait for a lock is a span in the trace of its caller.
//!
//!     cargo run --example opentelemetry
//!
//! The example handles four orders of one customer under the customer's lock. The crate `tracing-opentelemetry` passes
//! the spans to an exporter that keeps them in memory. In production, use an exporter that sends them, for example from
//! `opentelemetry-otlp`. At the end, the example prints and checks all spans.
#![allow(missing_docs)]

use std::error::Error;
use std::time::Duration;

use dflockd_client::server::Server;
use dflockd_client::{Client, ErrorKind, Lock};
use opentelemetry::trace::{SpanKind, Status, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tokio::sync::oneshot;
use tokio::time::sleep;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // In production, use `.with_batch_exporter(…)`, which sends spans in batches.
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    let traces = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("orders"))
        // The filter excludes the spans of the client's own tasks, because these spans belong to no caller's trace.
        .with_filter(EnvFilter::new("info,ractor=off,dflockd_client::tasks=off"));
    tracing_subscriber::registry().with(traces).init();

    let server = Server::builder().port(0).start().await?;
    let address = server.local_addr().to_string();
    let client = Client::builder().servers([address]).name("orders").connect().await?;
    let customer = client.lock("customers/7")?;

    // The channels fix the order of events, so that the spans can be checked.
    let (holds, is_held) = oneshot::channel();
    let (finish, finished) = oneshot::channel();
    let first = tokio::spawn(handle(1, customer.clone(), async move {
        let _ = holds.send(());
        let _ = finished.await;
    }));
    is_held.await?;
    let second = tokio::spawn(handle(2, customer.clone(), async {}));
    until_waiting(&server, 1).await;
    tokio::select! {
        _ = handle(3, customer.clone(), async {}) => return Err("the first order was not done yet".into()),
        () = until_waiting(&server, 2) => println!("the caller of order 3 has gone"),
    }
    let impatient = customer.acquire_timeout(Duration::from_secs(1));
    let fourth = handle(4, impatient, async {}).await;
    assert!(fourth.is_err_and(|error| error.kind() == ErrorKind::Timeout));
    let _ = finish.send(());
    first.await??;
    second.await??;

    client.shutdown(Duration::from_secs(5)).await;
    provider.force_flush()?;
    let spans = exporter.get_finished_spans()?;
    for span in &spans {
        show(span, &spans);
    }
    check(&spans)
}

/// Handles an order. The attribute gives it a span, and it has no other code for traces.
#[tracing::instrument(skip(customer, work))]
async fn handle(order: u32, customer: Lock, work: impl Future<Output = ()>) -> Result<(), dflockd_client::Error> {
    let guard = customer.acquire().await?;
    guard.run(work).await?;
    guard.release().await
}

async fn until_waiting(server: &Server, callers: u64) {
    while server.stats().locks.first().is_none_or(|lock| lock.waiters < callers) {
        sleep(Duration::from_millis(5)).await;
    }
}

fn parent<'a>(span: &SpanData, spans: &'a [SpanData]) -> Option<&'a SpanData> {
    let mut others = spans.iter();
    others.find(|other| other.span_context.span_id() == span.parent_span_id)
}

fn attribute(span: &SpanData, name: &str) -> Option<String> {
    let mut attributes = span.attributes.iter();
    let found = attributes.find(|attribute| attribute.key.as_str() == name)?;
    Some(found.value.to_string())
}

fn show(span: &SpanData, spans: &[SpanData]) {
    let took = span.end_time.duration_since(span.start_time).unwrap_or_default();
    let below = match parent(span, spans) {
        Some(parent) => format!(
            "below {} {}",
            parent.name,
            attribute(parent, "order").unwrap_or_default()
        ),
        None => "at the top".to_owned(),
    };
    println!(
        "{} ({:?}, {} ms), {below}, status {:?}",
        span.name,
        span.span_kind,
        took.as_millis(),
        span.status
    );
    for attribute in &span.attributes {
        let name = attribute.key.as_str();
        if ["dflockd.", "server.", "error.", "order"]
            .iter()
            .any(|start| name.starts_with(start))
        {
            println!("    {name} = {}", attribute.value);
        }
    }
}

/// Checks that each order has a span, and that each order that waited also has a span of the wait below its own span.
fn check(spans: &[SpanData]) -> Result<(), Box<dyn Error>> {
    let mut waits: Vec<_> = spans.iter().filter(|span| span.name == "dflockd.wait").collect();
    waits.sort_by_key(|wait| parent(wait, spans).and_then(|order| attribute(order, "order")));
    assert_eq!(spans.iter().filter(|span| span.name == "handle").count(), 4);
    assert_eq!(waits.len(), 3, "the first order was granted its lock at once");
    assert_eq!(spans.len(), 7, "there are no other spans");
    let ends = [
        ("2", "granted", None),
        ("3", "dropped", None),
        ("4", "timeout", Some("timeout")),
    ];
    for (wait, (order, outcome, error)) in waits.into_iter().zip(ends) {
        let above = parent(wait, spans).ok_or("a wait without the span of its order")?;
        assert_eq!(attribute(above, "order").as_deref(), Some(order));
        assert_eq!(wait.span_kind, SpanKind::Client);
        assert_eq!(attribute(wait, "dflockd.outcome").as_deref(), Some(outcome));
        assert_eq!(attribute(wait, "error.type").as_deref(), error);
        assert_eq!(matches!(wait.status, Status::Error { .. }), error.is_some());
        assert_eq!(attribute(wait, "dflockd.key").as_deref(), Some("customers/7"));
        assert_eq!(attribute(wait, "server.address").as_deref(), Some("127.0.0.1"));
    }
    Ok(())
}
