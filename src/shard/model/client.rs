//! One client: its shard, and the model of the shard's driver (`actor::shard`), in the model's time.

use std::collections::{BTreeMap, HashSet};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::agenda::{ClientId, SimEvent};
use super::describe::{describe, name_of};
use super::lane::SimLane;
use super::order::Order;
use super::settle::Books;
use super::trace::grant;
use super::world::World;
use crate::net::admission::Admission;
use crate::net::dial::LaneEvent;
use crate::net::failover::Policy;
use crate::net::health::ShardHealth;
use crate::protocol::StableRef;
use crate::shard::effect::{Effects, Handover, Role};
use crate::shard::ids::LaneId;
use crate::shard::input::{Input, Inputs, Mailbox, ShutdownReport};
use crate::shard::request::Pending;
use crate::shard::{Refs, Setup, ShardMachine};
use crate::shards::ShardPlan;
use crate::telemetry::sink::ShardSink;
use crate::types::Token;

/// A client.
pub(super) struct SimClient {
    pub(super) id: ClientId,
    /// `None` once it has ended.
    pub(super) shard: Option<ShardMachine>,
    pub(super) is_over: bool,
    pub(super) mailbox: Mailbox,
    /// `None` once its shard has ended.
    inputs: Option<Inputs>,
    /// When its inputs are taken, if that is scheduled.
    inputs_at: Option<Instant>,
    /// When its timer fires, if that is scheduled.
    tick_at: Option<Instant>,
    pub(super) lanes: BTreeMap<LaneId, SimLane>,
    pub(super) health: ShardHealth,
    pub(super) handover: Handover,
    /// Its task does not run before this time.
    pub(super) stalled_until: Instant,
    /// Since when it has had no faults.
    pub(super) calm_since: Instant,
    /// The tokens whose releases it has sent.
    pub(super) released: HashSet<Token>,
    pub(super) order: Order,
    pub(super) closing: Option<ClosingClient>,
}

/// What a client held when its shutdown began.
pub(super) struct ClosingClient {
    pub(super) until: Instant,
    pub(super) tokens: Vec<Token>,
    pub(super) report: oneshot::Receiver<ShutdownReport>,
}

impl SimClient {
    fn next_due(&self) -> Option<Instant> {
        self.shard.as_ref()?.next_due()
    }

    fn next_input(&mut self) -> Option<Input> {
        let mut cx = Context::from_waker(Waker::noop());
        match self.inputs.as_mut()?.poll_recv(&mut cx) {
            Poll::Ready(input) => input,
            Poll::Pending => None,
        }
    }

    /// Returns the sizes of its shard's tables.
    pub(super) fn books(&self) -> Books {
        self.shard.as_ref().map_or_else(Books::default, ShardMachine::books)
    }
}

/// The number of effects that any input may have, even in an empty shard.
const EFFECTS_OF_NOTHING: usize = 16;

impl World {
    /// Starts a client, or its next life.
    pub(super) fn start_client(&mut self, index: usize, before: Option<(ShardHealth, Handover)>) {
        let now = self.now();
        let life = self.clients.get(index).map_or(0, |client| client.id.life + 1);
        let id = ClientId { index, life };
        let endpoints = self.plan.endpoints();
        let endpoint = endpoints[0].clone();
        let (health, handover) = before.unwrap_or_else(|| {
            let mut health = ShardHealth::connecting(0, &endpoint);
            health.since = now;
            (health, Handover::default())
        });
        let setup = Setup {
            index: 0,
            plan: ShardPlan {
                policy: match self.plan.terms.cluster.is_some() {
                    true => Policy::Cluster,
                    false => Policy::Single,
                },
                endpoints,
                takeover_delay: None,
                orphan_ttl: self.plan.orphan_ttl,
                // Each life has its own name, so it does not reclaim the leases of another.
                stable_ref: (self.plan.terms.cluster.is_some() && index == 1)
                    .then(|| StableRef::new(format!("named-{index}-{life}")).unwrap()),
                admission: Admission::default(),
            },
            settings: self.plan.settings(self.rng.u64(..)),
            sink: ShardSink::nowhere(),
            jitter: self.rng.fork(),
            refs: Refs::new(StableRef::new(format!("c{index}-{life}")).unwrap()),
            health: health.clone(),
            handover,
        };
        let mut effects = Effects::default();
        let shard = ShardMachine::new(setup, now, &mut effects);
        let (mailbox, inputs) = Mailbox::new();
        let client = SimClient {
            id,
            shard: Some(shard),
            is_over: false,
            mailbox,
            inputs: Some(inputs),
            inputs_at: None,
            tick_at: None,
            lanes: BTreeMap::new(),
            health,
            handover,
            stalled_until: now,
            calm_since: now,
            released: HashSet::new(),
            order: Order::default(),
            closing: None,
        };
        match self.clients.get_mut(index) {
            Some(place) => *place = client,
            None => self.clients.push(client),
        }
        self.trace
            .log(now, "client starts", &[index as u64, u64::from(life)], String::new);
        for effect in effects.drain() {
            self.apply(index, effect);
        }
        self.plan_tick(index);
    }

