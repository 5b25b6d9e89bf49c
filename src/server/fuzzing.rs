//! Fuzzes connections of the embedded server with arbitrary input, and checks the consistency of its state after each
//! step.
//!
//! The first bytes of an input choose the release, the options, and how the rest is split into pieces; the rest is
//! sent. There are three connections. `0xfe n` selects a connection or causes another event, and `0xfd n` inserts a
//! token that was granted.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::connection::serve;
use super::ids::ConnectionId;
use super::options::ServerOptions;
use super::random::Random;
use super::release::Release;
use super::shared::Shared;
pub(crate) use super::signals::fuzzing::patterns;
use super::state::State;
use crate::fuzzing::pieces::pieces;
use crate::fuzzing::socket::{Peer, Socket};
use crate::protocol::{AuthToken, Expect, RequestDecoder, Response, Signal};
use crate::types::{MAX_SECONDS, Token, Ttl};

const SECRET: &str = "secret";

const CONNECTIONS: usize = 3;

/// The maximum number of rounds in which all connections are polled until none has more to do.
const MOST_ROUNDS: usize = 10_000;

/// Serves clients that send the given bytes.
pub(crate) fn requests(data: &[u8]) {
    let [release, flags, seed, said @ ..] = data else {
        return;
    };
    same_in_pieces(said, *seed);
    let release = Release::ALL[usize::from(*release) % Release::ALL.len()];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(tokio::task::unconstrained(play(release, *flags, *seed, said)));
}

/// Checks that the decoder returns the same lines, however the bytes are split into pieces.
fn same_in_pieces(said: &[u8], seed: u8) {
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut decoder = RequestDecoder::with_longest_arguments(300, 400);
        let mut read = Vec::new();
        for piece in pieces {
            decoder.read_space().extend_from_slice(piece);
            loop {
                match decoder.next_lines() {
                    Ok(None) => break,
                    Ok(Some(lines)) => read.push([lines.command, lines.key, lines.argument].map(<[u8]>::to_vec)),
                    Err(error) => read.push([error.to_string().into_bytes(), Vec::new(), Vec::new()]),
                }
            }
            assert!(
                decoder.pending() <= 2 * 257 + 401,
                "the decoder keeps bytes of a line that is too long"
            );
        }
        (read, decoder.lines(), decoder.pending(), decoder.is_too_long())
    };
    let whole = read(&mut std::iter::once(said));
    assert_eq!(
        whole,
        read(&mut pieces(said, seed)),
        "the result depends on how the bytes are split into pieces"
    );
}

async fn play(release: Release, flags: u8, seed: u8, said: &[u8]) {
    let has = |flag: u8| flags >> flag & 1 == 1;
    let options = ServerOptions {
        release,
        auto_release_on_disconnect: !has(0),
        auth_token: has(1).then(|| AuthToken::new(SECRET).unwrap()),
        max_locks: if has(2) { 2 } else { 1024 },
        max_waiters: if has(3) { 1 } else { 0 },
        max_subscriptions: if has(4) { 2 } else { 0 },
        signal_buffer: if has(5) { 2 } else { 64 },
        orphan_ttl: Duration::from_secs(if has(6) { 5 } else { 0 }),
        default_lease_ttl: Ttl::from_secs(3).unwrap(),
        ..ServerOptions::default()
    };
    let shared = Shared {
        state: Arc::new(Mutex::new(State::new(options.clone(), Random::seeded(7)))),
        options,
        member: 0,
        draining: CancellationToken::new(),
        stopped: CancellationToken::new(),
    };
    let mut bench = Bench {
        shared: &shared,
        clients: std::array::from_fn(|_| None),
        granted: Vec::new(),
    };
    let mut rest = said;
    let mut current = 0;
    while let Some(next) = rest.iter().position(|byte| matches!(byte, 0xfd | 0xfe)) {
        bench.say(current, &rest[..next], seed);
        let [escape, choice, behind @ ..] = &rest[next..] else {
            return;
        };
        rest = behind;
        let number = usize::from(choice / 8);
        match (escape, choice % 8) {
            (0xfd, _) => bench.say_token(current, usize::from(*choice)),
            (_, which @ 0..=2) => current = usize::from(which),
            (_, 3) => {
                tokio::time::advance(Duration::from_millis(100) * u32::from(choice / 8)).await;
                bench.serve();
            }
            (_, 4) => bench.end_input(current),
            (_, 5) => bench.drop_client(current),
            (_, 6) => bench.sweep(),
            (_, _) if number == 31 => {
                shared.state().drain(0, Instant::now());
                bench.serve();
            }
            (_, _) => bench.limit_writes(current, number),
        }
    }
    bench.say(current, rest, seed);
    // All clients disconnect. No lease and no waiter remains, unless the options keep leases after a disconnect. (In
    // cluster builds, this is not checked.)
    for which in 0..CONNECTIONS {
        bench.drop_client(which);
    }
    if shared.options.auto_release_on_disconnect && release != Release::Cluster {
        assert_eq!(shared.state().leases_and_waiters(), (0, 0));
    }
    // Every lease ends in time, even one that was granted at a queue position of a client that has left.
    for _ in 0..=said.len() {
        if shared.state().leases_and_waiters().0 == 0 {
            break;
        }
        tokio::time::advance(Duration::from_secs(MAX_SECONDS)).await;
        shared.state().expire(Instant::now());
        shared.state().assert_consistent();
    }
    assert_eq!(shared.state().leases_and_waiters().0, 0, "a lease has no end");
}

