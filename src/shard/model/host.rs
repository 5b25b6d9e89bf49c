//! The server side: accepts and serves connections, and updates the book.

use std::time::Duration;

use super::agenda::{ClientId, SimEvent};
use super::book::{GivenUp, GrantRecord};
use super::cluster::SimMember;
use super::network::{Chunk, WireId};
use super::world::World;
use crate::server::EventKind;
use crate::server::model::ModelServer;
use crate::shard::ids::LaneId;
use crate::types::Token;

impl World {
    pub(super) fn start_server(&mut self) -> bool {
        if self.server.is_some() {
            return false;
        }
        let now = self.now();
        self.servers += 1;
        self.draining = false;
        let seed = self.rng.u64(..);
        let server = ModelServer::new(self.plan.terms.clone(), seed, now);
        self.trace
            .log(now, "server starts", &[u64::from(self.servers)], String::new);
        self.add(server.sweep_at(), SimEvent::Sweep(self.servers));
        self.server = Some(server);
        self.start_all_members();
        true
    }

    /// Kills the server, which loses its state.
    pub(super) fn kill_server(&mut self, is_silent: bool) {
        let now = self.now();
        let Some(mut server) = self.server.take() else { return };
        self.trace
            .log(now, "server is killed", &[u64::from(is_silent)], String::new);
        server.kill(now);
        // All grants are void, even if its last events grant keys to waiters.
        for granted in std::mem::take(&mut self.book.grants) {
            self.give_up(granted);
        }
        self.wires_end(None, is_silent);
        for index in 0..self.clients.len() {
            self.disturbed(index);
        }
    }

    /// Ends the connections of a server or of one member. Its clients learn of it soon, or not at all.
    pub(super) fn wires_end(&mut self, member: Option<usize>, is_silent: bool) {
        let now = self.now();
        for id in self.network.ids() {
            if let (Some(member), Some(wire)) = (member, self.network.get(id)) {
                if wire.member != member {
                    continue;
                }
            }
            let (most, kept) = (Duration::from_millis(300), self.rng.usize(0..3));
            let delay = super::plan::up_to(most, &mut self.rng);
            let Some(wire) = self.network.get_mut(id) else { continue };
            if wire.server_is_gone {
                continue;
            }
            wire.server_is_gone = true;
            let (client, lane, is_of_cluster) = (wire.client, wire.lane, member.is_some());
            if is_of_cluster {
                self.disturbed(client.index);
            }
            let Some(wire) = self.network.get_mut(id) else { continue };
            if is_silent {
                wire.down.swallow(kept);
            } else if let Some(at) = wire.down.reset(kept, now, delay) {
                self.wake_lane(client, lane, at);
            }
            self.network.forget_if_gone(id);
        }
    }

    /// Stops a draining server that has waited for its clients.
    pub(super) fn stop_server(&mut self, server: u32) -> bool {
        if server != self.servers || self.server.is_none() {
            return false;
        }
        self.kill_server(false);
        self.add_in(Duration::from_secs(2), SimEvent::Start);
        true
    }

    pub(super) fn drain_server(&mut self) {
        let now = self.now();
        let Some(server) = &mut self.server else { return };
        self.trace.log(now, "server drains", &[], String::new);
        server.drain(0, now);
        self.draining = true;
        self.after_server();
        let stop = SimEvent::Stop(self.servers);
        self.add_in(Duration::from_secs(2), stop);
        for index in 0..self.clients.len() {
            self.disturbed(index);
        }
    }

    /// Starts an attempt of a client to connect.
    pub(super) fn dial(&mut self, client: ClientId, lane: LaneId) -> bool {
        let is_dialling = |lane: &super::lane::SimLane| lane.is_dialling();
        if !self.clients[client.index].lanes.get(&lane).is_some_and(is_dialling) {
            return false;
        }
        let at = self.now() + self.plan.latency.draw(&mut self.rng);
        self.add(at, SimEvent::Arrive(client, lane));
        true
    }

