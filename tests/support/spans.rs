//! A subscriber that records all spans and events of this crate.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex, OnceLock};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{DefaultGuard, NoSubscriber};
use tracing::{Dispatch, Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// Passes this thread's spans and events to the subscriber until the guard is dropped.
///
/// `tracing` caches for each callsite whether its spans or events are enabled. While the process has only one
/// subscriber, `tracing` decides this by the thread that reaches the callsite first. A thread of another test may be
/// first. That thread has no subscriber, so `tracing` would disable the callsite for all threads. This function
/// therefore makes a second subscriber, which lives as long as the process. With two subscribers, `tracing` does not
/// disable the callsite.
pub fn observe(subscriber: impl Subscriber + Send + Sync + 'static) -> DefaultGuard {
    static SECOND: OnceLock<Dispatch> = OnceLock::new();
    SECOND.get_or_init(|| Dispatch::new(NoSubscriber::default()));
    tracing::subscriber::set_default(subscriber)
}

/// The recorded spans and events. Clones share the record.
#[derive(Clone, Default)]
pub struct Spans(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    /// The level of each span, and the names of its fields.
    fields: BTreeMap<String, (String, BTreeSet<String>)>,
    /// The keys are names of spans. The value has a line for each closed span, with the span's fields as `field=value`.
    closed: BTreeMap<String, String>,
    everything: String,
    /// The spans of other crates inside which this crate logged something.
    foreign: BTreeSet<String>,
    lines: Vec<Line>,
    /// The messages of lines without a field `client`, if the spans around the line have no field `client` either.
    nameless: BTreeSet<String>,
}

/// A log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub level: String,
    pub message: String,
    /// All fields except the message.
    pub fields: BTreeMap<String, String>,
}

#[derive(Default)]
struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }
}

/// The fields of a span or an event so far, as `name=value`.
struct Values(String);

impl Visit for Values {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{}={value:?} ", field.name()).unwrap();
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        write!(self.0, "{}={value} ", field.name()).unwrap();
    }
}

impl Spans {
    /// Records this thread's spans and events until the guard is dropped.
    pub fn install(&self) -> DefaultGuard {
        observe(tracing_subscriber::registry().with(self.clone()))
    }

    /// Returns the fields of all closed spans with this name, one line for each span.
    pub fn closed(&self, name: &str) -> String {
        self.0.lock().unwrap().closed.get(name).cloned().unwrap_or_default()
    }

    /// Returns the level of each opened span, and the names of its fields.
    pub fn fields(&self) -> BTreeMap<String, (String, BTreeSet<String>)> {
        self.0.lock().unwrap().fields.clone()
    }

    /// Returns the spans of other crates inside which this crate logged something.
    pub fn foreign(&self) -> BTreeSet<String> {
        self.0.lock().unwrap().foreign.clone()
    }

    /// Returns the messages of the lines for which neither the line nor a span around it has a field `client`.
    pub fn nameless(&self) -> BTreeSet<String> {
        self.0.lock().unwrap().nameless.clone()
    }

    /// Returns the lines with this message, in order.
    pub fn lines(&self, message: &str) -> Vec<Line> {
        let lines = self.0.lock().unwrap().lines.clone();
        lines.into_iter().filter(|line| line.message == message).collect()
    }

    /// Returns every recorded value as text.
    pub fn everything(&self) -> String {
        self.0.lock().unwrap().everything.clone()
    }
}

fn is_ours(metadata: &tracing::Metadata<'_>) -> bool {
    metadata.target().starts_with("dflockd_client")
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let metadata = attributes.metadata();
        if !is_ours(metadata) {
            return;
        }
        let mut values = Values(String::new());
        attributes.record(&mut values);
        context.span(id).unwrap().extensions_mut().insert(values);
        let names = metadata.fields().iter().map(|field| field.name().to_owned()).collect();
        let level = metadata.level().as_str().to_lowercase();
        let mut seen = self.0.lock().unwrap();
        seen.fields.insert(metadata.name().to_owned(), (level, names));
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        if let Some(values) = context.span(id).unwrap().extensions_mut().get_mut::<Values>() {
            record.record(values);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if is_ours(event.metadata()) {
            let (mut values, mut fields) = (Values(String::new()), Fields::default());
            event.record(&mut values);
            event.record(&mut fields);
            let around = context.event_scope(event).into_iter().flatten();
            let foreign = around.filter(|span| !is_ours(span.metadata()));
            let has_client = |values: &Values| values.0.contains("client=");
            let named = has_client(&values)
                || context
                    .event_scope(event)
                    .into_iter()
                    .flatten()
                    .any(|span| span.extensions().get::<Values>().is_some_and(has_client));
            let mut seen = self.0.lock().unwrap();
            if !named {
                let message = fields.0.get("message").cloned();
                seen.nameless.extend(message);
            }
            seen.foreign.extend(foreign.map(|span| span.name().to_owned()));
            writeln!(seen.everything, "{}", values.0).unwrap();
            seen.lines.push(Line {
                level: event.metadata().level().as_str().to_lowercase(),
                message: fields.0.remove("message").unwrap_or_default(),
                fields: fields.0,
            });
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let span = context.span(&id).unwrap();
        let values = span.extensions_mut().remove::<Values>();
        if let Some(values) = values {
            let mut seen = self.0.lock().unwrap();
            writeln!(seen.everything, "{} {}", span.name(), values.0).unwrap();
            writeln!(seen.closed.entry(span.name().to_owned()).or_default(), "{}", values.0).unwrap();
        }
    }
}
