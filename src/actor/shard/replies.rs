//! What the answers of a server mean for the shard: who is told, and what is held from then on.

use tokio::time::Instant;

use super::Shard;
use crate::actor::message::{Acquire, Acquired, Lease, Pending, Releasing};
use crate::actor::progress::Refusal;
use crate::clock::after;
use crate::error::{Error, ErrorKind, Result};
use crate::lease::registry::LaneId;
use crate::lease::schedule::Schedule;
use crate::net::pipeline::Reply;
use crate::protocol::{Call, Request, Response, Status};
use crate::types::{Grant, Key, Kind, WaitSecs};

impl Shard {
    /// What to send for it; nothing if there is nothing left to do.
    pub(super) fn request(&self, pending: &Pending) -> Option<Request> {
        Some(match pending {
            Pending::Try(acquire) => acquire_request(acquire, WaitSecs::TRY),
            Pending::Wait(acquire, until) => {
                let left = until.saturating_duration_since(Instant::now());
                acquire_request(acquire, WaitSecs::covering(left))
            }
            Pending::Enqueue(acquire) => Request::Enqueue {
                target: acquire.target,
                key: acquire.key.clone(),
                ttl: acquire.ttl,
            },
            Pending::Collect { acquire, until, .. } => {
                let left = until.saturating_duration_since(Instant::now());
                Request::Wait {
                    kind: acquire.target.kind(),
                    key: acquire.key.clone(),
                    wait: WaitSecs::covering(left),
                }
            }
            Pending::Rejoin(ticket, _) => self.tickets.request(*ticket)?,
            Pending::GiveUp(target, key, _) => Request::Wait {
                kind: target.kind(),
                key: key.clone(),
                wait: WaitSecs::TRY,
            },
            Pending::Settle(kind, key) => Request::Wait {
                kind: *kind,
                key: key.clone(),
                wait: WaitSecs::TRY,
            },
            Pending::Confirm { acquire, grant, .. } => Request::Renew {
                kind: acquire.target.kind(),
                key: acquire.key.clone(),
                token: grant.token,
                ttl: Some(grant.ttl),
            },
            Pending::Renew(renewal) => {
                let cell = self.registry.claim(renewal.id)?.cell;
                Request::Renew {
                    kind: cell.kind,
                    key: cell.key.clone(),
                    token: cell.token,
                    // Never left out: the server would set its own default.
                    ttl: Some(cell.ttl),
                }
            }
            Pending::Release(releasing) => Request::Release {
                kind: releasing.kind,
                key: releasing.key.clone(),
                token: releasing.token,
            },
            Pending::Stats(_) => Request::Stats,
            Pending::Barrier(..) => Request::Barrier,
        })
    }

    /// An answer came over the connection `from`.
    pub(super) fn reply(&mut self, from: LaneId, reply: Reply<Pending>) {
        let Reply { tag, response, sent_at } = reply;
        match &response {
            Response::Refused(Status::Draining) => {
                if let Some(lane) = self.lanes.get_mut(from) {
                    lane.draining = true;
                }
            }
            Response::Refused(Status::NotLeader(leader)) => {
                self.metrics.redirected();
                if self.failover.is_cluster() {
                    return self.not_led_here(from, tag, leader.as_deref());
                }
            }
            // Its member led, did not for a while, and does so again: it knows the place by the session only.
            Response::Refused(Status::NotEnqueued)
                if matches!(tag, Pending::Collect { .. } | Pending::GiveUp(..)) && self.is_in_a_session(from) =>
            {
                let error = Status::NotEnqueued.to_error("");
                return self.wait_anew(from, tag, self.at_lane(from, error));
            }
            _ => {}
        }
        match tag {
            Pending::Try(acquire) => match response {
                Response::TimedOut => self.is_held(acquire),
                other => self.acquire_answered(acquire, other, sent_at, from),
            },
            Pending::Wait(acquire, _) => {
                self.wait_ended(from);
                match response {
                    Response::TimedOut => self.is_held(acquire),
                    other => self.acquire_answered(acquire, other, sent_at, from),
                }
            }
            Pending::Enqueue(acquire) => self.enqueue_answered(acquire, response, sent_at, from),
            Pending::Collect {
                acquire, enqueued_at, ..
            } => {
                self.wait_ended(from);
                match response {
                    Response::TimedOut => self.is_held(acquire),
                    other => self.acquire_answered(acquire, other, enqueued_at, from),
                }
            }
            Pending::Rejoin(ticket, _) => self.rejoin_answered(ticket, &response, from),
            Pending::GiveUp(target, key, _) => {
                self.wait_ended(from);
                if let Response::Granted(grant) = response {
                    self.own(from);
                    self.give_back_grant(target.kind(), key, grant, from);
                }
            }
            Pending::Settle(..) => self.wait_ended(from),
            Pending::Confirm { acquire, grant, owner } if self.is_of_the_other(from) => {
                self.granted_by_the_other(acquire, *grant, owner, from);
            }
            Pending::Confirm { acquire, grant, owner } => {
                // Whoever renews a lease of a cluster owns it.
                let owner = self.owned_by_now(owner, from, &response);
                self.confirm_answered(acquire, *grant, owner, response, sent_at);
            }
            Pending::Renew(renewal) => self.renewal_answered(&renewal, &response, sent_at, from),
            Pending::Release(releasing) => self.release_answered(releasing, &response),
            Pending::Stats(ask) => {
                let outcome = Call::stats().finish(response);
                ask.tell(outcome.map_err(|error| self.at_lane(from, error)));
            }
            Pending::Barrier(ask, _) => {
                let outcome = Call::barrier().finish(response);
                ask.tell(outcome.map_err(|error| self.at_lane(from, error)));
            }
        }
    }

