//! One connection of a client: requests in, answers out, in order.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::listener::Shared;
use super::state::{Answer, Subject};
use crate::protocol::{AuthToken, Request, RequestDecoder, RequestError, Response, Status};

/// So much may be read ahead while a request blocks; a client that sends more is dropped (as releases from 1.15 do).
const MOST_READ_AHEAD: usize = 64 * 1024;

/// A wrong secret is answered, and the connection closed this much later (as the real server does).
const AFTER_WRONG_SECRET: Duration = Duration::from_millis(100);

/// Why a connection ends: nothing that anybody needs to be told.
struct Over;

/// Serves a connection until it ends.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, number: u64, shared: &Shared) {
    let connection = Connection {
        stream,
        number,
        shared,
        decoder: RequestDecoder::default(),
        requests: VecDeque::new(),
        answers: BytesMut::new(),
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
    answers: BytesMut,
    authenticated: bool,
    /// The client sends no more.
    ended: bool,
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
            let blocked = self.answer_all();
            let last_word = self.requests.front().is_some_and(ends_the_connection);
            if last_word {
                Response::Refused(Status::Error).encode(&mut self.answers);
            }
            self.flush().await?;
            if last_word {
                return Err(Over);
            }
            match blocked {
                Some(Step::Blocked(blocked)) => self.wait(blocked).await?,
                Some(Step::Farewell) => {
                    sleep(AFTER_WRONG_SECRET).await;
                    return Err(Over);
                }
                None if self.ended => return Err(Over),
                None => self.read().await?,
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

    /// Answers requests until one blocks or the connection is at its end, under one lock of the state.
    fn answer_all(&mut self) -> Option<Step> {
        if self.requests.is_empty() {
            return None;
        }
        let now = Instant::now();
        let mut state = self.shared.state();
        while let Some(request) = self.requests.pop_front() {
            let request = match request {
                Ok(request) => request,
                Err(RequestError::Malformed) if self.authenticated => {
                    Response::Refused(Status::Error).encode(&mut self.answers);
                    continue;
                }
                Err(RequestError::Malformed) => {
                    Response::Refused(Status::Auth).encode(&mut self.answers);
                    return Some(Step::Farewell);
                }
                Err(error) => {
                    self.requests.push_front(Err(error));
                    return None;
                }
            };
            if !self.authenticated {
                self.authenticated = is_right(&request, self.shared.options.auth_token.as_ref());
                let answer = if self.authenticated {
                    Response::Done
                } else {
                    Response::Refused(Status::Auth)
                };
                answer.encode(&mut self.answers);
                if !self.authenticated {
                    return Some(Step::Farewell);
                }
                continue;
            }
            match state.request(self.number, request, now) {
                Answer::Now(response) => response.encode(&mut self.answers),
                Answer::Later {
                    subject,
                    until,
                    granted,
                } => {
                    return Some(Step::Blocked(Blocked {
                        subject,
                        until,
                        granted,
                    }));
                }
            }
        }
        None
    }

    async fn flush(&mut self) -> Result<(), Over> {
        if self.answers.is_empty() {
            return Ok(());
        }
        let write = async {
            self.stream.write_all(&self.answers).await?;
            self.stream.flush().await
        };
        let written = timeout(self.shared.options.write_timeout, write).await;
        self.answers.clear();
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Over),
        }
    }

    async fn read(&mut self) -> Result<(), Over> {
        let read = self.stream.read_buf(self.decoder.read_space());
        match timeout(self.shared.options.read_timeout, read).await {
            Ok(Ok(0)) => {
                self.ended = true;
                Ok(())
            }
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Over),
            Err(_) => {
                Response::Refused(Status::Error).encode(&mut self.answers);
                self.flush().await?;
                Err(Over)
            }
        }
    }

    /// Waits for a grant, or for its time to be over, and watches for a client that hangs up meanwhile.
    async fn wait(&mut self, mut blocked: Blocked) -> Result<(), Over> {
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
                read = self.stream.read_buf(self.decoder.read_space()) => match read {
                    Ok(0) | Err(_) => return Err(Over),
                    Ok(count) => {
                        read_ahead += count;
                        if read_ahead > MOST_READ_AHEAD {
                            return Err(Over);
                        }
                    }
                },
            }
        };
        response.encode(&mut self.answers);
        Ok(())
    }
}

/// Why answering stopped.
enum Step {
    Blocked(Blocked),
    /// `error_auth` was answered.
    Farewell,
}

fn ends_the_connection(request: &Result<Request, RequestError>) -> bool {
    matches!(request, Err(RequestError::Line(_)))
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
