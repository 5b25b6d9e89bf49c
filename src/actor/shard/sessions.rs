//! Waits in sessions that a cluster remembers. Such a place outlives its connection, so it must not be forgotten here either: it
//! is taken again under the session's name, for its caller, or to be given up if there is none any more.
//!
//! Whether the server keeps what a connection leaves behind (`--orphan-ttl`) is not told by its `ok` to the name. If it keeps
//! nothing, a wait that is asked anew has lost its place, and one whose grant was on its way when the connection broke may take
//! a second beside it: a lock is then free only when the TTL of the first is over.

use tokio::time::Instant;

use super::Shard;
use super::tickets::{QueuePlace, Then, Tickets};
use crate::actor::lanes::Work;
use crate::actor::message::{Acquire, Acquired, Pending};
use crate::actor::progress::WaitsFor;
use crate::error::{Error, ErrorKind};
use crate::lease::registry::LaneId;
use crate::protocol::StableRef;
use crate::types::{Key, Target};

impl Shard {
    /// A wait comes back from its connection. Its session goes with it, so that connection is of no more use.
    pub(super) fn wait_anew(&mut self, from: LaneId, wait: Pending, refusal: Error) {
        let Some(lane) = self.lanes.get_mut(from) else {
            return self.refuse(wait, refusal);
        };
        let (session, begun) = (lane.session.clone(), lane.stop_waiting());
        if session.is_some() {
            self.lanes.remove(from);
        }
        match (self.asked_anew(wait, session, refusal), begun) {
            (Some(wait), Some((subject, place))) => self.waits.put_back(subject, place, wait),
            (Some(wait), None) => self.queue(wait),
            (None, Some((subject, _))) => self.waits.finished(&subject),
            (None, None) => {}
        }
        self.keep_house();
    }

    /// The wait as it is asked anew: in its session, if it has one. Where that was done too often, its caller gets the refusal; and
    /// where the session may have a place all the same, what is asked is to be rid of that.
    pub(super) fn asked_anew(
        &mut self,
        mut wait: Pending,
        session: Option<StableRef>,
        refusal: Error,
    ) -> Option<Pending> {
        let goes_on = self.counts_once_more(&mut wait) && (!self.is_closing() || self.gives_up(&wait));
        match wait {
            Pending::Wait(acquire, until) if goes_on => {
                let acquire = in_session(acquire, session);
                Some(Pending::Wait(acquire, until))
            }
            Pending::Enqueue(acquire) if goes_on => Some(Pending::Enqueue(in_session(acquire, session))),
            Pending::Wait(acquire, _) | Pending::Enqueue(acquire) => {
                let session = session.or(acquire.session.map(|session| *session));
                acquire.ask.tell(Err(refusal));
                Some(self.giving_up(acquire.target, acquire.key, session?))
            }
            Pending::Collect {
                acquire,
                until,
                enqueued_at,
            } => {
                let Some(session) = session else {
                    acquire.ask.tell(Err(refusal));
                    return None;
                };
                if !goes_on || acquire.ask.is_gone() {
                    acquire.ask.tell(Err(refusal));
                    return Some(self.giving_up(acquire.target, acquire.key, session));
                }
                let mut place = QueuePlace::of(&acquire, None, enqueued_at);
                place.then = Then::Collect(until, acquire.ask);
                Some(Pending::Rejoin(self.tickets.insert(place), session))
            }
            Pending::GiveUp(target, key, times) if goes_on => {
                let place = QueuePlace::to_give_up(target, key, times);
                Some(Pending::Rejoin(self.tickets.insert(place), session?))
            }
            Pending::Rejoin(id, before) if goes_on => Some(Pending::Rejoin(id, session.unwrap_or(before))),
            Pending::Rejoin(id, before) => self.instead_of(id, session.unwrap_or(before), refusal),
            // Tried often enough: the server ends it when the time of the session, or of the lease, is over.
            Pending::GiveUp(..) => None,
            other => {
                self.refuse(other, refusal);
                None
            }
        }
    }

    /// What is to be taken again is not: its holder gets the refusal, and what is asked instead is to be rid of it.
    fn instead_of(&mut self, id: u64, session: StableRef, refusal: Error) -> Option<Pending> {
        let place = self.tickets.remove(id)?;
        let (target, key) = (place.target, place.key.clone());
        match place.then {
            Then::Keep => Some(self.giving_up(target, key, session)),
            Then::Collect(_, ask) => {
                ask.tell(Err(refusal));
                Some(self.giving_up(target, key, session))
            }
            Then::GiveUp => None,
        }
    }

    /// A wait is refused here, without a word to any server: nobody can be asked. If its session has a place, that is kept in mind.
    pub(super) fn refuse_wait(&mut self, wait: Pending, refusal: Error) {
        let instead = match wait {
            Pending::Wait(acquire, _) | Pending::Enqueue(acquire) => {
                acquire.ask.tell(Err(refusal));
                let session = acquire.session;
                session.map(|session| self.giving_up(acquire.target, acquire.key, *session))
            }
            give_up @ Pending::Rejoin(..) if self.gives_up(&give_up) => Some(give_up),
            Pending::Rejoin(id, session) => self.instead_of(id, session, refusal),
            _ => None,
        };
        if let Some(give_up) = instead {
            self.queue(give_up);
        }
    }

