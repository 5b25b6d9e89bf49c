//! The client's parsing of answers: the result does not depend on how they are split, and memory is bounded.
//!
//! The first byte of an input says whether signals are received, the second how many requests are in flight, the third
//! how the bytes are split; then one byte for each request selects its kind. The rest is the peer's output, in which
//! `0xff n` stands for a long run of the digit 1.

use std::time::Duration;

use bytes::BytesMut;

use super::asked::request;
use super::escapes::without_escapes;
use super::pieces::pieces;
use crate::clock::Moment;
use crate::net::pipeline::{Pipeline, Received};
use crate::protocol::{
    AuthToken, Call, Channel, Expect, MAX_RESPONSE_LINE, Pattern, Payload, Response, Signal, StableRef,
};
use crate::types::{Key, Kind, Limit, Target, Token, WaitSecs};

const EVERY_SHAPE: [Expect; 6] = [
    Expect::Done,
    Expect::Grant,
    Expect::Place,
    Expect::Renewal,
    Expect::Count,
    Expect::Json,
];

/// The longest line that is also parsed by itself, as the answer to each kind of request.
const LONGEST_LINE: usize = 8 * 1024;

/// Longer than any message about a line.
const LONGEST_MESSAGE: usize = 1_000;

/// Parses answers whole and in pieces, and each line as the answer to each kind of request.
pub fn answers(data: &[u8]) {
    let [flags, count, seed, rest @ ..] = data else { return };
    let (asked, said) = rest.split_at(rest.len().min(usize::from(count % 16)));
    let said = with_runs(said);
    let whole = Heard::of(asked, flags & 1 == 1, std::iter::once(&*said));
    let in_pieces = Heard::of(asked, flags & 1 == 1, pieces(&said, *seed));
    assert_eq!(whole, in_pieces, "the result depends on how the bytes are split");
    for line in said
        .split(|byte| *byte == b'\n')
        .filter(|line| line.len() <= LONGEST_LINE)
    {
        if let Ok(line) = std::str::from_utf8(line) {
            for expect in EVERY_SHAPE {
                check_line(expect, line);
            }
        }
    }
}

fn with_runs(bytes: &[u8]) -> Vec<u8> {
    const MOST: usize = MAX_RESPONSE_LINE + 8 * 1024;
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        match rest {
            [] => return out,
            [0xff, times, behind @ ..] => {
                let run = (usize::from(*times) * 8192 + 1).min(MOST.saturating_sub(out.len()));
                out.resize(out.len() + run, b'1');
                rest = behind;
            }
            [byte, behind @ ..] => {
                out.push(*byte);
                rest = behind;
            }
        }
    }
}

/// The result of parsing a peer's output.
#[derive(Debug, PartialEq)]
struct Heard {
    replies: Vec<(usize, Response)>,
    signals: Vec<Signal>,
    not_leader: Option<Box<Option<Box<str>>>>,
    /// The error if the peer is not a dflockd server, or if its answers do not match the requests.
    broken: Option<String>,
    refused_ping: bool,
    /// Requests without an answer.
    left: Vec<usize>,
}

