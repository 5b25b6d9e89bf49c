//! The servers' book as their events tell it, beside what clients have been told.

use std::collections::{BTreeMap, HashMap, HashSet};

use tokio::time::Instant;

use super::agenda::ClientId;
use crate::protocol::StableRef;
use crate::shard::ids::LaneId;
use crate::types::{Key, Kind, Token};

/// What is granted at this moment, and what was given up with a connection whose client may not know that.
#[derive(Default)]
pub(super) struct Book {
    pub(super) grants: Vec<GrantRecord>,
    pub(super) given_up: Vec<GivenUp>,
    /// All that there were to a cluster.
    connections: HashMap<u64, ClusterConnection>,
    /// The names that were presented again while a ghost had something.
    haunted: HashSet<StableRef>,
    /// When the server last turned a session away.
    turned_away: HashMap<StableRef, Instant>,
    /// When the process of a member last led.
    led_at: HashMap<u32, Instant>,
    pub(super) left: Left,
    /// When a grant of a key last ended.
    ended_at: HashMap<(Kind, Key), Instant>,
    /// Places in queues, by their number.
    places: BTreeMap<u64, PlaceRecord>,
    /// The keys of which clients have wanted tickets: theirs are not told from other places.
    ticketed: HashSet<(ClientId, Kind, Key)>,
}

/// A place in a queue of a cluster.
#[derive(Clone)]
pub(super) struct PlaceRecord {
    pub(super) client: ClientId,
    pub(super) kind: Kind,
    pub(super) key: Key,
    /// When it was taken.
    pub(super) at: Instant,
    /// Leadership that has changed since, so often.
    pub(super) outlived: u32,
}

/// A grant that a server has in its book.
pub(super) struct GrantRecord {
    pub(super) token: Token,
    pub(super) kind: Kind,
    pub(super) key: Key,
    /// The connection that owns it.
    pub(super) connection: u64,
    /// The client of the connection that it was granted to, and the name of that connection there.
    pub(super) owner: Option<(ClientId, LaneId)>,
    /// When a caller last had it, or waited for it.
    pub(super) wanted_at: Instant,
    /// When it was granted, or a caller last had it, or a ticket for it.
    pub(super) in_hands_at: Instant,
}

/// A grant that a server gave up because its connection ended, or with itself.
pub(super) struct GivenUp {
    pub(super) token: Token,
    pub(super) owner: Option<(ClientId, LaneId)>,
    /// Which server.
    pub(super) server: u32,
    pub(super) at: Instant,
    /// When the client's shard had heard of the end of that connection; or where leases survive their connections, of all that it
    /// had to that server.
    pub(super) told_at: Option<Instant>,
}

/// How many grants of clusters ran out that no caller had, by what kept them from being given back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Left {
    /// Its client was over, or another life of it had begun.
    pub(super) client_over: u64,
    /// Its session could not take it back: see [`Book::cannot_be_taken_back`].
    pub(super) out_of_reach: u64,
    /// Something was wrong with the client's connections, or with the cluster.
    pub(super) disturbed: u64,
    /// The server turned its session away.
    pub(super) turned_away: u64,
}

impl Left {
    /// These, and others.
    pub(super) fn add(&mut self, others: Self) {
        self.client_over += others.client_over;
        self.out_of_reach += others.out_of_reach;
        self.disturbed += others.disturbed;
        self.turned_away += others.turned_away;
    }
}

/// A connection to a member of a cluster.
struct ClusterConnection {
    owner: (ClientId, LaneId),
    /// The name that it presents, if it may be presented again.
    session: Option<StableRef>,
    /// The process that it leads to.
    process: u32,
    /// When its client has closed its end, if it has.
    closed_at: Option<Instant>,
    /// A leader has seen that, and released or kept what it had.
    is_seen: bool,
    /// A request over it was carried out when its client had closed it.
    is_late: bool,
}

impl ClusterConnection {
    /// Whether the process that it led to has led since its client closed it, and did not see that. Then no other connection of its
    /// session was given what it had.
    fn is_ghost(&self, led_at: &HashMap<u32, Instant>) -> bool {
        let led_at = led_at.get(&self.process);
        let led_since = self.closed_at.zip(led_at).is_some_and(|(closed, led)| *led >= closed);
        led_since && !self.is_seen
    }
}

impl Book {
    /// A member of a cluster has admitted a connection.
    pub(super) fn connected(
        &mut self,
        number: u64,
        owner: (ClientId, LaneId),
        session: Option<StableRef>,
        process: u32,
    ) {
        let led_at = &self.led_at;
        let is_haunting =
            |former: &ClusterConnection| session.is_some() && former.session == session && former.is_ghost(led_at);
        if self.connections.values().any(is_haunting) {
            self.haunted.extend(session.clone());
        }
        let connection = ClusterConnection {
            owner,
            session,
            process,
            closed_at: None,
            is_seen: false,
            is_late: false,
        };
        self.connections.insert(number, connection);
    }

    /// The server has turned a session away, as it does when it is full.
    pub(super) fn turned_away(&mut self, session: StableRef, now: Instant) {
        self.turned_away.insert(session, now);
    }

