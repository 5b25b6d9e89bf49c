//! The state of callers: unanswered calls, leases and tickets.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use super::agenda::ClientId;
use super::book::GrantRecord;
use crate::error::Result;
use crate::lease::cell::LeaseCell;
use crate::lease::policy::RenewTerms;
use crate::lease::release::ReleaseAnswer;
use crate::lease::state::LeaseState;
use crate::shard::acquire::Acquire;
use crate::shard::ask::Ask;
use crate::shard::held::{Acquired, HeldLease, HeldPosition};
use crate::shard::progress::Refusal;
use crate::shard::question::Answered;
use crate::types::{Key, Target, Token, Ttl};

/// The ID of a call.
pub(super) type CallId = u64;

/// What an acquire asks for.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) target: Target,
    pub(super) key: Key,
    pub(super) ttl: Option<Ttl>,
    pub(super) policy: RenewTerms,
    /// Whether its caller holds other leases meanwhile.
    pub(super) holding: bool,
}

/// The kind of a call.
#[derive(Clone, Debug)]
pub(super) enum What {
    Try(Wanted),
    /// The try before a wait. The wait ends when the call's time is over: see [`SimCall::until`].
    First(Wanted),
    Wait(Wanted, Refusal),
    Enqueue(Wanted),
    Collect(Target, Key),
    /// A request that affects no lease.
    Ask,
    Release(Arc<LeaseCell>),
}

/// The receiver of the answer.
pub(super) enum Receiver {
    Acquired(oneshot::Receiver<Result<Acquired>>),
    Stats(oneshot::Receiver<Result<Answered<crate::Stats>>>),
    Done(oneshot::Receiver<Result<Answered<()>>>),
    Released(ReleaseAnswer),
    Delay(oneshot::Receiver<Result<std::time::Duration>>),
}

/// A caller that waits for an answer.
pub(super) struct SimCall {
    pub(super) client: ClientId,
    pub(super) what: What,
    /// When it was made.
    pub(super) since: Instant,
    /// When the caller gives up.
    pub(super) until: Instant,
    pub(super) receiver: Receiver,
    /// The semaphore of the permit that its request holds. `None` for a release, which holds no permit.
    pub(super) room: Option<Arc<Semaphore>>,
}

/// A call that has ended, until the shard returns its permit.
pub(super) struct AbandonedCall {
    pub(super) call: CallId,
    pub(super) client: ClientId,
    pub(super) at: Instant,
    /// Whether it had no queue position of its own on the server.
    pub(super) had_no_place: bool,
    room: Arc<Semaphore>,
}

/// A lease that a caller holds.
pub(super) struct SimHeld {
    pub(super) client: ClientId,
    pub(super) token: Token,
    pub(super) lease: HeldLease,
    /// Whether its grant is in the book.
    pub(super) in_book: bool,
}

/// A ticket that a caller holds.
pub(super) struct HeldTicket {
    pub(super) client: ClientId,
    pub(super) ticket: HeldPosition,
}

#[derive(Default)]
pub(super) struct Callers {
    pub(super) calls: BTreeMap<CallId, SimCall>,
    pub(super) held: Vec<SimHeld>,
    pub(super) tickets: Vec<HeldTicket>,
    pub(super) abandoned: Vec<AbandonedCall>,
    /// The calls that wait for the shard, by their permit.
    by_room: HashMap<usize, CallId>,
    last: CallId,
}

impl SimHeld {
    /// Returns the state of the lease, as its holder sees it.
    pub(super) fn state(&self, now: Instant) -> LeaseState {
        self.lease.cell.state_at(now.into())
    }

    pub(super) fn is_believed(&self, now: Instant) -> bool {
        matches!(self.state(now), LeaseState::Held | LeaseState::Suspect)
    }
}

impl Wanted {
    pub(super) fn acquire(&self, ask: Ask<Acquired>) -> Box<Acquire> {
        let mut acquire = Acquire::new(self.target, self.key.clone(), self.ttl, self.policy, ask);
        acquire.holding = self.holding;
        acquire
    }
}

