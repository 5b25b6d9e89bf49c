//! Requests that touch no lease: what is sent, and who gets the answer.

use std::sync::Arc;

use super::ask::Ask;
use crate::error::Result;
use crate::protocol::{Call, Request, Response};

/// A request that touches no lease, such as `stats`. A new one needs nothing in the shard.
pub(crate) struct Question {
    pub(crate) request: Request,
    /// Whether it is asked again of the leader when a member that does not lead refused it.
    pub(crate) of_the_leader: bool,
    /// How often that was done.
    pub(crate) redirects: u32,
    told: Box<dyn AnswerSink>,
}

/// Who gets the answer.
trait AnswerSink: Send {
    /// `at`: the server that answered, or could not be asked.
    fn tell(self: Box<Self>, answer: Result<Response>, at: &Arc<str>);
    fn is_gone(&self) -> bool;
}

struct TypedSink<T> {
    ask: Ask<T>,
    call: Call<T>,
}

impl<T: Send> AnswerSink for TypedSink<T> {
    fn tell(self: Box<Self>, answer: Result<Response>, at: &Arc<str>) {
        let Self { ask, call } = *self;
        let answer = answer.and_then(|response| call.finish(response));
        ask.tell(answer.map_err(|error| error.at(at)));
    }

    fn is_gone(&self) -> bool {
        self.ask.is_gone()
    }
}

impl Question {
    /// Asks what any server answers.
    pub(crate) fn of_any<T: Send + 'static>(call: Call<T>, ask: Ask<T>) -> Box<Self> {
        Self::new(call, ask, false)
    }

    /// Asks what, in a cluster, only the leader answers.
    pub(crate) fn of_the_leader<T: Send + 'static>(call: Call<T>, ask: Ask<T>) -> Box<Self> {
        Self::new(call, ask, true)
    }

    fn new<T: Send + 'static>(call: Call<T>, ask: Ask<T>, of_the_leader: bool) -> Box<Self> {
        Box::new(Self {
            request: call.request().clone(),
            of_the_leader,
            redirects: 0,
            told: Box::new(TypedSink { ask, call }),
        })
    }

    /// Tells the caller what the server at `at` answered, or why it could not be asked.
    pub(crate) fn tell(self, answer: Result<Response>, at: &Arc<str>) {
        self.told.tell(answer, at);
    }

    /// Whether the caller does not wait any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.told.is_gone()
    }
}
