//! The programs of users.

mod locks;
mod queues;
mod signals;

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::caller::{Caller, Process};

/// A program of a user: one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Acquires a lock, holds it and releases it, again and again.
    Holder,
    /// Tries a lock, and gives up if it is held.
    Try,
    /// Acquires several locks at once.
    Several,
    /// Enqueues first, and waits later.
    TwoPhase,
    Election,
    Semaphore,
    /// Acquires permits for short jobs.
    Worker,
    Publisher,
    Subscriber,
    SlowSubscriber,
    GroupMember,
    /// Requests stats, and barriers of clusters.
    Observer,
    /// Claims to hold a lease that it has released.
    Liar,
    /// Claims to have released a guard that it keeps.
    Leak,
    /// Never ends.
    Stuck,
    Panics,
}

impl Program {
    /// The programs for servers without signals.
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
        // The programs start one after the other.
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