    /// The server says that a key is held.
    fn is_held(&mut self, acquire: Acquire) {
        let kind = acquire.target.kind();
        let refusal = self.refusal_of(kind, &acquire.key);
        self.waits.refused(&(kind, acquire.key), refusal.at);
        acquire.ask.tell(Ok(Acquired::Busy(refusal)));
    }

    /// What the server has just said of a key, and what is known here.
    pub(super) fn refusal_of(&self, kind: Kind, key: &Key) -> Refusal {
        Refusal {
            at: Instant::now(),
            own: self.registry.own(kind, key),
        }
    }

    pub(super) fn acquire_answered(&mut self, acquire: Acquire, response: Response, sent_at: Instant, from: LaneId) {
        match response {
            Response::Granted(grant) => self.granted(acquire, grant, sent_at, from),
            other => {
                let error = self.refused(&acquire, &other);
                acquire.ask.tell(Err(error));
            }
        }
    }

    /// The server has granted it. Its caller gets it, unless too much of the lease may be over already.
    pub(super) fn granted(&mut self, acquire: Acquire, grant: Grant, sent_at: Instant, owner: LaneId) {
        self.own(owner);
        if acquire.ask.is_gone() || self.is_closing() {
            self.give_back_orphan(&acquire, grant, owner);
            acquire
                .ask
                .tell(Err(Error::new(ErrorKind::Shutdown, "the client is shut down")));
        } else if self.is_of_the_other(owner) {
            self.granted_by_the_other(acquire, grant, owner, owner);
        } else if acquire.session.is_none() && Schedule::is_fresh(sent_at, grant.ttl, Instant::now()) {
            self.hand_out(acquire, grant, sent_at, owner);
        } else {
            // In a session it may have been granted long before it was asked for this time.
            self.submit(confirm(acquire, grant, owner));
        }
    }

    fn confirm_answered(
        &mut self,
        acquire: Acquire,
        grant: Grant,
        owner: LaneId,
        response: Response,
        sent_at: Instant,
    ) {
        match response {
            Response::Renewed(_) if Schedule::is_fresh(sent_at, grant.ttl, Instant::now()) => {
                self.hand_out(acquire, grant, sent_at, owner);
            }
            // The answer took so long that the same question stands again.
            Response::Renewed(_) => self.submit(confirm(acquire, grant, owner)),
            Response::Refused(Status::Error) => {
                self.disown(owner);
                let error = Status::LeaseExpired.to_error(acquire.key.as_str());
                acquire.ask.tell(Err(self.here(error)));
            }
            other => {
                self.give_back_orphan(&acquire, grant, owner);
                let error = self.refused(&acquire, &other);
                acquire.ask.tell(Err(error));
            }
        }
    }

    /// Takes up the lease and gives it to its caller. If the caller has gone meanwhile, the lease is dropped right
    /// here, or with the answer that nobody reads, and so comes back as a release.
    fn hand_out(&mut self, acquire: Acquire, grant: Grant, sent_at: Instant, owner: LaneId) {
        let kind = acquire.target.kind();
        if self.guard.saw(grant.ttl.as_duration()) {
            self.bequeath();
        }
        let (id, cell) = self
            .registry
            .insert(acquire.key, kind, grant, sent_at, owner, acquire.policy);
        let lease = Lease::new(cell, id, self.myself.clone());
        acquire.ask.tell(Ok(Acquired::Lease(lease)));
        if self.failover.is_cluster() && owner != self.main {
            self.adopt(id);
        }
    }

    /// Gives back what was granted to nobody.
    pub(super) fn give_back_orphan(&mut self, acquire: &Acquire, grant: Grant, owner: LaneId) {
        self.give_back_grant(acquire.target.kind(), acquire.key.clone(), grant, owner);
    }

    fn give_back_grant(&mut self, kind: Kind, key: Key, grant: Grant, owner: LaneId) {
        tracing::debug!(shard = self.index, %key, token = %grant.token, "granted, but nobody waits for it any more: given back");
        self.registry.orphaned(kind);
        self.owe(Releasing {
            kind,
            key,
            token: grant.token,
            id: None,
            owner,
            until: after(Instant::now(), grant.ttl.as_duration()),
            repeated: true,
            told: None,
        });
    }

    fn release_answered(&mut self, releasing: Releasing, response: &Response) {
        let outcome: Result<()> = match response {
            Response::Done => Ok(()),
            // It was sent before, and the answer was lost: it arrived.
            Response::Refused(Status::Error) if releasing.repeated => Ok(()),
            Response::Refused(Status::Error) => Err(Error::new(
                ErrorKind::NotHeld,
                format!("{:?} was not held any more when it was released", releasing.key),
            )),
            Response::Refused(status) => Err(status.to_error(releasing.key.as_str())),
            other => Err(Error::new(
                ErrorKind::Protocol,
                format!("{other:?} is no answer to a release"),
            )),
        };
        let outcome = outcome.map_err(|error| self.here(error));
        self.settle_release(releasing, outcome);
    }

    fn refused(&self, acquire: &Acquire, response: &Response) -> Error {
        self.here(match response {
            Response::Refused(status) => status.to_error(acquire.key.as_str()),
            other => Error::new(ErrorKind::Protocol, format!("{other:?} is no answer to an acquire")),
        })
    }

    pub(super) fn here(&self, error: Error) -> Error {
        error.at(self.endpoint().as_text())
    }
}

fn acquire_request(acquire: &Acquire, wait: WaitSecs) -> Request {
    Request::Acquire {
        target: acquire.target,
        key: acquire.key.clone(),
        wait,
        ttl: acquire.ttl,
    }
}

fn confirm(acquire: Acquire, grant: Grant, owner: LaneId) -> Pending {
    let grant = Box::new(grant);
    Pending::Confirm { acquire, grant, owner }
}
