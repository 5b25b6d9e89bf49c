//! The client's end of a connection: the model of `net::dial` and `net::lane` around a [`Pipeline`], in the model's
//! time.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::Instant;

use super::network::{Chunk, WireId};
use crate::clock::Moment;
use crate::error::{Error, ErrorKind};
use crate::net::abilities::Abilities;
use crate::net::connect::{Purpose, Shown};
use crate::net::dial::LaneEvent;
use crate::net::fencing::FencesShown;
use crate::net::lane::{Caller, Command, LaneEnd, LaneReport, Outgoing};
use crate::net::pipeline::{Pipeline, Received};
use crate::protocol::{Expect, LineBuffer, Request, StableRef, Status};
use crate::shard::effect::Role;
use crate::shard::request::Pending;
use crate::types::{Key, Kind, Token, Ttl};

/// The settings of connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct LaneTerms {
    pub(super) keepalive: Duration,
    pub(super) reply_timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) max_in_flight: usize,
}

/// A connection, from its request until the shard has learned of its end.
pub(super) struct SimLane {
    pub(super) role: Role,
    /// The index of its server among the client's endpoints.
    pub(super) endpoint: usize,
    purpose: Purpose,
    /// Set when a server has accepted it.
    pub(super) wire: Option<WireId>,
    terms: LaneTerms,
    stage: LaneStage,
    commands: VecDeque<Command<Pending>>,
    /// Whether no further commands follow.
    finished: bool,
    /// When the attempt to connect times out.
    connect_by: Instant,
    /// When it is woken, if that is scheduled.
    woken_at: Option<Instant>,
}

enum LaneStage {
    /// The server has not accepted it yet.
    Dialling,
    /// The client asks what the server supports.
    Greeting(Greeting),
    Up(Box<LaneWork>),
    /// It has ended, and the shard has not learned of it yet. Requests that are sent to it meanwhile are returned with
    /// its end.
    Over(Vec<Pending>),
}

struct Greeting {
    out: BytesMut,
    lines: LineBuffer,
    /// The current question.
    asked: Question,
    /// The next questions.
    further: VecDeque<Question>,
    /// Whether the server supports sessions, if known.
    sessions: Option<bool>,
}

/// A question to the server before a connection is used.
enum Question {
    Ping,
    Name(StableRef),
    /// The renewal of a lease that does not exist: only a leader answers that it is not held.
    RenewNothing,
}

impl Question {
    fn request(&self) -> Request {
        match self {
            Self::Ping => Request::Ping,
            Self::Name(reference) => Request::StableRef {
                reference: reference.clone(),
            },
            Self::RenewNothing => Request::Renew {
                kind: Kind::Lock,
                key: Key::new("unheld").unwrap(),
                token: Token::NEVER_ISSUED,
                ttl: Some(Ttl::DEFAULT),
            },
        }
    }

    /// Returns an error if the connection cannot be used because of this answer.
    fn refusal_by(&self, answer: &str) -> Option<Error> {
        let is_fine = match self {
            Self::Ping | Self::Name(_) => answer == "ok",
            Self::RenewNothing => matches!(answer, "error" | "error_lease_expired"),
        };
        if is_fine {
            return None;
        }
        Some(match answer.strip_prefix("error_not_leader") {
            Some(leader) => {
                let leader = leader.trim();
                Status::NotLeader((!leader.is_empty()).then(|| leader.into())).to_error("")
            }
            None if answer == "error_draining" => Status::Draining.to_error(""),
            None => Error::new(ErrorKind::Connect, format!("the server answers {answer:?}")),
        })
    }
}

/// Returns the questions for a connection with this purpose.
fn questions(purpose: &Purpose) -> VecDeque<Question> {
    let questions = match purpose {
        Purpose::Leading(reference) => vec![
            Question::Ping,
            Question::Name(reference.clone()),
            Question::RenewNothing,
        ],
        Purpose::Session(reference) => vec![Question::Name(reference.clone())],
        Purpose::Requests | Purpose::Pipelined | Purpose::Signals => vec![Question::Ping],
    };
    questions.into()
}

