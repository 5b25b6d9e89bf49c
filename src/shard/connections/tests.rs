//! Tests of the connections alone: counting, choosing and ending them.

mod choosing;
mod ending;
mod owning;
mod pipelined;

use super::*;
use crate::protocol::StableRef;
use crate::shard::bench::{SECOND, grant, key};
use crate::shard::effect::Effects;
use crate::shard::ids::{TicketId, WaitKey};
use crate::shard::request::Wait;
use crate::shard::waits::{Bound, Occupant};
use crate::types::{Key, Kind, Limit, Target};

/// An effect on a connection other than opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    Sent(LaneId),
    Finished(LaneId),
    HungUp(LaneId),
    Closed(LaneId),
}

/// The connections of a shard, with a clock.
struct Scene {
    connections: Connections,
    effects: Effects,
    now: Instant,
}

impl Deref for Scene {
    type Target = Connections;

    fn deref(&self) -> &Connections {
        &self.connections
    }
}

impl DerefMut for Scene {
    fn deref_mut(&mut self) -> &mut Connections {
        &mut self.connections
    }
}

impl Scene {
    fn new(pipelined: usize) -> Self {
        Self {
            connections: Connections::new(pipelined),
            effects: Effects::default(),
            now: Instant::now(),
        }
    }

    fn act<R>(&mut self, act: impl FnOnce(&mut Connections, &mut Turn<'_>) -> R) -> R {
        let mut turn = Turn {
            now: self.now,
            effects: &mut self.effects,
        };
        act(&mut self.connections, &mut turn)
    }

    /// Returns the effects since the last call.
    fn done(&mut self) -> Vec<Done> {
        let effects = self.effects.drain();
        let done = effects.filter_map(|effect| match effect {
            Effect::Open(..) => None,
            Effect::Send(id, _) => Some(Done::Sent(id)),
            Effect::Finish(id) => Some(Done::Finished(id)),
            Effect::HangUp(id) => Some(Done::HungUp(id)),
            Effect::Close(id) => Some(Done::Closed(id)),
            _ => panic!("not about a connection"),
        });
        done.collect()
    }

    fn open_with(&mut self, role: Role, work: Work, endpoint: usize, purpose: Purpose) -> LaneId {
        let opened = Opened {
            role,
            work,
            pause: SECOND,
            give_up_at: None,
            endpoint,
            purpose,
        };
        self.act(|connections, turn| connections.open(opened, turn))
    }

    fn open(&mut self, role: Role, work: Work) -> LaneId {
        self.open_with(role, work, 0, Purpose::Requests)
    }

    fn rise(&mut self, id: LaneId) {
        let now = self.now;
        self.up(id, now);
    }

    /// Opens a pipelined connection with a slot that is not up yet.
    fn opening_pipelined(&mut self) -> LaneId {
        let id = self.open(Role::Pipelined, Work::Idle(self.now));
        self.fill_slot(id);
        id
    }

    fn pipelined(&mut self) -> LaneId {
        let id = self.opening_pipelined();
        self.rise(id);
        id
    }

    /// Opens an exclusive connection that is up and has this work.
    fn exclusive(&mut self, work: Work) -> LaneId {
        let id = self.open(Role::Exclusive, work);
        self.rise(id);
        id
    }

    fn idle_one(&mut self) -> LaneId {
        self.exclusive(Work::Idle(self.now))
    }

    /// Opens an idle connection that owns leases.
    fn owner(&mut self, leases: usize) -> LaneId {
        let id = self.idle_one();
        (0..leases).for_each(|_| self.own(id));
        id
    }

    /// Opens an exclusive connection in a session.
    fn in_session(&mut self, work: Work) -> LaneId {
        let id = self.open_with(Role::Exclusive, work, 0, Purpose::Session(name("session")));
        self.rise(id);
        id
    }

    /// Opens a connection that waits on the server until this instant.
    fn waiting(&mut self, name: &str, until: Instant) -> LaneId {
        let id = self.idle_one();
        let key = lock(name);
        self.change(id).begin(Work::Waiting(key.clone()), &key, Some(until));
        id
    }

    fn change(&mut self, id: LaneId) -> ConnectionMut<'_> {
        self.connections.get_mut(id).expect("the connection exists")
    }

    fn look(&self, id: LaneId) -> &Connection {
        self.connections.get(id).expect("the connection exists")
    }

    /// Sends `stats` over a connection. Returns whether the request was sent.
    fn send_one(&mut self, id: LaneId) -> bool {
        self.act(|connections, turn| connections.send(id, Request::Stats, Pending::Look, turn))
            .is_none()
    }

    /// Sends a request for a key.
    fn send_for(&mut self, id: LaneId, key: &Key) -> bool {
        let request = Request::Renew {
            kind: Kind::Lock,
            key: key.clone(),
            token: grant(1).token,
            ttl: None,
        };
        self.act(|connections, turn| connections.send(id, request, Pending::Look, turn))
            .is_none()
    }

    fn retire_one(&mut self, id: LaneId) {
        self.act(|connections, turn| connections.retire(id, turn));
    }

