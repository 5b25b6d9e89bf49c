//! One connection of a client: reads requests, and writes answers in order with signals between them.
//!
//! All output goes through one buffer, as whole lines in the order in which they arose, so a signal is never inside an
//! answer. Signals that were published before a request was processed come before its answer; signals that the request
//! itself caused come after it.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::ids::KeyId;
use super::pace::RequestPace;
use super::shared::Shared;
use super::signals::{Cut, Inbox};
use super::state::{ServerAnswer, State};
use crate::clock::after;
use crate::protocol::{RawRequest, RequestDecoder, RequestLines, Response, Status};

/// The size of the real server's read buffer. Releases from 1.15 on drop a client that sends this much behind a request
/// that blocks.
const READ_BUFFER: usize = 4096;

/// When this many bytes wait to be written, they are written before further requests are processed.
const MOST_UNWRITTEN: usize = 256 * 1024;

/// The delay between the answer to a wrong secret and the end of the connection, as in the real server.
const AFTER_WRONG_SECRET: Duration = Duration::from_millis(100);

/// The connection ends without a further answer.
struct Over;

impl From<Cut> for Over {
    fn from(_: Cut) -> Self {
        Self
    }
}

/// Serves a connection until it ends.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, number: u64, shared: &Shared) {
    let release = shared.options.release;
    let refuses_secret = shared.state().refuses_secret();
    let connection = ServedConnection {
        stream,
        decoder: RequestDecoder::with_longest_arguments(release.longest_secret(), release.longest_payload()),
        line: (0, Instant::now()),
        ended: false,
        session: Session {
            number,
            shared,
            out: BytesMut::new(),
            inbox: None,
            delivered: 0,
            pace: RequestPace::new(shared.options.request_time),
            authenticated: shared.options.auth_token.is_none() && !refuses_secret,
            refuses_secret,
        },
    };
    // `run` always ends with `Over`.
    connection.run().await.unwrap_or(());
}

struct ServedConnection<'a, S> {
    stream: S,
    decoder: RequestDecoder,
    /// The number of complete lines when the wait for the current line began, and the time at which it began.
    line: (u64, Instant),
    /// Whether the client has closed its sending half.
    ended: bool,
    session: Session<'a>,
}

/// The part of a connection that answers requests.
struct Session<'a> {
    number: u64,
    shared: &'a Shared,
    /// Answers and signals that are not written yet.
    out: BytesMut,
    /// The queue of signals, from the first `listen` on. Connections that never listen have no cost for signals.
    inbox: Option<Inbox>,
    /// The number of signals from this connection that reached a subscriber, since the task last yielded because of
    /// such signals.
    delivered: usize,
    /// `None` unless requests take time.
    pace: Option<RequestPace>,
    authenticated: bool,
    /// Whether a test wants this connection to be refused, whatever its secret.
    refuses_secret: bool,
}

/// The next step after all answers so far are written.
enum NextStep {
    /// Read more: all requests are answered.
    Read,
    /// Wait: this request is answered later.
    Wait(Blocked),
    /// Let the tasks of other connections run: they have signals to write, or have waited while this connection
    /// produced large answers. Also ends the turn of a connection whose requests take time.
    Yield,
    /// End without a further answer: the last answer was an error, or a test has killed the server or cut the
    /// connection.
    End,
    /// End after a delay: the last answer was `error_auth`.
    EndAfterDelay,
}

/// A request that the server answers later.
struct Blocked {
    /// The key that the request waits for. `None` if the request hangs, that is, cannot be granted.
    subject: Option<KeyId>,
    until: Instant,
    granted: oneshot::Receiver<Response>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ServedConnection<'_, S> {
    async fn run(mut self) -> Result<(), Over> {
        loop {
            // All requests that can be answered at once are answered with one write.
            let next = self.answer_all();
            if let Some(pace) = &mut self.session.pace {
                pace.wait().await;
            }
            self.flush().await?;
            if let Some(pace) = &mut self.session.pace {
                pace.note_answers_sent();
            }
            match next {
                NextStep::Read if self.ended => return Err(self.end_of_input().await),
                NextStep::Read => {
                    self.read().await?;
                    self.session.resume();
                }
                NextStep::Wait(blocked) => {
                    self.wait(blocked).await?;
                    self.session.resume();
                }
                NextStep::Yield => yield_now().await,
                NextStep::End => return Err(Over),
                NextStep::EndAfterDelay => {
                    sleep(AFTER_WRONG_SECRET).await;
                    return Err(Over);
                }
            }
        }
    }

