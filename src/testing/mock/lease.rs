//! A lease without a server, as its holder and the test see it.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::MockState;
use crate::clock::{Moment, after};
use crate::error::{Error, ErrorKind};
use crate::lease::cell::{CellTimes, LeaseCell};
use crate::lease::release::ReleaseReply;
use crate::lease::state::{LeaseState, LostReason};
use crate::service::{Lease, Origin};
use crate::shard::ask::Ask;
use crate::shard::held::{Acquired, FromHolder, HeldLease, WayBack};
use crate::shard::ids::{LeaseId, TicketId};
use crate::types::{Fence, Grant, Key, Kind, Token};

/// How a lease was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GivenBack {
    /// By a release.
    Released,
    /// Its guard was dropped.
    Dropped,
}

/// The test's view of a lease that a [`MockService`](super::MockService) has granted. It lasts until it is released or
/// [lost](Self::lose). Clones share it.
#[derive(Clone)]
pub struct MockLease {
    cell: Arc<LeaseCell>,
    given_back: Arc<watch::Sender<Option<GivenBack>>>,
}

impl MockLease {
    /// Creates a lease and the test's view of it.
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

    /// Returns the key.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.cell.key
    }

    /// Returns whether it is a lock or a slot of a semaphore.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.cell.kind
    }

    /// Returns its token.
    #[must_use]
    pub fn token(&self) -> &Token {
        &self.cell.token
    }

    /// Returns its fence. The fences of a mock service start from 1.
    #[must_use]
    pub fn fence(&self) -> Option<Fence> {
        self.cell.fence()
    }

    /// Returns the state of the lease as its holder sees it.
    #[must_use]
    pub fn state(&self) -> LeaseState {
        self.cell.state()
    }

    /// Makes the holder lose the lease, for this reason. Has no effect if the lease was lost or released already.
    ///
    /// Only the holder learns of the loss: a client on a mock service has neither callbacks nor events about leases.
    pub fn lose(&self, reason: LostReason) {
        self.cell.lose(reason);
    }

    /// Notes that the key was held when it was requested.
    pub(super) fn note_contended(&self) {
        self.cell.note_contended();
    }

    /// Returns how the lease was released, if it was. A lost lease counts as released when its guard is gone.
    #[must_use]
    pub fn given_back(&self) -> Option<GivenBack> {
        *self.given_back.borrow()
    }

    /// Waits until the lease is released.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future changes nothing.
    pub async fn wait_until_given_back(&self) -> GivenBack {
        let mut given_back = self.given_back.subscribe();
        loop {
            if let Some(how) = *given_back.borrow_and_update() {
                return how;
            }
            // Never happens, because `self` has the sender.
            if given_back.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Does not show the token.
impl fmt::Debug for MockLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockLease")
            .field("lease", &*self.cell)
            .field("given_back", &self.given_back())
            .finish()
    }
}

/// Receives the release of a lease, as a shard does.
struct Keeper {
    lease: MockLease,
    mock: Weak<MockState>,
}

impl FromHolder for Keeper {
    fn release(&self, _: LeaseId, told: Option<ReleaseReply>) {
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

    /// Does nothing, because a mock lease is not renewed.
    fn renew_for(&self, _: LeaseId, _: Duration) {}

    /// Does nothing, because a lease has no queue position.
    fn collect(&self, _: TicketId, _: Instant, _: Ask<Acquired>) {}

    fn give_up(&self, _: TicketId) {}
}
