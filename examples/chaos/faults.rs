//! The faults that the controller causes. The seed of the run determines their kinds and the pauses between them.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::sync::{Mutex as Slot, MutexGuard};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::child;
use crate::controller::{MEMBERS, SINGLES, World};
use crate::history::record::{Process, Trouble, What};
use crate::job::Order;
use crate::network::{Cut, Treatment, Way};

/// Counts the faults by kind.
#[derive(Default)]
pub(crate) struct Tally {
    counts: Mutex<BTreeMap<&'static str, u64>>,
    /// How many faults could not be caused.
    failed: AtomicU64,
    troubles: AtomicU64,
}

impl Tally {
    fn count(&self, what: &'static str) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(what).or_default() += 1;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        write!(f, "faults: {}", counts.values().sum::<u64>())?;
        for (what, count) in &*counts {
            write!(f, "\n{count:>8} {what}")?;
        }
        match self.failed.load(Ordering::Relaxed) {
            0 => Ok(()),
            failed => write!(f, "\n{failed:>8} more could not be caused"),
        }
    }
}

/// A fault that has begun and not ended. `begins` records the beginning of the fault, and `drop` records the end.
struct FaultUnderWay<'w> {
    world: &'w World,
    name: String,
}

impl<'w> FaultUnderWay<'w> {
    fn begins(world: &'w World, what: &'static str) -> Self {
        let number = world.tally.troubles.fetch_add(1, Ordering::Relaxed);
        let name = format!("{what} #{number}");
        let trouble = name.as_str().into();
        world.record.note(What::TroubleBegun(Trouble { trouble, server: None }));
        Self { world, name }
    }
}

impl Drop for FaultUnderWay<'_> {
    fn drop(&mut self) {
        let trouble = self.name.as_str().into();
        self.world
            .record
            .note(What::TroubleEnded(Trouble { trouble, server: None }));
    }
}

/// Causes faults for the time `long`, several at once. After each period of `FAULTS_LAST`, all faults end, and a pause
/// without faults follows. All faults have ended when this function returns.
pub(crate) async fn cause_faults(world: &Arc<World>, seed: u64, long: Duration) {
    const FAULTS_LAST: Duration = Duration::from_secs(25);
    const PAUSE: Duration = Duration::from_secs(4);
    let mut random = Rng::with_seed(seed);
    // First, each kind of fault occurs once: each number selects a different kind in `one`. After that, kinds are
    // random. The first fault must be the one that disturbs the cluster (32). This fault does nothing if a fault before
    // it has stopped the cluster.
    let mut due = [0, 6, 14, 20, 24, 29, 46];
    random.shuffle(&mut due);
    let mut due = due.into_iter().chain([32]).rev();
    let end = Instant::now() + long;
    while Instant::now() < end {
        let pause_at = end.min(Instant::now() + FAULTS_LAST);
        let mut under_way = JoinSet::new();
        while Instant::now() < pause_at {
            let kind = due.next().unwrap_or_else(|| random.u8(..100));
            let (world, fault) = (Arc::clone(world), random.fork());
            under_way.spawn(async move { one(&world, kind, fault).await.map_err(|error| error.to_string()) });
            sleep(between(&mut random, 50, 900)).await;
        }
        while let Some(fault) = under_way.join_next().await {
            let error = match fault {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error,
                Err(panicked) => panicked.to_string(),
            };
            world.tally.failed.fetch_add(1, Ordering::Relaxed);
            world.add_problems([format!("a fault could not be caused: {error}")]);
        }
        sleep(PAUSE).await;
    }
}

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

fn between(random: &mut Rng, from: u64, to: u64) -> Duration {
    Duration::from_millis(random.u64(from..=to))
}

/// Returns a random slot that has no fault. Each fault keeps the slot of its target locked.
fn free<'s, T>(slots: &'s [Slot<T>], random: &mut Rng) -> Option<MutexGuard<'s, T>> {
    let (before, behind) = slots.split_at(random.usize(..slots.len()));
    behind.iter().chain(before).find_map(|slot| slot.try_lock().ok())
}

