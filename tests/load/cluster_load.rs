//! The embedded cluster under load, while its leader changes often, its members are stopped and connections end. The
//! tests use the protocol directly, without the client. The history checker judges the records of the cluster and of
//! the test's sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::history::History;
use crate::support::history::bounds::{Bounds, nanoseconds};
use crate::support::history::record::{Acquired, Action, Invoke, Kind, Line, Name, Outcome, Return, Token, What};
use crate::support::history::writer::Writer;
use crate::support::observed;
use crate::support::raw::{Heard, RawConnection};
use crate::support::until;
use dflockd_client::server::{Cluster, EventKind, Server};
use tokio::sync::RwLock;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// A timeout that only a hang exceeds.
const PATIENCE: Duration = Duration::from_secs(120);
const KEYS: usize = 4;
const SESSIONS: usize = 12;

/// A session of the cluster. It finds the leader, sends its `stable-ref`, and repeats requests that got no answer.
struct Session {
    addresses: Vec<String>,
    reference: String,
    connection: Option<RawConnection>,
    /// The index of the address for the next connection.
    next: usize,
    /// The number of connections that the session has had.
    connected: usize,
}

impl Session {
    fn new(cluster: &Cluster, reference: String) -> Self {
        Self {
            addresses: cluster.addresses(),
            reference,
            connection: None,
            next: 0,
            connected: 0,
        }
    }

    /// Repeats the request until a leader answers.
    async fn ask(&mut self, request: &str) -> String {
        loop {
            if self.connection.is_none() {
                self.connect().await;
            }
            let Some(connection) = &mut self.connection else {
                continue;
            };
            connection.send(request).await;
            match connection.hear(PATIENCE).await {
                Heard::Line(line) if line.starts_with("error_not_leader") => self.look_elsewhere(&line).await,
                Heard::Line(line) => return line,
                Heard::Closed => self.connection = None,
                Heard::Nothing => panic!("{}: no answer to {request:?}", self.reference),
            }
        }
    }

    async fn connect(&mut self) {
        let address = &self.addresses[self.next % self.addresses.len()];
        self.next += 1;
        let Some(mut connection) = RawConnection::try_open(address).await else {
            // This member is stopped. The other members may not have a leader yet.
            return tokio::time::sleep(Duration::from_millis(1)).await;
        };
        connection.send(&format!("stable-ref\n{}\n\n", self.reference)).await;
        if connection.hear(PATIENCE).await == Heard::Line("ok".to_owned()) {
            self.connection = Some(connection);
            self.connected += 1;
        }
    }

