//! Requests that touch no lease: the request, and the caller that gets the answer.

use std::sync::Arc;

use super::ask::Ask;
use crate::error::Result;
use crate::protocol::{Call, Request, Response};

/// A request that touches no lease, such as `stats`. A new kind of question needs no change of the shard.
pub(crate) struct Question {
    pub(crate) request: Request,
    /// Whether the shard sends the question to the leader if a member answers that it does not lead.
    pub(crate) of_the_leader: bool,
    /// How often the question was sent again.
    pub(crate) redirects: u32,
    reply: Box<dyn AnswerSink>,
}

/// The receiver of the answer.
trait AnswerSink: Send {
    /// Delivers the answer. `at` names the server to which the question went.
    fn tell(self: Box<Self>, answer: Result<Response>, at: &Arc<str>);
    fn is_gone(&self) -> bool;
}

struct TypedSink<T> {
    ask: Ask<Answered<T>>,
    call: Call<T>,
}

impl<T: Send> AnswerSink for TypedSink<T> {
    fn tell(self: Box<Self>, answer: Result<Response>, at: &Arc<str>) {
        let Self { ask, call } = *self;
        ask.tell(match answer {
            Ok(response) => Ok(Answered {
                call,
                response,
                at: Arc::clone(at),
            }),
            Err(error) => Err(error.at(at)),
        });
    }

    fn is_gone(&self) -> bool {
        self.ask.is_gone()
    }
}

/// An answer that is not parsed yet. `stats` may be megabytes of JSON, so it is parsed in the caller's task, not in the
/// shard's task, which renews leases.
pub(crate) struct Answered<T> {
    call: Call<T>,
    response: Response,
    at: Arc<str>,
}

impl<T> Answered<T> {
    /// Parses the answer.
    ///
    /// # Errors
    ///
    /// The server's refusal, or its malformed answer.
    pub(crate) fn read(self) -> Result<T> {
        self.call.finish(self.response).map_err(|error| error.at(&self.at))
    }
}

impl Question {
    /// Creates a question that any server answers.
    pub(crate) fn of_any<T: Send + 'static>(call: Call<T>, ask: Ask<Answered<T>>) -> Box<Self> {
        Self::new(call, ask, false)
    }

    /// Creates a question that, in a cluster, only the leader answers.
    pub(crate) fn of_the_leader<T: Send + 'static>(call: Call<T>, ask: Ask<Answered<T>>) -> Box<Self> {
        Self::new(call, ask, true)
    }

    fn new<T: Send + 'static>(call: Call<T>, ask: Ask<Answered<T>>, of_the_leader: bool) -> Box<Self> {
        Box::new(Self {
            request: call.request().clone(),
            of_the_leader,
            redirects: 0,
            reply: Box::new(TypedSink { ask, call }),
        })
    }

    /// Gives the caller the answer, or the error of a question that was not answered. `at` names the server.
    pub(crate) fn tell(self, answer: Result<Response>, at: &Arc<str>) {
        self.reply.tell(answer, at);
    }

    /// Whether the caller no longer waits.
    pub(crate) fn is_gone(&self) -> bool {
        self.reply.is_gone()
    }
}
