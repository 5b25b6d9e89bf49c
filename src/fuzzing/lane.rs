//! A connection whose peer sends anything, in any pieces, while callers come and go.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};

use super::asked::{NAMED, request};
use super::socket::{Peer, Socket};
use crate::net::abilities::Abilities;
use crate::net::lane::{Caller, Command, Lane, LaneEnd, LaneReport, LaneSettings, Outgoing, OwnCommands};
use crate::net::metrics::LaneMetrics;
use crate::protocol::{Expect, LineBuffer, MAX_RESPONSE_LINE, Request, RequestDecoder, Response, Signal};
use crate::telemetry::sink::ShardSink;

/// The settings of a connection.
#[derive(Arbitrary, Debug)]
struct Terms {
    hears_signals: bool,
    knows_ping: bool,
    max_in_flight: u8,
    keepalive: u8,
    reply_timeout: u8,
}

/// An event of the connection.
#[derive(Arbitrary, Debug)]
enum Act<'a> {
    /// A caller sends a request.
    Ask(u8),
    /// The caller of a request leaves.
    Leave(u8),
    /// The peer answers the oldest request in one of the valid ways.
    Answer(u8),
    /// The peer sends bytes.
    Say(&'a [u8]),
    /// The socket accepts this many more bytes.
    Take(u8),
    /// The socket accepts any number of bytes.
    TakeAll,
    /// This many milliseconds pass.
    Pass(u16),
    /// The peer closes its sending side.
    Close,
    /// The socket breaks.
    Break,
    /// No further requests follow.
    Finish,
    /// The connection is told to end.
    HangUp,
}

/// Runs the events that the bytes encode on a connection.
pub fn lane(data: &[u8]) {
    let mut bytes = Unstructured::new(data);
    let Ok(terms) = Terms::arbitrary(&mut bytes) else {
        return;
    };
    // Time is paused and advances only by the events.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(tokio::task::unconstrained(play(&terms, bytes)));
}

async fn play(terms: &Terms, mut bytes: Unstructured<'_>) {
    let mut bench = Bench::new(terms);
    while !bytes.is_empty() {
        let Ok(act) = Act::arbitrary(&mut bytes) else { break };
        match act {
            Act::Pass(milliseconds) => tokio::time::advance(Duration::from_millis(u64::from(milliseconds))).await,
            act => bench.act(act),
        }
        bench.turn();
    }
    bench.end();
}

/// The caller's side of a request, as the connection sees it.
struct Asker {
    number: usize,
    is_gone: Rc<Cell<bool>>,
}

impl Caller for Asker {
    fn is_gone(&self) -> bool {
        self.is_gone.get()
    }
}

/// The outcome of a request.
#[derive(Debug, PartialEq)]
enum Fate {
    Open,
    Answered(Response),
    Skipped,
    Unknown,
    Unwritten,
}

struct AskedRequest {
    request: Request,
    is_gone: Rc<Cell<bool>>,
    fate: Fate,
}

struct Bench {
    /// `None` after its end was reported.
    lane: Option<Lane<Socket, Asker, OwnCommands<Asker>>>,
    socket: Rc<Peer>,
    asked: Vec<AskedRequest>,
    hears_signals: bool,
    /// Whether no further requests may be sent.
    finished: bool,
    signals: usize,
    /// The number of valid answers from the peer.
    answered: usize,
}

impl Bench {
    fn new(terms: &Terms) -> Self {
        let socket = Rc::new(Peer::default());
        let settings = LaneSettings {
            keepalive: Duration::from_millis(u64::from(terms.keepalive) * 100 + 1),
            reply_timeout: Duration::from_millis(u64::from(terms.reply_timeout) * 100 + 1),
            max_in_flight: usize::from(terms.max_in_flight % 8) + 1,
            hears_signals: terms.hears_signals,
            abilities: Abilities {
                ping: Some(terms.knows_ping),
                sessions: None,
            },
            metrics: LaneMetrics::new(&ShardSink::nowhere()),
        };
        Self {
            lane: Some(Lane::new(Socket(Rc::clone(&socket)), OwnCommands::new(), settings)),
            socket,
            asked: Vec::new(),
            hears_signals: terms.hears_signals,
            finished: false,
            signals: 0,
            answered: 0,
        }
    }

