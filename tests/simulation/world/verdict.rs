//! Judges the history of a world.

use std::time::Duration;

use super::history::History;
use super::history::bounds::{Bounds, nanoseconds};
use super::history::record::Line;
use super::history::verdict::Verdict;
use super::plan::Plan;

/// Returns the bounds of a world. They follow from the plan, because nothing else delays events in a world.
fn bounds(plan: &Plan) -> Bounds {
    // After this time without an answer, a client closes a connection.
    let silence = plan
        .clients
        .iter()
        .map(|client| client.keepalive + client.reply_timeout)
        .max();
    let slices = Duration::from_nanos(20 * plan.slice);
    // If leases outlive their connections, a client reports a lease as held until its deadline, even if the server is
    // gone. The bound is longer than any lease.
    let unnoticed = match plan.survives_disconnect() {
        true => Duration::from_secs(60),
        false => silence.unwrap_or_default() + Duration::from_secs(1),
    };
    // If a queue position outlives its client, the server grants the key to this position for one TTL. The longest TTL
    // is 33 s. The bound adds a margin.
    let unowned = match plan.positions_may_outlive_clients() {
        true => Duration::from_secs(36),
        false => Duration::from_secs(2),
    };
    Bounds {
        scheduling: nanoseconds(slices),
        unnoticed: nanoseconds(unnoticed),
        silence: nanoseconds(plan.signal_silence() + Duration::from_secs(1)),
        unowned: nanoseconds(unowned),
        // A renewal may be delayed on its connection while the release uses another one.
        transit: nanoseconds(Duration::from_secs(1)) + plan.delays(),
        // A slow subscriber pauses between events, so it may report a gap late.
        delivery: nanoseconds(Duration::from_secs(8)),
    }
}

pub fn judge(plan: &Plan, lines: Vec<Line>) -> Verdict {
    History::default().with(lines).judge(&bounds(plan))
}
