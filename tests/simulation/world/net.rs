//! The network of a simulated world: connections in memory, with latency and bandwidth, and everything that goes wrong with them.
//!
//! The world moves its clock; between two moves nothing arrives. Whatever is sent is due later than that, so that hosts can be run
//! one after another.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use fastrand::Rng;

use super::trace::Trace;

/// Nanoseconds since the world began.
pub type Time = u64;

pub const MS: Time = 1_000_000;
pub const SECOND: Time = 1_000 * MS;

/// So long a segment that a partition swallowed takes to be sent again.
const RETRANSMIT: Time = 40 * MS;

/// After so long a system asks whether the other end of a connection is there.
const KEEPALIVE: Time = 2 * SECOND;

/// What a direction of a connection holds that was not read yet.
const WINDOW: usize = 16 * 1024;

/// Names a host.
pub type HostId = usize;

/// A direction of a connection: that of the client has an even number, the other the next.
pub type PipeId = u64;

/// What connections between a host and an address suffer.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// The least time that a segment takes.
    pub latency: Time,
    /// At most so much more, drawn for each segment.
    pub jitter: Time,
    /// Bytes in a millisecond.
    pub bandwidth: u64,
    /// Nothing gets to the server.
    pub up_is_cut: bool,
    /// Nothing gets from the server.
    pub down_is_cut: bool,
    /// Attempts to connect take up to so much longer, each drawn for itself, so that they overtake each other.
    pub connect_jitter: Time,
    pub connects: Connects,
}

/// What becomes of attempts to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connects {
    Served,
    Refused,
    /// No answer comes.
    Hang,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            latency: 2 * MS,
            jitter: MS,
            bandwidth: 100_000,
            up_is_cut: false,
            down_is_cut: false,
            connect_jitter: 0,
            connects: Connects::Served,
        }
    }
}

/// How a connection ends by a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Both ends hear of a reset.
    Reset,
    /// Both ends hear of an end in order.
    End,
    /// Neither hears anything any more.
    Silence,
}

/// Where in what is sent next.
#[derive(Clone, Copy, Debug)]
pub enum Where {
    /// Behind so many bytes.
    Bytes(usize),
    /// Behind so many line ends.
    Lines(usize),
}

struct Pipe {
    /// The host that writes, and the one that reads.
    from: HostId,
    to: HostId,
    /// Whose link it is: that of the client host to the address of the server.
    link: (HostId, SocketAddr),
    is_up: bool,
    chunks: VecDeque<Chunk>,
    last_due: Time,
    arrived: VecDeque<u8>,
    arrived_end: Option<End>,
    /// Bytes that are on their way or were not read.
    unread: usize,
    /// Nothing that is sent arrives any more.
    is_void: bool,
    cut: Option<(Where, Cut)>,
    /// The writer has said that it sends no more, or is gone.
    write_ended: bool,
    /// The reader is gone.
    reader: Reader,
    read_waker: Option<Waker>,
    write_waker: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reader {
    There,
    Gone,
    /// With its machine: what is sent is not even refused, until that is up again.
    Vanished,
}

enum Chunk {
    Data(Time, Vec<u8>),
    End(Time, End),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Fin,
    Reset,
}

impl Chunk {
    fn due(&self) -> Time {
        match self {
            Self::Data(due, _) | Self::End(due, _) => *due,
        }
    }
}

struct Listening {
    host: HostId,
    waiting: VecDeque<PipeId>,
    waker: Option<Waker>,
}

struct Attempt {
    from: HostId,
    to: SocketAddr,
    waker: Option<Waker>,
    outcome: Option<io::Result<PipeId>>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Syn(u64),
    Refuse(u64),
    /// The attempt, and the number of the connection.
    Establish(u64, PipeId),
    Arrive(PipeId),
}

/// How much happened.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    pub connections: u64,
    pub segments: u64,
    pub bytes: u64,
}

