//! The actions of callers: they request, wait, hold, release, and give up at any time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use super::agenda::{ClientId, SimEvent};
use super::callers::{CallId, HeldTicket, Receiver, SimCall, SimHeld, Wanted, What};
use super::client::ClosingClient;
use super::plan::{LONGEST_TTL, LONGEST_WAIT, REQUEST_TIMEOUT, up_to};
use super::trace::grant;
use super::world::World;
use crate::error::{Error, ErrorKind, Result};
use crate::lease::policy::RenewTerms;
use crate::lease::state::LeaseState;
use crate::protocol::Call as ServerCall;
use crate::shard::acquire::Patience;
use crate::shard::held::Acquired;
use crate::shard::input::{Input, Shutdown};
use crate::shard::question::{Answered, Question};
use crate::types::{Limit, Target, Ttl};

impl World {
    /// Performs an action of a caller and plans the next.
    pub(super) fn act(&mut self) -> bool {
        if !self.goes_on {
            return false;
        }
        let pause = match self.rng.u8(0..20) {
            0 => Duration::from_secs(2),
            1..=6 => Duration::ZERO,
            _ => self.plan.pause,
        };
        self.add_in(pause, SimEvent::Act);
        let index = self.rng.usize(0..self.clients.len());
        match self.rng.u8(0..32) {
            0..=4 => self.acquire(index, 0),
            5..=11 => self.acquire(index, 1),
            12..=14 => self.acquire(index, 2),
            15..=17 => self.collect(),
            18..=25 => self.release_one(),
            26 | 27 => self.give_up_a_call(),
            28 => self.drop_a_ticket(),
            29 | 30 => self.ask_something(index),
            _ => self.maybe_shut_down(index),
        }
        self.notice_inputs();
        self.check_callers();
        true
    }

    /// Returns the client, if it accepts requests.
    fn alive(&self, index: usize) -> Option<ClientId> {
        let client = &self.clients[index];
        (!client.is_over).then_some(client.id)
    }

    fn acquire(&mut self, index: usize, way: u8) {
        let Some(client) = self.alive(index) else { return };
        let now = self.now();
        let which = self.rng.usize(0..self.plan.targets.len());
        let (mut target, key) = self.plan.targets[which].clone();
        if let (Target::Semaphore(limit), true) = (target, self.plan.wrong_limits && self.rng.u8(0..8) == 0) {
            target = Target::Semaphore(Limit::new(limit.get() + 1).unwrap());
        }
        let ttl = match self.rng.u8(0..4) {
            0 if self.plan.unnamed_ttls => None,
            _ => Ttl::from_secs(self.rng.u64(1..=LONGEST_TTL)),
        };
        let policy = RenewTerms {
            never: self.rng.u8(0..8) == 0,
            max_hold: (self.rng.u8(0..8) == 0).then(|| up_to(Duration::from_secs(8), &mut self.rng)),
            pace: None,
        };
        let wanted = Wanted {
            target,
            key,
            ttl,
            policy,
            holding: self.rng.u8(0..8) == 0,
        };
        let longest = match self.rng.u8(0..4) {
            0 => LONGEST_WAIT,
            1 => Duration::from_millis(50),
            _ => Duration::from_secs(2),
        };
        let until = now + up_to(longest, &mut self.rng);
        match way {
            0 => self.begin(client, What::Try(wanted), now + REQUEST_TIMEOUT),
            1 => self.begin(client, What::First(wanted), until),
            _ => self.begin(client, What::Enqueue(wanted), now + REQUEST_TIMEOUT),
        };
    }

    /// Requests a lease or a queue position from the shard.
    fn begin(&mut self, client: ClientId, what: What, until: Instant) -> CallId {
        let id = self.callers.next_id();
        let (ask, receiver, room) = self.callers.ask(id);
        let input = match &what {
            What::Try(wanted) => Input::Acquire(wanted.acquire(ask), Patience::Try),
            What::First(wanted) => Input::Acquire(wanted.acquire(ask), Patience::TryThenWait),
            What::Enqueue(wanted) => Input::Acquire(wanted.acquire(ask), Patience::Enqueue),
            What::Wait(wanted, refusal) => Input::Acquire(wanted.acquire(ask), Patience::Until(until, *refusal)),
            What::Collect(..) | What::Ask | What::Release(_) => return id,
        };
        if let What::Enqueue(wanted) = &what {
            self.book.note_ticket_request(client, wanted.target.kind(), &wanted.key);
        }
        self.clients[client.index].mailbox.send(input);
        self.register(id, client, what, until, Receiver::Acquired(receiver), Some(room));
        id
    }

    /// Registers a new call, whose caller gives up at `until`.
    fn register(
        &mut self,
        id: CallId,
        client: ClientId,
        what: What,
        until: Instant,
        receiver: Receiver,
        room: Option<Arc<Semaphore>>,
    ) {
        let call = SimCall {
            client,
            what,
            since: self.now(),
            until,
            receiver,
            room,
        };
        self.callers.calls.insert(id, call);
        self.add(until, SimEvent::Call(id));
    }

