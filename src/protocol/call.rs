//! A request together with the interpretation of its answer: the core of the low-level functions, without I/O.

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

/// A request, and how to interpret its answer.
///
/// Each function in [`functions`](super::functions) runs one call over a stream.
#[derive(Debug)]
pub struct Call<T> {
    request: Request,
    read: fn(&Request, Response) -> Result<T>,
}

/// The outcome of the first phase of a two-phase acquire. A server gives one of these two answers, so a `match` on
/// both is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enqueued {
    /// The key was free, and is granted.
    Acquired(Grant),
    /// A position in the queue, which belongs to this connection. `wait` collects the grant.
    Queued,
}

impl<T> Call<T> {
    /// Returns the request to send.
    #[must_use]
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Interprets the answer.
    ///
    /// # Errors
    ///
    /// The server's refusal as a typed error.
    pub fn finish(&self, response: Response) -> Result<T> {
        (self.read)(&self.request, response)
    }
}

impl Call<()> {
    /// Presents the server's auth token. Must be the first request.
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

    /// Releases a grant.
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

    /// Changes nothing, but shows the server that the client is alive. Releases from 1.14 on support it.
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

    /// Waits until every write that the cluster committed before this call is visible to the server that gets the
    /// request.
    #[must_use]
    pub fn barrier() -> Self {
        Self {
            request: Request::Barrier,
            read: |request, response| match response {
                Response::Refused(Status::Error) => Err(Error::new(
                    ErrorKind::Unsupported,
                    "the server does not know `barrier`: it is not a cluster build (unreleased after 2.1.1)",
                )),
                other => done(request, other),
            },
        }
    }

    /// Names the session that this connection continues.
    #[must_use]
    pub fn stable_ref(reference: StableRef) -> Self {
        Self {
            request: Request::StableRef { reference },
            read: |request, response| match response {
                // The ref is valid, so the server does not know the request, or has accepted a ref on this connection
                // before.
                Response::Refused(Status::Error) => Err(Error::new(
                    ErrorKind::Unsupported,
                    "the server does not take a `stable-ref`: it is not a cluster build (unreleased after 2.1.1), or this \
                     connection has presented one before",
                )),
                other => done(request, other),
            },
        }
    }
}

impl Call<()> {
    /// Subscribes to the signals of all channels that match. After it, the stream carries [`Signal`](super::Signal)s
    /// between answers. There is no low-level function for it, because a [`Wire`](super::functions::Wire) has no place
    /// to store them.
    #[must_use]
    pub fn listen(pattern: Pattern, group: Option<Group>) -> Self {
        Self {
            request: Request::Listen { pattern, group },
            read: subscribed,
        }
    }

    /// Ends the subscription that a `listen` with the same pattern and group began.
    #[must_use]
    pub fn unlisten(pattern: Pattern, group: Option<Group>) -> Self {
        Self {
            request: Request::Unlisten { pattern, group },
            read: subscribed,
        }
    }
}

impl Call<Grant> {
    /// Acquires a lock or a slot.
    #[must_use]
    pub fn acquire(target: Target, key: Key, wait: WaitSecs, ttl: Option<Ttl>) -> Self {
        Self {
            request: Request::Acquire { target, key, wait, ttl },
            read: granted,
        }
    }

    /// Waits at the position that an enqueue over the same connection took.
    #[must_use]
    pub fn wait(kind: Kind, key: Key, wait: WaitSecs) -> Self {
        Self {
            request: Request::Wait { kind, key, wait },
            read: granted,
        }
    }
}

impl Call<Enqueued> {
    /// Acquires the lock or slot, or takes a position in its queue.
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
    /// Restarts a lease. The answer is the number of seconds left, if the server names it.
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
    /// Asks for the server's state.
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
                    "the server has no signals: releases 1.11 to 1.16 have them",
                )),
                other => Err(refused(request, &other)),
            },
        }
    }
}

/// Returns the error for `stats` that cannot be parsed. It contains only the beginning of the parser's message, which
/// may quote the entire answer.
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

/// Interprets the answer to a subscription. The pattern is valid, so a bare `error` concerns the server.
fn subscribed(request: &Request, response: Response) -> Result<()> {
    match response {
        Response::Refused(Status::Error) => Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "the server refused the subscription to {:?}: it has no signals (releases 1.11 to 1.16 have them), or this \
                 connection has as many subscriptions as the server allows (--max-subscriptions)",
                request.subject()
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
        // The decoder passes only answers of the shapes that the request expects. JSON may be a megabyte long, so it is
        // not shown.
        (_, Response::Json(_)) => Error::new(
            ErrorKind::Protocol,
            format!("JSON is not a valid answer to {request:?}"),
        ),
        (_, other) => Error::new(
            ErrorKind::Protocol,
            format!("{other:?} is not a valid answer to {request:?}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the debug text of an error, which is everything that it keeps of an answer.
    fn shown<T: std::fmt::Debug>(outcome: Result<T>) -> String {
        format!("{:?}", outcome.unwrap_err())
    }

    #[test]
    fn an_error_about_unreadable_stats_keeps_only_the_beginning_of_the_message() {
        let json = format!(r#"{{"connections":"{}"}}"#, "x".repeat(100_000));
        let said = shown(Call::stats().finish(Response::Json(json.into())));
        assert!(said.len() < 1_000, "{} bytes", said.len());
        assert!(
            said.contains("`stats` cannot be read") && said.contains("invalid type"),
            "{said}"
        );
    }

    #[test]
    fn an_error_about_unexpected_json_keeps_nothing_of_it() {
        let json = format!("{{{}}}", "x".repeat(100_000));
        let said = shown(Call::ping().finish(Response::Json(json.into())));
        assert!(said.len() < 1_000, "{} bytes", said.len());
    }
}
