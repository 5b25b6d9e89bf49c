//! Sends new requests, keeps them until there is a connection, or refuses them.

use super::ShardMachine;
use super::acquire::{Acquire, Patience};
use super::connections::{Work, request_key};
use super::effect::{AcquireOutcome, Turn};
use super::progress::Refusal;
use super::request::{Pending, Wait};
use super::rules::Carrier;
use crate::ending::shut_down;
use crate::error::Error;
use crate::protocol::Request;
use crate::types::WaitSecs;

impl ShardMachine {
    pub(super) fn acquire(&mut self, mut acquire: Box<Acquire>, patience: Patience, turn: &mut Turn<'_>) {
        acquire.set_patience(patience);
        if let Some(ttl) = acquire.ttl {
            let handover = self.serving.note_ttl(ttl.as_duration());
            self.hand_over(handover, turn);
        }
        match patience {
            Patience::Try => self.submit(Pending::Try(acquire), turn),
            Patience::TryThenWait => {
                let key = acquire.wait_key();
                // A server's answer that the key is held also counts for this caller: either the answer is recent, or
                // callers of this client wait here, and this one must not overtake them.
                match self.waits.refused_at(&key, turn.now) {
                    Some(at) => {
                        let own = self.leases.own(key.0.kind(), &key.1);
                        turn.tell(acquire.ask, Ok(AcquireOutcome::Busy(Refusal { at, own })));
                    }
                    None => self.submit(Pending::Try(acquire), turn),
                }
            }
            Patience::Until(until, refusal) => {
                let key = acquire.wait_key();
                self.wait(Wait::Caller(acquire, until), turn);
                self.waits.refused(&key, refusal.at);
            }
            Patience::Enqueue => self.wait(Wait::Ticket(acquire), turn),
        }
    }

    /// Adds a wait, or refuses it while the shard refuses requests.
    pub(super) fn wait(&mut self, wait: Wait, turn: &mut Turn<'_>) {
        match self.refusal() {
            Some(error) => self.refuse_wait(wait, error, turn),
            None => self.queue(wait, None, turn.now),
        }
    }

    /// Sends a request as soon as possible, or refuses it while the shard refuses requests.
    pub(super) fn submit(&mut self, pending: Pending, turn: &mut Turn<'_>) {
        if let Some(error) = self.refusal() {
            return self.refuse(pending, error, turn);
        }
        self.send(pending, turn);
    }

    /// Returns the error with which the shard refuses requests now, or `None` if it accepts them.
    pub(super) fn refusal(&self) -> Option<Error> {
        match self.is_closing() {
            true => Some(shut_down()),
            false => self.serving.reconnect.refusal(),
        }
    }

    /// Refuses a request without sending it. The caller gets the error. A grant whose confirmation is refused is
    /// released. A refused renewal stays due.
    pub(super) fn refuse(&mut self, pending: Pending, error: Error, turn: &mut Turn<'_>) {
        match pending {
            Pending::Try(acquire) => turn.tell(acquire.ask, Err(error)),
            // Its callers get the error separately.
            Pending::Probe(probe) => self.probe_unanswered(&probe.key, turn.now),
            Pending::Repeat(repeat) => self.not_found(*repeat, error, turn),
            Pending::Wait(wait) => self.refuse_wait(Wait::Resume(wait), error, turn),
            Pending::Enqueue(acquire) => self.refuse_wait(Wait::Ticket(acquire), error, turn),
            Pending::Rejoin(ticket, session) => self.refuse_wait(Wait::Rejoin(ticket, session), error, turn),
            Pending::Collect(ticket, _) => self.ticket_refused(ticket, error, turn),
            // The queue position was lost with its connection.
            Pending::GiveUp(..) | Pending::Settle(..) => {}
            Pending::Look => {}
            Pending::Ask(question) => turn.answer(question, Err(error), self.endpoint()),
            Pending::Confirm { acquire, grant, owner } => {
                self.give_back_orphan(&acquire, *grant, owner, turn);
                turn.tell(acquire.ask, Err(error));
            }
            Pending::Renew(renewal) => self.renewal_unanswered(&renewal),
            Pending::Release(release) => self.releases.keep(release),
        }
    }

    /// Sends a request over the connection that carries its kind, or keeps it until there is one.
    pub(super) fn send(&mut self, pending: Pending, turn: &mut Turn<'_>) {
        if pending.rules().carrier == Carrier::Disposable {
            return self.send_disposable(pending, turn);
        }
        let Some(request) = self.request(&pending, turn) else {
            return;
        };
        let lane = request_key(&request).and_then(|key| match &pending {
            Pending::Renew(renewal) => {
                let owner = self.leases.claim(renewal.id).map(|claim| claim.owner);
                self.connections.renewing(key, owner)
            }
            _ => self.connections.serving(key),
        });
        let unsent = match lane {
            Some(lane) => self.connections.send(lane, request, pending, turn),
            None => Some(pending),
        };
        if let Some(pending) = unsent {
            self.keep(pending, turn);
        }
    }