struct LaneWork {
    pipeline: Pipeline<Pending>,
    last_written: Instant,
    begun: Moment,
    was_silent: bool,
    hung_up: bool,
    closing: bool,
}

/// The result of a turn.
pub(super) struct LaneTurn {
    /// The pieces for the wire.
    pub(super) written: Vec<BytesMut>,
    pub(super) events: Vec<LaneEvent<Pending>>,
    /// When the next timer is due; `None` after the end.
    pub(super) wake_at: Option<Instant>,
    /// Whether the socket accepted only a part, so that another turn follows soon.
    pub(super) is_full: bool,
}

impl LaneTurn {
    fn nothing() -> Self {
        Self {
            written: Vec::new(),
            events: Vec::new(),
            wake_at: None,
            is_full: false,
        }
    }
}

impl SimLane {
    pub(super) fn new(
        role: Role,
        (endpoint, purpose): (usize, Purpose),
        terms: LaneTerms,
        dial_at: Instant,
        give_up_at: Option<Instant>,
    ) -> Self {
        let connect_by = dial_at + terms.connect_timeout;
        Self {
            role,
            endpoint,
            purpose,
            wire: None,
            terms,
            stage: LaneStage::Dialling,
            commands: VecDeque::new(),
            finished: false,
            connect_by: give_up_at.map_or(connect_by, |give_up_at| give_up_at.min(connect_by)),
            woken_at: None,
        }
    }

    /// Returns the name that it presents, if another connection may present it, too.
    pub(super) fn session(&self) -> Option<StableRef> {
        match &self.purpose {
            Purpose::Leading(reference) | Purpose::Session(reference) => Some(reference.clone()),
            Purpose::Requests | Purpose::Pipelined | Purpose::Signals => None,
        }
    }

    /// When the attempt to connect times out.
    pub(super) fn connect_by(&self) -> Instant {
        self.connect_by
    }

    /// Notes that it is woken.
    pub(super) fn woken(&mut self, now: Instant) {
        self.woken_at = self.woken_at.filter(|at| *at > now);
    }

    /// Requests a wake-up. Returns its time, if that is not scheduled already.
    pub(super) fn arm(&mut self, at: Option<Instant>) -> Option<Instant> {
        let at = at.filter(|at| self.woken_at.is_none_or(|planned| planned > *at))?;
        self.woken_at = Some(at);
        Some(at)
    }