    /// Simulates a panic of a client's shard: its driver is dropped, and the next one starts.
    pub(super) fn die(&mut self, index: usize) {
        let now = self.now();
        let client = &mut self.clients[index];
        let (id, before) = (client.id, (client.health.clone(), client.handover));
        self.trace.log(now, "client dies", &[index as u64], String::new);
        if let Some(shard) = &mut client.shard {
            shard.abandon(now);
        }
        client.is_over = true;
        self.all_over(index);
        for held in &self.callers.held {
            if held.client == id && held.is_believed(now) {
                let token = grant(held.token);
                return self.broken(|| format!("{token} is believed to be held, but its shard is gone"));
            }
        }
        self.start_client(index, Some(before));
        self.disturbed(index);
    }

    /// Cleans up after a client that has ended.
    pub(super) fn all_over(&mut self, index: usize) {
        let now = self.now();
        let id = self.clients[index].id;
        let lanes: Vec<LaneId> = self.clients[index].lanes.keys().copied().collect();
        for lane in lanes {
            self.close_lane(index, lane);
        }
        self.book
            .note_loss_told(now, |given_up| given_up.owner.is_none_or(|(owner, _)| owner == id));
        self.clients[index].shard = None;
        // The inputs in the mailbox are dropped with it.
        self.clients[index].inputs = None;
    }

    /// Notes a fault of a client.
    pub(super) fn disturbed(&mut self, index: usize) {
        let now = self.now();
        let client = &mut self.clients[index];
        client.calm_since = client.calm_since.max(now);
    }

    /// Schedules turns of clients that have inputs.
    pub(super) fn notice_inputs(&mut self) {
        for index in 0..self.clients.len() {
            let client = &self.clients[index];
            let has_inputs = client.inputs.as_ref().is_some_and(|inputs| !inputs.is_empty());
            if !has_inputs || client.inputs_at.is_some() {
                continue;
            }
            let id = client.id;
            let at = self.now() + Duration::from_micros(self.rng.u64(0..50) * self.rng.u64(0..3));
            self.clients[index].inputs_at = Some(at);
            self.add(at, SimEvent::Inputs(id));
        }
    }

    pub(super) fn take_inputs(&mut self, index: usize) -> bool {
        self.clients[index].inputs_at = None;
        let mut most = if self.rng.bool() { 256 } else { self.rng.usize(1..4) };
        self.notice_ends(index);
        while most > 0 && !self.clients[index].is_over {
            let Some(input) = self.clients[index].next_input() else {
                break;
            };
            self.handle(index, input);
            most -= 1;
        }
        self.notice_inputs();
        true
    }

    /// Detects peers that have closed idle connections, as `actor::shard` does before it takes inputs.
    fn notice_ends(&mut self, index: usize) {
        let now = self.now();
        let mut ends = Vec::new();
        for (id, lane) in &mut self.clients[index].lanes {
            if lane.role != Role::Pipelined || !lane.is_idle() {
                continue;
            }
            let wire = lane.wire.and_then(|wire| self.network.get(wire));
            if wire.is_some_and(|wire| wire.down.has_ended(now)) {
                ends.extend(lane.ended_while_idle().map(|end| (*id, end)));
            }
        }
        for (id, end) in ends {
            self.lane_news(index, id, end);
        }
    }

