//! The state of a run, which handles one event after the other.

use tokio::time::Instant;

use super::agenda::{Agenda, ClientId, SimEvent};
use super::book::Book;
use super::callers::Callers;
use super::client::SimClient;
use super::cluster::SimMember;
use super::network::Network;
use super::plan::{Plan, up_to};
use super::trace::SimTrace;
use crate::server::model::ModelServer;
use crate::shard::ids::LaneId;

pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) rng: fastrand::Rng,
    pub(super) agenda: Agenda,
    pub(super) trace: SimTrace,
    pub(super) network: Network,
    pub(super) clients: Vec<SimClient>,
    pub(super) callers: Callers,
    pub(super) book: Book,
    /// The server, while it is up.
    pub(super) server: Option<ModelServer>,
    /// The number of servers so far, including this one.
    pub(super) servers: u32,
    /// Whether the server accepts no more connections.
    pub(super) draining: bool,
    /// The leader at the last check.
    pub(super) led_by: Option<usize>,
    /// When the leadership last changed.
    pub(super) led_since: Instant,
    /// The members of a cluster.
    pub(super) members: Vec<SimMember>,
    /// No new connection reaches the server before this time.
    pub(super) unreachable_until: Instant,
    /// Whether callers' actions and faults continue.
    pub(super) goes_on: bool,
    /// A description of the first broken invariant.
    violation: Option<String>,
}

impl World {
    pub(super) fn new(seed: u64, with_text: bool) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let plan = Plan::new(seed, &mut rng);
        // Far from the start of the clock, so that instants before the run can be represented.
        let begun = Instant::now() + std::time::Duration::from_secs(24 * 3600);
        let mut world = Self {
            plan,
            rng,
            agenda: Agenda::new(begun),
            trace: SimTrace::new(begun, with_text),
            network: Network::default(),
            clients: Vec::new(),
            callers: Callers::default(),
            book: Book::default(),
            server: None,
            servers: 0,
            draining: false,
            led_by: None,
            led_since: begun,
            members: Vec::new(),
            unreachable_until: begun,
            goes_on: true,
            violation: None,
        };
        world.trace.log(begun, "plan", &[seed], || format!("{:?}", world.plan));
        world.start_server();
        for index in 0..world.plan.clients {
            world.start_client(index, None);
        }
        world.add_in(world.plan.pause, SimEvent::Act);
        if let Some(pause) = world.plan.fault_pause {
            world.add_in(pause, SimEvent::Fault);
        }
        world
    }

    pub(super) fn now(&self) -> Instant {
        self.agenda.now()
    }

    pub(super) fn add(&mut self, at: Instant, event: SimEvent) {
        self.agenda.add(at, event, &mut self.rng);
    }

    /// Schedules an event at a random time within `most` from now.
    pub(super) fn add_in(&mut self, most: std::time::Duration, event: SimEvent) {
        let at = self.now() + up_to(most, &mut self.rng);
        self.add(at, event);
    }

    /// Returns the description of the broken invariant, if there is one.
    pub(super) fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    /// Notes a broken invariant. Only the first is kept.
    pub(super) fn broken(&mut self, what: impl FnOnce() -> String) {
        if self.violation.is_none() {
            let what = what();
            let now = self.now();
            self.trace.log(now, "BROKEN", &[], || what.clone());
            self.violation = Some(what);
        }
    }

    /// Handles the next event. Returns whether there was an event and it had an effect.
    pub(super) fn step(&mut self) -> bool {
        let Some(event) = self.agenda.next() else {
            return false;
        };
        let did = match event {
            SimEvent::Act => self.act(),
            SimEvent::Fault => self.fault(),
            SimEvent::Inputs(client) => self.when_it_runs(client, event) && self.take_inputs(client.index),
            SimEvent::Tick(client) => self.when_it_runs(client, event) && self.tick(client.index),
            SimEvent::Dial(client, lane) => self.is_alive(client) && self.dial(client, lane),
            SimEvent::Arrive(client, lane) => self.is_alive(client) && self.arrive(client, lane),
            SimEvent::Lane(client, lane) => self.when_it_runs(client, event) && self.lane_turn(client, lane),
            SimEvent::Serve(wire) => self.serve(wire),
            SimEvent::Sweep(server) => self.sweep(server),
            SimEvent::Stop(server) => self.stop_server(server),
            SimEvent::Start => self.start_server(),
            SimEvent::Elect => self.elect(),
            SimEvent::StopMember(member) => self.stop_member(member),
            SimEvent::Rejoin(member) => self.rejoin(member),
            SimEvent::StartMember(member) => self.start_member(member),
            SimEvent::Call(call) => self.look_for_answer(call),
        };
        if did {
            self.check_believers();
        }
        did
    }

    /// Returns whether this life of a client has not ended.
    pub(super) fn is_alive(&self, client: ClientId) -> bool {
        let current = self.clients.get(client.index);
        current.is_some_and(|current| current.id == client && !current.is_over)
    }

    /// Returns whether a client's task runs now. If it is stalled, schedules the event for the end of the stall.
    fn when_it_runs(&mut self, client: ClientId, event: SimEvent) -> bool {
        if !self.is_alive(client) {
            return false;
        }
        let stalled_until = self.clients[client.index].stalled_until;
        if stalled_until > self.now() {
            self.add(stalled_until, event);
            return false;
        }
        true
    }

    pub(super) fn wake_lane(&mut self, client: ClientId, lane: LaneId, at: Instant) {
        self.add(at, SimEvent::Lane(client, lane));
    }
}
