//! Requests on their way in: sent, kept until there is a connection, or refused.

use tokio::time::Instant;

use super::Shard;
use crate::actor::message::{Acquire, Acquired, Patience, Pending};
use crate::actor::progress::Refusal;
use crate::actor::shard::unavailable;
use crate::config::OnUnavailable;
use crate::error::{Error, ErrorKind};
use crate::lease::registry::LeaseId;
use crate::net::lane::{Caller, OnAbandon, Outgoing};

/// Fewer parked requests than this are not worth cleaning.
pub(super) const CLEAN_AT_LEAST: usize = 64;

impl Shard {
    pub(super) fn acquire(&mut self, acquire: Acquire, patience: Patience) {
        if let Some(ttl) = acquire.ttl {
            if self.guard.saw(ttl.as_duration()) {
                self.bequeath();
            }
        }
        match patience {
            Patience::Try => self.submit(Pending::Try(acquire)),
            Patience::TryThenWait => {
                let subject = (acquire.target.kind(), acquire.key.clone());
                // A caller here waits for it, and the server has said that it is held: a try would only hear that again.
                match self.waits.refused_at(&subject, Instant::now()) {
                    Some(at) => {
                        let own = self.registry.own(subject.0, &subject.1);
                        acquire.ask.tell(Ok(Acquired::Busy(Refusal { at, own })));
                    }
                    None => self.submit(Pending::Try(acquire)),
                }
            }
            Patience::Until(until, refusal) => {
                let subject = (acquire.target.kind(), acquire.key.clone());
                self.submit(Pending::Wait(acquire, until));
                self.waits.refused(&subject, refusal.at);
            }
            Patience::Enqueue => self.submit(Pending::Enqueue(acquire)),
        }
    }

    /// Sends a request as soon as it can be sent, or refuses it if callers do not want to wait for that.
    pub(super) fn submit(&mut self, pending: Pending) {
        if let Some(error) = self.refusal() {
            return self.refuse(pending, error);
        }
        match pending {
            wait @ (Pending::Wait(..) | Pending::Enqueue(_)) => {
                self.queue(wait);
                self.start_waits();
            }
            pending if self.main_is_up => self.send(pending),
            pending => self.park(pending),
        }
    }

    /// Why requests are refused rather than kept, if they are.
    pub(super) fn refusal(&self) -> Option<Error> {
        if self.closing.is_some() {
            return Some(Error::new(ErrorKind::Shutdown, "the client is shut down"));
        }
        let error = self.last_error.as_ref()?;
        if self.hopeless {
            return Some(error.clone());
        }
        (self.config.on_unavailable == OnUnavailable::FailFast)
            .then(|| unavailable(self.index, self.endpoint().as_text(), error))
    }

    pub(super) fn refuse(&mut self, pending: Pending, error: Error) {
        match pending {
            Pending::Try(acquire) | Pending::Collect { acquire, .. } => acquire.ask.tell(Err(error)),
            wait @ (Pending::Wait(..) | Pending::Enqueue(_) | Pending::Rejoin(..)) => self.refuse_wait(wait, error),
            // The place went with its connection.
            Pending::GiveUp(..) | Pending::Settle(..) => {}
            Pending::Stats(ask) => ask.tell(Err(error)),
            Pending::Barrier(ask, _) => ask.tell(Err(error)),
            Pending::Confirm { acquire, grant, owner } => {
                self.give_back_orphan(&acquire, *grant, owner);
                acquire.ask.tell(Err(error));
            }
            Pending::Renew(renewal) => self.renewal_unanswered(&renewal),
            Pending::Release(releasing) => self.owed.push(releasing),
        }
    }

    fn park(&mut self, pending: Pending) {
        self.parked.push_back(pending);
        if self.parked.len() >= self.clean_parked_at {
            self.parked.retain(|pending| !pending.is_gone());
            self.clean_parked_at = (self.parked.len() * 2).max(CLEAN_AT_LEAST);
        }
    }

    /// Sends a request over the pipelined connection.
    pub(super) fn send(&mut self, pending: Pending) {
        if let Pending::Stats(_) | Pending::Barrier(..) = pending {
            return self.send_aside(pending);
        }
        let Some(request) = self.request(&pending) else { return };
        let refused = match self.lanes.get_mut(self.main) {
            Some(lane) => lane.send(request, pending, OnAbandon::Finish),
            None => Some(pending),
        };
        if let Some(pending) = refused {
            self.unsent(pending);
        }
    }

    /// A request was not sent because its connection is gone: it waits for the next.
    pub(super) fn unsent(&mut self, pending: Pending) {
        match pending {
            Pending::Renew(renewal) => self.renewal_unanswered(&renewal),
            Pending::Release(releasing) => {
                self.keep_house();
                self.owed.push(releasing);
            }
            aside @ (Pending::Stats(_) | Pending::Barrier(..)) if self.main_is_up => self.send_aside(aside),
            other => match self.refusal() {
                Some(error) => self.refuse(other, error),
                None => self.park(other),
            },
        }
    }

    pub(super) fn renew_all(&mut self, ids: Vec<LeaseId>) {
        let mut batch = Vec::with_capacity(ids.len());
        for id in ids {
            let tag = Pending::Renew(self.renewal(id));
            if let Some(request) = self.request(&tag) {
                batch.push(Outgoing {
                    request,
                    tag,
                    on_abandon: OnAbandon::Finish,
                });
            }
        }
        if batch.is_empty() {
            return;
        }
        let refused = match self.lanes.get_mut(self.main) {
            Some(lane) => lane.send_all(batch).err().unwrap_or_default(),
            None => batch.into_iter().map(|outgoing| outgoing.tag).collect(),
        };
        for pending in refused {
            self.unsent(pending);
        }
    }
}