    fn collect(&mut self) {
        if self.callers.tickets.is_empty() {
            return;
        }
        let which = self.rng.usize(0..self.callers.tickets.len());
        let HeldTicket { client, ticket } = self.callers.tickets.swap_remove(which);
        let now = self.now();
        // The request timeout limits a poll.
        let (turn_by, until) = match self.rng.u8(0..3) {
            0 => (now, now + REQUEST_TIMEOUT),
            _ => {
                let until = now + up_to(LONGEST_WAIT, &mut self.rng);
                (until, until)
            }
        };
        let id = self.callers.next_id();
        let (ask, receiver, room) = self.callers.ask(id);
        let what = What::Collect(ticket.target, ticket.key.clone());
        self.trace.log(now, "collects", &[client.index as u64, id], || {
            format!("{:?}", ticket.key)
        });
        ticket.collect(turn_by, ask);
        self.register(id, client, what, until, Receiver::Acquired(receiver), Some(room));
    }

    fn release_one(&mut self) {
        if self.callers.held.is_empty() {
            return;
        }
        let which = self.rng.usize(0..self.callers.held.len());
        let SimHeld {
            client, lease, token, ..
        } = self.callers.held.swap_remove(which);
        let now = self.now();
        let awaited = self.rng.bool();
        self.trace
            .log(now, "releases", &[client.index as u64, u64::from(awaited)], || {
                format!("{:?} {}", lease.cell.key, grant(token))
            });
        if !awaited {
            return drop(lease);
        }
        let cell = Arc::clone(&lease.cell);
        let receiver = lease.release();
        let id = self.callers.next_id();
        let until = now + REQUEST_TIMEOUT;
        self.register(
            id,
            client,
            What::Release(cell),
            until,
            Receiver::Released(receiver),
            None,
        );
    }

    fn give_up_a_call(&mut self) {
        let which = self.rng.usize(0..self.callers.calls.len().max(1));
        if let Some(id) = self.callers.calls.keys().nth(which).copied() {
            self.abandon(id);
        }
    }

    /// Drops a call.
    fn abandon(&mut self, id: CallId) {
        let now = self.now();
        if let Some(call) = self.callers.end(id, now) {
            self.trace
                .log(now, "goes away", &[call.client.index as u64, id], String::new);
            drop(call.receiver);
        }
    }

    fn drop_a_ticket(&mut self) {
        if !self.callers.tickets.is_empty() {
            let which = self.rng.usize(0..self.callers.tickets.len());
            self.callers.tickets.swap_remove(which);
        }
    }

    fn ask_something(&mut self, index: usize) {
        let Some(client) = self.alive(index) else { return };
        let id = self.callers.next_id();
        let (input, receiver, room) = match self.rng.u8(0..8) {
            0..=3 => {
                let (ask, receiver, room) = self.callers.ask(id);
                (
                    Input::Ask(Question::of_any(ServerCall::stats(), ask)),
                    Receiver::Stats(receiver),
                    room,
                )
            }
            4..=6 => {
                let (ask, receiver, room) = self.callers.ask(id);
                let barrier = Question::of_the_leader(ServerCall::barrier(), ask);
                (Input::Ask(barrier), Receiver::Done(receiver), room)
            }
            _ => {
                let (ask, receiver, room) = self.callers.ask(id);
                (Input::Failback(ask), Receiver::Delay(receiver), room)
            }
        };
        self.clients[index].mailbox.send(input);
        let until = self.now() + REQUEST_TIMEOUT;
        self.register(id, client, What::Ask, until, receiver, Some(room));
    }

    fn maybe_shut_down(&mut self, index: usize) {
        if self.rng.u8(0..6) > 0 {
            return;
        }
        match self.clients[index].is_over {
            true => self.start_client(index, None),
            false => {
                let time = up_to(Duration::from_secs(3), &mut self.rng);
                self.shut_down(index, time);
            }
        }
    }

    /// Shuts down a client.
    pub(super) fn shut_down(&mut self, index: usize, time: Duration) {
        let now = self.now();
        if self.clients[index].closing.is_some() || self.clients[index].is_over {
            return;
        }
        let (reply, report) = oneshot::channel();
        let until = now + time;
        self.clients[index].closing = Some(ClosingClient {
            until,
            tokens: Vec::new(),
            report,
        });
        let input = Input::Shutdown(Shutdown {
            until,
            reply: Some(reply),
        });
        self.clients[index].mailbox.send(input);
        self.notice_inputs();
    }

    /// Schedules a check whether a call was answered.
    pub(super) fn wake_call(&mut self, id: CallId) {
        let at = self.now() + Duration::from_micros(self.rng.u64(0..100) * self.rng.u64(0..3));
        self.add(at, SimEvent::Call(id));
    }

    /// Schedules checks of a client's releases, one of which was answered.
    pub(super) fn wake_releases(&mut self, client: ClientId) {
        self.wake_calls(client, |what| matches!(what, What::Release(_)));
    }

