//! The state of the network: its connections, the bytes on their way, and its pending events.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::task::Waker;

use fastrand::Rng;

use super::super::trace::Trace;
use super::half_open::{HalfOpens, Memberships};
use super::{Connects, Cut, HostId, Link, MS, PipeId, SECOND, Time, Traffic, Where};

/// The time after which the network tries again to deliver a segment that a partition has stopped.
const RETRANSMIT: Time = 40 * MS;

/// The time after which an operating system's TCP keepalive detects that the other end of a connection is gone.
const KEEPALIVE: Time = 2 * SECOND;

/// One direction of a connection.
pub(super) struct Pipe {
    /// The host that writes.
    pub(super) from: HostId,
    /// The host that reads.
    pub(super) to: HostId,
    /// The client's host and the server's address.
    pub(super) link: (HostId, SocketAddr),
    /// Whether the client writes and the server reads.
    pub(super) is_up: bool,
    /// The groups that the client has joined over this pipe. Unused if the server writes.
    pub(super) memberships: Memberships,
    /// What is on its way.
    pub(super) chunks: VecDeque<Chunk>,
    pub(super) last_due: Time,
    /// The bytes that have arrived and that the reader has not read yet.
    pub(super) arrived: VecDeque<u8>,
    pub(super) arrived_end: Option<End>,
    /// The number of bytes on their way and in `arrived`.
    pub(super) unread: usize,
    /// Whether bytes that the writer sends from now on are lost.
    pub(super) is_void: bool,
    /// The pending cut.
    pub(super) cut: Option<(Where, Cut)>,
    /// Whether this pipe has ended for its writer.
    pub(super) write_ended: bool,
    pub(super) reader: Reader,
    pub(super) read_waker: Option<Waker>,
    pub(super) write_waker: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    There,
    Gone,
    /// The reader's machine is down. Bytes that arrive get no reset as an answer.
    Vanished,
}

pub(super) enum Chunk {
    Data(Time, Vec<u8>),
    End(Time, End),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
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

pub(super) struct Listening {
    pub(super) host: HostId,
    pub(super) waiting: VecDeque<PipeId>,
    pub(super) waker: Option<Waker>,
}

pub(super) struct Attempt {
    pub(super) from: HostId,
    pub(super) to: SocketAddr,
    pub(super) waker: Option<Waker>,
    pub(super) outcome: Option<io::Result<PipeId>>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum NetworkEvent {
    Syn(u64),
    Refuse(u64),
    /// The attempt, and the number of the connection.
    Establish(u64, PipeId),
    Arrive(PipeId),
}

pub(super) struct State {
    pub(super) now: Time,
    pub(super) random: Rng,
    pub(super) trace: Trace,
    pub(super) links: BTreeMap<(HostId, SocketAddr), Link>,
    pub(super) base: Link,
    pub(super) listening: BTreeMap<SocketAddr, Listening>,
    /// The host of each address that has a listener or once had a listener.
    pub(super) hosts: BTreeMap<SocketAddr, HostId>,
    /// The hosts whose machines are down.
    pub(super) down: Vec<HostId>,
    pub(super) pipes: BTreeMap<PipeId, Pipe>,
    pub(super) attempts: BTreeMap<u64, Attempt>,
    pub(super) next: u64,
    pub(super) order: u64,
    pub(super) pending_events: BinaryHeap<Reverse<(Time, u64, NetworkEvent)>>,
    pub(super) traffic: Traffic,
    pub(super) half_open: HalfOpens,
}

pub(super) type Wakers = [Option<Waker>; 3];

impl State {
    pub(super) fn next_id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn at(&mut self, due: Time, event: NetworkEvent) {
        self.order += 1;
        self.pending_events.push(Reverse((due, self.order, event)));
    }

    pub(super) fn link(&self, link: (HostId, SocketAddr)) -> Link {
        self.links.get(&link).copied().unwrap_or(self.base)
    }

    pub(super) fn delay(&mut self, link: &Link) -> Time {
        link.latency + self.random.u64(..=link.jitter)
    }

