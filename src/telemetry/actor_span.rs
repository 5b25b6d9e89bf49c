//! The span in which ractor runs an actor. What this crate logs does not carry it: it says nothing to an operator.

use tracing::Span;

/// How that span is called, and where it comes from.
const NAME: &str = "Actor";
const TARGET: &str = "ractor";

/// The span of an actor, if there is a subscriber that wants it.
pub(crate) struct ActorSpan(Option<Span>);

impl ActorSpan {
    /// The one that this is called in, by the actor itself.
    pub(crate) fn current() -> Self {
        let current = Span::current();
        let is_ractors = current
            .metadata()
            .is_some_and(|metadata| metadata.name() == NAME && metadata.target().starts_with(TARGET));
        Self(is_ractors.then_some(current))
    }

    /// None is known.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Does some work of the actor's outside of it.
    pub(crate) fn outside<T>(&self, work: impl FnOnce() -> T) -> T {
        let _outside = self.0.as_ref().map(Outside::step);
        work()
    }
}

/// Outside of a span until it is dropped, in a panic, too: whoever entered the span leaves it once more.
struct Outside<'a>(&'a Span);

impl<'a> Outside<'a> {
    fn step(span: &'a Span) -> Self {
        span.with_subscriber(|(id, subscriber)| subscriber.exit(id));
        Self(span)
    }
}

impl Drop for Outside<'_> {
    fn drop(&mut self) {
        self.0.with_subscriber(|(id, subscriber)| subscriber.enter(id));
    }
}
