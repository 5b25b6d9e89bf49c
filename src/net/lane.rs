//! One connection at work: the I/O around a [`Pipeline`].
//!
//! A lane owns its socket and is polled by one task. Reads and writes advance in the same turn, so that neither blocks
//! the other: while the socket accepts no more bytes, the lane still reads answers, so the client never blocks the
//! server.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BufMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::io::poll_read_buf;

use super::abilities::Abilities;
use super::metrics::LaneMetrics;
use super::pipeline::{Leftovers, Pipeline, Received};
use super::stream::Stream;
use crate::channel;
use crate::clock::Moment;
use crate::error::{Error, ErrorKind};
use crate::human::human;
use crate::protocol::Request;
use crate::types::{Key, Kind, Token, Ttl};
use crate::unwind::{Panic, catch};

/// After this many answers in one turn, the lane stops reading and delivers the answers to their callers. The data of
/// these callers is then still in the processor's cache, and thousands of callers do not run in lockstep.
const ANSWERS_A_TURN: usize = 128;

/// The maximum number of bytes per read: enough for 200 grants, or for 2,700 answers `ok`.
const BYTES_A_READ: usize = 8 * 1024;

/// A caller that waits for an answer.
pub(crate) trait Caller {
    /// Returns whether the caller no longer waits.
    fn is_gone(&self) -> bool;
}

/// A request for a lane.
#[derive(Debug)]
pub(crate) struct Outgoing<T> {
    pub(crate) request: Request,
    pub(crate) tag: T,
}

/// A command for a lane.
#[derive(Debug)]
pub(crate) enum Command<T> {
    /// Send a request.
    Send(Outgoing<T>),
    /// End now, with requests unanswered.
    HangUp,
}

/// The events of one turn.
#[derive(Debug)]
pub(crate) struct LaneReport<T> {
    /// The answers and the signals, each in order.
    pub(crate) received: Received<T>,
    /// Requests that were not sent because their callers no longer wait.
    pub(crate) skipped: Vec<T>,
}

impl<T> LaneReport<T> {
    fn nothing() -> Self {
        Self {
            received: Received::nothing(),
            skipped: Vec::new(),
        }
    }

    pub(crate) fn is_nothing(&self) -> bool {
        self.received.is_nothing() && self.skipped.is_empty()
    }
}

impl<T> IntoIterator for Command<T> {
    type Item = Outgoing<T>;
    type IntoIter = std::option::IntoIter<Outgoing<T>>;

    fn into_iter(self) -> Self::IntoIter {
        match self {
            Self::Send(outgoing) => Some(outgoing).into_iter(),
            Self::HangUp => None.into_iter(),
        }
    }
}

/// The end of a lane, and its remaining requests.
#[derive(Debug)]
pub(crate) struct LaneEnd<T> {
    /// The cause; `None` if the lane was told to end.
    pub(crate) cause: Option<Error>,
    pub(crate) leftovers: Leftovers<T>,
    /// Whether the connection was open, but the server stopped answering.
    pub(crate) was_silent: bool,
    /// The server was still reachable at this moment, or later.
    pub(crate) heard: Moment,
}

/// The settings of a lane.
#[derive(Clone, Debug)]
pub(crate) struct LaneSettings {
    /// After this long without a request, the lane sends a request of its own.
    pub(crate) keepalive: Duration,
    /// How long a server may take to answer, in addition to the wait that the request asks for.
    pub(crate) reply_timeout: Duration,
    /// The maximum number of requests in flight.
    pub(crate) max_in_flight: usize,
    /// Whether signals may come between the answers.
    pub(crate) hears_signals: bool,
    pub(crate) abilities: Abilities,
    pub(crate) metrics: LaneMetrics,
}

