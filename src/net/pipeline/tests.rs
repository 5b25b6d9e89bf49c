//! Tests of the pipeline with lines that a test makes up.

use super::*;
use crate::types::{Key, Kind, Target, Token, WaitSecs};

const TOKEN: &str = "00000000000000070123456789abcdef";

fn acquire(key: &str) -> Request {
    Request::Acquire {
        target: Target::Lock,
        key: Key::new(key).unwrap(),
        wait: WaitSecs::TRY,
        ttl: None,
    }
}

fn release() -> Request {
    Request::Release {
        kind: Kind::Lock,
        key: Key::new("k").unwrap(),
        token: Token::new(TOKEN).unwrap(),
    }
}

/// Creates a pipeline with the requests 0, 1, … in flight and written.
fn in_flight(requests: &[Request]) -> Pipeline<usize> {
    let mut pipeline = Pipeline::new(Duration::from_secs(10));
    for (tag, request) in requests.iter().enumerate() {
        pipeline.push(request, tag, Moment::now());
    }
    let all = pipeline.unwritten().len();
    pipeline.wrote(all);
    pipeline
}

fn feed(pipeline: &mut Pipeline<usize>, bytes: &str) -> (Vec<(usize, Response)>, Option<ErrorKind>) {
    pipeline.read_space().extend_from_slice(bytes.as_bytes());
    let mut received = Received::nothing();
    let end = pipeline.receive(&mut received).err().map(|error| error.kind());
    assert!(received.signals.is_empty());
    (received.replies.into_iter().map(|r| (r.tag, r.response)).collect(), end)
}

/// Feeds bytes to a connection that has listened. Returns the tags of answers, and the payloads of signals.
fn hear(pipeline: &mut Pipeline<usize>, bytes: &str) -> (Vec<usize>, Vec<String>) {
    pipeline.read_space().extend_from_slice(bytes.as_bytes());
    let mut received = Received::nothing();
    pipeline.receive(&mut received).unwrap();
    let payloads = received.signals.iter().map(|signal| signal.payload().to_owned());
    (
        received.replies.iter().map(|reply| reply.tag).collect(),
        payloads.collect(),
    )
}

#[test]
fn signals_between_answers_are_not_counted_as_answers() {
    let mut pipeline = in_flight(&[release(), release(), release()]).hearing_signals(true);
    let heard = hear(&mut pipeline, "sig a 1\nok\nsig a 2\nsig b ok\nerror_draining\n");
    assert_eq!(heard, (vec![0, 1], ["1", "2", "ok"].map(str::to_owned).to_vec()));
    assert_eq!(pipeline.len(), 1);
    // Characters of several bytes, in pieces.
    let text = "sig a ü漢🔒\n";
    pipeline.read_space().extend_from_slice(&text.as_bytes()[..9]);
    assert_eq!(hear(&mut pipeline, ""), (vec![], vec![]));
    pipeline.read_space().extend_from_slice(&text.as_bytes()[9..]);
    assert_eq!(hear(&mut pipeline, ""), (vec![], vec!["ü漢🔒".to_owned()]));
}

#[test]
fn a_signal_confirms_the_error_before_it() {
    let mut pipeline = in_flight(&[release()]).hearing_signals(true);
    assert_eq!(hear(&mut pipeline, "error\n"), (vec![], vec![]));
    assert_eq!(hear(&mut pipeline, "sig a x\n"), (vec![0], vec!["x".to_owned()]));
}

#[test]
fn a_signal_on_a_connection_that_has_not_listened_is_a_protocol_error() {
    let mut pipeline = in_flight(&[release()]);
    assert_eq!(feed(&mut pipeline, "sig a x\n"), (vec![], Some(ErrorKind::Protocol)));
}

#[test]
fn answers_meet_their_requests_in_order() {
    let mut pipeline = in_flight(&[acquire("a"), acquire("b"), release()]);
    let (replies, end) = feed(
        &mut pipeline,
        "timeout
error_max_locks
ok
",
    );
    let tags: Vec<usize> = replies.iter().map(|r| r.0).collect();
    assert_eq!((tags, end), (vec![0, 1, 2], None));
    assert_eq!(replies[1].1, Response::Refused(Status::MaxLocks));
    assert_eq!(pipeline.len(), 0);
}