    /// Answers requests until there are no more or another step must come first, under one lock of the state.
    fn answer_all(&mut self) -> NextStep {
        let mut request = self.decoder.next_lines();
        if let Ok(None) = request {
            return NextStep::Read;
        }
        let session = &mut self.session;
        let mut state = session.shared.state();
        // The clock is read after taking the lock, so that this time is later than everything that other connections
        // did under the lock.
        let now = Instant::now();
        if state.answers_no_more(session.number) {
            return NextStep::End;
        }
        session.take_signals();
        loop {
            let next = match request {
                Ok(None) => return NextStep::Read,
                Ok(Some(lines)) => session.answer(lines, &mut state, now),
                Err(_) => Some(session.refuse_to_go_on()),
            };
            session.take_signals();
            if let Some(next) = next {
                return next;
            }
            // A request of ten bytes can have an answer of a megabyte, and a thousand such requests may follow each
            // other.
            let is_much = session.out.len() >= MOST_UNWRITTEN;
            if is_much || session.pace.as_ref().is_some_and(|pace| !pace.has_time_left()) {
                return NextStep::Yield;
            }
            request = self.decoder.next_lines();
        }
    }

    async fn flush(&mut self) -> Result<(), Over> {
        let session = &mut self.session;
        if session.out.is_empty() {
            return Ok(());
        }
        let write = async {
            self.stream.write_all(&session.out).await?;
            self.stream.flush().await
        };
        let write = timeout(session.shared.options.write_timeout, write);
        let written = match &session.inbox {
            None => write.await,
            Some(inbox) => tokio::select! {
                biased;
                cut = inbox.cut() => return Err(cut.into()),
                written = write => written,
            },
        };
        session.out.clear();
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Over),
        }
    }

    /// Reads more input, and forwards signals in the meantime. Signals do not extend the read timeout: the connection
    /// ends if the client does not complete a line in time. As in the real server, the time starts when the server
    /// begins to wait for that line; in builds that allow idle connections, the time for the first line of a request
    /// starts with its first byte.
    async fn read(&mut self) -> Result<(), Over> {
        let options = &self.session.shared.options;
        let is_idle = self.decoder.pending() == 0 && self.session.authenticated;
        let may_be_idle = is_idle && !options.closes_idle_connections();
        if self.line.0 != self.decoder.lines() || may_be_idle {
            self.line = (self.decoder.lines(), Instant::now());
        }
        let until = after(self.line.1, options.read_timeout);
        loop {
            let Session { inbox, out, .. } = &mut self.session;
            tokio::select! {
                biased;
                read = self.stream.read_buf(self.decoder.read_space()) => {
                    self.ended = read.map_err(|_| Over)? == 0;
                    if may_be_idle {
                        self.line.1 = Instant::now();
                    }
                    return Ok(());
                }
                () = sleep_until(until), if !may_be_idle => return Err(self.end_with_refusal().await),
                signals = arrive(inbox, out), if inbox.is_some() => {
                    signals?;
                    self.flush().await?;
                }
            }
        }
    }

    /// Waits for a grant or for the end of the wait time, and forwards signals in the meantime. Releases from 1.15 on
    /// notice if the client disconnects during the wait; earlier releases read nothing, so they notice it with the next
    /// read.
    async fn wait(&mut self, mut blocked: Blocked) -> Result<(), Over> {
        let Session { number, shared, .. } = self.session;
        let watches = shared.options.release.watches_blocked_connections();
        let mut is_forgotten = false;
        let response = loop {
            if watches && self.decoder.pending() >= READ_BUFFER {
                return Err(Over);
            }
            let Session { inbox, out, .. } = &mut self.session;
            tokio::select! {
                biased;
                granted = &mut blocked.granted, if !is_forgotten => match granted {
                    Ok(granted) => break granted,
                    Err(_) if shared.state().answers_no_more(number) => return Err(Over),
                    // The queue position is gone. The request is answered only when its time is over.
                    Err(_) => is_forgotten = true,
                },
                () = sleep_until(blocked.until) => {
                    // A grant that comes at this very moment counts.
                    let Some(subject) = blocked.subject else {
                        break Response::Refused(Status::Error);
                    };
                    let gave_up = shared.state().give_up(number, subject, Instant::now());
                    break match blocked.granted.try_recv() {
                        Ok(granted) if !gave_up => granted,
                        _ => Response::TimedOut,
                    };
                }
                read = self.stream.read_buf(self.decoder.read_space()), if watches => match read {
                    Ok(0) | Err(_) => return Err(Over),
                    Ok(_) => {}
                },
                signals = arrive(inbox, out), if inbox.is_some() => {
                    signals?;
                    self.flush().await?;
                }
            }
        };
        self.session.say(&response);
        Ok(())
    }

    /// Ends a connection whose client has closed its sending half. The client gets an answer only if it has not
    /// authenticated, or if its incomplete line is too long already.
    async fn end_of_input(&mut self) -> Over {
        match self.session.authenticated && !self.decoder.is_too_long() {
            true => Over,
            false => self.end_with_refusal().await,
        }
    }

    /// Refuses a request that the client did not complete.
    async fn end_with_refusal(&mut self) -> Over {
        let next = self.session.refuse_to_go_on();
        if let (Ok(()), NextStep::EndAfterDelay) = (self.flush().await, next) {
            sleep(AFTER_WRONG_SECRET).await;
        }
        Over
    }
}

