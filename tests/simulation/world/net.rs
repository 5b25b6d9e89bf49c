//! The network of a simulated world: connections in memory, with latency, bandwidth and faults.
//!
//! Bytes arrive only when the world moves its clock, between two slices of time. So bytes that a host sends in a slice
//! arrive after that slice, and the world can run the hosts one after another.

mod half_open;
mod state;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use fastrand::Rng;

use self::half_open::{HalfOpen, HalfOpens};
use self::state::{Attempt, End, Listening, NetworkEvent, Reader, State};
use super::trace::Trace;

/// Nanoseconds since the world began.
pub type Time = u64;

pub const MS: Time = 1_000_000;
pub const SECOND: Time = 1_000 * MS;

/// How many unread bytes one direction of a connection can carry.
const WINDOW: usize = 16 * 1024;

/// The number of a host.
pub type HostId = usize;

/// The number of a pipe. A pipe is one direction of a connection. The pipe from the client to the server has an even
/// number `n`, which is also the number of the connection. The pipe from the server to the client has the number
/// `n + 1`.
pub type PipeId = u64;

/// The properties of the connections between a host and an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The least latency of a segment.
    pub latency: Time,
    /// The greatest random addition to the latency of a segment.
    pub jitter: Time,
    /// Bytes per millisecond.
    pub bandwidth: u64,
    /// Bytes to the server do not arrive until this is false again.
    pub up_is_cut: bool,
    /// Bytes from the server do not arrive until this is false again.
    pub down_is_cut: bool,
    /// The greatest random addition to the time of an attempt to connect. With it, attempts may overtake each other.
    pub connect_jitter: Time,
    pub connects: Connects,
}

/// How the network treats attempts to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connects {
    Served,
    Refused,
    /// Attempts get no answer.
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

/// How a fault ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Both ends of the connection get a reset.
    Reset,
    /// Both ends get an end of the stream.
    End,
    /// Both ends get nothing, and do not notice the cut.
    Silence,
}

/// The place of a cut in the bytes that a host sends next over a pipe.
#[derive(Clone, Copy, Debug)]
pub enum Where {
    /// After this many bytes. With 0, the network cuts the connection at once.
    Bytes(usize),
    /// After this many line ends (`\n`).
    Lines(usize),
}

/// Counters of the traffic.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    pub connections: u64,
    pub segments: u64,
    pub bytes: u64,
    /// The number of cuts at [`Where::Bytes`]. Cuts at `Bytes(0)` do not count.
    pub cuts_in_a_line: u64,
    /// The number of cuts at [`Where::Lines`].
    pub cuts_after_a_line: u64,
}

/// The network of a world. All clones share one network.
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
            hosts: BTreeMap::new(),
            down: Vec::new(),
            pipes: BTreeMap::new(),
            attempts: BTreeMap::new(),
            next: 0,
            order: 0,
            pending_events: BinaryHeap::new(),
            traffic: Traffic::default(),
            half_open: HalfOpens::default(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the clock of the network to `now`, and handles all events that are due by then.
    pub fn advance(&self, now: Time) {
        loop {
            let waker = {
                let mut state = self.state();
                state.now = now;
                match state.pending_events.peek() {
                    Some(Reverse((due, ..))) if *due <= now => {}
                    _ => return,
                }
                let Some(Reverse((_, _, event))) = state.pending_events.pop() else {
                    return;
                };
                state.handle(event)
            };
            for waker in waker.into_iter().flatten() {
                waker.wake();
            }
        }
    }

    pub fn traffic(&self) -> Traffic {
        self.state().traffic.clone()
    }

    /// Removes and returns the records of half-open connections that had joined a group.
    pub fn take_half_open(&self) -> Vec<HalfOpen> {
        self.state().half_open.take()
    }

    /// Returns the number of connections that are open at the host.
    pub fn connections_of(&self, host: HostId) -> usize {
        let state = self.state();
        let ends = state.pipes.values().filter(|pipe| pipe.to == host);
        ends.filter(|pipe| pipe.reader == Reader::There).count()
    }

    /// Returns the properties of the connections of a host to an address.
    pub fn link(&self, host: HostId, address: SocketAddr) -> Link {
        self.state().link((host, address))
    }

    /// Sets the properties of the connections of a host to an address.
    pub fn set(&self, host: HostId, address: SocketAddr, link: Link) {
        self.state().links.insert((host, address), link);
    }

    /// Gives all links their usual properties again, and cancels pending cuts. Silently cut connections end with
    /// a reset after a while.
    pub fn heal(&self) {
        let mut state = self.state();
        state.links.clear();
        for pipe in state.pipes.values_mut() {
            pipe.cut = None;
        }
        state.probe(|pipe| pipe.is_void);
    }

    /// Cuts a random connection of a host to an address. `place` counts the bytes or lines that one of the two ends
    /// sends from now on. Returns `false` if the host has no connection to the address.
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

    /// Cancels pending cuts of the host's connections to an address.
    pub fn call_off_cuts(&self, host: HostId, address: SocketAddr) {
        let mut state = self.state();
        let pipes = state.pipes.values_mut();
        pipes
            .filter(|pipe| pipe.link == (host, address))
            .for_each(|pipe| pipe.cut = None);
    }

    /// Closes all connections and listeners of a host, as an operating system does when a process ends.
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

    /// Stops the machine of a host. The peers of its connections get no notice.
    pub fn take_down(&self, host: HostId) {
        let mut state = self.state();
        state.down.push(host);
        state.listening.retain(|_, listening| listening.host != host);
        let mut vanished = Vec::new();
        for (id, pipe) in &mut state.pipes {
            if pipe.from == host {
                pipe.is_void = true;
                pipe.write_ended = true;
            }
            if pipe.to == host {
                pipe.reader = Reader::Vanished;
                vanished.push(*id);
            }
        }
        for id in vanished {
            state.reader_is_gone(id);
        }
        state.attempts.retain(|_, attempt| attempt.from != host);
    }

    /// Starts the machine of a host again. The machine does not know its earlier connections.
    pub fn bring_up(&self, host: HostId) {
        let mut state = self.state();
        state.down.retain(|down| *down != host);
        for pipe in state.pipes.values_mut() {
            if pipe.to == host && pipe.reader == Reader::Vanished {
                pipe.reader = Reader::Gone;
            }
            if pipe.from == host && pipe.is_void {
                // The machine can now answer the bytes of its peers with a reset.
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
        state.hosts.insert(address, host);
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
        // Connections that the server has not accepted are closed.
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
        state.at(due, NetworkEvent::Syn(id));
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
        // Operating systems sometimes accept only a part of the bytes.
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

    /// Closes one end of a connection. That end writes to the pipe `mine` and reads from the pipe `theirs`.
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
        state.reader_is_gone(theirs);
        state.end(mine, how);
        state.forget(mine & !1);
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