    /// Handles an attempt to connect at the server.
    pub(super) fn arrive(&mut self, client: ClientId, id: LaneId) -> bool {
        let now = self.now();
        self.note_leader();
        let Some(lane) = self.clients[client.index].lanes.get_mut(&id) else {
            return false;
        };
        let connect_by = lane.connect_by();
        if self.unreachable_until > now {
            // The attempt goes on until its timeout.
            let at = self.unreachable_until.min(connect_by);
            match at == connect_by {
                true => self.wake_lane(client, id, at),
                false => self.add(at, SimEvent::Arrive(client, id)),
            }
            return false;
        }
        let member = lane.endpoint;
        let is_up = !self.draining && self.members.get(member).is_none_or(SimMember::admits);
        let admitted = match &mut self.server {
            Some(server) if is_up => server
                .connect(member, now)
                .ok_or("the server closed the connection without an answer"),
            _ => Err("connection refused"),
        };
        self.trace
            .log(now, "arrives", &[client.index as u64, id], || format!("{admitted:?}"));
        match admitted {
            Ok(number) => {
                let wire = WireId {
                    server: self.servers,
                    number,
                };
                lane.admitted(wire);
                self.network.add(wire, member, client, id);
                if let Some(at) = self.members.get(member) {
                    self.book.connected(number, (client, id), lane.session(), at.process());
                }
                self.wake_lane(client, id, now);
                // The server's read timeout begins with this turn, because the client may never send anything.
                self.add(now, SimEvent::Serve(wire));
            }
            Err(why) => {
                if let Some(session) = lane.session() {
                    self.book.turned_away(session, now);
                }
                let event = lane.failed(why);
                self.lane_news(client.index, id, event);
            }
        }
        true
    }

    /// Sends a piece to the server.
    pub(super) fn send_up(&mut self, wire: Option<WireId>, chunk: Chunk) {
        let (now, delay) = (self.now(), self.plan.latency.draw(&mut self.rng));
        let Some((id, wire)) = wire.and_then(|id| Some((id, self.network.get_mut(id)?))) else {
            return;
        };
        if wire.server_is_gone || wire.client_is_gone {
            return;
        }
        if let Some(at) = wire.up.send(chunk, now, delay) {
            self.add(at, SimEvent::Serve(id));
        }
    }

    /// Sends a piece to a client.
    fn send_down(&mut self, id: WireId, chunk: Chunk) {
        let (now, delay) = (self.now(), self.plan.latency.draw(&mut self.rng));
        let Some(wire) = self.network.get_mut(id) else { return };
        if wire.client_is_gone {
            return;
        }
        let (client, lane) = (wire.client, wire.lane);
        if let Some(at) = wire.down.send(chunk, now, delay) {
            self.wake_lane(client, lane, at);
        }
    }

    /// Runs a turn of a connection's server end.
    pub(super) fn serve(&mut self, id: WireId) -> bool {
        let now = self.now();
        self.note_leader();
        let (Some(server), Some(wire)) = (&mut self.server, self.network.get_mut(id)) else {
            return false;
        };
        if id.server != self.servers || wire.server_is_gone {
            return false;
        }
        let arrived = wire.up.arrived(now);
        let has_arrived = !arrived.is_empty();
        let mut is_broken = false;
        for chunk in arrived {
            match chunk {
                Chunk::Bytes(bytes) => server.receive(id.number, &bytes),
                Chunk::End => server.end_of_input(id.number),
                Chunk::Reset => is_broken = true,
            }
        }
        if is_broken {
            server.hang_up(id.number, now);
            self.server_hung_up(id);
            self.after_server();
            return true;
        }
        let Some(turn) = server.turn(id.number, now) else {
            return false;
        };
        let did = has_arrived || !turn.out.is_empty() || turn.is_over;
        if !turn.out.is_empty() {
            let numbers = [id.number, turn.out.len() as u64];
            self.trace.log(now, "server says", &numbers, || {
                let said = String::from_utf8_lossy(&turn.out).replace('\n', " / ");
                said.chars().take(200).collect()
            });
        }
        // Sent in pieces, so that a client may see a partial answer and then the end.
        let mut out = turn.out;
        while !out.is_empty() {
            let count = match self.plan.pieces && self.rng.u8(0..6) == 0 {
                true => self.rng.usize(1..=out.len()),
                false => out.len(),
            };
            self.send_down(id, Chunk::Bytes(out.split_to(count)));
        }
        if turn.is_over {
            self.send_down(id, Chunk::End);
            self.server_hung_up(id);
        } else {
            if let Some(at) = turn.wake_at {
                self.arm_server(id, at);
            }
        }
        self.after_server();
        did
    }

    /// Wakes a connection of the server at this time, unless it is woken earlier.
    fn arm_server(&mut self, id: WireId, at: tokio::time::Instant) {
        let now = self.now();
        let Some(wire) = self.network.get_mut(id) else { return };
        if wire.serve_at.is_none_or(|armed| armed <= now || armed > at) {
            wire.serve_at = Some(at);
            self.add(at, SimEvent::Serve(id));
        }
    }

