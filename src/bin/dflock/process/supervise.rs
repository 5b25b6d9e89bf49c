//! Supervises a command under a lease, from its start until no process of its group is left.

use std::ffi::OsString;
use std::time::Duration;

use dflockd_client::tokio::time::{Instant, sleep_until};
use dflockd_client::{Key, LostReason};
use rustix::process::Signal;

use super::job::{Job, News};
use super::signals::Signals;
use crate::args::OnLoss;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::grace::Times;
use crate::holding::{About, Held};
use crate::tell;

/// What happens to the command when the lease is lost, and how quickly.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    pub(crate) on_loss: OnLoss,
    pub(crate) times: Times,
    /// The time between TERM and KILL for processes of the group that outlive the command.
    pub(crate) remaining_grace: Duration,
}

impl Policy {
    fn stops_on_loss(&self) -> bool {
        self.on_loss != OnLoss::Ignore
    }

    /// Returns when the group must have ended, even if this process is stopped or killed. `None` if the loss of the
    /// lease does not stop the command.
    fn gone_by(&self, held: &Held) -> Option<Instant> {
        self.stops_on_loss()
            .then(|| held.held_until() + self.times.grace + self.times.margin / 2)
    }
}

/// How the supervision ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// The command ended while the lease was held, or after a loss that the policy ignores.
    Ended(Exit),
    /// The lease was lost, and the command stopped.
    Lost(Key, LostReason),
}

/// How often the group is polled after the command has ended, while processes of its group are left.
const LOOK: Duration = Duration::from_millis(10);

/// How long killed processes may take to end before zombies are ignored.
const ZOMBIE_WAIT: Duration = Duration::from_secs(5);

/// Runs a command while the lease is held.
pub(crate) async fn supervise(
    command: &[OsString],
    held: &Held,
    about: &About,
    policy: Policy,
    signals: &mut Signals,
) -> Result<Ending, Failure> {
    signals.add_commands()?;
    let mut supervisor = Supervisor {
        job: Job::start(command, about, policy.gone_by(held))?,
        held,
        policy,
        lost: None,
        kill_at: None,
        killed_at: None,
    };
    supervisor.run(signals).await;
    Ok(supervisor.close())
}

struct Supervisor<'a> {
    job: Job,
    held: &'a Held,
    policy: Policy,
    lost: Option<(Key, LostReason)>,
    /// The time at which the group is killed.
    kill_at: Option<Instant>,
    killed_at: Option<Instant>,
}

