//! Waits for microseconds, where the timers of the runtime have a resolution of a millisecond.

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

/// A timer of the operating system, created at the first wait.
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

/// Creates the timer. `None` if the operating system provides none, or if the runtime has no I/O, which tokio reports
/// only by a panic.
// `AsyncFd::with_interest` is deprecated because it accepts types that may close their descriptor. An `OwnedFd` keeps
// its descriptor open. The replacement is `unsafe`, and newer than the oldest supported tokio.
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
