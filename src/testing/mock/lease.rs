//! A lease that no server knows, seen from both sides.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::MockState;
use crate::clock::{Moment, after};
use crate::error::{Error, ErrorKind};
use crate::lease::cell::{CellTimes, LeaseCell};
use crate::lease::release::ReleaseTold;
use crate::lease::state::{LeaseState, LostReason};
use crate::service::{Lease, Origin};
use crate::shard::ask::Ask;
use crate::shard::held::{Acquired, FromHolder, HeldLease, WayBack};
use crate::shard::ids::{LeaseId, TicketId};
use crate::types::{Fence, Grant, Key, Kind, Token};

/// How a lease was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GivenBack {
    /// By a release.
    Released,
    /// Its guard was dropped.
    Dropped,
}

/// A lease that a [`MockService`](super::MockService) has granted, in the hands of the test. It lasts until it is given back or
/// [lost](Self::lose). Clones are the same.
#[derive(Clone)]
pub struct MockLease {
    cell: Arc<LeaseCell>,
    given_back: Arc<watch::Sender<Option<GivenBack>>>,
}

impl MockLease {
    /// Both sides of a new lease: its holder's, and the test's.
    pub(super) fn grant(key: Key, kind: Kind, grant: Grant, mock: &Arc<MockState>) -> (Lease, Self) {
        let got = Moment::now();
        let times = CellTimes {
            got,
            deadline: after(got.at, Duration::MAX),
            lost_when_suspended: Duration::MAX,
        };
        let lease = Self {
            cell: Arc::new(LeaseCell::new(key, kind, grant, times)),
            given_back: Arc::new(watch::Sender::new(None)),
        };
        let keeper: WayBack = Arc::new(Box::new(Keeper {
            lease: lease.clone(),
            mock: Arc::downgrade(mock),
        }));
        let held = HeldLease::new(Arc::clone(&lease.cell), LeaseId::default(), keeper);
        let origin: Origin = Arc::<MockState>::clone(mock);
        (Lease::new(held, origin), lease)
    }

    /// What is held.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.cell.key
    }

    /// Whether it is a lock or a slot of a semaphore.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.cell.kind
    }

    /// Its token, as its holder has it.
    #[must_use]
    pub fn token(&self) -> &Token {
        &self.cell.token
    }

    /// Its fence, as its holder has it. Fences of one mock service count from 1.
    #[must_use]
    pub fn fence(&self) -> Option<Fence> {
        self.cell.fence()
    }

    /// What its holder knows of it.
    #[must_use]
    pub fn state(&self) -> LeaseState {
        self.cell.state()
    }

    /// Has its holder lose it, for this reason. Nothing happens if it was lost or given back.
    ///
    /// The client is not told, only the holder: callbacks and events of a client that is built on a mock service know of no leases.
    pub fn lose(&self, reason: LostReason) {
        self.cell.lose(reason);
    }

    /// Notes that its key was held when it was asked for.
    pub(super) fn note_contended(&self) {
        self.cell.note_contended();
    }

    /// How it was given back, if it was. A lease that was lost is given back, too, once its guard is gone.
    #[must_use]
    pub fn given_back(&self) -> Option<GivenBack> {
        *self.given_back.borrow()
    }

    /// Waits until it is given back.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping it changes nothing.
    pub async fn wait_until_given_back(&self) -> GivenBack {
        let mut given_back = self.given_back.subscribe();
        loop {
            if let Some(how) = *given_back.borrow_and_update() {
                return how;
            }
            // Its sender is in `self`.
            if given_back.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Without the token.
impl fmt::Debug for MockLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockLease")
            .field("lease", &*self.cell)
            .field("given_back", &self.given_back())
            .finish()
    }
}

/// Takes a lease back, as a shard does.
struct Keeper {
    lease: MockLease,
    mock: Weak<MockState>,
}

impl FromHolder for Keeper {
    fn release(&self, _: LeaseId, told: Option<ReleaseTold>) {
        let cell = &self.lease.cell;
        let was_held = cell.release();
        let how = match told {
            Some(_) => GivenBack::Released,
            None => GivenBack::Dropped,
        };
        if let Some(told) = told {
            let failure = self.mock.upgrade().and_then(|mock| mock.failure_of_release());
            told.tell(match (was_held, failure) {
                (false, _) => Err(Error::new(
                    ErrorKind::LeaseLost,
                    format!("the lease of {:?} was lost before it was released", cell.key),
                )),
                (true, Some(failure)) => Err(failure),
                (true, None) => Ok(()),
            });
        }
        self.lease.given_back.send_replace(Some(how));
    }

    /// It renews nothing.
    fn renew_for(&self, _: LeaseId, _: Duration) {}

    /// It keeps no places.
    fn collect(&self, _: TicketId, _: Instant, _: Ask<Acquired>) {}

    fn give_up(&self, _: TicketId) {}
}