    /// Nobody knows the session of a wait any more: there is nothing to be taken again, nor to be given up.
    pub(super) fn lost_with_its_session(&mut self, wait: Pending, lost: Error) {
        match wait {
            Pending::Wait(acquire, _) | Pending::Enqueue(acquire) => acquire.ask.tell(Err(lost)),
            Pending::Rejoin(id, _) => self.ticket_refused(id, lost),
            _ => {}
        }
    }

    /// What takes a place again in order to give it up.
    fn giving_up(&mut self, target: Target, key: Key, session: StableRef) -> Pending {
        let place = QueuePlace::to_give_up(target, key, 0);
        Pending::Rejoin(self.tickets.insert(place), session)
    }

    /// A wait as it is sent. If nobody waits any more, its session's place is taken again only to be given up: to ask for the key
    /// without waiting need not take the place, nor end it.
    pub(super) fn for_whom_it_is(&mut self, wait: Pending) -> Pending {
        match wait {
            Pending::Wait(
                Acquire {
                    target,
                    key,
                    session: Some(session),
                    ask,
                    ..
                },
                until,
            ) if ask.is_gone() || until <= Instant::now() => {
                let refusal = self.refusal_of(target.kind(), &key);
                ask.tell(Ok(Acquired::Busy(refusal)));
                self.giving_up(target, key, *session)
            }
            wait => wait,
        }
    }

    /// Queues a wait behind all others for its key.
    pub(super) fn queue(&mut self, wait: Pending) {
        let subject = match &wait {
            Pending::Wait(acquire, _) | Pending::Enqueue(acquire) => Some((acquire.target.kind(), acquire.key.clone())),
            Pending::Rejoin(id, _) => self.tickets.subject(*id),
            _ => None,
        };
        if let Some(subject) = subject {
            let ahead = u32::try_from(self.waits.queued()).unwrap_or(u32::MAX);
            wait.waits_for(WaitsFor::Connection { ahead });
            self.waits.push(subject, wait);
        }
    }

    /// The shard is shut down: nobody waits any more, and what its sessions have at the servers is given up, as far as time allows.
    pub(super) fn give_up_all_waits(&mut self) {
        let mut places: Vec<(Target, Key, StableRef)> = Vec::new();
        for lane in self.lanes.close_waiting(self.failover.is_cluster()) {
            let subject = match lane.work {
                Work::Waiting(subject, _) | Work::Ticket(subject, ..) => subject,
                Work::Opening(subject, _, wait) => {
                    self.waits.finished(&subject);
                    self.queue(wait);
                    continue;
                }
                Work::Idle(_) | Work::Ending => continue,
            };
            self.waits.finished(&subject);
            if let (Some(target), Some(session)) = (lane.target, lane.session) {
                places.push((target, subject.1, session));
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
                Pending::Rejoin(id, session) => match self.tickets.remove(id) {
                    Some(QueuePlace {
                        target,
                        key,
                        then: Then::Collect(_, ask),
                        ..
                    }) => (Some((target, key, session)), Some(ask)),
                    Some(QueuePlace { target, key, .. }) => (Some((target, key, session)), None),
                    None => (None, None),
                },
                _ => (None, None),
            };
            places.extend(place);
            if let Some(ask) = ask {
                ask.tell(Err(Error::new(ErrorKind::Shutdown, "the client is shut down")));
            }
        }
        self.tickets = Tickets::default();
        for (target, key, session) in places {
            let give_up = self.giving_up(target, key, session);
            self.queue(give_up);
        }
        self.start_waits();
    }

    /// Whether all that was to be given up when the shard was shut down has been.
    pub(super) fn gave_up_all_waits(&self) -> bool {
        !self.failover.is_cluster() || self.waits.queued() + self.waits.running() == 0
    }

    /// Whether it is about being rid of a place.
    fn gives_up(&self, wait: &Pending) -> bool {
        match wait {
            Pending::GiveUp(..) => true,
            Pending::Rejoin(id, _) => self.tickets.is_to_give_up(*id),
            _ => false,
        }
    }

    /// Whether a wait may be asked anew once more.
    fn counts_once_more(&mut self, wait: &mut Pending) -> bool {
        match wait {
            Pending::Wait(acquire, _) | Pending::Enqueue(acquire) | Pending::Collect { acquire, .. } => {
                self.may_go_on(&mut acquire.redirects)
            }
            Pending::GiveUp(_, _, times) => self.may_go_on(times),
            Pending::Rejoin(id, _) => {
                let most = self.config.max_redirects;
                self.tickets.rejoined(*id).is_some_and(|times| times <= most)
            }
            _ => true,
        }
    }

    /// Whether something may be asked anew once more.
    pub(super) fn may_go_on(&self, times: &mut u32) -> bool {
        *times += 1;
        *times <= self.config.max_redirects
    }
}

fn in_session(mut acquire: Acquire, session: Option<StableRef>) -> Acquire {
    acquire.session = session.map(Box::new).or(acquire.session);
    acquire
}