impl What {
    /// Returns what the call asks for, if it acquires a lease by a try or a wait, without a queue position of its own.
    pub(super) fn acquires(&self) -> Option<&Wanted> {
        match self {
            Self::Try(wanted) | Self::First(wanted) | Self::Wait(wanted, _) => Some(wanted),
            Self::Enqueue(_) | Self::Collect(..) | Self::Ask | Self::Release(_) => None,
        }
    }

    /// Returns the target, if the call may get a lease.
    pub(super) fn wants(&self) -> Option<(Target, &Key)> {
        match self {
            Self::Try(wanted) | Self::First(wanted) | Self::Wait(wanted, _) | Self::Enqueue(wanted) => {
                Some((wanted.target, &wanted.key))
            }
            Self::Collect(target, key) => Some((*target, key)),
            Self::Ask | Self::Release(_) => None,
        }
    }
}

impl Callers {
    /// Returns the ID of the next call.
    pub(super) fn next_id(&mut self) -> CallId {
        self.last += 1;
        self.last
    }

    /// Creates the request for a shard.
    pub(super) fn ask<T>(&mut self, id: CallId) -> (Ask<T>, oneshot::Receiver<Result<T>>, Arc<Semaphore>) {
        let room = Arc::new(Semaphore::new(1));
        self.by_room.insert(Arc::as_ptr(&room) as usize, id);
        let (reply, receiver) = oneshot::channel();
        let permit = Arc::clone(&room).try_acquire_owned().unwrap();
        (Ask { reply, _room: permit }, receiver, room)
    }

    /// Returns the call of a request.
    pub(super) fn of_ask<T>(&self, ask: &Ask<T>) -> Option<CallId> {
        let room = Arc::as_ptr(ask._room.semaphore()) as usize;
        self.by_room.get(&room).copied()
    }

    /// Returns whether a caller of a client waits for a lease on this key.
    pub(super) fn is_wanted(&self, client: ClientId, kind: crate::types::Kind, key: &Key) -> bool {
        let asked = self.calls.values().any(|call| {
            let wants = call.what.wants();
            call.client == client && wants.is_some_and(|(target, wanted)| target.kind() == kind && wanted == key)
        });
        let is_ticket =
            |held: &HeldTicket| held.client == client && held.ticket.target.kind() == kind && held.ticket.key == *key;
        asked || self.tickets.iter().any(is_ticket)
    }

    /// Returns whether a caller holds a grant, or a ticket for it.
    pub(super) fn has_in_hands(&self, granted: &GrantRecord) -> bool {
        let is_its_own = |client: ClientId| granted.owner.is_none_or(|(owner, _)| owner == client);
        let is_for = |target: Target, key: &Key| target.kind() == granted.kind && *key == granted.key;
        let is_collected = |call: &SimCall| match &call.what {
            What::Collect(target, key) => is_for(*target, key),
            What::Enqueue(wanted) => is_for(wanted.target, &wanted.key),
            _ => false,
        };
        let mut tickets = self.tickets.iter();
        self.held.iter().any(|held| held.token == granted.token)
            || tickets.any(|held| is_its_own(held.client) && is_for(held.ticket.target, &held.ticket.key))
            || self
                .calls
                .values()
                .any(|call| is_its_own(call.client) && is_collected(call))
    }

    /// Ends a call. Its permit is tracked until the shard returns it.
    pub(super) fn end(&mut self, id: CallId, now: Instant) -> Option<SimCall> {
        let mut call = self.calls.remove(&id)?;
        if let Some(room) = call.room.take() {
            let abandoned = AbandonedCall {
                call: id,
                client: call.client,
                at: now,
                had_no_place: call.what.acquires().is_some(),
                room,
            };
            self.abandoned.push(abandoned);
        }
        Some(call)
    }

    /// Forgets the calls whose permits were returned.
    pub(super) fn tidy(&mut self) {
        let by_room = &mut self.by_room;
        self.abandoned.retain(|abandoned| {
            let is_back = abandoned.room.available_permits() > 0;
            if is_back {
                by_room.remove(&(Arc::as_ptr(&abandoned.room) as usize));
            }
            !is_back
        });
    }
}
