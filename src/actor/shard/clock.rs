//! What is due, and when.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::Shard;
use crate::actor::message::ShardMessage;
use crate::error::{Error, ErrorKind};

/// Renewals that are due within this time of each other leave together: a little early, never late.
const TOGETHER: Duration = Duration::from_millis(10);

/// How often what is kept is looked through, while there is something.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

impl Shard {
    pub(super) fn tick(&mut self) {
        self.timer = None;
        let now = Instant::now();
        let due = self.registry.tick(now, TOGETHER, self.main_is_up);
        if due.expired > 0 {
            tracing::warn!(shard = self.index, endpoint = %self.endpoint(), leases = due.expired, "leases expired");
        }
        self.renew_all(due.renew);
        self.clean_up(now);
        self.start_waits();
    }

    /// Makes sure that a tick comes when the next thing is due.
    pub(super) fn arm_timer(&mut self) {
        let Some(due) = self.next_due() else { return };
        if self.timer.as_ref().is_some_and(|(armed, _)| *armed <= due) {
            return;
        }
        let shard = self.myself.clone();
        let task = tokio::spawn(async move {
            sleep_until(due).await;
            drop(shard.send_message(ShardMessage::Tick));
        });
        self.timer = Some((due, AbortOnDropHandle::new(task)));
    }

    fn next_due(&self) -> Option<Instant> {
        let reopen = (self.waits.has_ready() && self.main_is_up).then_some(self.exclusive_not_before);
        [
            self.registry.next_due(),
            self.housekeeping_at,
            self.closing.as_ref().map(|closing| closing.until),
            reopen.filter(|when| *when > Instant::now()),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Makes sure that what is kept here is looked through before long.
    pub(super) fn keep_house(&mut self) {
        if self.housekeeping_at.is_none() {
            self.housekeeping_at = Some(Instant::now() + HOUSEKEEPING);
        }
    }

    /// Closes connections that nobody needs, and forgets releases that the server has made needless by itself.
    fn clean_up(&mut self, now: Instant) {
        if self.housekeeping_at.is_none_or(|when| when > now) {
            return;
        }
        self.housekeeping_at = None;
        let idle_left = match now.checked_sub(self.config.idle_lane_timeout) {
            Some(before) => self.lanes.close_idle(before),
            None => true,
        };
        let (over, owed): (Vec<_>, Vec<_>) = std::mem::take(&mut self.owed)
            .into_iter()
            .partition(|releasing| releasing.until <= now);
        self.owed = owed;
        for releasing in over {
            let error = Error::new(
                ErrorKind::Unavailable,
                "the release could not be sent: the lease ended with its TTL",
            );
            self.settle_release(releasing, Err(self.here(error)));
        }
        if idle_left || !self.owed.is_empty() {
            self.keep_house();
        }
    }
}