    /// Handles a request that has no connection. A release is kept until there is one. A renewal stays due, a try for
    /// waiting callers counts as unanswered, and a [`Pending::Look`] is dropped. All other requests are kept until
    /// there is a connection, or refused while the shard refuses requests.
    fn keep(&mut self, pending: Pending, turn: &mut Turn<'_>) {
        match pending {
            Pending::Renew(renewal) => self.renewal_unanswered(&renewal),
            Pending::Probe(probe) => self.probe_unanswered(&probe.key, turn.now),
            Pending::Release(release) => {
                self.schedule_housekeeping(turn);
                self.releases.keep(release);
            }
            Pending::Look => {}
            other => match self.refusal() {
                Some(error) => self.refuse(other, error, turn),
                None => self.parked.keep(other),
            },
        }
    }

    /// Sends the requests that waited for a pipelined connection, now that one is up.
    pub(super) fn send_parked(&mut self, turn: &mut Turn<'_>) {
        for pending in self.parked.take() {
            self.send(pending, turn);
        }
    }

    /// Refuses the requests that wait for a connection, if the shard refuses requests now.
    pub(super) fn refuse_parked(&mut self, turn: &mut Turn<'_>) {
        let parked = self.parked.take();
        for pending in parked.chain(self.parked.take_disposable()) {
            match self.refusal() {
                Some(error) => self.refuse(pending, error, turn),
                None => self.parked.keep(pending),
            }
        }
    }

    /// Sends a request over the disposable connection, and opens that connection if necessary.
    fn send_disposable(&mut self, pending: Pending, turn: &mut Turn<'_>) {
        let (here, serves) = (self.serving.at(), self.connections.is_serving());
        let lane = self.connections.disposable();
        let connection = lane.and_then(|id| self.connections.get(id));
        match (lane, connection) {
            (Some(_), Some(connection)) if !connection.is_up() => self.parked.keep_disposable(pending),
            (Some(id), Some(connection)) if connection.endpoint == here && !connection.is_retired() => {
                if let Some(mut connection) = self.connections.get_mut(id) {
                    connection.work = Work::Idle(turn.now);
                }
                if let Some(request) = self.request(&pending, turn) {
                    self.connections.send(id, request, pending, turn);
                }
            }
            _ if serves => {
                self.parked.keep_disposable(pending);
                self.open_disposable(turn);
            }
            _ => return self.keep(pending, turn),
        }
        self.schedule_housekeeping(turn);
    }

    /// Sends the requests that waited for the disposable connection, now that it is up.
    pub(super) fn send_parked_disposable(&mut self, turn: &mut Turn<'_>) {
        for pending in self.parked.take_disposable() {
            self.send_disposable(pending, turn);
        }
        self.schedule_housekeeping(turn);
    }

    /// Refuses the requests that waited for the disposable connection, which could not be opened.
    pub(super) fn disposable_failed(&mut self, error: &Error, turn: &mut Turn<'_>) {
        for pending in self.parked.take_disposable() {
            self.refuse(pending, error.clone(), turn);
        }
    }

    /// Whether requests wait for the disposable connection.
    pub(super) fn wants_disposable(&self) -> bool {
        self.parked.wants_disposable()
    }

    /// Builds the wire request. Returns `None` if nothing is left to do.
    pub(super) fn request(&self, pending: &Pending, turn: &Turn<'_>) -> Option<Request> {
        let left = |until: &tokio::time::Instant| WaitSecs::covering(until.saturating_duration_since(turn.now));
        Some(match pending {
            Pending::Try(acquire) => acquire_request(acquire, WaitSecs::TRY),
            Pending::Probe(probe) => Request::Acquire {
                target: probe.key.0,
                key: probe.key.1.clone(),
                wait: WaitSecs::TRY,
                ttl: probe.ttl,
            },
            Pending::Repeat(repeat) => Request::Acquire {
                target: repeat.key.0,
                key: repeat.key.1.clone(),
                wait: WaitSecs::TRY,
                ttl: repeat.ttl,
            },
            Pending::Wait(wait) => Request::Acquire {
                target: wait.target,
                key: wait.key.clone(),
                wait: left(&wait.until),
                ttl: wait.ttl,
            },
            Pending::Enqueue(acquire) => Request::Enqueue {
                target: acquire.target,
                key: acquire.key.clone(),
                ttl: acquire.ttl,
            },
            Pending::Collect(ticket, until) => {
                let (target, key) = self.positions.wait_key(*ticket)?;
                Request::Wait {
                    kind: target.kind(),
                    key,
                    wait: left(until),
                }
            }
            Pending::Rejoin(ticket, _) => self.positions.request(*ticket)?,
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
                let cell = self.leases.claim(renewal.id)?.cell;
                Request::Renew {
                    kind: cell.kind,
                    key: cell.key.clone(),
                    token: cell.token,
                    // Always present: without a TTL, the server would set its own default.
                    ttl: Some(cell.ttl),
                }
            }
            Pending::Release(release) => Request::Release {
                kind: release.target.kind(),
                key: release.key().clone(),
                token: *release.token(),
            },
            Pending::Look => Request::Stats,
            Pending::Ask(question) => question.request.clone(),
        })
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
