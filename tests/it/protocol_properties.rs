//! Properties of the wire protocol, checked with generated input.

use bytes::BytesMut;
use dflockd_client::protocol::{
    AuthToken, Channel, Expect, Group, LineBuffer, LineError, MAX_RESPONSE_LINE, Pattern, Payload, Request,
    RequestDecoder, RequestError, Response, Signal, StableRef, Status,
};
use dflockd_client::{Fence, Grant, Key, Kind, Limit, Target, Token, Ttl, WaitSecs};
use proptest::prelude::*;

const LONGEST: u64 = 9_223_372_036;

fn key() -> impl Strategy<Value = Key> {
    prop_oneof![
        "[a-z0-9/._-]{1,40}",
        "[^\\s\\x00]{1,64}".prop_filter("256 bytes at most", |text| text.len() <= 256),
        "[a-z]{256}",
    ]
    .prop_filter_map("a key", |name| Key::new(name).ok())
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Lock), Just(Kind::Semaphore)]
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        Just(Target::Lock),
        (1..=i32::MAX as u32).prop_map(|limit| Target::Semaphore(Limit::new(limit).unwrap())),
    ]
}

fn token() -> impl Strategy<Value = Token> {
    "[0-9a-f]{32}".prop_map(|digits| Token::new(digits).unwrap())
}

fn ttl() -> impl Strategy<Value = Ttl> {
    (1..=LONGEST).prop_map(|secs| Ttl::from_secs(secs).unwrap())
}

fn wait() -> impl Strategy<Value = WaitSecs> {
    (0..=LONGEST).prop_map(|secs| WaitSecs::from_secs(secs).unwrap())
}

fn channel() -> impl Strategy<Value = Channel> {
    "[a-z]{1,8}(\\.[a-z]{1,8}){0,3}".prop_map(|name| Channel::new(name).unwrap())
}

fn pattern() -> impl Strategy<Value = Pattern> {
    "([a-zä]{0,8}|\\*)(\\.([a-zä]{0,8}|\\*)){0,3}(\\.>)?|>".prop_filter_map("a pattern", |text| Pattern::new(text).ok())
}

fn group() -> impl Strategy<Value = Option<Group>> {
    proptest::option::of("[^\\s\\x00]{1,40}".prop_map(|name| Group::new(name).unwrap()))
}

fn signal() -> impl Strategy<Value = Signal> {
    (channel(), "[^\\r\\n\\x00]{1,200}").prop_map(|(channel, payload)| {
        let payload = Payload::new(&channel, payload).unwrap();
        Signal::new(channel, payload)
    })
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        // The token has no blanks at its ends, because servers would remove them.
        "[!-~]([ -~]{0,78}[!-~])?".prop_map(|token| Request::Auth {
            token: AuthToken::new(token).unwrap()
        }),
        (target(), key(), wait(), proptest::option::of(ttl())).prop_map(|(target, key, wait, ttl)| Request::Acquire {
            target,
            key,
            wait,
            ttl
        }),
        (target(), key(), proptest::option::of(ttl())).prop_map(|(target, key, ttl)| Request::Enqueue {
            target,
            key,
            ttl
        }),
        (kind(), key(), wait()).prop_map(|(kind, key, wait)| Request::Wait { kind, key, wait }),
        (kind(), key(), token()).prop_map(|(kind, key, token)| Request::Release { kind, key, token }),
        (kind(), key(), token(), proptest::option::of(ttl())).prop_map(|(kind, key, token, ttl)| Request::Renew {
            kind,
            key,
            token,
            ttl
        }),
        Just(Request::Stats),
        Just(Request::Ping),
        Just(Request::Barrier),
        "[!-~]{1,64}".prop_map(|reference| Request::StableRef {
            reference: StableRef::new(reference).unwrap()
        }),
        (channel(), "[^\\r\\n\\x00]{1,200}").prop_map(|(channel, payload)| {
            let payload = Payload::new(&channel, payload).unwrap();
            Request::Signal { channel, payload }
        }),
        (pattern(), group()).prop_map(|(pattern, group)| Request::Listen { pattern, group }),
        (pattern(), group()).prop_map(|(pattern, group)| Request::Unlisten { pattern, group }),
    ]
}