    pub(super) fn tick(&mut self, index: usize) -> bool {
        let now = self.now();
        let client = &mut self.clients[index];
        if client.tick_at.is_some_and(|at| at > now) {
            return false;
        }
        client.tick_at = None;
        match client.next_due() {
            Some(due) if due <= now => {
                self.handle(index, Input::Tick);
                if self.clients[index].next_due().is_some_and(|due| due <= now) {
                    self.broken(|| format!("client {index} asks for another tick at the same time"));
                }
                true
            }
            _ => {
                self.plan_tick(index);
                false
            }
        }
    }

    fn plan_tick(&mut self, index: usize) {
        let now = self.now();
        let client = &mut self.clients[index];
        let Some(due) = client.next_due() else {
            return;
        };
        if client.tick_at.is_some_and(|at| at <= due) {
            return;
        }
        let (at, id) = (due.max(now), client.id);
        client.tick_at = Some(at);
        self.add(at, SimEvent::Tick(id));
    }

    /// Delivers an event of a connection: directly for a pipelined connection, and through the mailbox for others.
    pub(super) fn lane_news(&mut self, index: usize, lane: LaneId, event: LaneEvent<Pending>) {
        let client = &self.clients[index];
        match client.lanes.get(&lane).map(|lane| lane.role) {
            Some(Role::Pipelined) => self.handle(index, Input::Lane(lane, event)),
            Some(_) => {
                client.mailbox.send(Input::Lane(lane, event));
            }
            None => {}
        }
        self.notice_inputs();
    }

    /// Runs the shard with an input.
    pub(super) fn handle(&mut self, index: usize, mut input: Input) {
        let now = self.now();
        if self.clients[index].is_over {
            return;
        }
        let ended = self.before_input(index, &mut input);
        let population = self.population(index);
        let mut effects = Effects::default();
        let client = &mut self.clients[index];
        if let Some(shard) = &mut client.shard {
            shard.handle(input, now, &mut effects);
        }
        let mut count = 0;
        for effect in effects.drain() {
            count += 1;
            self.apply(index, effect);
        }
        if count > EFFECTS_OF_NOTHING + 4 * population {
            self.broken(|| format!("an input of client {index} had {count} effects, for {population} objects"));
        }
        if let Some(lane) = ended {
            self.told_of_end(index, lane);
        }
        if !self.clients[index].is_over {
            self.plan_tick(index);
        }
    }

    /// Checks an input before the shard gets it. Returns the connection whose end it reports.
    fn before_input(&mut self, index: usize, input: &mut Input) -> Option<LaneId> {
        let now = self.now();
        let name = name_of(input);
        let client = &mut self.clients[index];
        let callers = &self.callers;
        let numbers = match &*input {
            Input::Lane(lane, _) => [index as u64, *lane],
            Input::Acquire(acquire, patience) => {
                let call = callers.of_ask(&acquire.ask).unwrap_or_default();
                client.order.comes(callers, call, acquire, *patience);
                [index as u64, call]
            }
            _ => [index as u64, 0],
        };
        self.trace.log(now, name, &numbers, || describe(input));
        if let (Input::Shutdown(_), Some(closing)) = (&*input, &mut client.closing) {
            let id = client.id;
            let held = callers
                .held
                .iter()
                .filter(|held| held.client == id && held.is_believed(now));
            closing.tokens.extend(held.map(|held| held.token));
        }
        let Input::Lane(id, event @ (LaneEvent::Ended(_) | LaneEvent::Failed(_))) = input else {
            return None;
        };
        if let Some(mut lane) = client.lanes.remove(id) {
            if let LaneEvent::Ended(end) = &mut *event {
                end.leftovers.unwritten.extend(lane.take_unsent());
            }
            let wire = lane.wire;
            self.hang_up_wire(wire);
        }
        self.disturbed(index);
        Some(*id)
    }

    /// Returns the number of objects that a client has.
    fn population(&self, index: usize) -> usize {
        let id = self.clients[index].id;
        let calls = self.callers.calls.values().filter(|call| call.client == id).count();
        let abandoned = self.callers.abandoned.iter().filter(|call| call.client == id).count();
        let held = self.callers.held.iter().filter(|held| held.client == id).count();
        let books = self.clients[index].books();
        let granted = self.book.grants.len() + books.leases;
        books.repeats
            + books.in_flight
            + calls
            + abandoned
            + held
            + granted
            + self.callers.tickets.len()
            + self.clients[index].lanes.len()
    }
}