/// A client, and the server's side of its connection.
struct Client<'a> {
    number: ConnectionId,
    peer: Rc<Peer>,
    /// The bytes of an incomplete line that the client has received.
    heard: BytesMut,
    /// `None` once the connection has ended.
    served: Option<Pin<Box<dyn Future<Output = ()> + 'a>>>,
}

struct Bench<'a> {
    shared: &'a Shared,
    clients: [Option<Client<'a>>; CONNECTIONS],
    granted: Vec<Token>,
}

/// Notes that a connection has more to do.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<'a> Bench<'a> {
    /// Returns the client, after connecting it if necessary; `None` if the server does not admit it.
    fn client(&mut self, which: usize) -> Option<&mut Client<'a>> {
        let shared = self.shared;
        let place = &mut self.clients[which];
        if place.is_none() {
            let number = shared.state().connect(0)?;
            let peer = Rc::new(Peer::default());
            peer.takes.set(usize::MAX);
            let socket = Socket(Rc::clone(&peer));
            *place = Some(Client {
                number,
                peer,
                heard: BytesMut::new(),
                served: Some(Box::pin(serve(socket, number, shared))),
            });
        }
        place.as_mut()
    }

    fn say(&mut self, which: usize, bytes: &[u8], seed: u8) {
        for piece in pieces(bytes, seed) {
            let Some(client) = self.client(which) else { return };
            client.peer.say(piece);
            self.serve();
        }
    }

    fn say_token(&mut self, which: usize, choice: usize) {
        let token = match self.granted.len() {
            0 => Token::NEVER_ISSUED,
            count => self.granted[choice % count],
        };
        self.say(which, token.as_str().as_bytes(), 3);
    }

    /// Lets the socket accept only this many further bytes; 0 stands for any number.
    fn limit_writes(&mut self, which: usize, number: usize) {
        if let Some(client) = self.client(which) {
            client.peer.takes.set(match number {
                0 => usize::MAX,
                number => number,
            });
            self.serve();
        }
    }

    fn end_input(&mut self, which: usize) {
        if let Some(client) = self.client(which) {
            client.peer.closed.set(true);
            self.serve();
        }
    }

    /// Ends the client. The next request under this index comes from a new client.
    fn drop_client(&mut self, which: usize) {
        if let Some(client) = self.clients[which].take() {
            drop(client.served);
            self.shared.state().disconnect(client.number, Instant::now());
            self.serve();
        }
    }

    fn sweep(&mut self) {
        let now = Instant::now();
        let mut state = self.shared.state();
        state.expire(now);
        state.collect(now);
        drop(state);
        self.serve();
    }

    /// Serves all connections until none has more to do.
    fn serve(&mut self) {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        for round in 0.. {
            assert!(round < MOST_ROUNDS, "the connections never become idle");
            woken.0.store(false, Ordering::Relaxed);
            let mut has_written = false;
            for client in self.clients.iter_mut().flatten() {
                let Some(served) = &mut client.served else { continue };
                if let Poll::Ready(()) = served.as_mut().poll(&mut context) {
                    client.served = None;
                    self.shared.state().disconnect(client.number, Instant::now());
                    has_written = true;
                }
                let written = client.peer.written.take();
                has_written |= !written.is_empty();
                client.heard.extend_from_slice(&written);
                while let Some(end) = client.heard.iter().position(|byte| *byte == b'\n') {
                    let line = client.heard.split_to(end + 1);
                    read_answer(&line[..end], &mut self.granted);
                }
            }
            self.shared.state().assert_consistent();
            if !has_written && !woken.0.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}

/// Checks that a line from the server is an answer or a signal. Notes the token of a grant.
fn read_answer(line: &[u8], granted: &mut Vec<Token>) {
    // Channels and payloads can be any bytes.
    let Ok(line) = std::str::from_utf8(line) else { return };
    if Signal::decode(line).is_some() {
        return;
    }
    let shapes = [Expect::Grant, Expect::Place, Expect::Done, Expect::Json];
    let mut read = shapes.iter().filter_map(|shape| Response::decode(*shape, line).ok());
    match read.next() {
        Some(Response::Granted(grant) | Response::Acquired(grant)) => granted.push(grant.token),
        Some(_) => {}
        None => panic!("no client understands {line:?}"),
    }
}