    fn server_hung_up(&mut self, id: WireId) {
        let now = self.now();
        self.trace.log(now, "server hangs up", &[id.number], String::new);
        let leader = self.leader();
        if let Some(wire) = self.network.get_mut(id) {
            wire.server_is_gone = true;
            if leader == Some(wire.member) {
                self.book.seen(id.number);
            }
            let index = wire.client.index;
            self.disturbed(index);
        }
        self.network.forget_if_gone(id);
    }

    pub(super) fn sweep(&mut self, number: u32) -> bool {
        let now = self.now();
        let Some(server) = &mut self.server else { return false };
        if number != self.servers {
            return false;
        }
        server.sweep(now);
        let at = server.sweep_at();
        self.add(at, SimEvent::Sweep(number));
        self.after_server();
        self.look_at_leaders();
        self.check_orphans();
        self.check_free_keys();
        true
    }

    /// Updates the book with the server's events, and schedules turns of connections with new answers.
    pub(super) fn after_server(&mut self) {
        let now = self.now();
        self.note_leader();
        self.note_change();
        let Some(server) = &mut self.server else { return };
        let (events, answered) = (server.take_events(), server.answered());
        for number in answered {
            let wire = WireId {
                server: self.servers,
                number,
            };
            self.add(now, SimEvent::Serve(wire));
        }
        for event in events {
            let numbers = [event.kind as u64, event.connection];
            self.trace.log(now, "book", &numbers, || {
                format!(
                    "{:?} {:?} {:?}",
                    event.kind,
                    event.key,
                    event.token.map(super::trace::grant)
                )
            });
            let is_at_once =
                event.kind == EventKind::Queued || event.kind == EventKind::Granted && event.place.is_none();
            if is_at_once {
                self.book.carried_out(event.connection);
            }
            if let Some(place) = event.place {
                match event.kind {
                    EventKind::Queued => {
                        let (kind, key) = (event.namespace, event.key.clone());
                        self.book.queued(place, event.connection, kind, key, now);
                    }
                    EventKind::Granted => drop(self.book.unqueued(place)),
                    EventKind::Left => self.check_left_place(place, event.connection),
                    _ => {}
                }
            }
            let Some(token) = event.token else { continue };
            match event.kind {
                EventKind::Granted => self.granted(&event),
                EventKind::Orphaned | EventKind::Collected | EventKind::RenewalRefused => {}
                EventKind::Renewed | EventKind::Reclaimed if self.plan.terms.cluster.is_some() => {
                    self.book.moved(token, event.connection);
                }
                EventKind::Renewed => {}
                EventKind::Expired => self.expired(token),
                EventKind::Disconnected => {
                    if let Some(granted) = self.book.ended(token, now) {
                        self.give_up(granted);
                    }
                }
                _ => self.ended(token),
            }
        }
    }

    /// Handles the end of a grant that did not end with its connection or server.
    fn ended(&mut self, token: Token) {
        let now = self.now();
        self.book.ended(token, now);
        for held in self.callers.held.iter_mut().filter(|held| held.token == token) {
            held.in_book = false;
        }
    }

    /// Handles an expired lease.
    fn expired(&mut self, token: Token) {
        self.check_left(token);
        self.ended(token);
    }

    fn granted(&mut self, event: &crate::server::Event) {
        let Some(token) = event.token else { return };
        let wire = WireId {
            server: self.servers,
            number: event.connection,
        };
        let owner = self.network.get(wire).map(|wire| (wire.client, wire.lane));
        let owner = owner.or_else(|| self.book.owner_of(event.connection));
        let granted = GrantRecord {
            token,
            kind: event.namespace,
            key: event.key.clone(),
            connection: event.connection,
            owner,
            wanted_at: self.now(),
            in_hands_at: self.now(),
        };
        let holders = self.book.granted(granted);
        if holders > event.limit as usize {
            self.broken(|| format!("the server has granted {:?} {holders} times", event.key));
        }
    }

    /// Handles the end of a grant with its connection or server.
    fn give_up(&mut self, granted: GrantRecord) {
        for held in self.callers.held.iter_mut().filter(|held| held.token == granted.token) {
            held.in_book = false;
        }
        self.book.given_up.push(GivenUp {
            token: granted.token,
            owner: granted.owner,
            server: self.servers,
            at: self.now(),
            told_at: None,
        });
    }
}