impl Heard {
    /// Parses the pieces with these requests in flight. Every fourth request is the pipeline's own.
    fn of<'a>(asked: &[u8], hears_signals: bool, pieces: impl Iterator<Item = &'a [u8]>) -> Self {
        let now = Moment::now();
        let mut pipeline = Pipeline::new(Duration::from_secs(10)).hearing_signals(hears_signals);
        for (tag, choice) in asked.iter().enumerate() {
            match tag % 4 {
                3 => pipeline.push_own(&request(*choice, "own"), now),
                _ => pipeline.push(&request(*choice, "k"), tag, now),
            }
        }
        let written = pipeline.unwritten().len();
        pipeline.wrote(written);
        let mut received = Received::nothing();
        let mut broken = None;
        for piece in pieces {
            pipeline.read_space().extend_from_slice(piece);
            if let Err(error) = pipeline.receive(&mut received) {
                broken = Some(error.to_string());
                break;
            }
            let kept = pipeline.read_space().len();
            // An answer to `stats` may be longer than all the input here, so there is no limit to check.
            assert!(
                kept <= MAX_RESPONSE_LINE + 1
                    || asked
                        .iter()
                        .any(|choice| request(*choice, "k").expect() == Expect::Json),
                "{kept} bytes without a line end are kept"
            );
        }
        if let Some(said) = &broken {
            assert!(said.len() <= LONGEST_MESSAGE, "{said}");
            shows_no_token(said);
        }
        let refused_ping = pipeline.has_refused_ping();
        let leftovers = pipeline.into_leftovers();
        assert!(leftovers.unwritten.is_empty(), "all was written");
        Self {
            replies: received
                .replies
                .into_iter()
                .map(|reply| (reply.tag, reply.response))
                .collect(),
            signals: received.signals,
            not_leader: received.not_leader,
            broken,
            refused_ping,
            left: leftovers.unknown,
        }
    }
}

/// Checks that a parsed line can be written and parsed again, and that the error about an invalid line does not show
/// its tokens.
fn check_line(expect: Expect, line: &str) {
    match Response::decode(expect, line) {
        Ok(response) => {
            let mut encoded = BytesMut::new();
            response.encode(&mut encoded);
            let text = std::str::from_utf8(&encoded).unwrap();
            let again = Response::decode(expect, text.strip_suffix('\n').unwrap());
            assert_eq!(again.as_ref(), Ok(&response), "{text:?}");
            every_call_finishes(response);
        }
        Err(bad) => {
            let said = bad.to_string();
            assert!(said.len() <= LONGEST_MESSAGE, "{said}");
            shows_no_token(&said);
        }
    }
}

/// Asserts that the message contains no run of hexadecimal digits that is as long as a token.
fn shows_no_token(said: &str) {
    let plain = without_escapes(said);
    let mut runs = plain.split(|c: char| !c.is_ascii_hexdigit());
    assert!(
        runs.all(|run| run.len() < Token::DIGITS),
        "the message shows a token: {said}"
    );
}

/// Checks that no call panics on any answer, and that its error is not too long.
fn every_call_finishes(response: Response) {
    let key = || Key::new("k").unwrap();
    let semaphore = Target::Semaphore(Limit::new(2).unwrap());
    let token = Token::NEVER_ISSUED;
    let channel = Channel::new("c").unwrap();
    let payload = Payload::new(&channel, "x").unwrap();
    let pattern = || Pattern::new("p").unwrap();
    let errors = [
        Call::auth(AuthToken::new("a secret").unwrap())
            .finish(response.clone())
            .err(),
        Call::release(Kind::Lock, key(), token).finish(response.clone()).err(),
        Call::ping().finish(response.clone()).err(),
        Call::barrier().finish(response.clone()).err(),
        Call::stable_ref(StableRef::new("s").unwrap())
            .finish(response.clone())
            .err(),
        Call::listen(pattern(), None).finish(response.clone()).err(),
        Call::unlisten(pattern(), None).finish(response.clone()).err(),
        Call::acquire(semaphore, key(), WaitSecs::TRY, None)
            .finish(response.clone())
            .err(),
        Call::wait(Kind::Lock, key(), WaitSecs::TRY)
            .finish(response.clone())
            .err(),
        Call::enqueue(Target::Lock, key(), None).finish(response.clone()).err(),
        Call::renew(Kind::Semaphore, key(), token, None)
            .finish(response.clone())
            .err(),
        Call::stats().finish(response.clone()).err(),
        Call::emit(channel, payload).finish(response).err(),
    ];
    for error in errors.into_iter().flatten() {
        let kept = format!("{error:?}");
        assert!(
            kept.len() <= LONGEST_MESSAGE,
            "{} bytes of an answer are kept",
            kept.len()
        );
    }
}