    async fn look_elsewhere(&mut self, refusal: &str) {
        self.connection = None;
        let named = refusal.split(' ').nth(1);
        match named.and_then(|named| self.addresses.iter().position(|address| address == named)) {
            Some(leader) => self.next = leader,
            None => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

/// The record of all sessions, and the number of completed rounds.
struct SharedRecord {
    writer: Writer,
    done: AtomicUsize,
    /// A session holds the read lock while the leader must not change. Only some tests have such sessions. These tests
    /// hold the write lock while they change the leader.
    leadership: RwLock<()>,
}

impl SharedRecord {
    fn new(start: Instant) -> Self {
        Self {
            writer: Writer::in_memory(move || nanoseconds(start.elapsed())),
            done: AtomicUsize::new(0),
            leadership: RwLock::new(()),
        }
    }

    /// Records that a session begins an acquire of the key, or the release of `holder`.
    fn invoke(&self, session: &Name, action: Action, key: &str, holder: Option<u64>) -> u64 {
        let op = self.writer.next_id();
        self.writer.note(What::Invoke(Invoke {
            process: session.clone(),
            caller: 0,
            op,
            action,
            kind: Some(Kind::Lock),
            key: Some(key.into()),
            limit: None,
            timeout: None,
            ttl: None,
            holder,
            ticket: None,
            channel: None,
            payload: None,
        }));
        op
    }

    fn returned(&self, session: &Name, op: u64, outcome: Outcome) {
        self.writer.note(What::Return(Return {
            process: session.clone(),
            op,
            outcome,
            token: None,
            fence: None,
            error: None,
        }));
    }

    fn acquired(&self, session: &Name, op: u64, key: &str, token: Token) -> u64 {
        let holder = self.writer.next_id();
        self.writer.note(What::Acquired(Acquired {
            process: session.clone(),
            holder,
            op,
            kind: Kind::Lock,
            key: key.into(),
            limit: 1,
            token,
            fence: None,
            watched: false,
        }));
        self.returned(session, op, Outcome::Granted);
        holder
    }

    /// Records a use of a held lease. In these tests no lease is lost.
    fn uses(&self, session: &Name, holder: u64) {
        self.writer.note_use(session, holder, || true);
    }

    fn done(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }
}

/// Acquires, holds and releases keys until the load ends. Returns the number of rounds.
async fn work(
    mut session: Session,
    number: usize,
    record: Arc<SharedRecord>,
    end: Arc<AtomicUsize>,
    hangs_up: bool,
) -> usize {
    let me = Name::from(session.reference.as_str());
    let mut rounds = 0;
    while end.load(Ordering::SeqCst) == 0 {
        let key = format!("k{}", (number + rounds) % KEYS);
        let hangs_up = hangs_up && (number + rounds) % 5 == 0;
        let op = record.invoke(&me, Action::Acquire, &key, None);
        let granted = session.ask(&format!("l\n{key}\n60 60\n")).await;
        let token = granted
            .split(' ')
            .nth(1)
            .unwrap_or_else(|| panic!("{granted:?} is no grant"))
            .to_owned();
        let holder = record.acquired(&me, op, &key, token.parse().unwrap());
        record.uses(&me, holder);
        if hangs_up {
            // The cluster has an orphan TTL, so the lease outlives the connection. The session ends a connection only
            // while its member leads. Otherwise the leader would not notice the end, and the lease would still belong
            // to the old connection.
            let stays = record.leadership.read().await;
            let connected = session.connected;
            assert_eq!(session.ask(&format!("n\n{key}\n{token} 60\n")).await, "ok 60");
            let leads = session.connection.take_if(|_| session.connected == connected);
            let ends = leads.is_some();
            if let Some(connection) = leads {
                // `hang_up` waits until the leader has closed the connection. Until then the lease belongs to it.
                connection.hang_up().await;
            }
            drop(stays);
            if ends {
                let again = session.ask(&format!("l\n{key}\n60 60\n")).await;
                assert_eq!(again, granted, "the same holder");
            }
        }
        assert_eq!(session.ask(&format!("n\n{key}\n{token} 60\n")).await, "ok 60");
        tokio::task::yield_now().await;
        record.uses(&me, holder);
        let op = record.invoke(&me, Action::Release, &key, Some(holder));
        let released = session.ask(&format!("r\n{key}\n{token}\n")).await;
        // A repeated release gets `error` if the answer to the first one was lost with its connection.
        assert!(["ok", "error"].contains(&released.as_str()), "{released}");
        record.returned(&me, op, Outcome::Done);
        rounds += 1;
        record.done.fetch_add(1, Ordering::SeqCst);
    }
    rounds
}

/// Runs all sessions until `trouble` has ended. Then judges the records.
async fn under_load(hangs_up: bool, trouble: impl AsyncFnOnce(&Cluster, &SharedRecord)) -> Cluster {
    let options = Server::builder()
        .record_events(true)
        .orphan_ttl(Duration::from_secs(600));
    let start = Instant::now();
    let cluster = Cluster::builder().options(options).start().await.unwrap();
    let (record, end) = (Arc::new(SharedRecord::new(start)), Arc::new(AtomicUsize::new(0)));
    let mut working = JoinSet::new();
    for number in 0..SESSIONS {
        let session = Session::new(&cluster, format!("session-{number}"));
        working.spawn(work(session, number, Arc::clone(&record), Arc::clone(&end), hangs_up));
    }
    timeout(PATIENCE, trouble(&cluster, &record))
        .await
        .expect("the trouble ends in time");
    end.store(1, Ordering::SeqCst);
    let rounds: Vec<usize> = timeout(PATIENCE, working.join_all())
        .await
        .expect("all sessions end in time");
    let of_sessions: Vec<Line> = record.writer.finish().unwrap();
    let of_cluster = observed::lines("cluster", cluster.events(), start);
    let history = History::default().with(of_sessions).with(of_cluster);
    let verdict = history.judge(&Bounds::default()).assert();
    assert_eq!(verdict.beliefs, 2 * verdict.grants);
    // Each round has exactly one grant, and each grant was released.
    assert_eq!((verdict.grants, verdict.held), (rounds.iter().sum(), 0));
    assert!(
        verdict.from_queues > verdict.grants / 4,
        "too few grants came from queues: {verdict:?}"
    );
    assert!(
        rounds.iter().all(|rounds| *rounds > 0),
        "every session had a turn: {rounds:?}"
    );
    cluster
}

/// Waits until a session has completed another round.
async fn until_next_round(record: &SharedRecord) {
    let before = record.done();
    until("a session has had a turn", || record.done() > before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_flaps_a_hundred_times_grants_no_key_twice() {
    under_load(false, async |cluster, record| {
        for flap in 1..=100 {
            cluster.move_leader(flap % 3).unwrap();
            until_next_round(record).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_die_with_requests_under_way_lose_nothing() {
    under_load(false, async |cluster, record| {
        for death in 0..50 {
            let leader = cluster.leader().expect("a member leads");
            cluster.stop(leader).await.unwrap();
            if death % 5 == 0 {
                // For a short time no member leads, and two of the three members are stopped.
                cluster.stop((leader + 1) % 3).await.unwrap();
                cluster.start((leader + 1) % 3).await.unwrap();
            }
            cluster.move_leader((leader + 1) % 3).unwrap();
            until_next_round(record).await;
            cluster.start(leader).await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_keep_their_leases_and_positions_when_their_connections_end() {
    let cluster = under_load(true, async |_, record| {
        until("much is done", || record.done() > 1000).await
    })
    .await;
    let reclaimed = cluster
        .events()
        .iter()
        .filter(|event| event.kind == EventKind::Reclaimed)
        .count();
    assert!(reclaimed > 100, "{reclaimed} leases were taken back");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_has_two_holders_when_everything_goes_wrong_at_once() {
    under_load(true, async |cluster, record| {
        for flap in 1..=60 {
            let moves = record.leadership.write().await;
            if flap % 4 == 0 {
                cluster.depose();
            }
            let down = flap % 3;
            cluster.stop(down).await.unwrap();
            cluster.move_leader((flap + 1) % 3).unwrap();
            drop(moves);
            until_next_round(record).await;
            cluster.start(down).await.unwrap();
        }
    })
    .await;
}

/// The primary is killed, and the standby does not know the grants of the primary. The history checker judges the
/// records of both servers together.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_primary_and_its_standby_never_both_grant_a_key() {
    let start = Instant::now();
    let server = async || Server::builder().port(0).record_events(true).start().await.unwrap();
    let (primary, standby) = (server().await, server().await);
    let addresses = [primary.local_addr().to_string(), standby.local_addr().to_string()];
    let done = Arc::new(AtomicUsize::new(0));
    let mut working = JoinSet::new();
    for number in 0..SESSIONS {
        let (addresses, done) = (addresses.clone(), Arc::clone(&done));
        working.spawn(async move {
            let mut rounds = 0;
            for address in &addresses {
                let mut connection = RawConnection::open(address).await;
                // The task uses the primary until it is killed, and then makes 100 rounds at the standby.
                for round in 0.. {
                    if address == &addresses[1] && round == 100 {
                        break;
                    }
                    let key = (number + round) % KEYS;
                    connection.send(&format!("l\nk{key}\n60 60\n")).await;
                    let Heard::Line(granted) = connection.hear(PATIENCE).await else {
                        break;
                    };
                    let token = granted
                        .split(' ')
                        .nth(1)
                        .unwrap_or_else(|| panic!("{granted:?}"))
                        .to_owned();
                    connection.send(&format!("r\nk{key}\n{token}\n")).await;
                    let Heard::Line(released) = connection.hear(PATIENCE).await else {
                        break;
                    };
                    assert_eq!(released, "ok");
                    rounds += 1;
                    done.fetch_add(1, Ordering::SeqCst);
                }
            }
            rounds
        });
    }
    until("it is under load", || done.load(Ordering::SeqCst) > 500).await;
    let of_primary = primary.kill().await;
    let rounds: Vec<usize> = timeout(PATIENCE, working.join_all())
        .await
        .expect("all sessions end in time");
    let of_primary = observed::lines("primary", of_primary, start);
    let of_standby = observed::lines("standby", standby.events(), start);
    let at_primary = History::default().with(of_primary.clone());
    let at_primary = at_primary.judge(&Bounds::default()).assert();
    let both = History::default().with(of_primary).with(of_standby);
    let verdict = both.judge(&Bounds::default()).assert();
    assert_eq!(verdict.grants - at_primary.grants, 100 * SESSIONS);
    assert_eq!((verdict.keys, verdict.held), (KEYS, 0));
    // If the kill of the primary interrupts a round, the task does not count the grant of this round.
    let counted: usize = rounds.iter().sum();
    assert!(
        (counted..=counted + SESSIONS).contains(&verdict.grants),
        "{counted}: {verdict:?}"
    );
}