    /// Schedules checks of a client's other requests, one of which was answered.
    pub(super) fn wake_questions(&mut self, client: ClientId) {
        self.wake_calls(client, |what| matches!(what, What::Ask));
    }

    fn wake_calls(&mut self, client: ClientId, which: impl Fn(&What) -> bool) {
        let is_it = |call: &SimCall| call.client == client && which(&call.what);
        let calls = self.callers.calls.iter().filter(|(_, call)| is_it(call));
        let ids: Vec<CallId> = calls.map(|(id, _)| *id).collect();
        for id in ids {
            self.wake_call(id);
        }
    }

    /// Checks whether a call was answered or has timed out.
    pub(super) fn look_for_answer(&mut self, id: CallId) -> bool {
        use oneshot::error::TryRecvError::{Closed, Empty};
        let now = self.now();
        let Some(call) = self.callers.calls.get_mut(&id) else {
            return false;
        };
        let (client, until) = (call.client, call.until);
        let looked = match &mut call.receiver {
            Receiver::Acquired(receiver) => receiver.try_recv().map(Heard::Acquired),
            Receiver::Stats(receiver) => receiver
                .try_recv()
                .map(|answer| Heard::Other(answer.and_then(Answered::read).map(drop))),
            Receiver::Done(receiver) => receiver
                .try_recv()
                .map(|answer| Heard::Other(answer.and_then(Answered::read))),
            Receiver::Released(answer) => answer.try_recv().map(Heard::Other),
            Receiver::Delay(receiver) => receiver.try_recv().map(|answer| Heard::Other(answer.map(drop))),
        };
        match looked {
            Ok(heard) => {
                if let Some(call) = self.callers.end(id, now) {
                    self.heard(id, call, heard);
                }
            }
            Err(Empty) if until > now => return false,
            Err(Empty) => self.abandon(id),
            Err(Closed) => {
                self.trace
                    .log(now, "gets no answer", &[client.index as u64, id], String::new);
                // If the shard is gone, or about to end, that counts as the answer.
                let is_closing = self.clients[client.index].closing.is_some();
                self.callers.end(id, now);
                if self.is_alive(client) && !is_closing {
                    self.broken(|| format!("call {id} of client {} gets no answer", client.index));
                }
            }
        }
        self.callers.tidy();
        self.notice_inputs();
        true
    }

    /// Handles the answer of a call.
    fn heard(&mut self, id: CallId, call: SimCall, heard: Heard) {
        let now = self.now();
        let SimCall {
            client, what, until, ..
        } = call;
        match (what, heard) {
            (What::Release(cell), Heard::Other(_)) => {
                if let LeaseState::Held | LeaseState::Suspect = cell.state_at(now.into()) {
                    self.broken(|| format!("{} is held, though its release was answered", grant(cell.token)));
                }
            }
            (_, Heard::Other(Err(error))) | (_, Heard::Acquired(Err(error))) => self.check_plausible(id, &error),
            (_, Heard::Other(Ok(()))) => {}
            (what, Heard::Acquired(Ok(acquired))) => match acquired {
                // The answer was in flight when all callers released their leases.
                Acquired::Lease(_) | Acquired::Queued(_) if !self.goes_on => {}
                Acquired::Lease(lease) => {
                    let token = lease.cell.token;
                    self.trace.log(now, "has", &[client.index as u64, id], || {
                        format!("{:?} {}", lease.cell.key, grant(token))
                    });
                    self.callers.held.push(SimHeld {
                        client,
                        token,
                        lease,
                        in_book: self.book.has(token),
                    });
                }
                Acquired::Queued(ticket) => self.callers.tickets.push(HeldTicket { client, ticket }),
                Acquired::Busy(refusal) => {
                    if let What::First(wanted) = what {
                        if until > now && self.is_alive(client) {
                            self.begin(client, What::Wait(wanted, refusal), until);
                        }
                    }
                }
            },
        }
    }

    /// Checks that a correct server can cause this error.
    fn check_plausible(&mut self, id: CallId, error: &Error) {
        let is_wrong = match error.kind() {
            ErrorKind::Protocol
            | ErrorKind::Misuse
            | ErrorKind::AlreadyEnqueued
            | ErrorKind::NotEnqueued
            | ErrorKind::Auth
            | ErrorKind::ShardGone => true,
            // The leader may change more often than the client follows redirects.
            ErrorKind::NotLeader => !self.is_cluster(),
            // Standalone servers do not support `barrier`, but support all other requests.
            ErrorKind::Unsupported => !error.message().contains("`barrier`"),
            ErrorKind::LimitMismatch => !self.plan.wrong_limits,
            _ => false,
        };
        if is_wrong {
            self.broken(|| format!("call {id} gets an error that no correct server causes: {error:?}"));
        }
    }
}

/// The result of a call.
enum Heard {
    Acquired(Result<Acquired>),
    Other(Result<()>),
}