    fn cut_one(&mut self, id: LaneId) {
        self.act(|connections, turn| connections.cut(id, turn));
    }

    fn disown_one(&mut self, id: LaneId) {
        self.act(|connections, turn| connections.disown(id, turn));
    }
}

fn name(name: &str) -> StableRef {
    StableRef::new(name).unwrap()
}

fn lock(name: &str) -> WaitKey {
    (Target::Lock, key(name))
}

fn count(all: usize, up: usize) -> LaneCount {
    LaneCount { all, up }
}

/// A ticket's queue position that is bound to a session.
fn bound(id: TicketId) -> Box<Bound<Wait>> {
    Box::new(Bound {
        key: lock("k"),
        arrival: 1,
        wait: Wait::Rejoin(id, name("session")),
        occupant: Occupant::Ticket,
    })
}

/// Returns so many keys that each slot gets some.
fn many_keys() -> Vec<Key> {
    (0..64).map(|index| key(&format!("key-{index}"))).collect()
}

#[test]
fn a_connection_is_counted_by_its_role_from_its_opening_to_its_end() {
    let mut scene = Scene::new(1);
    let id = scene.open(Role::Exclusive, Work::Opening(None));
    assert_eq!(scene.count(Role::Exclusive), count(1, 0));
    assert!(!scene.look(id).is_up());
    scene.rise(id);
    let since = scene.now;
    scene.now += SECOND;
    scene.rise(id);
    assert_eq!(
        scene.count(Role::Exclusive),
        count(1, 1),
        "a connection counts as up once"
    );
    assert_eq!(scene.look(id).up_since(), Some(since));
    let never_up = scene.open(Role::Exclusive, Work::Opening(None));
    assert_eq!(scene.count(Role::Exclusive), count(2, 1));
    assert_eq!(scene.count(Role::Pipelined), count(0, 0));
    assert!(scene.remove(never_up).is_some());
    assert_eq!(scene.count(Role::Exclusive), count(1, 1));
    assert!(scene.remove(id).is_some() && scene.remove(id).is_none());
    assert_eq!(scene.count(Role::Exclusive), count(0, 0));
    scene.rise(id);
    assert_eq!(
        scene.count(Role::Exclusive),
        count(0, 0),
        "the connection was removed before it was up"
    );
    assert!(scene.get(id).is_none() && scene.done().is_empty());
    let next = scene.open(Role::Disposable, Work::Idle(since));
    assert!(next > never_up, "a later connection has a greater identifier");
}

#[test]
fn a_connection_opens_with_the_given_parameters_and_keeps_its_name() {
    let mut scene = Scene::new(1);
    let give_up_at = Some(scene.now + SECOND);
    let purposes = [
        Purpose::Session(name("s")),
        Purpose::Leading(name("l")),
        Purpose::Requests,
    ];
    for purpose in purposes {
        let opened = Opened {
            role: Role::Exclusive,
            work: Work::Opening(None),
            pause: SECOND,
            give_up_at,
            endpoint: 2,
            purpose: purpose.clone(),
        };
        let id = scene.act(|connections, turn| connections.open(opened, turn));
        let Some(Effect::Open(opened, opening)) = scene.effects.drain().next() else {
            panic!("no connection is opened")
        };
        assert_eq!((opened, opening.role, opening.endpoint), (id, Role::Exclusive, 2));
        assert_eq!((opening.pause, opening.give_up_at), (SECOND, give_up_at));
        let connection = scene.look(id);
        let presented = (connection.session.clone(), connection.name.clone());
        let expected = match purpose {
            Purpose::Session(session) => (Some(session), None),
            Purpose::Leading(name) => (None, Some(name)),
            _ => (None, None),
        };
        assert!(presented == expected && connection.endpoint == 2);
    }
}

#[test]
fn closing_a_connection_removes_it_without_an_event() {
    let mut scene = Scene::new(1);
    let id = scene.idle_one();
    assert!(scene.act(|connections, turn| connections.close(id, turn)).is_some());
    assert!(scene.act(|connections, turn| connections.close(id, turn)).is_none());
    assert_eq!(scene.done(), [Done::Closed(id)]);
    assert_eq!((scene.count(Role::Exclusive), scene.idle()), (count(0, 0), None));
}

#[test]
fn the_last_disposable_connection_is_known_until_it_ends_or_is_forgotten() {
    let mut scene = Scene::new(1);
    assert_eq!(scene.disposable(), None);
    let now = scene.now;
    let first = scene.open(Role::Disposable, Work::Idle(now));
    assert_eq!(scene.disposable(), Some(first), "a connection that is opening is known");
    scene.forget_disposable();
    assert_eq!((scene.disposable(), scene.count(Role::Disposable).all), (None, 1));
    let second = scene.open(Role::Disposable, Work::Idle(now));
    scene.remove(first);
    assert_eq!(scene.disposable(), Some(second), "another connection has ended");
    scene.remove(second);
    assert_eq!(scene.disposable(), None);
}
