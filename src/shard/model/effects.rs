//! Performs the effects of a shard.

use std::time::Duration;

use super::agenda::{ClientId, SimEvent};
use super::describe::{describe_answer, grant_of};
use super::lane::SimLane;
use super::network::{Chunk, WireId};
use super::trace::grant;
use super::world::World;
use crate::net::lane::Command;
use crate::protocol::Request;
use crate::shard::effect::{AcquireOutcome, Answer, Effect, Opening, Role};
use crate::shard::held::{Acquired, HeldLease, HeldPosition};
use crate::shard::ids::LaneId;
use crate::shard::request::Pending;

impl World {
    /// Performs an effect of a client's shard.
    pub(super) fn apply(&mut self, index: usize, effect: Effect) {
        let now = self.now();
        match effect {
            Effect::Open(lane, opening) => self.open(index, lane, *opening),
            Effect::Send(lane, outgoing) => {
                self.before_sending(index, lane, &outgoing.request, &outgoing.tag);
                self.tell_lane(index, lane, Command::Send(outgoing));
            }
            Effect::Finish(lane) => self.finish_lane(index, lane),
            Effect::HangUp(lane) => {
                self.tell_lane(index, lane, Command::HangUp);
                self.finish_lane(index, lane);
            }
            Effect::Close(lane) => {
                self.trace.log(now, "closes", &[index as u64, lane], String::new);
                self.close_lane(index, lane);
                self.told_of_end(index, lane);
            }
            Effect::Answer(answer) => self.answer(index, answer),
            Effect::Publish(health) => {
                let number = u64::from(health.is_connected());
                self.trace
                    .log(now, "health", &[index as u64, number], || format!("{:?}", health.state));
                self.clients[index].health = health;
                self.disturbed(index);
            }
            Effect::HandOver(handover) => self.clients[index].handover = handover,
            Effect::ProbeFirst(_) => {
                self.broken(|| "a shard that is no standby shard probes its first server".to_owned())
            }
            Effect::End(reply, report) => {
                self.trace
                    .log(now, "client ends", &[index as u64], || format!("{report:?}"));
                if let Some(reply) = reply {
                    drop(reply.send(report));
                }
                self.clients[index].is_over = true;
                self.check_end(index);
                self.all_over(index);
            }
        }
    }

    fn open(&mut self, index: usize, lane: LaneId, opening: Opening) {
        let Opening {
            role,
            pause,
            give_up_at,
            endpoint,
            purpose,
        } = opening;
        let (now, id) = (self.now(), self.clients[index].id);
        let numbers = [index as u64, lane, pause.as_micros() as u64];
        self.trace
            .log(now, "opens", &numbers, || format!("{role:?} {endpoint} {purpose:?}"));
        let dial_at = now + pause;
        let opened = SimLane::new(role, (endpoint, purpose), self.plan.lanes, dial_at, give_up_at);
        let before = self.clients[index].lanes.insert(lane, opened);
        if before.is_some() {
            self.broken(|| format!("client {index} opens connection {lane} twice"));
        }
        self.add(dial_at, SimEvent::Dial(id, lane));
    }

    /// Checks a request that is about to be sent.
    fn before_sending(&mut self, index: usize, lane: LaneId, request: &Request, tag: &Pending) {
        let now = self.now();
        let call = match tag {
            Pending::Try(acquire) | Pending::Enqueue(acquire) | Pending::Confirm { acquire, .. } => {
                self.callers.of_ask(&acquire.ask)
            }
            _ => None,
        };
        let numbers = [index as u64, lane, call.unwrap_or_default(), tag.kind() as u64];
        self.trace.log(now, "sends", &numbers, || {
            format!("{:?} {request:?} {}", tag.kind(), grant_of(request))
        });
        let client = &mut self.clients[index];
        match client.lanes.get(&lane) {
            Some(lane) if lane.is_up() || lane.is_over() => {}
            // The connection is not up yet, or the driver has removed it with its last event, or never had it.
            _ => return self.broken(|| format!("client {index} sends over connection {lane}, which is not up")),
        }
        match request {
            Request::Release { token, .. } => {
                client.released.insert(*token);
            }
            Request::Renew { token, .. } if client.released.contains(token) => {
                let token = grant(*token);
                return self.broken(|| format!("client {index} renews {token} after it has sent its release"));
            }
            _ => {}
        }
        client.order.sends(&self.callers, tag);
    }

    fn tell_lane(&mut self, index: usize, lane: LaneId, command: Command<Pending>) {
        let (now, client) = (self.now(), &mut self.clients[index]);
        let id = client.id;
        if let Some(known) = client.lanes.get_mut(&lane) {
            known.tell(command);
            self.wake_lane(id, lane, now);
        }
    }