    pub(super) fn handle(&mut self, event: NetworkEvent) -> Wakers {
        match event {
            NetworkEvent::Syn(attempt) => self.syn(attempt),
            NetworkEvent::Refuse(attempt) => {
                let Some(attempt) = self.attempts.get_mut(&attempt) else {
                    return Wakers::default();
                };
                attempt.outcome = Some(Err(io::ErrorKind::ConnectionRefused.into()));
                [attempt.waker.take(), None, None]
            }
            NetworkEvent::Establish(attempt, connection) => self.establish(attempt, connection),
            NetworkEvent::Arrive(pipe) => self.arrive(pipe),
        }
    }

    pub(super) fn syn(&mut self, id: u64) -> Wakers {
        let nothing = Wakers::default();
        let Some(attempt) = self.attempts.get(&id) else {
            return nothing;
        };
        let (from, to) = (attempt.from, attempt.to);
        let link = self.link((from, to));
        let delay = self.delay(&link);
        let is_down = self.hosts.get(&to).is_some_and(|host| self.down.contains(host));
        match link.connects {
            Connects::Hang => return nothing,
            Connects::Refused => {
                self.at(self.now + delay, NetworkEvent::Refuse(id));
                return nothing;
            }
            Connects::Served => {}
        }
        // The client's operating system repeats the handshake while a direction is cut or the server's machine is down.
        if link.up_is_cut || link.down_is_cut || is_down {
            self.at(self.now + 5 * RETRANSMIT, NetworkEvent::Syn(id));
            return nothing;
        }
        let number = (self.next_id() << 1) + (1 << 32);
        let Some(listening) = self.listening.get_mut(&to) else {
            self.at(self.now + delay, NetworkEvent::Refuse(id));
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
                link: (client_host(number, pipe, from, to_host), to),
                is_up: pipe == number,
                memberships: Memberships::default(),
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
        self.at(self.now + delay, NetworkEvent::Establish(id, number));
        [waker, None, None]
    }

    pub(super) fn establish(&mut self, attempt: u64, connection: PipeId) -> Wakers {
        match self.attempts.get_mut(&attempt) {
            Some(attempt) => {
                attempt.outcome = Some(Ok(connection));
                [attempt.waker.take(), None, None]
            }
            // The client has given up the attempt.
            None => {
                if let Some(pipe) = self.pipes.get_mut(&(connection + 1)) {
                    pipe.reader = Reader::Gone;
                }
                self.end(connection, End::Reset);
                Wakers::default()
            }
        }
    }

    pub(super) fn send(&mut self, id: PipeId, bytes: &[u8]) {
        let Some(pipe) = self.pipes.get(&id) else { return };
        let link = self.link(pipe.link);
        let delay = self.delay(&link);
        let mut sent = bytes;
        let mut cut = None;
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        match &mut pipe.cut {
            None => {}
            Some((Where::Bytes(left), kind)) => match bytes.len() >= *left {
                true => {
                    sent = &bytes[..*left];
                    cut = Some(*kind);
                    self.traffic.cuts_in_a_line += 1;
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
                        self.traffic.cuts_after_a_line += 1;
                    }
                    None => *left -= ends.len(),
                }
            }
        }
        // If the pipe is void, the bytes are lost and the writer does not notice.
        if !pipe.is_void && !sent.is_empty() {
            // Segments pass one after the other, and the bandwidth limits how fast a segment passes.
            let takes = sent.len() as u64 * MS / link.bandwidth.max(1);
            let due = pipe.last_due.max(self.now + delay) + takes;
            pipe.last_due = due;
            pipe.unread += sent.len();
            pipe.chunks.push_back(Chunk::Data(due, sent.to_vec()));
            self.traffic.segments += 1;
            self.traffic.bytes += sent.len() as u64;
            self.at(due, NetworkEvent::Arrive(id));
        }
        if let Some(cut) = cut {
            // The cut follows the segments that were sent before.
            let pipe = self.pipes.get_mut(&id);
            let due = pipe.map_or(self.now, |pipe| {
                pipe.cut = None;
                pipe.last_due
            });
            self.cut_at(id, cut, due);
        }
    }

    /// Ends a pipe for its writer. The reader gets the end after the bytes that were sent before.
    pub(super) fn end(&mut self, id: PipeId, end: End) {
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
        self.at(due, NetworkEvent::Arrive(id));
    }