impl Session<'_> {
    /// Answers one request. Returns the next step, or `None` to continue with the next request.
    fn answer(&mut self, lines: RequestLines<'_>, state: &mut State, now: Instant) -> Option<NextStep> {
        if let Some(pace) = &mut self.pace {
            pace.take_time();
        }
        let request = RawRequest::read(lines);
        if !self.authenticated {
            return self.authenticate(request);
        }
        let Some(request) = request else {
            return self.say(&Response::Refused(Status::Error));
        };
        if state.turns_requests_away(self.number) {
            self.say(&Response::Refused(Status::Draining));
            return Some(NextStep::End);
        }
        if let Some(status) = state.planned_refusal(&request) {
            let drains = status == Status::Draining;
            self.say(&Response::Refused(status));
            return drains.then_some(NextStep::End);
        }
        match state.request(self.number, request, now) {
            ServerAnswer::Now(Response::Count(deliveries)) if deliveries > 0 => {
                self.say(&Response::Count(deliveries));
                self.yield_after_publish()
            }
            ServerAnswer::Now(response) => self.say(&response),
            ServerAnswer::Listening(inbox) => {
                self.inbox = Some(inbox);
                self.say(&Response::Done)
            }
            ServerAnswer::Later {
                subject,
                until,
                granted,
            } => Some(NextStep::Wait(Blocked {
                subject: Some(subject),
                until,
                granted,
            })),
            ServerAnswer::Hangs { until, reply } => Some(NextStep::Wait(Blocked {
                subject: None,
                until,
                granted: reply,
            })),
        }
    }

    fn resume(&mut self) {
        if let Some(pace) = &mut self.pace {
            pace.resume();
        }
    }

    /// Accepts only the right secret.
    fn authenticate(&mut self, request: Option<RawRequest<'_>>) -> Option<NextStep> {
        let options = &self.shared.options;
        let secret = options
            .auth_token
            .as_ref()
            .map(|secret| match options.release.trims_its_secret() {
                true => secret.expose().trim(),
                false => secret.expose(),
            });
        match (request, secret) {
            (Some(RawRequest::Auth { token }), Some(secret))
                if same(token, secret.as_bytes()) && !self.refuses_secret =>
            {
                self.authenticated = true;
                self.say(&Response::Done)
            }
            _ => Some(self.refuse_to_go_on()),
        }
    }

    /// Answers a client whose input cannot be parsed any further, or that has not authenticated.
    fn refuse_to_go_on(&mut self) -> NextStep {
        let (status, next) = match self.authenticated {
            true => (Status::Error, NextStep::End),
            false => (Status::Auth, NextStep::EndAfterDelay),
        };
        self.say(&Response::Refused(status));
        next
    }

    fn say(&mut self, response: &Response) -> Option<NextStep> {
        response.encode(&mut self.out);
        None
    }

    /// Decides whether to yield after a signal that has reached a subscriber. If many signals arrive in one write, the
    /// server processes them faster than any client can read them. So the task yields long before a receiver's buffer
    /// is full. Otherwise the server could disconnect a receiver whose task had no chance to write.
    fn yield_after_publish(&mut self) -> Option<NextStep> {
        self.delivered += 1;
        if self.delivered < self.shared.options.signal_buffer / 8 {
            return None;
        }
        self.delivered = 0;
        Some(NextStep::Yield)
    }

    fn take_signals(&mut self) {
        if let Some(inbox) = &mut self.inbox {
            inbox.take(&mut self.out);
        }
    }
}

/// Waits for signals, and moves all waiting signals to `out`.
async fn arrive(inbox: &mut Option<Inbox>, out: &mut BytesMut) -> Result<(), Over> {
    match inbox {
        Some(inbox) => Ok(inbox.wait(out).await?),
        None => std::future::pending().await,
    }
}

/// Compares in a time that does not reveal where the first difference is.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}