#[test]
fn a_bare_error_counts_once_the_next_line_confirms_it() {
    let mut pipeline = in_flight(&[release(), release()]);
    assert_eq!(
        feed(
            &mut pipeline,
            "error
"
        ),
        (vec![], None)
    );
    assert!(
        !pipeline.wants_confirmation(),
        "the second answer will confirm the first"
    );
    let (replies, _) = feed(
        &mut pipeline,
        "error
",
    );
    assert_eq!(replies, vec![(0, Response::Refused(Status::Error))]);
    assert!(pipeline.wants_confirmation());
    pipeline.push_own(&Request::Ping, Moment::now());
    let (replies, _) = feed(
        &mut pipeline,
        "ok
",
    );
    assert_eq!(replies, vec![(1, Response::Refused(Status::Error))]);
    assert_eq!(pipeline.len(), 0);
}

#[test]
fn a_bare_error_before_the_end_answers_no_request() {
    let mut pipeline = in_flight(&[release(), acquire("a")]);
    assert_eq!(
        feed(
            &mut pipeline,
            "error
"
        ),
        (vec![], None)
    );
    let left = pipeline.into_leftovers();
    assert_eq!((left.unknown, left.unwritten), (vec![0, 1], vec![]));
}

#[test]
fn the_error_about_an_unasked_line_shows_no_token() {
    for line in [
        format!("ok {TOKEN} 30"),
        format!("ok,{TOKEN}"),
        format!("{TOKEN}{TOKEN}"),
    ] {
        let mut pipeline = in_flight(&[]);
        pipeline.read_space().extend_from_slice(format!("{line}\n").as_bytes());
        let error = pipeline.receive(&mut Received::nothing()).unwrap_err().to_string();
        assert!(error.contains("00000000…") && !error.contains(TOKEN), "{error}");
    }
}

#[test]
fn an_unasked_error_ends_the_connection_and_any_other_unasked_line_is_a_protocol_error() {
    assert_eq!(
        feed(
            &mut in_flight(&[]),
            "error
"
        ),
        (vec![], Some(ErrorKind::Disconnected))
    );
    assert_eq!(
        feed(
            &mut in_flight(&[]),
            "ok
"
        ),
        (vec![], Some(ErrorKind::Protocol))
    );
    let (replies, end) = feed(
        &mut in_flight(&[release()]),
        "ok
ok
",
    );
    assert_eq!((replies, end), (vec![(0, Response::Done)], Some(ErrorKind::Protocol)));
}

#[test]
fn an_answer_of_the_wrong_shape_leaves_its_request_unanswered() {
    let mut pipeline = in_flight(&[release(), release()]);
    let (replies, end) = feed(
        &mut pipeline,
        &format!(
            "ok {TOKEN} 10
ok
"
        ),
    );
    assert_eq!((replies, end), (vec![], Some(ErrorKind::Protocol)));
    assert_eq!(pipeline.into_leftovers().unknown, vec![0, 1]);
}

#[test]
fn requests_that_were_not_written_at_all_are_returned_separately() {
    let mut pipeline: Pipeline<usize> = Pipeline::new(Duration::from_secs(10));
    pipeline.push(&acquire("a"), 0, Moment::now());
    let first = pipeline.unwritten().len();
    pipeline.push(&acquire("b"), 1, Moment::now());
    pipeline.push(&acquire("c"), 2, Moment::now());
    pipeline.wrote(first);
    let left = pipeline.into_leftovers();
    assert_eq!((left.unknown, left.unwritten), (vec![0], vec![1, 2]));

    let mut pipeline: Pipeline<usize> = Pipeline::new(Duration::from_secs(10));
    pipeline.push(&acquire("a"), 0, Moment::now());
    pipeline.wrote(1);
    assert_eq!(
        pipeline.into_leftovers().unknown,
        vec![0],
        "one byte is enough to be in doubt"
    );
}

