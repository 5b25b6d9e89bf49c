//! The state of the servers according to their events, and the clients' knowledge of it.

use std::collections::{BTreeMap, HashMap, HashSet};

use tokio::time::Instant;

use super::agenda::ClientId;
use crate::protocol::StableRef;
use crate::shard::ids::LaneId;
use crate::types::{Key, Kind, Token};

/// The grants, connections and queue positions of the servers, according to their events. Also grants that ended with
/// their connection or server, because the client may not know of that end.
#[derive(Default)]
pub(super) struct Book {
    pub(super) grants: Vec<GrantRecord>,
    pub(super) given_up: Vec<GivenUp>,
    /// All connections to a cluster so far.
    connections: HashMap<u64, ClusterConnection>,
    /// The names that were presented again while an earlier connection with that name was a
    /// [ghost](ClusterConnection::is_ghost).
    haunted: HashSet<StableRef>,
    /// When the server last rejected a session.
    turned_away: HashMap<StableRef, Instant>,
    /// When the process of a member last led.
    led_at: HashMap<u32, Instant>,
    pub(super) left: Left,
    /// When a grant of a key last ended.
    ended_at: HashMap<(Kind, Key), Instant>,
    /// The queue positions, by their number.
    places: BTreeMap<u64, PlaceRecord>,
    /// The keys for which clients have requested tickets. The positions of tickets cannot be distinguished from
    /// others.
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
    /// How often the leader has changed since then.
    pub(super) outlived: u32,
}

/// A current grant of a server.
pub(super) struct GrantRecord {
    pub(super) token: Token,
    pub(super) kind: Kind,
    pub(super) key: Key,
    /// The connection that owns it.
    pub(super) connection: u64,
    /// The client to whose connection it was granted, and that client's ID of the connection.
    pub(super) owner: Option<(ClientId, LaneId)>,
    /// When a caller last held it or waited for it.
    pub(super) wanted_at: Instant,
    /// When it was granted, or when a caller last held it or a ticket for it.
    pub(super) in_hands_at: Instant,
}

/// A grant that a server released because its connection or the server itself ended.
pub(super) struct GivenUp {
    pub(super) token: Token,
    pub(super) owner: Option<(ClientId, LaneId)>,
    /// The server that released it.
    pub(super) server: u32,
    pub(super) at: Instant,
    /// When the client's shard learned of the end of that connection; or, if leases survive their connections, of the
    /// end of all its connections to that server.
    pub(super) told_at: Option<Instant>,
}

/// How many grants of clusters expired without a caller, by the reason why they were not released.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Left {
    /// The client had ended, or its next life had begun.
    pub(super) client_over: u64,
    /// The session could not reclaim the grant: see [`Book::may_be_unreachable`].
    pub(super) out_of_reach: u64,
    /// Something was wrong with the client's connections, or with the cluster.
    pub(super) disturbed: u64,
    /// The server rejected the session.
    pub(super) turned_away: u64,
}

impl Left {
    /// Adds other counts.
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
    /// When its client closed its end, if it did.
    closed_at: Option<Instant>,
    /// Whether a leader has seen the end, and released or kept the leases.
    is_seen: bool,
    /// Whether a request over it was executed after its client had closed it.
    is_late: bool,
}

impl ClusterConnection {
    /// Returns whether the server's process has led since the client closed the connection, without seeing the end. In
    /// that case, no other connection of its session can reclaim its leases.
    fn is_ghost(&self, led_at: &HashMap<u32, Instant>) -> bool {
        let led_at = led_at.get(&self.process);
        let led_since = self.closed_at.zip(led_at).is_some_and(|(closed, led)| *led >= closed);
        led_since && !self.is_seen
    }
}

impl Book {
    /// Notes that a member of a cluster has accepted a connection.
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

    /// Notes that the server has rejected a session, as it does when it is full.
    pub(super) fn turned_away(&mut self, session: StableRef, now: Instant) {
        self.turned_away.insert(session, now);
    }

    /// Returns when the session of a connection was last rejected.
    pub(super) fn turned_away_at(&self, number: u64) -> Option<Instant> {
        let session = self.connections.get(&number)?.session.as_ref()?;
        self.turned_away.get(session).copied()
    }

