//! Tests of several pipelined connections: which of them renews a lease, and what happens when one ends.

use super::*;

fn two(settings: &mut Settings) {
    settings.pipelined = 2;
}

/// Acquires a lease of this key. Returns the connection and the lease.
fn acquired(bench: &mut Bench, name: &str) -> (LaneId, HeldLease) {
    let mut caller = bench.acquire(name, Patience::Try);
    let (lane, request) = bench.sent(RequestKind::Try);
    bench.answer(lane, request, Response::Granted(grant(1)));
    (lane, lease(&mut caller))
}

#[test]
fn the_connection_that_owns_a_lease_renews_it_even_if_it_is_busy() {
    for mut bench in [Bench::connected(two), Bench::cluster(two)] {
        let second = bench.opens();
        let (owner, lease) = acquired(&mut bench, "k");
        let callers: Vec<Caller> = (0..20)
            .map(|number| bench.acquire(&format!("x{number}"), Patience::Try))
            .collect();
        // The other connection has no unanswered requests.
        let (under_way, idle): (Vec<_>, Vec<_>) = std::mem::take(&mut bench.sent)
            .into_iter()
            .partition(|(lane, _)| *lane == owner);
        assert!(under_way.len() > 1 && idle.len() > 1);
        for (lane, request) in idle {
            bench.answer(lane, request, Response::TimedOut);
        }
        bench.pass(6 * SECOND);
        let (lane, request) = bench.sent(RequestKind::Renew);
        assert_eq!(lane, owner);
        bench.answer(lane, request, Response::Renewed(Some(10)));
        assert_eq!(state(&bench, &lease), LeaseState::Held);
        assert!(owner == second || bench.shard.connections.in_slots().contains(&owner));
        drop(callers);
    }
}

#[test]
fn a_lease_is_lost_with_the_connection_that_may_have_renewed_it() {
    let mut bench = Bench::cluster(two);
    bench.opens();
    let (exclusive, mut caller) = waits(&mut bench, "k");
    bench.answer_to(exclusive, RequestKind::Wait, Response::Granted(grant(1)));
    let lease = lease(&mut caller);
    bench.pass(6 * SECOND);
    let (renewing, request) = bench.sent(RequestKind::Renew);
    assert_ne!(renewing, exclusive);
    bench.cut_with(renewing, vec![request]);
    assert!(
        bench.shard.connections.is_serving(),
        "the other pipelined connection is up"
    );
    assert!(is_lost(&bench, &lease, LostReason::Disconnected));
}