/// Runs a connection until `commands` is closed and every request is answered, or until the connection fails. A panic
/// is a failure like any other: earlier answers are delivered, and the requests in flight are returned with the end.
///
/// # Cancel safety
///
/// Dropping the future closes the connection, and the server ends everything that was acquired over it. The requests in
/// flight are dropped, so each caller sees its channel closed.
pub(crate) async fn run<S, T>(
    stream: S,
    commands: mpsc::UnboundedReceiver<Command<T>>,
    settings: LaneSettings,
    mut deliver: impl FnMut(LaneReport<T>),
) -> LaneEnd<T>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: Caller,
{
    let mut lane = Lane::new(stream, commands, settings);
    poll_fn(|cx| lane.poll_turn(cx, &mut deliver)).await
}

/// The source of a lane's commands.
pub(crate) trait Commands<T> {
    /// Returns the next command, or `None` if no more will come.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Command<T>>>;

    /// Closes the source. Returns the requests that were sent and not yet taken.
    fn close(&mut self) -> Vec<Outgoing<T>>;
}

/// Commands from another task.
impl<T> Commands<T> for mpsc::UnboundedReceiver<Command<T>> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Command<T>>> {
        self.poll_recv(cx)
    }

    fn close(&mut self) -> Vec<Outgoing<T>> {
        channel::close(self).into_iter().flatten().collect()
    }
}

/// Commands from the task that polls the lane. It must poll the lane again after it has sent something.
#[derive(Debug)]
pub(crate) struct OwnCommands<T> {
    queue: VecDeque<Command<T>>,
    closed: bool,
}

impl<T> OwnCommands<T> {
    pub(crate) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            closed: false,
        }
    }
}

impl<T> Commands<T> for OwnCommands<T> {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Command<T>>> {
        match self.queue.pop_front() {
            Some(command) => Poll::Ready(Some(command)),
            None if self.closed => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    fn close(&mut self) -> Vec<Outgoing<T>> {
        self.closed = true;
        self.queue.drain(..).flatten().collect()
    }
}

/// A lane that is polled by the task that sends to it.
impl<S, T> Lane<S, T, OwnCommands<T>> {
    pub(crate) fn tell(&mut self, command: Command<T>) {
        self.commands.queue.push_back(command);
    }

