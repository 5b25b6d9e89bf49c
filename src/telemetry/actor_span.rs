//! The span in which an actor works: the client's, if that has a name, in place of ractor's, which says nothing to an operator.

use tracing::Span;

use super::client_name::ClientName;

/// How ractor's span is called, and where it comes from.
const NAME: &str = "Actor";
const TARGET: &str = "ractor";

/// The spans of an actor.
pub(crate) struct ActorSpan {
    /// The one in which ractor runs it, if there is a subscriber that wants it.
    ractors: Option<Span>,
    client: Option<Span>,
}

impl ActorSpan {
    /// The one that this is called in, by the actor itself, of a client of that name.
    pub(crate) fn current(client: &ClientName) -> Self {
        let current = Span::current();
        let is_ractors = current
            .metadata()
            .is_some_and(|metadata| metadata.name() == NAME && metadata.target().starts_with(TARGET));
        Self {
            ractors: is_ractors.then_some(current),
            client: client.span(),
        }
    }

    /// None is known.
    pub(crate) fn none() -> Self {
        Self {
            ractors: None,
            client: None,
        }
    }

    /// Does some work of the actor's outside of ractor's span, and inside the client's.
    pub(crate) fn outside<T>(&self, work: impl FnOnce() -> T) -> T {
        let _outside = self.ractors.as_ref().map(Outside::step);
        match &self.client {
            Some(client) => client.in_scope(work),
            None => work(),
        }
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