#[test]
fn a_request_is_of_unknown_fate_from_its_first_written_byte_on() {
    let requests = [acquire("a"), release(), acquire("a-longer-name"), release()];
    let begins = |count: usize| {
        let mut bytes = BytesMut::new();
        requests[..count].iter().for_each(|request| request.encode(&mut bytes));
        bytes.len()
    };
    for written in 0..=begins(requests.len()) {
        let mut pipeline = Pipeline::new(Duration::from_secs(10));
        for (tag, request) in requests.iter().enumerate() {
            pipeline.push(request, tag, Moment::now());
        }
        pipeline.wrote(written);
        let left = pipeline.into_leftovers();
        let (unknown, unwritten): (Vec<usize>, Vec<usize>) =
            (0..requests.len()).partition(|tag| begins(*tag) < written);
        assert_eq!((left.unknown, left.unwritten), (unknown, unwritten), "{written} bytes");
    }
}

#[test]
fn all_requests_are_of_unknown_fate_if_the_number_of_written_bytes_is_unknown() {
    let mut pipeline: Pipeline<usize> = Pipeline::new(Duration::from_secs(10));
    pipeline.push(&acquire("a"), 0, Moment::now());
    pipeline.push(&acquire("b"), 1, Moment::now());
    pipeline.assume_written();
    assert_eq!(pipeline.into_leftovers().unknown, vec![0, 1]);
}

#[test]
fn a_blocking_request_has_its_wait_in_addition_to_the_reply_timeout() {
    let now = Moment::now();
    let mut pipeline = Pipeline::new(Duration::from_secs(10));
    let wait = Request::Wait {
        kind: Kind::Lock,
        key: Key::new("k").unwrap(),
        wait: WaitSecs::covering(Duration::from_secs(7)),
    };
    pipeline.push(&wait, 0, now);
    assert_eq!(pipeline.answer_by(), Some(now.at + Duration::from_secs(17)));
    let forever = WaitSecs::covering(Duration::MAX);
    let mut pipeline = Pipeline::new(Duration::MAX);
    pipeline.push(
        &Request::Wait {
            kind: Kind::Lock,
            key: Key::new("k").unwrap(),
            wait: forever,
        },
        0,
        now,
    );
    assert!(pipeline.answer_by() > Some(now.at));
}

/// The moment of the request shows whether the machine was suspended between the request and its reply.
#[test]
fn a_reply_contains_the_moment_at_which_its_request_was_sent() {
    let mut pipeline: Pipeline<usize> = Pipeline::new(Duration::from_secs(10));
    let sent = Moment::now();
    pipeline.push(&release(), 0, sent);
    let all = pipeline.unwritten().len();
    pipeline.wrote(all);
    crate::clock::testing::suspend_for(Duration::from_secs(7));
    pipeline.read_space().extend_from_slice(b"ok\n");
    let mut received = Received::nothing();
    pipeline.receive(&mut received).unwrap();
    assert_eq!((received.replies[0].sent_at, pipeline.heard()), (sent, Some(sent)));
}

#[test]
fn only_a_refusal_of_the_pipelines_own_ping_shows_that_the_server_does_not_support_it() {
    let nothing = Request::Renew {
        kind: Kind::Lock,
        key: Key::new("k").unwrap(),
        token: Token::NEVER_ISSUED,
        ttl: None,
    };
    for (request, is_own, says_so) in [
        (Request::Ping, true, true),
        (nothing, true, false),
        (Request::Ping, false, false),
    ] {
        let mut pipeline = Pipeline::new(Duration::from_secs(10));
        match is_own {
            true => pipeline.push_own(&request, Moment::now()),
            false => pipeline.push(&request, 0, Moment::now()),
        }
        pipeline.push(&release(), 1, Moment::now());
        let (_, end) = feed(&mut pipeline, "error\nok\n");
        assert_eq!(
            (end, pipeline.has_refused_ping()),
            (None, says_so),
            "{request:?} {is_own}"
        );
    }
}