    /// Notes that a client has closed its end of a connection.
    pub(super) fn closed(&mut self, number: u64, now: Instant) {
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.closed_at.get_or_insert(now);
        }
    }

    /// Notes that a leader has seen the end of a connection.
    pub(super) fn seen(&mut self, number: u64) {
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.is_seen = true;
        }
    }

    /// Notes that a request over a connection was executed.
    pub(super) fn carried_out(&mut self, number: u64) {
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.is_late |= connection.closed_at.is_some();
        }
    }

    /// Notes that a process is the leader, or was until now.
    pub(super) fn leads(&mut self, process: u32, now: Instant) {
        self.led_at.insert(process, now);
    }

    /// Returns the client that owns or owned a connection.
    pub(super) fn owner_of(&self, number: u64) -> Option<(ClientId, LaneId)> {
        self.connections.get(&number).map(|connection| connection.owner)
    }

    /// Returns whether a connection's session may be unable to reclaim the grant of its queue position: if the
    /// connection is a [ghost](ClusterConnection::is_ghost), if the session's name was presented again while one of its
    /// connections was a ghost, or if a request over the connection was executed after the client had closed it.
    pub(super) fn may_be_unreachable(&self, number: u64) -> bool {
        self.connections.get(&number).is_some_and(|connection| {
            let is_haunted = |session| self.haunted.contains(session);
            connection.is_late
                || connection.is_ghost(&self.led_at)
                || connection.session.as_ref().is_some_and(is_haunted)
        })
    }

    /// Notes that a caller requests a ticket.
    pub(super) fn note_ticket_request(&mut self, client: ClientId, kind: Kind, key: &Key) {
        self.ticketed.insert((client, kind, key.clone()));
    }

    /// Returns whether all queue positions that a client has had for a key are those of waits.
    pub(super) fn has_no_tickets(&self, place: &PlaceRecord) -> bool {
        !self.ticketed.contains(&(place.client, place.kind, place.key.clone()))
    }

    /// Notes a new queue position of a connection.
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

    /// Notes a change of the leader.
    pub(super) fn outlive(&mut self) {
        for place in self.places.values_mut() {
            place.outlived += 1;
        }
    }

    /// Removes a queue position that was granted or given up.
    pub(super) fn unqueued(&mut self, place: u64) -> Option<PlaceRecord> {
        self.places.remove(&place)
    }

    /// Returns how many of a client's current queue positions for a key were taken before `then`.
    pub(super) fn places_before(&self, client: ClientId, kind: Kind, key: &Key, then: Instant) -> usize {
        let is_one =
            |place: &&PlaceRecord| place.client == client && place.kind == kind && place.key == *key && place.at < then;
        self.places.values().filter(is_one).count()
    }

    /// Notes that a lease now belongs to another connection.
    pub(super) fn moved(&mut self, token: Token, to: u64) {
        let owner = self.owner_of(to);
        if let Some(granted) = self.grants.iter_mut().find(|grant| grant.token == token) {
            granted.connection = to;
            granted.owner = owner;
        }
    }

    /// Adds a grant. Returns how many holders the key has now.
    pub(super) fn granted(&mut self, granted: GrantRecord) -> usize {
        let (kind, key) = (granted.kind, granted.key.clone());
        self.grants.push(granted);
        let same = |grant: &&GrantRecord| grant.kind == kind && grant.key == key;
        self.grants.iter().filter(same).count()
    }

    pub(super) fn has(&self, token: Token) -> bool {
        self.grants.iter().any(|grant| grant.token == token)
    }

    /// Removes a grant that has ended.
    pub(super) fn ended(&mut self, token: Token, now: Instant) -> Option<GrantRecord> {
        let index = self.grants.iter().position(|grant| grant.token == token)?;
        let granted = self.grants.swap_remove(index);
        self.ended_at.insert((granted.kind, granted.key.clone()), now);
        Some(granted)
    }

    /// Returns whether the key has fewer than `limit` holders.
    pub(super) fn is_free(&self, kind: Kind, key: &Key, limit: usize) -> bool {
        let same = |grant: &&GrantRecord| grant.kind == kind && grant.key == *key;
        self.grants.iter().filter(same).count() < limit
    }

    /// Returns when a grant of the key last ended.
    pub(super) fn last_ended(&self, kind: Kind, key: &Key) -> Option<Instant> {
        self.ended_at.get(&(kind, key.clone())).copied()
    }

    /// Notes that a client has learned of the end of the grants that `is_it` selects.
    pub(super) fn note_loss_told(&mut self, now: Instant, is_it: impl Fn(&GivenUp) -> bool) {
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
