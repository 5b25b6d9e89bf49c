//! The end of a shard: everything is given back first.

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Shard;
use super::acquire::Acquire;
use super::connections::Work;
use super::effect::{Effect, Turn};
use super::input::{Shutdown, ShutdownReport};
use super::request::{Pending, Release};
use crate::ending::shut_down;
use crate::lease::cell::LostReason;
use crate::net::health::ConnectionState;
use crate::protocol::StableRef;
use crate::types::{Key, Target};

/// A shard that gives everything back before it ends.
pub(super) struct Closing {
    until: Instant,
    told: Option<oneshot::Sender<ShutdownReport>>,
    report: ShutdownReport,
}

impl Closing {
    pub(super) fn new(shutdown: Shutdown) -> Self {
        Self {
            until: shutdown.until,
            told: shutdown.told,
            report: ShutdownReport::default(),
        }
    }

    /// When it ends even if not everything was given back.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// A release was answered, or could not be sent in time.
    pub(super) fn count(&mut self, key: &Key, released: bool) {
        match released {
            true => self.report.released += 1,
            false => self.report.unreleased.push(key.clone()),
        }
    }

    /// The report, and who is told. `left`: what was not given back.
    pub(super) fn finish(
        mut self,
        left: impl Iterator<Item = Key>,
    ) -> (Option<oneshot::Sender<ShutdownReport>>, ShutdownReport) {
        self.report.unreleased.extend(left);
        (self.told, self.report)
    }
}

impl Shard {
    /// Gives everything back, and ends when that is done, or when its time is over.
    pub(super) fn shut_down(&mut self, shutdown: Shutdown, turn: &mut Turn<'_>) {
        if self.is_closing() {
            return;
        }
        self.closing = Some(Closing::new(shutdown));
        self.set_health(ConnectionState::Closed, turn);
        self.refuse_parked(turn);
        let ids: Vec<_> = self.leases.ids().collect();
        for id in ids {
            if self.leases.lose(id, LostReason::Shutdown, turn.now) {
                if let Some(claim) = self.leases.begin_release(id, turn.now) {
                    self.begin_release(Release::of(&claim, Some(id), false, None, turn.now), turn);
                }
            }
        }
        self.give_up_all_waits(turn);
    }

    /// What waits is told, and what its sessions have at the servers is given up, as far as time allows.
    fn give_up_all_waits(&mut self, turn: &mut Turn<'_>) {
        let mut places: Vec<(Target, Key, StableRef)> = Vec::new();
        let is_cluster = self.serving.is_cluster();
        for connection in self.connections.close_waiting(is_cluster, turn) {
            let key = match connection.work {
                Work::Waiting(key, _) | Work::Ticket(key, ..) => key,
                Work::Opening(key, _, wait) => {
                    self.waits.finished(&key);
                    self.queue(wait);
                    continue;
                }
                Work::Idle(_) => continue,
            };
            self.waits.finished(&key);
            if let (Some(target), Some(session)) = (connection.target, connection.session) {
                places.push((target, key.1, session));
            }
        }
        for wait in self.waits.drain() {
            let (place, ask) = match wait {
                Pending::Wait(acquire, _) | Pending::Enqueue(acquire) => {
                    let Acquire {
                        target,
                        key,
                        session,
                        ask,
                        ..
                    } = acquire;
                    (session.map(|session| (target, key, *session)), Some(ask))
                }
                Pending::Rejoin(id, session) => match self.places.remove(id) {
                    Some(place) => (Some((place.target, place.key.clone(), session)), place.into_caller()),
                    None => (None, None),
                },
                _ => (None, None),
            };
            places.extend(place);
            if let Some(ask) = ask {
                turn.tell(ask, Err(shut_down()));
            }
        }
        self.places.clear();
        for (target, key, session) in places {
            let give_up = self.giving_up(target, key, session, turn.now);
            self.queue(give_up);
        }
        self.start_waits(turn);
    }

    /// Ends the shard if everything is given back, or its time is over.
    pub(super) fn end_if_done(&mut self, turn: &mut Turn<'_>) {
        let done = self.closing.as_ref().is_some_and(|closing| {
            // What is in flight may still bring a grant that has to be given back.
            let gave_back = self.releases.is_done() && self.connections.in_flight_pipelined() == 0;
            let gave_up = !self.serving.is_cluster() || self.waits.queued() + self.waits.running() == 0;
            gave_back && gave_up || closing.until() <= turn.now
        });
        if !done {
            return;
        }
        self.over = true;
        self.connections.close_all(turn);
        if let Some(closing) = self.closing.take() {
            // What was lost before was reported then.
            let (told, report) = closing.finish(self.leases.releasing());
            turn.push(Effect::End(told, report));
        }
    }
}
