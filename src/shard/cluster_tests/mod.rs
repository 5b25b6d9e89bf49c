//! Tests of a cluster's shard, step by step: its reactions to the members' answers.

use super::acquire::Patience;
use super::bench::{Bench, SECOND, ask, grant};
use super::held::{Acquired, HeldLease};
use super::rules::RequestKind;
use super::*;
use crate::error::{ErrorKind, Result};
use crate::lease::policy::RenewTerms;
use crate::lease::release::{ReleaseAnswer, ReleaseReply};
use crate::lease::state::{LeaseState, LostReason};
use crate::net::connect::Purpose;
use crate::protocol::{Request, Response, Status};
use crate::types::{Grant, Limit, Target};

mod doubts;
mod leaders;
mod names;
mod positions;
mod several;
mod shutdowns;
mod tickets;
mod tries;

type Caller = tokio::sync::oneshot::Receiver<Result<Acquired>>;

fn lease(caller: &mut Caller) -> HeldLease {
    match caller.try_recv() {
        Ok(Ok(Acquired::Lease(lease))) => lease,
        Ok(Ok(_)) => panic!("the key is held"),
        Ok(Err(error)) => panic!("{error}"),
        Err(error) => panic!("{error}"),
    }
}

fn state(bench: &Bench, lease: &HeldLease) -> LeaseState {
    lease.cell.state_at(bench.now.into())
}

fn is_lost(bench: &Bench, lease: &HeldLease, why: LostReason) -> bool {
    state(bench, lease) == LeaseState::Lost(why)
}

fn is_busy(caller: &mut Caller) -> bool {
    matches!(caller.try_recv(), Ok(Ok(Acquired::Busy(_))))
}

fn is_waiting(caller: &mut Caller) -> bool {
    matches!(caller.try_recv(), Err(tokio::sync::oneshot::error::TryRecvError::Empty))
}

fn failed(caller: &mut Caller) -> ErrorKind {
    match caller.try_recv() {
        Ok(Err(error)) => error.kind(),
        _ => panic!("the caller gets no error"),
    }
}

/// Adds a caller that waits for up to a minute.
fn asks_to_wait(bench: &mut Bench, name: &str) -> Caller {
    let until = bench.now + 60 * SECOND;
    let refusal = progress::Refusal { at: bench.now, own: 0 };
    bench.acquire(name, Patience::Until(until, refusal))
}

/// Starts a wait on the server. Returns the connection and the caller.
fn waits(bench: &mut Bench, name: &str) -> (LaneId, Caller) {
    let caller = asks_to_wait(bench, name);
    (bench.opens(), caller)
}

/// Takes a ticket's queue position on a connection, with a caller that waits there.
fn collects(bench: &mut Bench, after: Duration) -> (LaneId, Caller) {
    let mut queued = bench.acquire("k", Patience::Enqueue);
    let lane = bench.opens();
    bench.answer_to(lane, RequestKind::Enqueue, Response::Queued);
    let Ok(Ok(Acquired::Queued(ticket))) = queued.try_recv() else {
        panic!("the caller gets no ticket")
    };
    bench.pass(after);
    let (ask, caller) = ask();
    bench.handle(Input::Collect(ticket.id(), bench.now + 60 * SECOND, ask));
    std::mem::forget(ticket);
    (lane, caller)
}

/// After a pause, brings up the connection over which a wait continues or is given up.
fn goes_on(bench: &mut Bench) -> LaneId {
    bench.pass(2 * SECOND);
    bench.opens()
}

/// Answers the last renewal of this kind, which must ask for a TTL of `secs`.
fn answers_with_ttl(bench: &mut Bench, kind: RequestKind, secs: u64, response: Response) {
    let pipelined = bench.pipelined();
    let request = bench.sent_on(pipelined, kind);
    match request.request {
        Request::Renew { ttl: Some(ttl), .. } => assert_eq!(ttl.as_secs(), secs),
        _ => panic!("the request is not a renewal with a TTL"),
    }
    bench.answer(pipelined, request, response);
}

/// Answers the last renewal of a lease.
fn renewed(bench: &mut Bench) {
    bench.answer_to(bench.pipelined(), RequestKind::Renew, Response::Renewed(Some(10)));
}

/// Answers the last confirmation of a grant.
fn confirmed(bench: &mut Bench) {
    bench.answer_to(bench.pipelined(), RequestKind::Confirm, Response::Renewed(Some(10)));
}

/// Brings up the connection that was opened last. Returns it with the name that it presents.
fn reopened(bench: &mut Bench) -> (LaneId, String) {
    let (lane, opening) = bench.opened.pop().expect("a connection is opened");
    let name = match opening.purpose {
        Purpose::Session(name) => name.expose().to_owned(),
        other => panic!("{other:?}"),
    };
    bench.up(lane);
    (lane, name)
}

fn name_of(bench: &Bench, pipelined: LaneId) -> String {
    let connection = bench.shard.connections.get(pipelined).unwrap();
    connection.name.clone().unwrap().expose().to_owned()
}

fn tries(bench: &mut Bench) -> Caller {
    bench.acquire("k", Patience::Try)
}

/// Sends a try whose connection breaks before the answer, and finds the next leader. Returns the connection that sends
/// the try again.
fn lost_try(bench: &mut Bench) -> (LaneId, Caller) {
    let (lane, [caller]) = lost_tries(bench);
    (lane, caller)
}

/// Sends several tries on one connection, as `lost_try` does with one.
fn lost_tries<const COUNT: usize>(bench: &mut Bench) -> (LaneId, [Caller; COUNT]) {
    let callers = [(); COUNT].map(|()| tries(bench));
    let before = bench.pipelined();
    let name = name_of(bench, before);
    let mut lost = [(); COUNT].map(|()| bench.sent_on(before, RequestKind::Try));
    lost.reverse();
    bench.cut_with(before, lost.into());
    bench.leader_is_found();
    let after = name_of(bench, bench.pipelined());
    let (lane, presented) = reopened(bench);
    assert_eq!(
        presented, name,
        "the tries are repeated under the name of their connection"
    );
    assert_ne!(after, name);
    (lane, callers)
}
