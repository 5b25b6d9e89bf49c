//! A request together with the meaning of its answer: the core of the low-level functions, without any I/O.

use super::auth_token::AuthToken;
use super::channel::{Channel, Group, Pattern};
use super::request::Request;
use super::response::Response;
use super::signal::Payload;
use super::stable_ref::StableRef;
use super::status::{Namespaces, Status, limit_mismatch};
use crate::error::{Error, ErrorKind, Result};
use crate::escape::Shortened;
use crate::stats::Stats;
use crate::types::{Grant, Key, Kind, Target, Token, Ttl, WaitSecs};

/// A request, and what to make of its answer.
///
/// The functions in [`functions`](super::functions) are these, run over a stream.
#[derive(Debug)]
pub struct Call<T> {
    request: Request,
    read: fn(&Request, Response) -> Result<T>,
}

/// What the first phase of a two-phase acquire gives. A server answers one of these two, so a match may be complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enqueued {
    /// It was free: granted.
    Acquired(Grant),
    /// A place in the queue, of this connection. `wait` collects the grant.
    Queued,
}

impl<T> Call<T> {
    /// What to send.
    #[must_use]
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// What the answer means.
    ///
    /// # Errors
    ///
    /// The server's refusal, typed.
    pub fn finish(&self, response: Response) -> Result<T> {
        (self.read)(&self.request, response)
    }
}

impl Call<()> {
    /// Presents the server's secret; must come first.
    #[must_use]
    pub fn auth(token: AuthToken) -> Self {
        Self {
            request: Request::Auth { token },
            read: |request, response| match response {
                Response::Refused(Status::Auth) => Err(Error::new(
                    ErrorKind::Auth,
                    "the server refused the authentication token: give this client the one that the server was started with",
                )),
                Response::Refused(Status::Error) => Err(Error::new(
                    ErrorKind::Auth,
                    "the server takes no authentication token: it was started without one; give this client none",
                )),
                other => done(request, other),
            },
        }
    }

    /// Gives up a grant.
    #[must_use]
    pub fn release(kind: Kind, key: Key, token: Token) -> Self {
        Self {
            request: Request::Release { kind, key, token },
            read: |request, response| match response {
                Response::Refused(Status::Error) => Err(not_held(request)),
                other => done(request, other),
            },
        }
    }

    /// Does nothing, from release 1.14 on.
    #[must_use]
    pub fn ping() -> Self {
        Self {
            request: Request::Ping,
            read: |request, response| match response {
                Response::Refused(Status::Error) => Err(Error::new(
                    ErrorKind::Unsupported,
                    "the server does not know `ping`: it is older than 1.14",
                )),
                other => done(request, other),
            },
        }
    }

    /// Returns once every write that the cluster had committed before is visible to the server that is asked.
    #[must_use]
    pub fn barrier() -> Self {
        Self {
            request: Request::Barrier,
            read: |request, response| match response {
                Response::Refused(Status::Error) => Err(Error::new(
                    ErrorKind::Unsupported,
                    "the server does not know `barrier`: it is no cluster build (unreleased after 2.1.1)",
                )),
                other => done(request, other),
            },
        }
    }

    /// Says which session this connection carries on.
    #[must_use]
    pub fn stable_ref(reference: StableRef) -> Self {
        Self {
            request: Request::StableRef { reference },
            read: |request, response| match response {
                // The ref is one that servers take, so this is about the server or the moment.
                Response::Refused(Status::Error) => Err(Error::new(
                    ErrorKind::Unsupported,
                    "the server does not take a `stable-ref`: it is no cluster build (unreleased after 2.1.1), or this \
                     connection has presented one or acquired something before",
                )),
                other => done(request, other),
            },
        }
    }
}

impl Call<()> {
    /// Asks for the signals of all channels that match. After it the stream carries [`Signal`](super::Signal)s between
    /// answers, so there is no low-level function for it: a [`Wire`](super::functions::Wire) has no place to put them.
    #[must_use]
    pub fn listen(pattern: Pattern, group: Option<Group>) -> Self {
        Self {
            request: Request::Listen { pattern, group },
            read: subscribed,
        }
    }

    /// Takes back a `listen` of the same pattern and group.
    #[must_use]
    pub fn unlisten(pattern: Pattern, group: Option<Group>) -> Self {
        Self {
            request: Request::Unlisten { pattern, group },
            read: subscribed,
        }
    }
}

impl Call<Grant> {
    /// Acquires.
    #[must_use]
    pub fn acquire(target: Target, key: Key, wait: WaitSecs, ttl: Option<Ttl>) -> Self {
        Self {
            request: Request::Acquire { target, key, wait, ttl },
            read: granted,
        }
    }

    /// Waits at the place that an enqueue over the same connection took.
    #[must_use]
    pub fn wait(kind: Kind, key: Key, wait: WaitSecs) -> Self {
        Self {
            request: Request::Wait { kind, key, wait },
            read: granted,
        }
    }
}

