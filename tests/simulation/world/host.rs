//! A host: a process with a runtime and a simulated clock of its own. The world runs a host for slices of time, or
//! freezes it.

use std::time::Duration;

use tokio::runtime::{Builder, EnterGuard, Runtime};
use tokio::time::Instant;

use super::net::Time;

/// A process. Dropping it kills the process.
pub struct Host {
    runtime: Runtime,
    clock: HostClock,
    is_frozen: bool,
}

/// Converts between instants of a host's clock and the time of the world.
#[derive(Clone, Copy)]
pub struct HostClock {
    began: Instant,
    began_at: Time,
}

impl HostClock {
    /// Converts an instant of the host's clock to the time of the world.
    pub fn time_of(self, instant: Instant) -> Time {
        self.began_at + instant.saturating_duration_since(self.began).as_nanos() as Time
    }

    /// Returns the current time of the world. Must be called in the host's runtime.
    pub fn now(self) -> Time {
        self.time_of(Instant::now())
    }

    pub fn instant(self, time: Time) -> Instant {
        self.began + Duration::from_nanos(time.saturating_sub(self.began_at))
    }
}

impl Host {
    pub fn begin(now: Time) -> Self {
        let mut builder = Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without I/O needs nothing of the system");
        let began = {
            let _inside = runtime.enter();
            Instant::now()
        };
        Self {
            runtime,
            clock: HostClock { began, began_at: now },
            is_frozen: false,
        }
    }

    pub fn clock(&self) -> HostClock {
        self.clock
    }

    /// Enters the runtime, for calls that need it or its clock.
    pub fn enter(&self) -> EnterGuard<'_> {
        self.runtime.enter()
    }

    pub fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.runtime.spawn(task)
    }

    /// Runs the host until the future completes. If the future sleeps, the host's clock runs ahead of the world.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Runs the host until this time. Does nothing if the host is frozen.
    pub fn run_until(&self, time: Time) {
        if !self.is_frozen {
            let slice = async { tokio::time::sleep_until(self.clock.instant(time)).await };
            self.runtime.block_on(slice);
        }
    }

    pub fn freeze(&mut self) {
        self.is_frozen = true;
    }

    pub fn is_frozen(&self) -> bool {
        self.is_frozen
    }

    /// Resumes the host. Its clock jumps to `now`, so timers that became due in between fire late.
    pub fn thaw(&mut self, now: Time) {
        self.is_frozen = false;
        let here = {
            let _inside = self.runtime.enter();
            self.clock.now()
        };
        let missed = Duration::from_nanos(now.saturating_sub(here));
        self.runtime.block_on(async { tokio::time::advance(missed).await });
    }

    /// Returns the number of tasks that have not ended.
    pub fn tasks(&self) -> usize {
        self.runtime.metrics().num_alive_tasks()
    }
}