    fn act(&mut self, act: Act<'_>) {
        let Some(lane) = &mut self.lane else { return };
        match act {
            Act::Ask(choice) if !self.finished => {
                let number = self.asked.len();
                let request = request(choice % 240 / 12 * 12 + choice % NAMED, &name(number));
                let is_gone = Rc::new(Cell::new(false));
                let tag = Asker {
                    number,
                    is_gone: Rc::clone(&is_gone),
                };
                lane.tell(Command::Send(Outgoing {
                    request: request.clone(),
                    tag,
                }));
                self.asked.push(AskedRequest {
                    request,
                    is_gone,
                    fate: Fate::Open,
                });
            }
            Act::Ask(_) | Act::Pass(_) => {}
            Act::Leave(which) => {
                if let Some(asked) = self.asked.iter().rev().nth(usize::from(which)) {
                    asked.is_gone.set(true);
                }
            }
            Act::Answer(how) => self.answer(how),
            Act::Say(bytes) => self.socket.say(bytes),
            Act::Take(count) => self
                .socket
                .takes
                .set(self.socket.takes.get().saturating_add(usize::from(count))),
            Act::TakeAll => self.socket.takes.set(usize::MAX),
            Act::Close => self.socket.closed.set(true),
            Act::Break => self.socket.broken.set(true),
            Act::Finish => {
                self.finished = true;
                lane.finish();
            }
            Act::HangUp => {
                self.finished = true;
                lane.tell(Command::HangUp);
            }
        }
    }

    fn turn(&mut self) {
        let Some(mut lane) = self.lane.take() else { return };
        let mut reports = Vec::new();
        let polled = lane.poll_turn(&mut Context::from_waker(Waker::noop()), &mut |report| {
            reports.push(report)
        });
        assert!(reports.len() <= 1, "a turn made more than one report");
        for report in reports {
            self.take_report(report);
        }
        match polled {
            Poll::Pending => self.lane = Some(lane),
            Poll::Ready(end) => self.take_end(end),
        }
    }

    fn take_report(&mut self, report: LaneReport<Asker>) {
        for tag in report.skipped {
            assert!(tag.is_gone(), "a request was skipped though its caller waits");
            self.becomes(&tag, Fate::Skipped);
        }
        for reply in report.received.replies {
            self.becomes(&reply.tag, Fate::Answered(reply.response));
        }
        assert!(self.hears_signals || report.received.signals.is_empty());
        self.signals += report.received.signals.len();
    }

    fn take_end(&mut self, end: LaneEnd<Asker>) {
        let cause = end.cause.map(|cause| cause.to_string()).unwrap_or_default();
        assert!(!cause.contains("panicked"), "{cause}");
        assert!(cause.len() < 1_000, "{cause}");
        for tag in end.leftovers.unknown {
            self.becomes(&tag, Fate::Unknown);
        }
        for tag in end.leftovers.unwritten {
            self.becomes(&tag, Fate::Unwritten);
        }
        for asked in &self.asked {
            assert_ne!(asked.fate, Fate::Open, "{:?} was forgotten", asked.request);
        }
    }

    fn becomes(&mut self, tag: &Asker, fate: Fate) {
        if matches!(fate, Fate::Answered(_)) {
            let earlier = &self.asked[..tag.number];
            assert!(earlier.iter().all(|asked| asked.fate != Fate::Open), "out of order");
        }
        let asked = &mut self.asked[tag.number];
        assert_eq!(asked.fate, Fate::Open, "a request has two outcomes");
        asked.fate = fate;
    }

