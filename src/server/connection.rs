//! One connection of a client: requests in, answers out, in order, and signals between them.
//!
//! Everything that is written goes through one buffer, whole lines in the order in which they came about, so a signal is
//! never inside an answer: what was signalled before a request was worked on stands before its answer, what it brought
//! about itself behind it.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::ids::Subject;
use super::shared::Shared;
use super::signals::{Cut, Inbox};
use super::state::{Answer, State};
use crate::clock::after;
use crate::protocol::{AuthToken, Request, RequestDecoder, RequestError, Response, Status};

/// So much may be read ahead while a request blocks; a client that sends more is dropped (as releases from 1.15 do).
const MOST_READ_AHEAD: usize = 64 * 1024;

/// Once so much is to be written it is, before further requests are worked on.
const MOST_UNWRITTEN: usize = 256 * 1024;

/// A wrong secret is answered, and the connection closed this much later (as the real server does).
const AFTER_WRONG_SECRET: Duration = Duration::from_millis(100);

/// Why a connection ends: nothing that anybody needs to be told.
struct Over;

impl From<Cut> for Over {
    fn from(_: Cut) -> Self {
        Self
    }
}

/// Serves a connection until it ends.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, number: u64, shared: &Shared) {
    let connection = Connection {
        stream,
        number,
        shared,
        decoder: RequestDecoder::with_longest_argument(shared.options.release.longest_argument()),
        requests: VecDeque::new(),
        out: BytesMut::new(),
        inbox: None,
        delivered: 0,
        authenticated: shared.options.auth_token.is_none(),
        ended: false,
    };
    // Ends with `Over`, always.
    connection.run().await.unwrap_or(());
}

struct Connection<'a, S> {
    stream: S,
    number: u64,
    shared: &'a Shared,
    decoder: RequestDecoder,
    /// Read, but not answered yet.
    requests: VecDeque<Result<Request, RequestError>>,
    /// Answers and signals that are not written yet.
    out: BytesMut,
    /// Where signals arrive, once it has listened. Before, it pays nothing for them.
    inbox: Option<Inbox>,
    /// How many signals of this connection were delivered to somebody since others had a turn.
    delivered: usize,
    authenticated: bool,
    /// The client sends no more.
    ended: bool,
}

/// What to do when all answers so far are written.
enum Next {
    /// All requests are answered.
    Read,
    /// This one is answered later.
    Wait(Blocked),
    /// Let others run: those who got signals, those who wait behind large answers.
    Yield,
    /// The last answer was `error`, and the client out of step; or the server is no more.
    End,
    /// The last answer was `error_auth`.
    Farewell,
}

/// A request that the server answers later.
struct Blocked {
    subject: Subject,
    until: Instant,
    granted: oneshot::Receiver<Response>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<'_, S> {
    async fn run(mut self) -> Result<(), Over> {
        loop {
            self.decode();
            // All that can be answered at once is answered with one write.
            let next = self.answer_all();
            self.flush().await?;
            match next {
                Next::Read if self.ended && self.authenticated => return Err(Over),
                Next::Read if self.ended => return Err(self.end_with_refusal().await),
                Next::Read => self.read().await?,
                Next::Wait(blocked) => self.wait(blocked).await?,
                Next::Yield => yield_now().await,
                Next::End => return Err(Over),
                Next::Farewell => {
                    sleep(AFTER_WRONG_SECRET).await;
                    return Err(Over);
                }
            }
        }
    }

    fn decode(&mut self) {
        loop {
            match self.decoder.next_request() {
                Ok(None) => return,
                Ok(Some(request)) => self.requests.push_back(Ok(request)),
                Err(RequestError::Malformed) => self.requests.push_back(Err(RequestError::Malformed)),
                Err(error) => {
                    self.requests.push_back(Err(error));
                    return;
                }
            }
        }
    }

    /// Answers requests until there are no more, or something else comes first, under one lock of the state.
    fn answer_all(&mut self) -> Next {
        if self.requests.is_empty() {
            return Next::Read;
        }
        let now = Instant::now();
        let shared = self.shared;
        let mut state = shared.state();
        if state.is_killed() {
            return Next::End;
        }
        self.take_signals();
        while let Some(request) = self.requests.pop_front() {
            let next = self.answer(request, &mut state, now);
            self.take_signals();
            if let Some(next) = next {
                return next;
            }
            // A request of ten bytes can have an answer of a megabyte, and there may be a thousand of them.
            if self.out.len() >= MOST_UNWRITTEN && !self.requests.is_empty() {
                return Next::Yield;
            }
        }
        Next::Read
    }