impl Supervisor<'_> {
    async fn run(&mut self, signals: &mut Signals) {
        let held = self.held;
        let (lost, taken) = (held.lost(), held.taken());
        tokio::pin!(lost, taken);
        loop {
            self.update_watch();
            if self.is_over() {
                // The lease may have been lost just before the command ended.
                if self.stops_on_loss() && self.lost.is_none() && !held.is_held() {
                    self.lost = Some(lost.await);
                }
                return;
            }
            let wake = self.next_look();
            tokio::select! {
                biased;
                (key, reason) = &mut lost, if self.lost.is_none() => self.take_loss(key, reason),
                // The first lease ended by time, so every server still keeps its lease for the grace. If another lease
                // is lost with its connection, its server may grant the key at once, so the grace is over.
                _ = &mut taken, if self.is_in_grace() => self.kill(),
                signal = signals.next() => self.take_signal(signal),
                () = sleep_until(self.kill_at.unwrap_or(wake)), if self.kill_at.is_some() => self.kill(),
                () = sleep_until(wake) => {}
            }
            if self.job.ended().is_some() && self.kill_at.is_none() && self.killed_at.is_none() {
                self.end_remaining();
            }
        }
    }

    /// Returns whether the loss of the lease stops the command.
    fn stops_on_loss(&self) -> bool {
        self.policy.stops_on_loss()
    }

    /// Returns whether the lease ended by time and the command is still in its grace.
    fn is_in_grace(&self) -> bool {
        let by_time = matches!(self.lost, Some((_, LostReason::Expired)));
        by_time && self.stops_on_loss() && self.kill_at.is_some()
    }

    /// Ensures that there is a watch, and tells it when the group must have ended, even if this process is stopped or
    /// killed.
    fn update_watch(&mut self) {
        self.job.ensure_watch();
        if let Some(end) = self.policy.gone_by(self.held) {
            self.job.watch().until(end);
        }
    }

    fn next_look(&self) -> Instant {
        let pause = match self.job.ended() {
            Some(_) => LOOK,
            None => (self.policy.times.ttl / 10).min(Duration::from_secs(1)),
        };
        Instant::now() + pause
    }

    /// Returns whether the supervision is over. It is over when no process of the group is left. When `ZOMBIE_WAIT` has
    /// passed since the kill, it is also over if only zombies are left, which their parents do not reap, or if the
    /// lease was lost.
    fn is_over(&self) -> bool {
        if !self.job.is_alive() {
            return true;
        }
        if self.killed_at.is_none_or(|at| at.elapsed() < ZOMBIE_WAIT) {
            return false;
        }
        let still_runs = self.job.still_runs();
        if still_runs && self.lost.is_some() {
            tell::warn("processes of the command are left: they were killed, and the system has not ended them yet");
        }
        !still_runs || self.lost.is_some()
    }

    fn take_loss(&mut self, key: Key, reason: LostReason) {
        let now = Instant::now();
        match self.policy.on_loss {
            OnLoss::Ignore => tell::warn(&format!(
                "the lease of {key:?} was lost, and the command goes on: {reason}"
            )),
            OnLoss::Kill => self.kill(),
            OnLoss::Term => {
                // If the lease ended by time, the server keeps it for the loss margin. Otherwise it may already belong
                // to another holder.
                let by = match reason {
                    LostReason::Expired => (now.min(self.held.held_until())) + self.policy.times.grace,
                    _ => now,
                };
                self.stop_by(by);
            }
        }
        self.lost = Some((key, reason));
    }

    /// Ends the processes of the group that have outlived the command, before the lease is released.
    fn end_remaining(&mut self) {
        if self.job.is_alive() {
            self.stop_by(Instant::now() + self.policy.remaining_grace);
        }
    }

    /// Stops the group, with TERM first if there is time.
    fn stop_by(&mut self, by: Instant) {
        if by <= Instant::now() {
            return self.kill();
        }
        self.job.signal(Signal::TERM);
        // A stopped process handles no TERM until it gets this signal.
        self.job.signal(Signal::CONT);
        self.kill_at = Some(by);
    }

    fn kill(&mut self) {
        self.job.signal(Signal::KILL);
        self.kill_at = None;
        self.killed_at = Some(Instant::now());
    }

    fn take_signal(&mut self, signal: Signal) {
        match signal {
            Signal::CHILD => match self.job.look() {
                News::Stopped(by) => self.take_stop(by),
                News::Nothing => {}
            },
            Signal::CONT => self.resume(),
            signal => self.job.signal(signal),
        }
    }

    /// Handles the command's stop. If the user or the terminal stopped it, or if it has the terminal, this process
    /// stops as well, so that its shell sees a stopped job.
    fn take_stop(&mut self, by: i32) {
        if self.kill_at.is_some() || self.killed_at.is_some() {
            return;
        }
        let by_user = by == Signal::TSTP.as_raw();
        let by_terminal = by == Signal::TTIN.as_raw() || by == Signal::TTOU.as_raw();
        if !by_user && !by_terminal && !self.job.has_terminal() {
            // An operator stopped the command and will continue it. The lease is renewed meanwhile.
            return;
        }
        let was_stopped = self.job.stop_with_it();
        // A shell has continued this process, or there is no shell and the command would stay stopped.
        if was_stopped || by_user {
            self.resume();
        }
    }

    /// Continues the command, unless the lease was lost while it was stopped.
    fn resume(&mut self) {
        if self.stops_on_loss() && (self.lost.is_some() || !self.held.is_held()) {
            return;
        }
        self.job.give_terminal();
        self.job.signal(Signal::CONT);
    }

    fn close(self) -> Ending {
        let exit = self.job.ended().unwrap_or(Exit::by_signal(Signal::KILL.as_raw()));
        self.job.close(exit.code() > 128);
        match self.lost {
            Some((key, reason)) if self.policy.on_loss != OnLoss::Ignore => Ending::Lost(key, reason),
            _ => Ending::Ended(exit),
        }
    }
}