    /// Answers the oldest request that was written completely and has no answer yet.
    fn answer(&mut self, how: u8) {
        const TOKEN: &str = "00000000000000070123456789abcdef";
        let written = self.socket.written.take();
        let asked = requests(&written);
        self.socket.written.set(written);
        let Some(request) = asked.get(self.answered) else {
            return;
        };
        self.answered += 1;
        let good = match request.expect() {
            Expect::Done => "ok".to_owned(),
            Expect::Grant => format!("ok {TOKEN} 10"),
            Expect::Place => format!("acquired {TOKEN} 10"),
            Expect::Renewal => "ok 10".to_owned(),
            Expect::Count => "ok 3".to_owned(),
            Expect::Json => "ok {}".to_owned(),
        };
        let line = match (how % 8, request.expect()) {
            (0, _) => "error\n".to_owned(),
            (1, _) => "error_not_leader 127.0.0.1:1\n".to_owned(),
            (2, _) => "error_max_locks\n".to_owned(),
            (3, Expect::Grant) => "timeout\n".to_owned(),
            (3, Expect::Place) => "queued\n".to_owned(),
            (4, _) if self.hears_signals => format!("sig a b\n{good}\r\n"),
            _ => format!("{good}\n"),
        };
        // In two pieces, or in one.
        let (first, second) = line.split_at(usize::from(how / 8).min(line.len()));
        self.socket.say(first.as_bytes());
        self.socket.say(second.as_bytes());
    }

    /// Compares what callers received with the bytes on the wire.
    fn end(self) {
        let written = self.socket.written.take();
        let sent = requests(&written);
        let mut said = lines(&self.socket.heard.take());
        if self.hears_signals {
            let all = said.len();
            said.retain(|line| Signal::decode(line).is_none());
            assert!(
                self.signals <= all - said.len(),
                "the connection reported more signals than the peer sent"
            );
        }
        let position_of = |number: usize| sent.iter().position(|request| request.subject() == name(number));
        for (number, asked) in self.asked.iter().enumerate() {
            let position = position_of(number);
            match &asked.fate {
                Fate::Answered(response) => {
                    let Some(position) = position else { continue };
                    let answer = said
                        .get(position)
                        .map(|line| Response::decode(asked.request.expect(), line));
                    assert_eq!(answer, Some(Ok(response.clone())), "the answer to another request");
                }
                Fate::Skipped | Fate::Unwritten => {
                    assert_eq!(position, None, "a request that was reported as not sent was written")
                }
                Fate::Unknown => {
                    // Its first byte was written, so all earlier requests were written completely.
                    let before = self.asked[..number]
                        .iter()
                        .rposition(|asked| asked.fate == Fate::Unknown);
                    let is_written = before.is_none_or(|before| position_of(before).is_some());
                    assert!(
                        is_written,
                        "a request has an unknown outcome, but an earlier one with an unknown outcome was not written"
                    );
                }
                Fate::Open => assert!(
                    self.lane.is_some(),
                    "the connection has ended, and the request has no outcome"
                ),
            }
        }
    }
}

fn name(number: usize) -> String {
    format!("k{number}")
}

/// Returns the requests that were written completely.
fn requests(bytes: &[u8]) -> Vec<Request> {
    let mut decoder = RequestDecoder::default();
    decoder.read_space().extend_from_slice(bytes);
    std::iter::from_fn(|| decoder.next_request().unwrap()).collect()
}

/// Returns the lines that were read, up to the first that is too long or not UTF-8.
fn lines(bytes: &[u8]) -> Vec<String> {
    let mut buffer = LineBuffer::new();
    buffer.extend(bytes);
    let mut lines = Vec::new();
    while let Ok(Some(line)) = buffer.next_line(MAX_RESPONSE_LINE) {
        lines.push(line.to_owned());
    }
    lines
}