/// Causes one fault and returns after its end. Does nothing if each possible target already has a fault.
async fn one(world: &World, kind: u8, mut random: Rng) -> Outcome {
    match kind {
        0..6 => kill_client(world, &mut random).await,
        6..14 => freeze_client(world, &mut random, "client stopped for less than a lease", (100, 1_500)).await,
        14..20 => {
            freeze_client(
                world,
                &mut random,
                "client stopped for longer than a lease",
                (3_500, 7_000),
            )
            .await
        }
        20..24 => kill_server(world, &mut random).await,
        24..29 => freeze_server(world, &mut random, "server stopped for less than a lease", (100, 1_500)).await,
        29..32 => {
            freeze_server(
                world,
                &mut random,
                "server stopped for longer than a lease",
                (3_500, 6_000),
            )
            .await
        }
        32..46 => disturb_cluster(world, &mut random).await,
        _ => disturb_network(world, &mut random).await,
    }
}

fn sendable(error: Box<dyn Error>) -> Box<dyn Error + Send + Sync> {
    error.to_string().into()
}

async fn kill_client(world: &World, random: &mut Rng) -> Outcome {
    let Some(mut slot) = free(&world.clients, random) else {
        return Ok(());
    };
    world.kill_client(&mut slot).map_err(sendable)?;
    world.tally.count("client killed");
    sleep(between(random, 0, 1_500)).await;
    world.start_client(&mut slot).map_err(sendable)
}

async fn freeze_client(world: &World, random: &mut Rng, what: &'static str, (from, to): (u64, u64)) -> Outcome {
    let Some(slot) = free(&world.clients, random) else {
        return Ok(());
    };
    let itself = Process {
        process: slot.name.as_str().into(),
    };
    slot.process.freeze()?;
    // The record must not show a longer freeze than the real one, because the judge excuses violations in a freeze.
    world.record.note(What::ProcessFrozen(itself.clone()));
    world.tally.count(what);
    sleep(between(random, from, to)).await;
    world.record.note(What::ProcessThawed(itself));
    slot.process.thaw();
    Ok(())
}

/// Kills a standalone server. Starts a new one without its state on the same port, at once or later.
async fn kill_server(world: &World, random: &mut Rng) -> Outcome {
    let Some(mut slot) = free(&world.servers, random) else {
        return Ok(());
    };
    let (what, pause) = match random.bool() {
        true => ("server killed and started again at once", Duration::ZERO),
        false => ("server killed and started again later", between(random, 300, 4_000)),
    };
    let _fault = FaultUnderWay::begins(world, what);
    world.add_problems(slot.kill(&world.record).map_err(sendable)?);
    world.tally.count(what);
    sleep(pause).await;
    slot.start_again(&world.record).map_err(sendable)
}

async fn freeze_server(world: &World, random: &mut Rng, what: &'static str, (from, to): (u64, u64)) -> Outcome {
    let number = random.usize(..=world.servers.len());
    let long = between(random, from, to);
    let cluster = (number == world.servers.len()).then(|| world.cluster.try_lock().ok());
    match cluster.flatten() {
        Some(cluster) => stand_still(world, &cluster.process, what, long).await,
        None => match free(&world.servers, random) {
            Some(slot) => stand_still(world, &slot.process, what, long).await,
            None => Ok(()),
        },
    }
}

async fn stand_still(world: &World, process: &child::Process, what: &'static str, long: Duration) -> Outcome {
    let _fault = FaultUnderWay::begins(world, what);
    process.freeze()?;
    world.tally.count(what);
    sleep(long).await;
    process.thaw();
    Ok(())
}

async fn disturb_cluster(world: &World, random: &mut Rng) -> Outcome {
    let Ok(mut cluster) = world.cluster.try_lock() else {
        return Ok(());
    };
    let leader = cluster.leader;
    let next = (leader + 1 + random.usize(..MEMBERS - 1)) % MEMBERS;
    let (what, first, pause, then): (_, _, _, &[Order]) = match random.u8(..6) {
        0 => ("leadership moves", Order::Lead(next), 1, &[]),
        1 => (
            "leadership moves with a request under way",
            Order::MoveLeaderInFlight(next),
            1,
            &[],
        ),
        2 => ("no leader for a while", Order::Depose, 2_000, &[Order::Lead(next)]),
        3 => (
            "leader stopped, another leads later",
            Order::Stop(leader),
            1_500,
            &[Order::Lead(next), Order::Start(leader)],
        ),
        4 => (
            "leader in a minority",
            Order::Isolate(leader),
            2_500,
            &[Order::Lead(next), Order::Rejoin(leader)],
        ),
        _ => ("follower stopped", Order::Stop(next), 2_000, &[Order::Start(next)]),
    };
    let _fault = FaultUnderWay::begins(world, what);
    let moves = matches!(first, Order::Lead(_) | Order::MoveLeaderInFlight(_))
        || then.iter().any(|order| matches!(order, Order::Lead(_)));
    if moves {
        cluster.leader = next;
    }
    cluster.process.write_line(&first).map_err(sendable)?;
    world.tally.count(what);
    sleep(between(random, pause / 10, pause)).await;
    for order in then {
        cluster.process.write_line(order).map_err(sendable)?;
        sleep(between(random, 0, 300)).await;
    }
    Ok(())
}

