//! The programs that client processes run. Each program is one task that calls the client in a loop.

mod locks;
mod queues;
mod signals;

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::caller::{Caller, Process};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Acquires, holds and releases a lock.
    Holder,
    /// Tries a lock, and does not wait if the lock is held.
    Try,
    /// Acquires several locks at once.
    Several,
    /// Takes a ticket, and waits at it later.
    TwoPhase,
    Election,
    Semaphore,
    /// Acquires permits of one semaphore for short times, mostly less than 50 ms.
    Worker,
    Publisher,
    Subscriber,
    SlowSubscriber,
    GroupMember,
    /// Requests stats or a barrier.
    Observer,
    /// A planted bug: records the use of a lease that it has released.
    Liar,
    /// A planted bug: records that it drops a guard, but leaks the guard.
    Leak,
    /// A planted bug: never ends.
    Stuck,
    /// A planted bug: panics.
    Panics,
}

impl Program {
    /// The programs that use no signals.
    pub const LOCKS: [Self; 8] = [
        Self::Holder,
        Self::Try,
        Self::Several,
        Self::TwoPhase,
        Self::Election,
        Self::Semaphore,
        Self::Worker,
        Self::Observer,
    ];

    pub const SIGNALS: [Self; 4] = [
        Self::Publisher,
        Self::Subscriber,
        Self::SlowSubscriber,
        Self::GroupMember,
    ];

    pub async fn run(self, process: Arc<Process>, number: u64, random: Rng, keys: u64) {
        let mut caller = Caller::new(&process, number, random);
        // Random pauses let the programs start at different times.
        caller.pause(Duration::from_millis(500)).await;
        while !caller.is_done() {
            match self {
                Self::Holder => locks::holder(&mut caller, keys).await,
                Self::Try => locks::tries(&mut caller, keys).await,
                Self::Several => locks::several(&mut caller, keys).await,
                Self::TwoPhase => queues::two_phase(&mut caller, keys).await,
                Self::Election => locks::election(&mut caller).await,
                Self::Semaphore => locks::semaphore(&mut caller, keys, Duration::from_secs(3)).await,
                Self::Worker => locks::semaphore(&mut caller, 1, Duration::from_millis(50)).await,
                Self::Publisher => signals::publisher(&mut caller).await,
                Self::Subscriber => signals::subscriber(&mut caller, signals::Pace::Fast).await,
                Self::SlowSubscriber => signals::subscriber(&mut caller, signals::Pace::Slow).await,
                Self::GroupMember => signals::subscriber(&mut caller, signals::Pace::Shared).await,
                Self::Observer => locks::observer(&mut caller).await,
                Self::Liar => locks::liar(&mut caller).await,
                Self::Leak => locks::leak(&mut caller).await,
                Self::Stuck => std::future::pending().await,
                Self::Panics => panic!("planted"),
            }
        }
    }
}