    /// Ends the lane as soon as every request is answered.
    pub(crate) fn finish(&mut self) {
        self.commands.closed = true;
    }
}

impl<T: Caller> Lane<Stream, T, OwnCommands<T>> {
    /// Checks whether the peer closed the connection while no request was in flight. The next request would be lost,
    /// and its fate would be unknown. Returns the end in that case; the lane must not be polled again.
    pub(crate) fn ended_while_idle(&mut self) -> Option<LaneEnd<T>> {
        if self.pipeline.len() > 0 || !self.stream.is_closed() {
            return None;
        }
        Some(self.end(Some(lost("the server closed it"))))
    }
}

/// One connection at work.
pub(crate) struct Lane<S, T, C> {
    stream: S,
    commands: C,
    pipeline: Pipeline<T>,
    settings: LaneSettings,
    last_written: Instant,
    /// Whether no more commands will come, so that the lane ends when every request is answered.
    closing: bool,
    /// Whether the lane was told to end at once.
    hung_up: bool,
    /// Whether a request was left unanswered.
    was_silent: bool,
    begun: Moment,
    sleep: Pin<Box<Sleep>>,
}

/// Why a lane stops: an error, or `None` if it was told to.
type Stop = Option<Error>;

impl<S, T, C> Lane<S, T, C>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: Caller,
    C: Commands<T>,
{
    /// Creates a lane. Needs a tokio runtime with a timer.
    pub(crate) fn new(stream: S, commands: C, settings: LaneSettings) -> Self {
        let begun = Moment::now();
        Self {
            begun,
            sleep: Box::pin(sleep_until(begun.at + settings.keepalive)),
            last_written: begun.at,
            stream,
            commands,
            pipeline: Pipeline::new(settings.reply_timeout).hearing_signals(settings.hears_signals),
            settings,
            closing: false,
            hung_up: false,
            was_silent: false,
        }
    }

    /// Runs one turn: takes queued commands, writes, reads, and checks the time. Ready when the lane has ended; it must
    /// not be polled again after that. A panic ends it like any failure.
    pub(crate) fn poll_turn(
        &mut self,
        cx: &mut Context<'_>,
        deliver: &mut impl FnMut(LaneReport<T>),
    ) -> Poll<LaneEnd<T>> {
        // Outside of the turn, so that a panic does not drop earlier answers.
        let mut report = LaneReport::nothing();
        let mut turn = match catch(|| self.turn(cx, &mut report)) {
            Ok(turn) => turn,
            Err(panic) => Poll::Ready(self.panicked(&panic)),
        };
        if !report.is_nothing() {
            if let (Err(panic), Poll::Pending) = (catch(|| deliver(report)), &turn) {
                turn = Poll::Ready(self.panicked(&panic));
            }
        }
        turn.map(|stop| self.end(stop))
    }

    /// Handles a panic at an unknown point of a turn. Any request that was taken may have been written.
    fn panicked(&mut self, panic: &Panic) -> Stop {
        self.pipeline.assume_written();
        Some(lost(&format!("its task panicked: {panic}")))
    }

    fn turn(&mut self, cx: &mut Context<'_>, report: &mut LaneReport<T>) -> Poll<Stop> {
        loop {
            let was_full = self.take_commands(cx, &mut report.skipped);
            if let Err(error) = self.write(cx) {
                return Poll::Ready(Some(error));
            }
            let has_read_all = match self.read(cx, &mut report.received) {
                Ok(has_read_all) => has_read_all,
                Err(error) => return Poll::Ready(Some(error)),
            };
            if self.closing && self.pipeline.len() == 0 {
                return Poll::Ready(None);
            }
            if self.hung_up {
                return Poll::Ready(None);
            }
            if !has_read_all {
                // Whether a request was left unanswered is known only after everything was read.
                return Poll::Pending;
            }
            match self.look_at_the_clock(cx) {
                Err(error) => return Poll::Ready(Some(error)),
                Ok(true) => continue,
                Ok(false) => {}
            }
            if was_full && self.has_room() {
                continue;
            }
            return Poll::Pending;
        }
    }

    /// Returns the remains of the lane. Requests that were not taken from the source are unwritten.
    fn end(&mut self, cause: Stop) -> LaneEnd<T> {
        let pipeline = std::mem::replace(&mut self.pipeline, Pipeline::new(self.settings.reply_timeout));
        let heard = pipeline.heard().unwrap_or(self.begun);
        let mut leftovers = pipeline.into_leftovers();
        let untaken = self.commands.close().into_iter();
        leftovers.unwritten.extend(untaken.map(|outgoing| outgoing.tag));
        LaneEnd {
            cause,
            leftovers,
            was_silent: self.was_silent,
            heard,
        }
    }

    fn has_room(&self) -> bool {
        self.pipeline.len() < self.settings.max_in_flight
    }

    /// Encodes queued requests while there is room. Returns whether it stopped for lack of room.
    fn take_commands(&mut self, cx: &mut Context<'_>, skipped: &mut Vec<T>) -> bool {
        let before = self.pipeline.len();
        let was_full = self.take_while_there_is_room(cx, skipped);
        let in_flight = self.pipeline.len();
        self.settings.metrics.sent(in_flight - before, in_flight);
        was_full
    }

    fn take_while_there_is_room(&mut self, cx: &mut Context<'_>, skipped: &mut Vec<T>) -> bool {
        // The clock is read before anything is written in this turn, so that everything the server does comes later.
        let mut turn_began = None;
        while self.has_room() {
            if self.closing {
                return false;
            }
            match self.commands.poll_next(cx) {
                Poll::Ready(Some(Command::Send(outgoing))) => {
                    let now = *turn_began.get_or_insert_with(Moment::now);
                    self.encode(outgoing, now, skipped);
                }
                Poll::Ready(Some(Command::HangUp)) => {
                    self.hung_up = true;
                    return false;
                }
                Poll::Ready(None) => self.closing = true,
                Poll::Pending => return false,
            }
        }
        true
    }

    fn encode(&mut self, outgoing: Outgoing<T>, now: Moment, skipped: &mut Vec<T>) {
        if outgoing.tag.is_gone() {
            skipped.push(outgoing.tag);
            return;
        }
        self.pipeline.push(&outgoing.request, outgoing.tag, now);
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        while !self.pipeline.unwritten().is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, self.pipeline.unwritten()) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) => return Err(lost("the socket takes no more bytes")),
                Poll::Ready(Ok(count)) => {
                    self.pipeline.wrote(count);
                    self.last_written = Instant::now();
                }
                Poll::Ready(Err(error)) => return Err(lost("writing failed").caused_by(error)),
            }
        }
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(Err(error)) => Err(lost("writing failed").caused_by(error)),
            _ => Ok(()),
        }
    }

    /// Reads what has arrived, up to a limit. Returns whether that was everything; if not, another turn follows at
    /// once.
    fn read(&mut self, cx: &mut Context<'_>, received: &mut Received<T>) -> Result<bool, Error> {
        loop {
            if received.replies.len() >= ANSWERS_A_TURN {
                cx.waker().wake_by_ref();
                return Ok(false);
            }
            match self.read_once(cx) {
                Poll::Pending => return Ok(true),
                Poll::Ready(Ok(0)) => return Err(lost("the server closed it")),
                Poll::Ready(Ok(_)) => self.pipeline.receive(received)?,
                Poll::Ready(Err(error)) => return Err(lost("reading failed").caused_by(error)),
            }
        }
    }

    fn read_once(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        let mut space = self.pipeline.read_space().limit(BYTES_A_READ);
        let count = ready!(poll_read_buf(Pin::new(&mut self.stream), cx, &mut space))?;
        Poll::Ready(Ok(count))
    }

    /// Returns when something is due next.
    fn wake_at(&self) -> Instant {
        match self.pipeline.answer_by() {
            // No keepalive is due while requests are in flight: either an answer comes in time, or the lane gives the
            // connection up.
            Some(answer_by) => answer_by,
            None => self.last_written + self.settings.keepalive,
        }
    }

    /// Handles timers. Returns whether there is something new to write: a keepalive, or the request that confirms a
    /// bare `error`.
    fn look_at_the_clock(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        if self.pipeline.wants_confirmation() {
            self.ask_for_a_sign_of_life();
            return Ok(true);
        }
        loop {
            let wake_at = self.wake_at();
            // If `wake_at` moves to a later time, as it does with each request, the timer stays: it fires at the
            // earlier time, and is set again then.
            if wake_at < self.sleep.deadline() || self.sleep.is_elapsed() {
                self.sleep.as_mut().reset(wake_at);
            }
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Ok(false);
            }
            if self.wake_at() > Instant::now() {
                continue;
            }
            if self.pipeline.answer_by().is_some() {
                self.was_silent = true;
                return Err(lost(&format!(
                    "the server left a request unanswered for the reply timeout of {}",
                    human(self.settings.reply_timeout)
                )));
            }
            self.ask_for_a_sign_of_life();
            return Ok(true);
        }
    }

    /// Sends a request that changes nothing on any server: a `ping`, unless the server has refused `ping` in a
    /// greeting or on this connection. Such a server might close the connection after another `ping`, so it gets a
    /// renewal of a lease that does not exist, which it answers with a plain `error`. Other servers do not get that
    /// renewal, because the leader of a cluster writes it to its log.
    fn ask_for_a_sign_of_life(&mut self) {
        let knows_ping = self.settings.abilities.ping == Some(true) && !self.pipeline.has_refused_ping();
        let request = match Key::new("dflockd-client-keepalive") {
            Ok(key) if !knows_ping => Request::Renew {
                kind: Kind::Lock,
                key,
                token: Token::NEVER_ISSUED,
                ttl: Ttl::from_secs(1),
            },
            _ => Request::Ping,
        };
        self.pipeline.push_own(&request, Moment::now());
    }
}

pub(super) fn lost(what: &str) -> Error {
    Error::new(ErrorKind::Disconnected, format!("the connection was lost: {what}"))
}

#[cfg(test)]
mod tests;