impl Call<Enqueued> {
    /// Takes the lock or slot, or a place in its queue.
    #[must_use]
    pub fn enqueue(target: Target, key: Key, ttl: Option<Ttl>) -> Self {
        Self {
            request: Request::Enqueue { target, key, ttl },
            read: |request, response| match response {
                Response::Acquired(grant) => Ok(Enqueued::Acquired(grant)),
                Response::Queued => Ok(Enqueued::Queued),
                other => Err(refused(request, &other)),
            },
        }
    }
}

impl Call<Option<u64>> {
    /// Makes a lease run anew. The answer is the seconds left, where the server says so.
    #[must_use]
    pub fn renew(kind: Kind, key: Key, token: Token, ttl: Option<Ttl>) -> Self {
        Self {
            request: Request::Renew { kind, key, token, ttl },
            read: |request, response| match response {
                Response::Renewed(left) => Ok(left),
                Response::Refused(Status::Error | Status::LeaseExpired) => Err(not_held(request)),
                other => Err(refused(request, &other)),
            },
        }
    }
}

impl Call<Stats> {
    /// The server's state.
    #[must_use]
    pub fn stats() -> Self {
        Self {
            request: Request::Stats,
            read: |request, response| match response {
                Response::Json(json) => serde_json::from_str(&json).map_err(|error| unreadable(&error)),
                Response::Refused(Status::Error) => Err(Error::new(
                    ErrorKind::Unsupported,
                    "the server does not know `stats`: it is older than 1.0",
                )),
                other => Err(refused(request, &other)),
            },
        }
    }
}

impl Call<u64> {
    /// Publishes a signal. The answer is the number of deliveries.
    #[must_use]
    pub fn emit(channel: Channel, payload: Payload) -> Self {
        Self {
            request: Request::Signal { channel, payload },
            read: |request, response| match response {
                Response::Count(delivered) => Ok(delivered),
                Response::Refused(Status::Error) => Err(Error::new(
                    ErrorKind::Unsupported,
                    "the server does not know `signal`: releases 1.11 to 1.16 do",
                )),
                other => Err(refused(request, &other)),
            },
        }
    }
}

/// The parser's own error may quote all of what was answered.
fn unreadable(error: &serde_json::Error) -> Error {
    let message = format!(
        "the answer to `stats` cannot be read at its byte {}: {:?}",
        error.column(),
        Shortened(&error.to_string())
    );
    Error::new(ErrorKind::Protocol, message)
}

fn granted(request: &Request, response: Response) -> Result<Grant> {
    match response {
        Response::Granted(grant) => Ok(grant),
        Response::TimedOut => Err(Error::new(
            ErrorKind::Timeout,
            format!(
                "{:?} was not granted within {} s: another holder has it",
                request.subject(),
                request.blocks().as_secs()
            ),
        )),
        other => Err(refused(request, &other)),
    }
}

fn done(request: &Request, response: Response) -> Result<()> {
    match response {
        Response::Done => Ok(()),
        other => Err(refused(request, &other)),
    }
}

/// The pattern is one that servers take, so a bare `error` is about the server.
fn subscribed(request: &Request, response: Response) -> Result<()> {
    match response {
        Response::Refused(Status::Error) => Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "the server does not take {request:?}: it knows no signals (releases 1.11 to 1.16 do), or its \
                 --max-subscriptions of one connection are reached"
            ),
        )),
        other => done(request, other),
    }
}

fn not_held(request: &Request) -> Error {
    Error::new(
        ErrorKind::NotHeld,
        format!(
            "{:?} is not held with this token: its lease ran out, or it was released before",
            request.subject()
        ),
    )
}

fn refused(request: &Request, response: &Response) -> Error {
    match (request, response) {
        (
            Request::Acquire { target, key, .. } | Request::Enqueue { target, key, .. },
            Response::Refused(Status::LimitMismatch),
        ) => limit_mismatch(key, *target, Namespaces::Unknown),
        (_, Response::Refused(status)) => status.to_error(request.subject()),
        // The decoder lets only the shapes pass that the request expects. JSON may be a megabyte long.
        (_, Response::Json(_)) => Error::new(ErrorKind::Protocol, format!("JSON is no answer to {request:?}")),
        (_, other) => Error::new(ErrorKind::Protocol, format!("{other:?} is no answer to {request:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that an error keeps of an answer is what it shows.
    fn shown<T: std::fmt::Debug>(outcome: Result<T>) -> String {
        format!("{:?}", outcome.unwrap_err())
    }

    #[test]
    fn of_stats_that_cannot_be_read_no_more_is_kept_than_is_told() {
        let json = format!(r#"{{"connections":"{}"}}"#, "x".repeat(100_000));
        let said = shown(Call::stats().finish(Response::Json(json.into())));
        assert!(said.len() < 1_000, "{} bytes", said.len());
        assert!(
            said.contains("`stats` cannot be read") && said.contains("invalid type"),
            "{said}"
        );
    }

    #[test]
    fn of_json_that_answers_something_else_nothing_is_kept() {
        let json = format!("{{{}}}", "x".repeat(100_000));
        let said = shown(Call::ping().finish(Response::Json(json.into())));
        assert!(said.len() < 1_000, "{} bytes", said.len());
    }
}