    pub(super) fn is_dialling(&self) -> bool {
        matches!(self.stage, LaneStage::Dialling)
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.stage, LaneStage::Up(_))
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.stage, LaneStage::Over(_))
    }

    /// Returns whether nothing is in flight on it. In that case the socket shows whether the peer has closed it.
    pub(super) fn is_idle(&self) -> bool {
        matches!(&self.stage, LaneStage::Up(work) if work.pipeline.len() == 0)
    }

    /// Notes that a server has accepted it.
    pub(super) fn admitted(&mut self, wire: WireId) {
        self.wire = Some(wire);
        let mut further = questions(&self.purpose);
        let asked = further.pop_front().unwrap_or(Question::Ping);
        let mut out = BytesMut::new();
        asked.request().encode(&mut out);
        self.stage = LaneStage::Greeting(Greeting {
            out,
            lines: LineBuffer::new(),
            asked,
            further,
            sessions: None,
        });
    }

    /// Handles a failed attempt to connect.
    pub(super) fn failed(&mut self, why: &str) -> LaneEvent<Pending> {
        self.stage = LaneStage::Over(Vec::new());
        LaneEvent::Failed(Error::new(ErrorKind::Connect, why.to_owned()))
    }

    pub(super) fn tell(&mut self, command: Command<Pending>) {
        match (&mut self.stage, command) {
            (LaneStage::Over(unsent), Command::Send(outgoing)) => unsent.push(outgoing.tag),
            (LaneStage::Over(_), Command::HangUp) => {}
            (_, command) => self.commands.push_back(command),
        }
    }

    pub(super) fn finish(&mut self) {
        self.finished = true;
    }

    /// Takes the requests that were sent after its end.
    pub(super) fn take_unsent(&mut self) -> Vec<Pending> {
        match &mut self.stage {
            LaneStage::Over(unsent) => std::mem::take(unsent),
            _ => Vec::new(),
        }
    }

    /// Handles the end of an idle connection.
    pub(super) fn ended_while_idle(&mut self) -> Option<LaneEvent<Pending>> {
        self.end(Some(lost("the server closed it")))
    }

    /// Runs a turn: takes queued commands, writes, reads, and checks the timers. `takes` returns how many of the given
    /// number of bytes the socket accepts.
    pub(super) fn turn(&mut self, arrived: Vec<Chunk>, now: Instant, takes: impl FnMut(usize) -> usize) -> LaneTurn {
        match &self.stage {
            LaneStage::Dialling if self.connect_by <= now => {
                let mut turn = LaneTurn::nothing();
                turn.events.push(self.failed("no answer within the connect timeout"));
                turn
            }
            LaneStage::Dialling => LaneTurn {
                wake_at: Some(self.connect_by),
                ..LaneTurn::nothing()
            },
            LaneStage::Greeting(_) => self.greet(arrived, now),
            LaneStage::Up(_) => self.work(arrived, now, takes),
            LaneStage::Over(_) => LaneTurn::nothing(),
        }
    }

    fn greet(&mut self, arrived: Vec<Chunk>, now: Instant) -> LaneTurn {
        let mut turn = LaneTurn::nothing();
        let LaneStage::Greeting(greeting) = &mut self.stage else {
            return turn;
        };
        let mut has_ended = false;
        for chunk in arrived {
            match chunk {
                Chunk::Bytes(bytes) => greeting.lines.extend(&bytes),
                Chunk::End | Chunk::Reset => has_ended = true,
            }
        }
        let mut answered = false;
        let mut refusal = None;
        while let Ok(Some(answer)) = greeting.lines.next_line(Expect::Json.longest_line()) {
            refusal = greeting.asked.refusal_by(answer);
            if refusal.is_some() {
                break;
            }
            if let Question::Name(_) = greeting.asked {
                greeting.sessions = Some(true);
            }
            match greeting.further.pop_front() {
                Some(next) => {
                    next.request().encode(&mut greeting.out);
                    greeting.asked = next;
                }
                None => answered = true,
            }
        }
        if !greeting.out.is_empty() {
            turn.written.push(greeting.out.split());
        }
        let sessions = greeting.sessions;
        if let Some(refusal) = refusal {
            self.stage = LaneStage::Over(Vec::new());
            turn.events.push(LaneEvent::Failed(refusal));
        } else if has_ended {
            turn.events
                .push(self.failed("the server closed the connection without an answer"));
        } else if answered {
            self.stage = LaneStage::Up(Box::new(LaneWork {
                pipeline: Pipeline::new(self.terms.reply_timeout),
                last_written: now,
                begun: now.into(),
                was_silent: false,
                hung_up: false,
                closing: false,
            }));
            turn.events.push(LaneEvent::Up(Shown {
                abilities: Abilities {
                    ping: Some(true),
                    sessions,
                },
                cluster: None,
                fences: FencesShown::Nothing,
            }));
            // The connection carries requests from the next turn on.
            turn.wake_at = Some(now);
        } else if self.connect_by <= now {
            turn.events.push(self.failed("no answer within the connect timeout"));
        } else {
            turn.wake_at = Some(self.connect_by);
        }
        turn
    }

    fn work(&mut self, arrived: Vec<Chunk>, now: Instant, mut takes: impl FnMut(usize) -> usize) -> LaneTurn {
        let mut turn = LaneTurn::nothing();
        let mut report = LaneReport {
            received: Received::nothing(),
            skipped: Vec::new(),
        };
        let mut arrived = arrived.into_iter();
        let end = loop {
            let was_full = self.take_commands(now, &mut report.skipped);
            let LaneStage::Up(work) = &mut self.stage else {
                return turn;
            };
            turn.is_full = !work.write(now, &mut takes, &mut turn.written);
            if let Err(error) = work.read(&mut arrived, &mut report.received) {
                break Some(Some(error));
            }
            if work.closing && work.pipeline.len() == 0 {
                break Some(None);
            }
            if work.hung_up {
                break Some(None);
            }
            match work.look_at_the_clock(now, self.terms) {
                Err(error) => break Some(Some(error)),
                Ok(None) => continue,
                Ok(Some(wake_at)) => turn.wake_at = Some(wake_at),
            }
            if was_full && work.pipeline.len() < self.terms.max_in_flight {
                continue;
            }
            break None;
        };
        if !report.is_nothing() {
            turn.events.push(LaneEvent::Report(report));
        }
        if let Some(cause) = end {
            turn.events.extend(self.end(cause));
            turn.wake_at = None;
        }
        turn
    }

    /// Encodes queued requests while there is room. Returns whether it stopped because there was none.
    fn take_commands(&mut self, now: Instant, skipped: &mut Vec<Pending>) -> bool {
        let LaneStage::Up(work) = &mut self.stage else {
            return false;
        };
        while work.pipeline.len() < self.terms.max_in_flight {
            if work.closing {
                return false;
            }
            match self.commands.pop_front() {
                Some(Command::Send(outgoing)) => work.encode(outgoing, now, skipped),
                Some(Command::HangUp) => {
                    work.hung_up = true;
                    return false;
                }
                None if self.finished => work.closing = true,
                None => return false,
            }
        }
        true
    }

    fn end(&mut self, cause: Option<Error>) -> Option<LaneEvent<Pending>> {
        let LaneStage::Up(work) = std::mem::replace(&mut self.stage, LaneStage::Over(Vec::new())) else {
            return None;
        };
        let heard = work.pipeline.heard().unwrap_or(work.begun);
        let mut leftovers = work.pipeline.into_leftovers();
        let untaken = self.commands.drain(..).flatten();
        leftovers.unwritten.extend(untaken.map(|outgoing| outgoing.tag));
        Some(LaneEvent::Ended(Box::new(LaneEnd {
            cause,
            leftovers,
            was_silent: work.was_silent,
            heard,
        })))
    }
}