struct State {
    now: Time,
    random: Rng,
    trace: Trace,
    links: BTreeMap<(HostId, SocketAddr), Link>,
    base: Link,
    listening: BTreeMap<SocketAddr, Listening>,
    /// Whose machine is down.
    down: Vec<HostId>,
    pipes: BTreeMap<PipeId, Pipe>,
    attempts: BTreeMap<u64, Attempt>,
    next: u64,
    order: u64,
    agenda: BinaryHeap<Reverse<(Time, u64, Happening)>>,
    traffic: Traffic,
}

/// The network. Clones share it.
#[derive(Clone)]
pub struct Network(Arc<Mutex<State>>);

impl Network {
    pub fn new(random: Rng, trace: Trace, base: Link) -> Self {
        Self(Arc::new(Mutex::new(State {
            now: 0,
            random,
            trace,
            links: BTreeMap::new(),
            base,
            listening: BTreeMap::new(),
            down: Vec::new(),
            pipes: BTreeMap::new(),
            attempts: BTreeMap::new(),
            next: 0,
            order: 0,
            agenda: BinaryHeap::new(),
            traffic: Traffic::default(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the clock, and lets arrive what is due.
    pub fn advance(&self, now: Time) {
        loop {
            let waker = {
                let mut state = self.state();
                state.now = now;
                match state.agenda.peek() {
                    Some(Reverse((due, ..))) if *due <= now => {}
                    _ => return,
                }
                let Some(Reverse((_, _, happening))) = state.agenda.pop() else {
                    return;
                };
                state.happen(happening)
            };
            for waker in waker.into_iter().flatten() {
                waker.wake();
            }
        }
    }

    pub fn traffic(&self) -> Traffic {
        self.state().traffic.clone()
    }

    /// How many connections have an end that a host still has.
    pub fn connections_of(&self, host: HostId) -> usize {
        let state = self.state();
        let ends = state.pipes.values().filter(|pipe| pipe.to == host);
        ends.filter(|pipe| pipe.reader == Reader::There).count()
    }

    /// Changes what the connections of a host to an address suffer.
    pub fn change(&self, host: HostId, address: SocketAddr, change: impl FnOnce(&mut Link)) {
        let mut state = self.state();
        let base = state.base;
        change(state.links.entry((host, address)).or_insert(base));
    }

    /// All links are as they were.
    pub fn heal(&self) {
        let mut state = self.state();
        state.links.clear();
        for pipe in state.pipes.values_mut() {
            pipe.cut = None;
        }
        state.probe(|pipe| pipe.is_void);
    }

    /// Ends one of the connections of a host to an address, in one direction of which something else is sent. Returns whether there was one.
    pub fn cut(&self, host: HostId, address: SocketAddr, place: Where, cut: Cut) -> bool {
        let mut state = self.state();
        let candidates: Vec<PipeId> = state
            .pipes
            .iter()
            .filter(|(_, pipe)| pipe.link == (host, address) && !pipe.is_void && pipe.reader == Reader::There)
            .map(|(id, _)| *id)
            .collect();
        if candidates.is_empty() {
            return false;
        }
        let chosen = candidates[state.random.usize(..candidates.len())];
        match place {
            Where::Bytes(0) => {
                let wakers = state.cut_now(chosen, cut);
                drop(state);
                wakers.into_iter().flatten().for_each(Waker::wake);
            }
            _ => {
                if let Some(pipe) = state.pipes.get_mut(&chosen) {
                    pipe.cut = Some((place, cut));
                }
            }
        }
        true
    }

    /// The process of a host ends: its system closes its connections, one after the other.
    pub fn close_all(&self, host: HostId) {
        let mine: Vec<PipeId> = {
            let mut state = self.state();
            state.attempts.retain(|_, attempt| attempt.from != host);
            state.listening.retain(|_, listening| listening.host != host);
            let ends = state
                .pipes
                .iter()
                .filter(|(_, pipe)| pipe.to == host && pipe.reader == Reader::There);
            ends.map(|(id, _)| id ^ 1).collect()
        };
        for id in mine {
            self.close(id, id ^ 1);
        }
    }

    /// The machine of a host is gone: no peer hears of it.
    pub fn take_down(&self, host: HostId) {
        let mut state = self.state();
        state.down.push(host);
        state.listening.retain(|_, listening| listening.host != host);
        for pipe in state.pipes.values_mut() {
            if pipe.from == host {
                pipe.is_void = true;
                pipe.write_ended = true;
            }
            if pipe.to == host {
                pipe.reader = Reader::Vanished;
            }
        }
        state.attempts.retain(|_, attempt| attempt.from != host);
    }

    /// It runs again, and knows nothing of its connections.
    pub fn bring_up(&self, host: HostId) {
        let mut state = self.state();
        state.down.retain(|down| *down != host);
        for pipe in state.pipes.values_mut() {
            if pipe.to == host && pipe.reader == Reader::Vanished {
                pipe.reader = Reader::Gone;
            }
            if pipe.from == host && pipe.is_void {
                // It refuses what its peers send now.
                pipe.is_void = false;
            }
        }
        state.probe(|pipe| pipe.from == host && pipe.write_ended);
    }

    pub(super) fn listen(&self, host: HostId, address: SocketAddr) -> io::Result<()> {
        let mut state = self.state();
        if state.listening.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        state.listening.insert(
            address,
            Listening {
                host,
                waiting: VecDeque::new(),
                waker: None,
            },
        );
        Ok(())
    }

    pub(super) fn stop_listening(&self, address: SocketAddr) {
        let stopped = self.state().listening.remove(&address);
        // Whose connections were not accepted is refused.
        for connection in stopped.into_iter().flat_map(|stopped| stopped.waiting) {
            self.close(connection + 1, connection);
        }
    }

    pub(super) fn poll_accept(&self, address: SocketAddr, cx: &Context<'_>) -> Poll<io::Result<PipeId>> {
        let mut state = self.state();
        let Some(listening) = state.listening.get_mut(&address) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        match listening.waiting.pop_front() {
            Some(connection) => Poll::Ready(Ok(connection)),
            None => {
                listening.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    pub(super) fn connect(&self, from: HostId, to: SocketAddr) -> u64 {
        let mut state = self.state();
        let id = state.next_id();
        let attempt = Attempt {
            from,
            to,
            waker: None,
            outcome: None,
        };
        state.attempts.insert(id, attempt);
        let link = state.link((from, to));
        let extra = match link.connect_jitter {
            0 => 0,
            jitter => state.random.u64(..jitter),
        };
        let due = state.now + state.delay(&link) + extra;
        state.at(due, Happening::Syn(id));
        id
    }

    pub(super) fn poll_connect(&self, attempt: u64, cx: &Context<'_>) -> Poll<io::Result<PipeId>> {
        let mut state = self.state();
        let Some(pending) = state.attempts.get_mut(&attempt) else {
            return Poll::Ready(Err(io::ErrorKind::NetworkDown.into()));
        };
        match pending.outcome.take() {
            Some(outcome) => {
                state.attempts.remove(&attempt);
                Poll::Ready(outcome)
            }
            None => {
                pending.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    pub(super) fn give_up_connect(&self, attempt: u64) {
        let given_up = self.state().attempts.remove(&attempt);
        if let Some(Some(Ok(connection))) = given_up.map(|attempt| attempt.outcome) {
            self.close(connection, connection + 1);
        }
    }

    pub(super) fn poll_read(
        &self,
        pipe: PipeId,
        cx: &Context<'_>,
        into: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.state();
        let Some(pipe) = state.pipes.get_mut(&pipe) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        if pipe.arrived_end == Some(End::Reset) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if pipe.arrived.is_empty() {
            if pipe.arrived_end.is_some() {
                return Poll::Ready(Ok(()));
            }
            pipe.read_waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let (front, _) = pipe.arrived.as_slices();
        let taken = front.len().min(into.remaining());
        into.put_slice(&front[..taken]);
        pipe.arrived.drain(..taken);
        pipe.unread -= taken;
        let waker = pipe.write_waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_write(&self, id: PipeId, cx: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut guard = self.state();
        let state = &mut *guard;
        let back_is_reset = state
            .pipes
            .get(&(id ^ 1))
            .is_none_or(|back| back.arrived_end == Some(End::Reset));
        let Some(pipe) = state.pipes.get_mut(&id) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        if back_is_reset || pipe.write_ended && !pipe.is_void {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let room = WINDOW.saturating_sub(pipe.unread);
        if room == 0 {
            pipe.write_waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut taken = bytes.len().min(room);
        // Now and then the system takes a part only.
        if taken > 1 && state.random.u32(..32) == 0 {
            taken = state.random.usize(1..taken);
        }
        state.send(id, &bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    pub(super) fn shutdown(&self, pipe: PipeId) {
        let mut state = self.state();
        state.end(pipe, End::Fin);
    }

    /// An end of a connection is dropped: that which writes `mine` and reads `theirs`.
    pub(super) fn close(&self, mine: PipeId, theirs: PipeId) {
        let mut state = self.state();
        let mut how = End::Fin;
        let mut waker = None;
        if let Some(pipe) = state.pipes.get_mut(&theirs) {
            if pipe.reader == Reader::There {
                pipe.reader = Reader::Gone;
                if pipe.unread > 0 {
                    how = End::Reset;
                }
            }
            pipe.unread = 0;
            pipe.arrived.clear();
            waker = pipe.write_waker.take();
        }
        state.end(mine, how);
        state.forget(mine & !1);
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

type Wakers = [Option<Waker>; 3];

impl State {
    fn next_id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn at(&mut self, due: Time, happening: Happening) {
        self.order += 1;
        self.agenda.push(Reverse((due, self.order, happening)));
    }

    fn link(&self, link: (HostId, SocketAddr)) -> Link {
        self.links.get(&link).copied().unwrap_or(self.base)
    }

    fn delay(&mut self, link: &Link) -> Time {
        link.latency + self.random.u64(..=link.jitter)
    }

    fn happen(&mut self, happening: Happening) -> Wakers {
        match happening {
            Happening::Syn(attempt) => self.syn(attempt),
            Happening::Refuse(attempt) => {
                let Some(attempt) = self.attempts.get_mut(&attempt) else {
                    return Wakers::default();
                };
                attempt.outcome = Some(Err(io::ErrorKind::ConnectionRefused.into()));
                [attempt.waker.take(), None, None]
            }
            Happening::Establish(attempt, connection) => self.establish(attempt, connection),
            Happening::Arrive(pipe) => self.arrive(pipe),
        }
    }

    fn syn(&mut self, id: u64) -> Wakers {
        let nothing = Wakers::default();
        let Some(attempt) = self.attempts.get(&id) else {
            return nothing;
        };
        let (from, to) = (attempt.from, attempt.to);
        let link = self.link((from, to));
        let delay = self.delay(&link);
        let is_down = self.down.contains(&from);
        match link.connects {
            Connects::Hang => return nothing,
            Connects::Refused => {
                self.at(self.now + delay, Happening::Refuse(id));
                return nothing;
            }
            Connects::Served => {}
        }
        // The handshake needs both directions, and is tried again.
        if link.up_is_cut || link.down_is_cut {
            self.at(self.now + 5 * RETRANSMIT, Happening::Syn(id));
            return nothing;
        }
        let number = (self.next_id() << 1) + (1 << 32);
        let Some(listening) = self.listening.get_mut(&to) else {
            // A machine that is down says nothing; one on which nothing listens refuses.
            if !is_down {
                self.at(self.now + delay, Happening::Refuse(id));
            }
            return nothing;
        };
        let server = listening.host;
        listening.waiting.push_back(number);
        let waker = listening.waker.take();
        self.traffic.connections += 1;
        self.trace
            .note(self.now, format_args!("connection {number} of host {from} to {to}"));
        for (pipe, (from, to_host)) in [(number, (from, server)), (number + 1, (server, from))] {
            let pipe_state = Pipe {
                from,
                to: to_host,
                link: (attempt_host(number, pipe, from, to_host), to),
                is_up: pipe == number,
                chunks: VecDeque::new(),
                last_due: self.now,
                arrived: VecDeque::new(),
                arrived_end: None,
                unread: 0,
                is_void: false,
                cut: None,
                write_ended: false,
                reader: Reader::There,
                read_waker: None,
                write_waker: None,
            };
            self.pipes.insert(pipe, pipe_state);
        }
        self.at(self.now + delay, Happening::Establish(id, number));
        [waker, None, None]
    }

    fn establish(&mut self, attempt: u64, connection: PipeId) -> Wakers {
        match self.attempts.get_mut(&attempt) {
            Some(attempt) => {
                attempt.outcome = Some(Ok(connection));
                [attempt.waker.take(), None, None]
            }
            // Whoever asked has gone.
            None => {
                if let Some(pipe) = self.pipes.get_mut(&(connection + 1)) {
                    pipe.reader = Reader::Gone;
                }
                self.end(connection, End::Reset);
                Wakers::default()
            }
        }
    }

    fn send(&mut self, id: PipeId, bytes: &[u8]) {
        let Some(pipe) = self.pipes.get(&id) else { return };
        let link = self.link(pipe.link);
        let delay = self.delay(&link) + bytes.len() as u64 * MS / link.bandwidth.max(1);
        let mut sent = bytes;
        let mut cut = None;
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        match &mut pipe.cut {
            None => {}
            Some((Where::Bytes(left), kind)) => match bytes.len() >= *left {
                true => {
                    sent = &bytes[..*left];
                    cut = Some(*kind);
                }
                false => *left -= bytes.len(),
            },
            Some((Where::Lines(left), kind)) => {
                let ends: Vec<usize> = bytes
                    .iter()
                    .enumerate()
                    .filter(|(_, byte)| **byte == b'\n')
                    .map(|(at, _)| at)
                    .collect();
                match ends.get(left.saturating_sub(1)) {
                    Some(end) => {
                        sent = &bytes[..=*end];
                        cut = Some(*kind);
                    }
                    None => *left -= ends.len(),
                }
            }
        }
        // The writer does not notice: what it believes to have written is gone.
        if !pipe.is_void && !sent.is_empty() {
            let due = pipe.last_due.max(self.now + delay);
            pipe.last_due = due;
            pipe.unread += sent.len();
            pipe.chunks.push_back(Chunk::Data(due, sent.to_vec()));
            self.traffic.segments += 1;
            self.traffic.bytes += sent.len() as u64;
            self.at(due, Happening::Arrive(id));
        }
        if let Some(cut) = cut {
            // Behind what was sent before it.
            let pipe = self.pipes.get_mut(&id);
            let due = pipe.map_or(self.now, |pipe| {
                pipe.cut = None;
                pipe.last_due
            });
            self.cut_at(id, cut, due);
        }
    }

    /// The writer of a direction ends it.
    fn end(&mut self, id: PipeId, end: End) {
        let now = self.now;
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        if pipe.is_void || pipe.write_ended && end == End::Fin {
            pipe.write_ended = true;
            return;
        }
        let link = pipe.link;
        let link = self.link(link);
        let delay = self.delay(&link);
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        pipe.write_ended = true;
        let due = pipe.last_due.max(now + delay);
        pipe.last_due = due;
        pipe.chunks.push_back(Chunk::End(due, end));
        self.at(due, Happening::Arrive(id));
    }

    /// The systems of those at the other ends find out by their keepalive that nothing is there any more.
    fn probe(&mut self, is_dead: impl Fn(&Pipe) -> bool) {
        let due = self.now + KEEPALIVE;
        let found = self.pipes.iter_mut().filter(|(_, pipe)| {
            let hears_nothing = pipe.arrived_end.is_none() && pipe.chunks.is_empty();
            hears_nothing && pipe.reader == Reader::There && is_dead(pipe)
        });
        let found: Vec<PipeId> = found
            .map(|(id, pipe)| {
                pipe.chunks.push_back(Chunk::End(due, End::Reset));
                *id
            })
            .collect();
        for id in found {
            self.at(due, Happening::Arrive(id));
        }
    }

    /// Ends both directions at once.
    fn cut_now(&mut self, id: PipeId, cut: Cut) -> Wakers {
        self.trace.note(self.now, format_args!("cut {id}: {cut:?}"));
        let mut wakers = Wakers::default();
        for (index, id) in [id, id ^ 1].into_iter().enumerate() {
            let Some(pipe) = self.pipes.get_mut(&id) else { continue };
            pipe.is_void = true;
            pipe.chunks.clear();
            pipe.unread = pipe.arrived.len();
            let end = match cut {
                Cut::Silence => continue,
                Cut::Reset => End::Reset,
                Cut::End => End::Fin,
            };
            pipe.arrived_end.get_or_insert(end);
            wakers[index] = pipe.read_waker.take();
            pipe.write_ended = true;
            if pipe.write_waker.is_some() {
                wakers[2] = pipe.write_waker.take();
            }
        }
        wakers
    }

    /// Nothing more gets through. What both ends hear of it comes later, behind what was sent.
    fn cut_at(&mut self, id: PipeId, cut: Cut, due: Time) {
        self.trace
            .note(self.now, format_args!("cut {id} behind what is sent: {cut:?}"));
        for id in [id, id ^ 1] {
            let Some(pipe) = self.pipes.get_mut(&id) else { continue };
            pipe.is_void = true;
            let end = match cut {
                Cut::Silence => continue,
                Cut::Reset => End::Reset,
                Cut::End => End::Fin,
            };
            let due = pipe.last_due.max(due);
            pipe.last_due = due;
            pipe.chunks.push_back(Chunk::End(due, end));
            self.at(due, Happening::Arrive(id));
        }
    }

    fn arrive(&mut self, id: PipeId) -> Wakers {
        let mut wakers = Wakers::default();
        let now = self.now;
        let Some(pipe) = self.pipes.get(&id) else { return wakers };
        let link = self.link(pipe.link);
        let is_cut = match pipe.is_up {
            true => link.up_is_cut,
            false => link.down_is_cut,
        };
        if is_cut && !pipe.chunks.is_empty() {
            self.at(now + RETRANSMIT, Happening::Arrive(id));
            return wakers;
        }
        let Some(pipe) = self.pipes.get_mut(&id) else {
            return wakers;
        };
        let mut refused = false;
        while pipe.chunks.front().is_some_and(|chunk| chunk.due() <= now) {
            let Some(chunk) = pipe.chunks.pop_front() else { break };
            match (chunk, pipe.reader) {
                (_, Reader::Vanished) => {}
                (Chunk::Data(_, bytes), Reader::There) => {
                    self.trace.note(now, format_args!("pipe {id}: {} bytes", bytes.len()));
                    pipe.arrived.extend(bytes);
                }
                (Chunk::Data(..), Reader::Gone) => refused = true,
                (Chunk::End(_, end), _) => {
                    self.trace.note(now, format_args!("pipe {id}: {end:?}"));
                    if pipe.arrived_end != Some(End::Reset) {
                        pipe.arrived_end = Some(end);
                    }
                    // A writer that is blocked hears of a reset.
                }
            }
        }
        wakers[0] = pipe.read_waker.take();
        if let Some(back) = self.pipes.get_mut(&(id ^ 1)) {
            wakers[1] = back.write_waker.take();
        }
        if refused {
            self.end(id ^ 1, End::Reset);
        }
        self.forget(id & !1);
        wakers
    }

    /// Forgets a connection both of whose ends are gone.
    fn forget(&mut self, connection: PipeId) {
        let is_over =
            |pipe: Option<&Pipe>| pipe.is_none_or(|pipe| pipe.reader == Reader::Gone && pipe.chunks.is_empty());
        if is_over(self.pipes.get(&connection)) && is_over(self.pipes.get(&(connection + 1))) {
            self.pipes.remove(&connection);
            self.pipes.remove(&(connection + 1));
        }
    }
}

/// The host at the client's end of a connection.
fn attempt_host(connection: PipeId, pipe: PipeId, from: HostId, to: HostId) -> HostId {
    match pipe == connection {
        true => from,
        false => to,
    }
}
