//! Judges the history of a world.

use std::time::Duration;

use super::history::History;
use super::history::bounds::{Bounds, nanoseconds};
use super::history::record::Line;
use super::history::verdict::Verdict;
use super::plan::Plan;

/// How late things may come in a world in which nothing is slow but what the plan makes slow.
fn bounds(plan: &Plan) -> Bounds {
    // A connection that is silent for so long is given up, whatever became of it.
    let silence = plan
        .clients
        .iter()
        .map(|client| client.keepalive + client.reply_timeout)
        .max();
    let slices = Duration::from_nanos(20 * plan.slice);
    // Where leases outlive their connections, a client believes in them to their end, whatever became of the server.
    let unnoticed = match plan.survives_disconnect() {
        true => Duration::from_secs(60),
        false => silence.unwrap_or_default() + Duration::from_secs(1),
    };
    // What stays of a client that is gone is granted to it for a lease.
    let unowned = match plan.leaves_ghosts() {
        true => Duration::from_secs(36),
        false => Duration::from_secs(2),
    };
    Bounds {
        scheduling: nanoseconds(slices),
        unnoticed: nanoseconds(unnoticed),
        silence: nanoseconds(plan.signal_silence() + Duration::from_secs(1)),
        unowned: nanoseconds(unowned),
        // A renewal can be held up on its connection while the release goes over another one.
        transit: nanoseconds(Duration::from_secs(1)) + plan.delays(),
        // A slow subscriber takes its time to come to a gap.
        delivery: nanoseconds(Duration::from_secs(8)),
    }
}

pub fn judge(plan: &Plan, lines: Vec<Line>) -> Verdict {
    History::default().with(lines).judge(&bounds(plan))
}