impl LaneWork {
    fn encode(&mut self, outgoing: Outgoing<Pending>, now: Instant, skipped: &mut Vec<Pending>) {
        if outgoing.tag.is_gone() {
            return skipped.push(outgoing.tag);
        }
        self.pipeline.push(&outgoing.request, outgoing.tag, now.into());
    }

    /// Writes as much as the socket accepts. Returns whether all bytes were written.
    fn write(&mut self, now: Instant, takes: &mut impl FnMut(usize) -> usize, written: &mut Vec<BytesMut>) -> bool {
        while !self.pipeline.unwritten().is_empty() {
            let count = takes(self.pipeline.unwritten().len());
            if count == 0 {
                return false;
            }
            written.push(self.pipeline.unwritten()[..count].into());
            self.pipeline.wrote(count);
            self.last_written = now;
        }
        true
    }

    fn read(
        &mut self,
        arrived: &mut impl Iterator<Item = Chunk>,
        received: &mut Received<Pending>,
    ) -> Result<(), Error> {
        for chunk in arrived {
            match chunk {
                Chunk::Bytes(bytes) => {
                    self.pipeline.read_space().extend_from_slice(&bytes);
                    self.pipeline.receive(received)?;
                }
                Chunk::End => return Err(lost("the server closed it")),
                Chunk::Reset => return Err(lost("reading failed")),
            }
        }
        Ok(())
    }

    /// Returns when the next timer is due, or `None` if there is something new to write.
    fn look_at_the_clock(&mut self, now: Instant, terms: LaneTerms) -> Result<Option<Instant>, Error> {
        if self.pipeline.wants_confirmation() {
            self.pipeline.push_own(&Request::Ping, now.into());
            return Ok(None);
        }
        match self.pipeline.answer_by() {
            Some(answer_by) if answer_by > now => Ok(Some(answer_by)),
            Some(_) => {
                self.was_silent = true;
                Err(lost("the server left a request unanswered for the reply timeout"))
            }
            None if self.last_written + terms.keepalive > now => Ok(Some(self.last_written + terms.keepalive)),
            None => {
                self.pipeline.push_own(&Request::Ping, now.into());
                Ok(None)
            }
        }
    }
}

fn lost(what: &str) -> Error {
    Error::new(ErrorKind::Disconnected, format!("the connection was lost: {what}"))
}
