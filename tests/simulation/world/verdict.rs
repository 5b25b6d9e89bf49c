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
    Bounds {
        scheduling: nanoseconds(slices),
        unnoticed: nanoseconds(silence.unwrap_or_default() + Duration::from_secs(1)),
        unowned: nanoseconds(Duration::from_secs(10)),
        transit: nanoseconds(Duration::from_secs(1)),
        delivery: nanoseconds(Duration::from_secs(2)),
    }
}

pub fn judge(plan: &Plan, lines: Vec<Line>) -> Verdict {
    History::default().with(lines).judge(&bounds(plan))
}