    /// Answers one request. What comes next, if it is not the next request.
    fn answer(&mut self, request: Result<Request, RequestError>, state: &mut State, now: Instant) -> Option<Next> {
        let request = match request {
            Ok(request) => request,
            Err(_) if !self.authenticated => return self.turn_away(),
            Err(RequestError::Malformed) => return self.say(&Response::Refused(Status::Error)),
            Err(RequestError::Line(_)) => {
                self.say(&Response::Refused(Status::Error));
                return Some(Next::End);
            }
        };
        if !self.authenticated {
            self.authenticated = is_right(&request, self.shared.options.auth_token.as_ref());
            return match self.authenticated {
                true => self.say(&Response::Done),
                false => self.turn_away(),
            };
        }
        match state.request(self.number, request, now) {
            Answer::Now(Response::Count(deliveries)) if deliveries > 0 => {
                self.say(&Response::Count(deliveries));
                self.paced()
            }
            Answer::Now(response) => self.say(&response),
            Answer::Listening(inbox) => {
                self.inbox = Some(inbox);
                self.say(&Response::Done)
            }
            Answer::Later {
                subject,
                until,
                granted,
            } => Some(Next::Wait(Blocked {
                subject,
                until,
                granted,
            })),
        }
    }

    fn say(&mut self, response: &Response) -> Option<Next> {
        response.encode(&mut self.out);
        None
    }

    /// Answers a client that has not finished its request, and does not go on with it.
    async fn end_with_refusal(&mut self) -> Over {
        let farewell = match self.authenticated {
            true => self.say(&Response::Refused(Status::Error)),
            false => self.turn_away(),
        };
        let flushed = self.flush().await;
        if let (Ok(()), Some(Next::Farewell)) = (flushed, farewell) {
            sleep(AFTER_WRONG_SECRET).await;
        }
        Over
    }

    fn turn_away(&mut self) -> Option<Next> {
        self.say(&Response::Refused(Status::Auth));
        Some(Next::Farewell)
    }

    /// Signals that come in one write are worked on faster than anybody can read them. So that a client is not cut because
    /// its task had no turn, it gets one long before its buffer is full.
    fn paced(&mut self) -> Option<Next> {
        self.delivered += 1;
        if self.delivered < self.shared.options.signal_buffer / 8 {
            return None;
        }
        self.delivered = 0;
        Some(Next::Yield)
    }

    fn take_signals(&mut self) {
        if let Some(inbox) = &mut self.inbox {
            inbox.take(&mut self.out);
        }
    }

    async fn flush(&mut self) -> Result<(), Over> {
        if self.out.is_empty() {
            return Ok(());
        }
        let write = async {
            self.stream.write_all(&self.out).await?;
            self.stream.flush().await
        };
        let write = timeout(self.shared.options.write_timeout, write);
        let written = match &self.inbox {
            None => write.await,
            Some(inbox) => tokio::select! {
                biased;
                cut = inbox.cut() => return Err(cut.into()),
                written = write => written,
            },
        };
        self.out.clear();
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Over),
        }
    }

    /// Reads more, and passes signals on meanwhile. That they come is no sign of life: a client that says nothing for too
    /// long is left.
    async fn read(&mut self) -> Result<(), Over> {
        let until = after(Instant::now(), self.shared.options.read_timeout);
        loop {
            tokio::select! {
                biased;
                read = self.stream.read_buf(self.decoder.read_space()) => {
                    self.ended = read.map_err(|_| Over)? == 0;
                    return Ok(());
                }
                () = sleep_until(until) => {
                    return Err(self.end_with_refusal().await);
                }
                signals = arrive(&mut self.inbox, &mut self.out), if self.inbox.is_some() => {
                    signals?;
                    self.flush().await?;
                }
            }
        }
    }

    /// Waits for a grant, or for its time to be over, and passes signals on. Releases from 1.15 on watch for a client that
    /// hangs up meanwhile; earlier ones read nothing, so they notice it with the next read.
    async fn wait(&mut self, mut blocked: Blocked) -> Result<(), Over> {
        let watches = self.shared.options.release.watches_blocked_connections();
        let mut read_ahead = 0;
        let response = loop {
            tokio::select! {
                biased;
                granted = &mut blocked.granted => break granted.map_err(|_| Over)?,
                () = sleep_until(blocked.until) => {
                    // The grant may have come in this very moment: then it counts.
                    let gave_up = self.shared.state().give_up(self.number, &blocked.subject, Instant::now());
                    break match blocked.granted.try_recv() {
                        Ok(granted) if !gave_up => granted,
                        _ => Response::TimedOut,
                    };
                }
                read = self.stream.read_buf(self.decoder.read_space()), if watches => match read {
                    Ok(0) | Err(_) => return Err(Over),
                    Ok(count) => {
                        read_ahead += count;
                        if read_ahead > MOST_READ_AHEAD {
                            return Err(Over);
                        }
                    }
                },
                signals = arrive(&mut self.inbox, &mut self.out), if self.inbox.is_some() => {
                    signals?;
                    self.flush().await?;
                }
            }
        };
        self.say(&response);
        Ok(())
    }
}

/// Waits for signals, and moves all that are there to `out`.
async fn arrive(inbox: &mut Option<Inbox>, out: &mut BytesMut) -> Result<(), Over> {
    match inbox {
        Some(inbox) => Ok(inbox.wait(out).await?),
        None => std::future::pending().await,
    }
}

fn is_right(request: &Request, secret: Option<&AuthToken>) -> bool {
    match (request, secret) {
        (Request::Auth { token }, Some(secret)) => same(token.expose().as_bytes(), secret.expose().as_bytes()),
        _ => false,
    }
}

/// Compares without telling by its time where the first difference is.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}
