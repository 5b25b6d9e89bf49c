//! Replaces ractor's span around an actor, which is of no use to an operator, by the span of the client, if the client
//! has a name.

use tracing::Span;

use super::client_name::ClientName;

/// The name of ractor's span, and its target.
const NAME: &str = "Actor";
const TARGET: &str = "ractor";

/// The spans of an actor.
pub(crate) struct ActorSpan {
    /// The span in which ractor runs the actor, if a subscriber is interested in it.
    ractors: Option<Span>,
    client: Option<Span>,
}

impl ActorSpan {
    /// Returns the spans of the actor that calls this, for a client of this name.
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

    /// Returns no spans.
    pub(crate) fn none() -> Self {
        Self {
            ractors: None,
            client: None,
        }
    }

    /// Runs a part of the actor's work outside ractor's span and inside the client's.
    pub(crate) fn outside<T>(&self, work: impl FnOnce() -> T) -> T {
        let _outside = self.ractors.as_ref().map(Outside::step);
        match &self.client {
            Some(client) => client.in_scope(work),
            None => work(),
        }
    }
}

/// Keeps a span exited until this value is dropped, even by a panic. Then the span is entered again, because the code
/// that entered it first will exit it.
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