fn grant() -> impl Strategy<Value = Grant> {
    (token(), ttl(), proptest::option::of(any::<u64>())).prop_map(|(token, ttl, fence)| {
        let mut grant = Grant::new(token, ttl);
        grant.fence = fence.map(Fence);
        grant
    })
}

fn status() -> impl Strategy<Value = Status> {
    prop_oneof![
        Just(Status::Error),
        Just(Status::Auth),
        Just(Status::MaxLocks),
        Just(Status::MaxWaiters),
        Just(Status::LimitMismatch),
        Just(Status::NotEnqueued),
        Just(Status::AlreadyEnqueued),
        Just(Status::LeaseExpired),
        Just(Status::Draining),
        Just(Status::NotLeader(None)),
        "[a-z0-9.]{1,30}:[0-9]{1,5}".prop_map(|address| Status::NotLeader(Some(address.into()))),
    ]
}

const EXPECTS: [Expect; 6] = [
    Expect::Done,
    Expect::Grant,
    Expect::Place,
    Expect::Renewal,
    Expect::Count,
    Expect::Json,
];

/// Generates a response, with the kind of response that its request expects.
fn response() -> impl Strategy<Value = (Expect, Response)> {
    let expect = prop_oneof![
        Just(Expect::Done),
        Just(Expect::Grant),
        Just(Expect::Place),
        Just(Expect::Renewal),
        Just(Expect::Count),
        Just(Expect::Json),
    ];
    prop_oneof![
        Just((Expect::Done, Response::Done)),
        Just((Expect::Grant, Response::TimedOut)),
        Just((Expect::Place, Response::Queued)),
        grant().prop_map(|grant| (Expect::Grant, Response::Granted(grant))),
        grant().prop_map(|grant| (Expect::Place, Response::Acquired(grant))),
        proptest::option::of(0..=LONGEST).prop_map(|left| (Expect::Renewal, Response::Renewed(left))),
        (0..=LONGEST).prop_map(|count| (Expect::Count, Response::Count(count))),
        "\\{[ -~]{0,80}\\}".prop_map(|json| (Expect::Json, Response::Json(json.into()))),
        (expect, status()).prop_map(|(expect, status)| (expect, Response::Refused(status))),
    ]
}

fn encoded(requests: &[Request]) -> BytesMut {
    let mut bytes = BytesMut::new();
    for request in requests {
        request.encode(&mut bytes);
    }
    bytes
}

/// Cuts bytes at these positions.
fn pieces<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

/// Reads all lines. Returns them, with the error at which the reading ended, if any.
fn lines(pieces: &[&[u8]], limit: usize) -> (Vec<String>, Option<LineError>) {
    let mut buffer = LineBuffer::new();
    let mut lines = Vec::new();
    for piece in pieces {
        buffer.extend(piece);
        loop {
            match buffer.next_line(limit) {
                Ok(Some(line)) => lines.push(line.to_owned()),
                Ok(None) => break,
                Err(error) => return (lines, Some(error)),
            }
        }
    }
    (lines, None)
}

