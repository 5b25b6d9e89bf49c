//! One connection at work: the I/O around a [`Pipeline`].
//!
//! A lane is one task that owns its socket. Reads and writes advance in the same turn, so that neither can hold up the
//! other: while the socket takes no more bytes, answers are still read, and the server is never blocked by us.

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

/// After so many answers in one turn no more are read, so that their callers get theirs: what a caller needs is still in the processor's
/// cache then, and a crowd of thousands does not move in lockstep.
const ANSWERS_A_TURN: usize = 128;

/// The most that is read at once: 200 grants, or 2,700 times `ok`.
const BYTES_A_READ: usize = 8 * 1024;

/// Who waits for an answer.
pub(crate) trait Caller {
    /// Whether nobody waits any more.
    fn is_gone(&self) -> bool;
}

/// A request on its way to a lane.
#[derive(Debug)]
pub(crate) struct Outgoing<T> {
    pub(crate) request: Request,
    pub(crate) tag: T,
}

/// What a lane is told.
#[derive(Debug)]
pub(crate) enum Command<T> {
    /// A request.
    Send(Outgoing<T>),
    /// End now, whatever is not answered.
    HangUp,
}

/// What happened in one turn.
#[derive(Debug)]
pub(crate) struct LaneReport<T> {
    /// Answers and signals, each in order.
    pub(crate) received: Received<T>,
    /// Requests that were not sent because nobody waited for them any more.
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

/// How a lane ended, and what it leaves.
#[derive(Debug)]
pub(crate) struct LaneEnd<T> {
    /// Why; `None` if it was asked to.
    pub(crate) cause: Option<Error>,
    pub(crate) leftovers: Leftovers<T>,
    /// The server stood the connection and did not answer any more.
    pub(crate) was_silent: bool,
    /// The server was there at that time, or later.
    pub(crate) heard: Moment,
}

/// How a lane behaves.
#[derive(Clone, Debug)]
pub(crate) struct LaneSettings {
    /// The longest silence.
    pub(crate) keepalive: Duration,
    /// The longest time that a server may take to answer, on top of the wait it was asked for.
    pub(crate) reply_timeout: Duration,
    /// The most requests in flight.
    pub(crate) max_in_flight: usize,
    /// Whether signals may come between the answers.
    pub(crate) hears_signals: bool,
    pub(crate) abilities: Abilities,
    pub(crate) metrics: LaneMetrics,
}

/// Runs a connection until `commands` is closed and everything in flight is answered, or until it fails. A panic is a failure
/// like any other: what had been answered before is delivered, and what was in flight comes back with the end.
///
/// # Cancel safety
///
/// Dropping it closes the connection, and with it everything that was acquired over it. What was in flight is dropped
/// with it, so each caller sees its channel closed.
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

/// Where the commands of a lane come from.
pub(crate) trait Commands<T> {
    /// The next command; `None` if no more will come.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Command<T>>>;

    /// Takes what was sent and not taken up. Nothing more can be sent from here on.
    fn close(&mut self) -> Vec<Outgoing<T>>;
}

/// From another task.
impl<T> Commands<T> for mpsc::UnboundedReceiver<Command<T>> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Command<T>>> {
        self.poll_recv(cx)
    }

    fn close(&mut self) -> Vec<Outgoing<T>> {
        channel::close(self).into_iter().flatten().collect()
    }
}

/// From the task that polls the lane: it polls again after it has sent something.
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

    /// No more commands come: it ends when all is answered.
    pub(crate) fn finish(&mut self) {
        self.commands.closed = true;
    }
}

impl<T: Caller> Lane<Stream, T, OwnCommands<T>> {
    /// Looks whether the peer has closed the connection while nothing was in flight: then what is sent next would be lost, and
    /// its fate unknown. Returns the end if so; the lane must not be polled any more.
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
    /// No more commands will come: end when everything is answered.
    closing: bool,
    /// It was told to end at once.
    hung_up: bool,
    /// A request was left unanswered.
    was_silent: bool,
    begun: Moment,
    sleep: Pin<Box<Sleep>>,
}

/// Why a lane stops: an error, or nothing (it was asked to).
type Stop = Option<Error>;

impl<S, T, C> Lane<S, T, C>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: Caller,
    C: Commands<T>,
{
    /// Sets to work. Needs a tokio runtime with a timer.
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

    /// One turn: take what is queued, write it, read what has come, look at the clock. Ready when the lane is over; it must
    /// not be polled again then. A panic ends it like any failure.
    pub(crate) fn poll_turn(
        &mut self,
        cx: &mut Context<'_>,
        deliver: &mut impl FnMut(LaneReport<T>),
    ) -> Poll<LaneEnd<T>> {
        // Not the turn's own: a panic must not take along what was answered before it.
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

    /// A turn broke off, nobody knows where. What was taken up may have been written.
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
                // Whether a request was left unanswered is known when the rest was read.
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

    /// What the lane leaves behind. What was sent to it and not taken up was not written.
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

    /// Encodes what is queued, as far as there is room. Whether it stopped for want of room.
    fn take_commands(&mut self, cx: &mut Context<'_>, skipped: &mut Vec<T>) -> bool {
        let before = self.pipeline.len();
        let was_full = self.take_while_there_is_room(cx, skipped);
        let in_flight = self.pipeline.len();
        self.settings.metrics.sent(in_flight - before, in_flight);
        was_full
    }

    fn take_while_there_is_room(&mut self, cx: &mut Context<'_>, skipped: &mut Vec<T>) -> bool {
        // Read before anything of this turn is written: whatever the server does, it does later.
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

    /// Reads what has come, up to a portion. Returns whether that was all; if not, another turn follows at once.
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

    /// When something is due next.
    fn wake_at(&self) -> Instant {
        match self.pipeline.answer_by() {
            // While requests are in flight the connection is not silent, or it is about to be given up.
            Some(answer_by) => answer_by,
            None => self.last_written + self.settings.keepalive,
        }
    }

    /// Whether there is something new to write: a keepalive, or the request that tells an answer from a farewell.
    fn look_at_the_clock(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        if self.pipeline.wants_confirmation() {
            self.ask_for_a_sign_of_life();
            return Ok(true);
        }
        loop {
            let wake_at = self.wake_at();
            // The timer is left alone while it is early enough: it is moved once a pause, not once a request.
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

    /// Asks for something that changes nothing on any server. A server that does not know `ping`, as it said when it was connected to or
    /// on this connection, might close the connection after one more. It is asked to renew a lease that does not exist, which
    /// it answers with a plain `error`. That is not for all: the leader of a cluster writes it to its log.
    fn ask_for_a_sign_of_life(&mut self) {
        let knows_ping = self.settings.abilities.ping == Some(true) && !self.pipeline.has_refused_ping();
        let request = match Key::new("dflockd-client-keepalive") {
            Ok(key) if !knows_ping => Request::Renew {
                kind: Kind::Lock,
                key,
                token: Token::OF_NOTHING,
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