    /// When the session of a connection was last turned away.
    pub(super) fn turned_away_at(&self, number: u64) -> Option<Instant> {
        let session = self.connections.get(&number)?.session.as_ref()?;
        self.turned_away.get(session).copied()
    }

    /// A client has closed its end of a connection.
    pub(super) fn closed(&mut self, number: u64, now: Instant) {
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.closed_at.get_or_insert(now);
        }
    }

    /// A leader has seen the end of a connection.
    pub(super) fn seen(&mut self, number: u64) {
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.is_seen = true;
        }
    }

    /// A request over a connection was carried out.
    pub(super) fn carried_out(&mut self, number: u64) {
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.is_late |= connection.closed_at.is_some();
        }
    }

    /// A process leads, or led until now.
    pub(super) fn leads(&mut self, process: u32, now: Instant) {
        self.led_at.insert(process, now);
    }

    /// To whom a connection belongs, or belonged.
    pub(super) fn owner_of(&self, number: u64) -> Option<(ClientId, LaneId)> {
        self.connections.get(&number).map(|connection| connection.owner)
    }

    /// Whether what was granted at the place of a connection cannot be taken back by its session, or not for certain: its end was not seen
    /// by the process that led, then or when the session's name was presented again; or it was asked for after its client had gone on.
    pub(super) fn cannot_be_taken_back(&self, number: u64) -> bool {
        self.connections.get(&number).is_some_and(|connection| {
            let is_haunted = |session| self.haunted.contains(session);
            connection.is_late
                || connection.is_ghost(&self.led_at)
                || connection.session.as_ref().is_some_and(is_haunted)
        })
    }

    /// A caller wants a ticket.
    pub(super) fn wants_ticket(&mut self, client: ClientId, kind: Kind, key: &Key) {
        self.ticketed.insert((client, kind, key.clone()));
    }

    /// Whether all places of a key that a client has had are those of waits.
    pub(super) fn has_no_tickets(&self, place: &PlaceRecord) -> bool {
        !self.ticketed.contains(&(place.client, place.kind, place.key.clone()))
    }

    /// A place was taken over a connection.
    pub(super) fn queued(&mut self, place: u64, connection: u64, kind: Kind, key: Key, at: Instant) {
        if let Some((client, _)) = self.owner_of(connection) {
            self.places.insert(
                place,
                PlaceRecord {
                    client,
                    kind,
                    key,
                    at,
                    outlived: 0,
                },
            );
        }
    }

    /// The leadership has changed.
    pub(super) fn outlive(&mut self) {
        for place in self.places.values_mut() {
            place.outlived += 1;
        }
    }

    /// A place was granted, or left.
    pub(super) fn unqueued(&mut self, place: u64) -> Option<PlaceRecord> {
        self.places.remove(&place)
    }

    /// How many places of a key a client has that it took before then.
    pub(super) fn places_before(&self, client: ClientId, kind: Kind, key: &Key, then: Instant) -> usize {
        let is_one =
            |place: &&PlaceRecord| place.client == client && place.kind == kind && place.key == *key && place.at < then;
        self.places.values().filter(is_one).count()
    }

    /// A lease belongs to another connection.
    pub(super) fn moved(&mut self, token: Token, to: u64) {
        let owner = self.owner_of(to);
        if let Some(granted) = self.grants.iter_mut().find(|grant| grant.token == token) {
            granted.connection = to;
            granted.owner = owner;
        }
    }

    /// A server has granted it. Returns how many have the key now.
    pub(super) fn granted(&mut self, granted: GrantRecord) -> usize {
        let (kind, key) = (granted.kind, granted.key.clone());
        self.grants.push(granted);
        let same = |grant: &&GrantRecord| grant.kind == kind && grant.key == key;
        self.grants.iter().filter(same).count()
    }

    pub(super) fn has(&self, token: Token) -> bool {
        self.grants.iter().any(|grant| grant.token == token)
    }

    /// It is granted no more.
    pub(super) fn ended(&mut self, token: Token, now: Instant) -> Option<GrantRecord> {
        let index = self.grants.iter().position(|grant| grant.token == token)?;
        let granted = self.grants.swap_remove(index);
        self.ended_at.insert((granted.kind, granted.key.clone()), now);
        Some(granted)
    }

    /// Whether fewer than `limit` have the key.
    pub(super) fn is_free(&self, kind: Kind, key: &Key, limit: usize) -> bool {
        let same = |grant: &&GrantRecord| grant.kind == kind && grant.key == *key;
        self.grants.iter().filter(same).count() < limit
    }

    /// When a grant of the key last ended.
    pub(super) fn last_ended(&self, kind: Kind, key: &Key) -> Option<Instant> {
        self.ended_at.get(&(kind, key.clone())).copied()
    }

    /// A client has heard of ends of connections: it was told of what `is_it` says.
    pub(super) fn told(&mut self, now: Instant, is_it: impl Fn(&GivenUp) -> bool) {
        for given_up in &mut self.given_up {
            if given_up.told_at.is_none() && is_it(given_up) {
                given_up.told_at = Some(now);
            }
        }
    }

    pub(super) fn given_up(&self, token: Token) -> Option<&GivenUp> {
        self.given_up.iter().find(|given_up| given_up.token == token)
    }
}