/// Disturbs the connections between one client and one server, between one client and all servers, or between all
/// clients and one server.
async fn disturb_network(world: &World, random: &mut Rng) -> Outcome {
    let network = &world.network;
    let (client, server) = (random.usize(..network.clients()), random.usize(..network.each()));
    // Sometimes the fault affects all members of the cluster. If it affects only one member, a client can use another
    // member.
    let members = SINGLES..SINGLES + MEMBERS;
    let servers: Vec<usize> = match members.contains(&server) && random.bool() {
        true => members.collect(),
        false => vec![server],
    };
    let ways: Vec<(usize, usize)> = match random.u8(..4) {
        0 => (0..network.each()).map(|server| (client, server)).collect(),
        1 => (0..network.clients())
            .flat_map(|client| servers.iter().map(move |server| (client, *server)))
            .collect(),
        _ => servers.iter().map(|server| (client, *server)).collect(),
    };
    let (what, bad, cuts) = network_fault(random);
    let long = between(random, 100, 4_000);
    let _fault = FaultUnderWay::begins(world, what);
    for (client, server) in &ways {
        let way = network.way(*client, *server);
        way.change(|treatment| bad(treatment));
        if cuts {
            way.cut();
        }
    }
    world.tally.count(what);
    sleep(long).await;
    for (client, server) in &ways {
        network.way(*client, *server).pass_everything();
    }
    Ok(())
}

type Change = Box<dyn Fn(&mut Treatment) + Send + Sync>;

/// Chooses a random network fault. Returns its name, how it changes the settings of a proxy, and whether it ends the
/// open connections at once.
fn network_fault(random: &mut Rng) -> (&'static str, Change, bool) {
    let boxed = |change: fn(&mut Treatment)| -> Change { Box::new(change) };
    match random.u8(..15) {
        0 => ("network: connections cut", boxed(|_| {}), true),
        1 => (
            "network: connections reset",
            boxed(|treatment| treatment.reset = true),
            true,
        ),
        2 => (
            "network: connections cut, new ones refused",
            boxed(|treatment| treatment.refuse = true),
            true,
        ),
        3 | 4 => (
            "network: black hole both ways",
            boxed(|treatment| {
                treatment.stall_up = true;
                treatment.stall_down = true;
                treatment.stall_ends = true;
            }),
            false,
        ),
        5 => (
            "network: black hole to the server",
            boxed(|treatment| treatment.stall_up = true),
            false,
        ),
        6 => (
            "network: black hole to the client",
            boxed(|treatment| treatment.stall_down = true),
            false,
        ),
        7 => {
            let delay = between(random, 5, 700);
            (
                "network: delay",
                Box::new(move |treatment| treatment.delay = delay),
                false,
            )
        }
        8 => {
            let bandwidth = random.usize(200..20_000);
            let slow: Change = Box::new(move |treatment| treatment.bandwidth = Some(bandwidth));
            ("network: little bandwidth", slow, false)
        }
        9 => (
            "network: single bytes",
            boxed(|treatment| treatment.trickle = true),
            false,
        ),
        10 => ("network: cut before a request", at_line(Way::Up, Cut::Before), false),
        11 => ("network: cut in a request", at_line(Way::Up, Cut::Within), false),
        12 => (
            "network: cut after a line of a request",
            at_line(Way::Up, Cut::After),
            false,
        ),
        13 => match random.bool() {
            true => ("network: cut before an answer", at_line(Way::Down, Cut::Before), false),
            false => ("network: cut in an answer", at_line(Way::Down, Cut::Within), false),
        },
        _ => ("network: cut after an answer", at_line(Way::Down, Cut::After), false),
    }
}

fn at_line(way: Way, cut: Cut) -> Change {
    Box::new(move |treatment| treatment.cut_at_line = Some((way, cut)))
}