proptest! {
    #[test]
    fn encoded_requests_decode_to_themselves(requests in prop::collection::vec(request(), 1..8)) {
        let mut decoder = RequestDecoder::default();
        decoder.read_space().extend_from_slice(&encoded(&requests));
        for request in requests {
            prop_assert_eq!(decoder.next_request(), Ok(Some(request)));
        }
        prop_assert_eq!(decoder.next_request(), Ok(None));
    }

    #[test]
    fn every_request_has_three_lines_that_a_server_accepts(request in request()) {
        let bytes = encoded(&[request]);
        prop_assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 3);
        prop_assert!(bytes.ends_with(b"\n") && !bytes.contains(&b'\r') && !bytes.contains(&0));
    }

    #[test]
    fn responses_decode_to_themselves((expect, response) in response()) {
        let mut bytes = BytesMut::new();
        response.encode(&mut bytes);
        let (lines, error) = lines(&[&bytes], MAX_RESPONSE_LINE);
        prop_assert_eq!((lines.len(), error), (1, None));
        prop_assert_eq!(Response::decode(expect, &lines[0]), Ok(response));
    }

    #[test]
    fn signals_decode_to_themselves_and_not_as_answers(signal in signal()) {
        let mut bytes = BytesMut::new();
        signal.encode(&mut bytes);
        let (lines, error) = lines(&[&bytes], MAX_RESPONSE_LINE);
        prop_assert_eq!((lines.len(), error), (1, None));
        for expect in EXPECTS {
            prop_assert!(Response::decode(expect, &lines[0]).is_err());
        }
        prop_assert_eq!(Signal::decode(&lines[0]), Some(signal));
    }

    #[test]
    fn answers_do_not_decode_as_signals((_, response) in response()) {
        let mut bytes = BytesMut::new();
        response.encode(&mut bytes);
        let (lines, _) = lines(&[&bytes], MAX_RESPONSE_LINE);
        prop_assert_eq!(Signal::decode(&lines[0]), None);
    }

    #[test]
    fn patterns_are_valid_if_servers_accept_them(text in "[ab*>. ]{0,8}|([ab]{0,2}|\\*|>)(\\.([ab]{0,2}|\\*|>)){0,3}|[a.]{250,260}") {
        let tokens: Vec<&str> = text.split('.').collect();
        let word = !text.is_empty() && text.len() <= 256 && !text.contains(' ');
        let whole = tokens.iter().all(|token| token.len() == 1 || !token.contains(['*', '>']));
        let last = tokens.iter().rev().skip(1).all(|token| *token != ">");
        match Pattern::new(&text) {
            Ok(pattern) => prop_assert!(word && whole && last && pattern.as_str() == text, "{:?}", pattern),
            Err(error) => prop_assert!(!(word && whole && last), "{}", error),
        }
    }

    #[test]
    fn any_split_of_a_stream_gives_the_same_lines(
        text in prop::collection::vec("[ -~äλ🔒]{0,30}\r{0,2}\n", 0..12),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let bytes = text.concat().into_bytes();
        let whole = lines(&[&bytes], 200);
        prop_assert_eq!(lines(&pieces(&bytes, &cuts), 200), whole);
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(lines(&single, 200), lines(&[&bytes], 200));
    }

    #[test]
    fn any_split_of_requests_gives_the_same_requests(
        requests in prop::collection::vec(request(), 1..5),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let bytes = encoded(&requests);
        let mut decoder = RequestDecoder::default();
        let mut decoded = Vec::new();
        for piece in pieces(&bytes, &cuts) {
            decoder.read_space().extend_from_slice(piece);
            while let Some(request) = decoder.next_request().unwrap() {
                decoded.push(request);
            }
        }
        prop_assert_eq!(decoded, requests);
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_splitting_them_changes_nothing(
        bytes in prop::collection::vec(prop_oneof![4 => any::<u8>(), 1 => Just(b'\n'), 1 => Just(b' ')], 0..400),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let limit = 64;
        let whole = lines(&[&bytes], limit);
        prop_assert_eq!(lines(&pieces(&bytes, &cuts), limit), whole.clone());
        for line in whole.0 {
            let pushed = format!("sig {line}");
            if let Some(signal) = Signal::decode(&pushed) {
                let mut again = BytesMut::new();
                signal.encode(&mut again);
                prop_assert_eq!(std::str::from_utf8(&again).unwrap(), format!("{pushed}\n"));
            }
            for expect in EXPECTS {
                if let Err(error) = Response::decode(expect, &line) {
                    prop_assert!(!error.to_string().is_empty());
                }
            }
        }
        let mut decoder = RequestDecoder::default();
        decoder.read_space().extend_from_slice(&bytes);
        // The loop must end: each turn reads at least one line or is the last turn.
        let mut turns = 0;
        loop {
            turns += 1;
            prop_assert!(turns <= bytes.len() + 1);
            match decoder.next_request() {
                Ok(Some(_)) | Err(RequestError::Malformed) => {}
                Ok(None) | Err(_) => break,
            }
        }
    }

    #[test]
    fn near_misses_of_responses_never_panic(
        (expect, response) in response(),
        other in 0..6_usize,
        cut in any::<prop::sample::Index>(),
        junk in "\\PC{0,12}",
    ) {
        let mut bytes = BytesMut::new();
        response.encode(&mut bytes);
        let line = std::str::from_utf8(&bytes).unwrap().trim_end();
        let cut = (0..=cut.index(line.len() + 1)).rev().find(|at| line.is_char_boundary(*at)).unwrap();
        let mangled = format!("{}{junk}{}", &line[..cut], &line[cut..]);
        for expect in [expect, EXPECTS[other]] {
            if let Ok(read) = Response::decode(expect, &mangled) {
                let mut again = BytesMut::new();
                read.encode(&mut again);
                let line = std::str::from_utf8(&again).unwrap().trim_end_matches('\n');
                prop_assert_eq!(Response::decode(expect, line), Ok(read), "what was read from {:?}", mangled);
            }
        }
    }

    #[test]
    fn refs_are_valid_if_servers_accept_them(text in "\\PC{0,70}|[!-~]{60,70}|[ -~]{0,64}|[a-z\\x00-\\x1f]{1,5}") {
        let good = (1..=64).contains(&text.len()) && text.bytes().all(|byte| (b'!'..=b'~').contains(&byte));
        match StableRef::new(&text) {
            Ok(reference) => prop_assert!(good && reference.expose() == text),
            Err(error) => prop_assert!(!good, "{}", error),
        }
        let trimmed = StableRef::new(text.trim());
        for argument in ["", "_"] {
            let decoded = Request::decode("stable-ref", &text, argument);
            prop_assert_eq!(decoded.is_some(), trimmed.is_ok(), "{:?}", argument);
        }
    }

    #[test]
    fn keys_are_valid_if_servers_accept_them(name in "\\PC{0,300}|[a-z]{250,260}|[ä]{120,135}|[a-z\\x00\\s]{1,5}") {
        let good = !name.is_empty() && name.len() <= 256 && !name.contains(|c: char| c.is_whitespace() || c == '\0');
        match Key::new(&name) {
            Ok(key) => prop_assert!(good && key.as_str() == name),
            Err(error) => prop_assert!(!good, "{}", error),
        }
    }
}

#[test]
fn a_line_without_an_end_takes_no_more_memory_than_its_limit() {
    let mut buffer = LineBuffer::new();
    let piece = [b'x'; 4096];
    let mut fed = 0;
    let error = loop {
        buffer.extend(&piece);
        fed += piece.len();
        match buffer.next_line(MAX_RESPONSE_LINE) {
            Ok(None) => assert!(
                fed <= MAX_RESPONSE_LINE + piece.len(),
                "the limit did not apply at {fed} bytes"
            ),
            Ok(Some(_)) => panic!("there was no line end"),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, LineError::TooLong { limit, .. } if limit == MAX_RESPONSE_LINE),
        "{error}"
    );
}

#[test]
fn the_longest_line_passes() {
    let mut buffer = LineBuffer::new();
    buffer.extend(&vec![b'x'; MAX_RESPONSE_LINE]);
    assert_eq!(buffer.next_line(MAX_RESPONSE_LINE), Ok(None));
    buffer.extend(b"\r\n");
    assert_eq!(
        buffer.next_line(MAX_RESPONSE_LINE).map(|line| line.map(str::len)),
        Ok(Some(MAX_RESPONSE_LINE))
    );
}