    /// Ends a connection as `actor::shard` does: a pipelined connection that is not up is closed.
    fn finish_lane(&mut self, index: usize, lane: LaneId) {
        let (now, client) = (self.now(), &mut self.clients[index]);
        let id = client.id;
        let Some(known) = client.lanes.get_mut(&lane) else {
            return;
        };
        if known.role == Role::Pipelined && !known.is_up() && !known.is_over() {
            return self.close_lane(index, lane);
        }
        known.finish();
        self.wake_lane(id, lane, now);
    }

    pub(super) fn close_lane(&mut self, index: usize, lane: LaneId) {
        if let Some(closed) = self.clients[index].lanes.remove(&lane) {
            self.hang_up_wire(closed.wire);
        }
    }

    fn answer(&mut self, index: usize, answer: Answer) {
        let now = self.now();
        let id = self.clients[index].id;
        let way_back = self.clients[index].mailbox.way_back();
        match answer {
            Answer::Acquire(ask, outcome) => {
                let call = self.callers.of_ask(&ask).unwrap_or_default();
                let client = &mut self.clients[index];
                let is_granted = matches!(outcome, Ok(AcquireOutcome::Lease(..))) && client.health.is_connected();
                let passed_over = client.order.granted(&self.callers, call).filter(|_| is_granted);
                client.order.answered(call);
                if let Some(passed_over) = passed_over {
                    self.broken(|| format!("call {call} gets a lease before call {passed_over}, which came before it"));
                }
                let acquired = outcome.map(|outcome| match outcome {
                    AcquireOutcome::Lease(id, cell) => Acquired::Lease(HeldLease::new(cell, id, way_back)),
                    AcquireOutcome::Busy(refusal) => Acquired::Busy(refusal),
                    AcquireOutcome::Queued(id, target, key, refusal) => {
                        Acquired::Queued(HeldPosition::new(id, target, key, refusal, way_back))
                    }
                });
                let numbers = [index as u64, call, u64::from(acquired.is_ok())];
                self.trace.log(now, "answers", &numbers, || describe_answer(&acquired));
                ask.tell(acquired);
                self.wake_call(call);
            }
            Answer::Release(reply, outcome) => {
                self.trace
                    .log(now, "released", &[index as u64], || format!("{outcome:?}"));
                reply.tell(outcome);
                self.wake_releases(id);
            }
            Answer::Question(question, answer, at) => {
                question.tell(answer, &at);
                self.wake_questions(id);
            }
            Answer::Failback(ask, answer) => {
                let call = self.callers.of_ask(&ask).unwrap_or_default();
                ask.tell(answer);
                self.wake_call(call);
            }
        }
    }

    /// Runs a turn of a connection's client end.
    pub(super) fn lane_turn(&mut self, client: ClientId, id: LaneId) -> bool {
        let (now, index) = (self.now(), client.index);
        let pieces = self.plan.pieces;
        let Some(lane) = self.clients[index].lanes.get_mut(&id) else {
            return false;
        };
        lane.woken(now);
        if lane.is_over() {
            return false;
        }
        let wire = lane.wire;
        let arrived = match wire.and_then(|wire| self.network.get_mut(wire)) {
            Some(wire) => wire.down.arrived(now),
            None => Vec::new(),
        };
        let has_arrived = !arrived.is_empty();
        if arrived.iter().any(|chunk| !matches!(chunk, Chunk::Bytes(_))) {
            self.trace.log(now, "reads the end", &[index as u64, id], String::new);
        }
        let rng = &mut self.rng;
        let turn = lane.turn(arrived, now, |bytes| match pieces {
            true if rng.u8(0..4) == 0 => rng.usize(0..=bytes),
            _ => bytes,
        });
        let wake_at = lane.arm(turn.wake_at);
        if let Some(at) = wake_at {
            self.wake_lane(client, id, at);
        }
        if turn.is_full {
            let at = now + Duration::from_micros(self.rng.u64(0..2_000));
            self.wake_lane(client, id, at);
        }
        let did = has_arrived || !turn.written.is_empty() || !turn.events.is_empty();
        for piece in turn.written {
            self.send_up(wire, Chunk::Bytes(piece));
        }
        for event in turn.events {
            self.lane_news(index, id, event);
        }
        did
    }

    /// Closes the client's end of a wire.
    pub(super) fn hang_up_wire(&mut self, wire: Option<WireId>) {
        let now = self.now();
        self.send_up(wire, Chunk::End);
        if let Some(id) = wire {
            if let Some(wire) = self.network.get_mut(id) {
                wire.client_is_gone = true;
                let (index, member) = (wire.client.index, wire.member);
                self.book.closed(id.number, now);
                self.left_member(index, member);
            }
            self.network.forget_if_gone(id);
        }
    }
}