    /// Schedules a reset for the readers of the pipes that `is_dead` selects. It stands for the TCP keepalive of the
    /// reader's operating system, which detects that the writer is gone.
    pub(super) fn probe(&mut self, is_dead: impl Fn(&Pipe) -> bool) {
        let due = self.now + KEEPALIVE;
        let found = self.pipes.iter_mut().filter(|(_, pipe)| {
            let nothing_arrives = pipe.arrived_end.is_none() && pipe.chunks.is_empty();
            nothing_arrives && pipe.reader == Reader::There && is_dead(pipe)
        });
        let found: Vec<PipeId> = found
            .map(|(id, pipe)| {
                pipe.chunks.push_back(Chunk::End(due, End::Reset));
                *id
            })
            .collect();
        for id in found {
            self.at(due, NetworkEvent::Arrive(id));
        }
    }

    /// Records that the reader of a pipe is gone.
    pub(super) fn reader_is_gone(&mut self, id: PipeId) {
        match id & 1 == 0 {
            // The reader was the server.
            true => self.half_open.end(self.now, id),
            false => self.becomes_half_open(id),
        }
    }

    /// Records that a connection is half open, if the server still has its end of the connection.
    fn becomes_half_open(&mut self, id: PipeId) {
        let up = id & !1;
        if let Some(pipe) = self.pipes.get(&up).filter(|pipe| pipe.reader == Reader::There) {
            self.half_open.begin(self.now, up, &pipe.memberships);
        }
    }

    /// Cuts both directions of a connection at once. Bytes on their way are lost.
    pub(super) fn cut_now(&mut self, id: PipeId, cut: Cut) -> Wakers {
        self.trace.note(self.now, format_args!("cut {id}: {cut:?}"));
        if cut == Cut::Silence {
            self.becomes_half_open(id);
        }
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

    /// Cuts both directions of a connection. Bytes on their way still arrive. After these bytes, each of the two hosts
    /// gets the kind of end that `cut` names. With [`Cut::Silence`], it gets nothing.
    pub(super) fn cut_at(&mut self, id: PipeId, cut: Cut, due: Time) {
        self.trace
            .note(self.now, format_args!("cut {id} after what was sent: {cut:?}"));
        if cut == Cut::Silence {
            self.becomes_half_open(id);
        }
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
            self.at(due, NetworkEvent::Arrive(id));
        }
    }

    pub(super) fn arrive(&mut self, id: PipeId) -> Wakers {
        let mut wakers = Wakers::default();
        let now = self.now;
        let Some(pipe) = self.pipes.get(&id) else { return wakers };
        let link = self.link(pipe.link);
        let is_cut = match pipe.is_up {
            true => link.up_is_cut,
            false => link.down_is_cut,
        };
        if is_cut && !pipe.chunks.is_empty() {
            self.at(now + RETRANSMIT, NetworkEvent::Arrive(id));
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
                    if pipe.is_up {
                        pipe.memberships.decode(&bytes);
                        self.half_open.update_groups(now, id, &pipe.memberships);
                    }
                    pipe.arrived.extend(bytes);
                }
                (Chunk::Data(..), Reader::Gone) => refused = true,
                (Chunk::End(_, end), _) => {
                    self.trace.note(now, format_args!("pipe {id}: {end:?}"));
                    if pipe.arrived_end != Some(End::Reset) {
                        pipe.arrived_end = Some(end);
                    }
                }
            }
        }
        wakers[0] = pipe.read_waker.take();
        // After a reset, the reader's host cannot write to the opposite pipe either. A write that waits must fail now.
        if let Some(back) = self.pipes.get_mut(&(id ^ 1)) {
            wakers[1] = back.write_waker.take();
        }
        if refused {
            self.end(id ^ 1, End::Reset);
        }
        self.forget(id & !1);
        wakers
    }

    /// Removes a connection if both of its ends are gone.
    pub(super) fn forget(&mut self, connection: PipeId) {
        let is_over =
            |pipe: Option<&Pipe>| pipe.is_none_or(|pipe| pipe.reader == Reader::Gone && pipe.chunks.is_empty());
        if is_over(self.pipes.get(&connection)) && is_over(self.pipes.get(&(connection + 1))) {
            self.pipes.remove(&connection);
            self.pipes.remove(&(connection + 1));
        }
    }
}

/// Returns the host at the client's end of a connection.
fn client_host(connection: PipeId, pipe: PipeId, from: HostId, to: HostId) -> HostId {
    match pipe == connection {
        true => from,
        false => to,
    }
}
