//! Waits for microseconds, where a timer of the runtime counts milliseconds.

use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::turns::wait_in_turns;

/// A timer of the system's, made when it is first needed.
#[derive(Default)]
pub(super) struct PreciseTimer(Option<AsyncFd<OwnedFd>>);

impl PreciseTimer {
    pub(super) async fn wait(&mut self, duration: Duration) {
        if self.0.is_none() {
            self.0 = create();
        }
        let waited = match &self.0 {
            Some(timer) => expire(timer, duration).await.is_ok(),
            None => false,
        };
        if !waited {
            wait_in_turns(duration).await;
        }
    }
}

/// `None` where the system gives none, or the runtime has no I/O, of which tokio tells by a panic only.
// What stands in its place is newer than the oldest tokio that will do; that an `OwnedFd` owns what it names is all that it adds.
#[allow(deprecated)]
fn create() -> Option<AsyncFd<OwnedFd>> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    let timer = timerfd_create(TimerfdClockId::Monotonic, flags).ok()?;
    let registered = catch_unwind(AssertUnwindSafe(|| AsyncFd::with_interest(timer, Interest::READABLE)));
    registered.ok()?.ok()
}

async fn expire(timer: &AsyncFd<OwnedFd>, duration: Duration) -> io::Result<()> {
    let never = Timespec { tv_sec: 0, tv_nsec: 0 };
    let once = Itimerspec {
        it_interval: never,
        it_value: Timespec {
            tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(duration.subsec_nanos()),
        },
    };
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &once)?;
    loop {
        let mut ready = timer.readable().await?;
        let read = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut [0; 8])?));
        if let Ok(read) = read {
            return read.map(drop);
        }
    }
}
