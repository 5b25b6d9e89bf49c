//! A command under a lease: from its start until no process of its group is left.

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

/// What becomes of the command when the lease is lost, and how quickly.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    pub(crate) on_loss: OnLoss,
    pub(crate) times: Times,
    /// What processes of the group have that outlive the command.
    pub(crate) parting: Duration,
}

impl Policy {
    fn minds(&self) -> bool {
        self.on_loss != OnLoss::Ignore
    }

    /// When the group must be gone, whatever becomes of this process, if the loss of the lease stops the command.
    fn gone_by(&self, held: &Held) -> Option<Instant> {
        self.minds()
            .then(|| held.held_until() + self.times.grace + self.times.margin / 2)
    }
}

/// How it ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// The command ended while the lease was held, or its loss did not matter.
    Ended(Exit),
    /// The lease was lost, and the command stopped.
    Lost(Key, LostReason),
}

/// How often the group is looked at, once the command has ended and processes of its group are left.
const LOOK: Duration = Duration::from_millis(10);

/// How long those may take to end that were killed, before it is asked which of them are left.
const BURIAL: Duration = Duration::from_secs(5);

/// Runs a command while something is held.
pub(crate) async fn supervise(
    command: &[OsString],
    held: &Held,
    about: &About,
    policy: Policy,
    signals: &mut Signals,
) -> Result<Ending, Failure> {
    signals.and_of_commands()?;
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
    /// When the group is killed.
    kill_at: Option<Instant>,
    killed_at: Option<Instant>,
}

impl Supervisor<'_> {
    async fn run(&mut self, signals: &mut Signals) {
        let held = self.held;
        let (lost, taken) = (held.lost(), held.taken());
        tokio::pin!(lost, taken);
        loop {
            self.wind_watch();
            if self.is_over() {
                // It may have been lost just before the command ended.
                if self.minds() && self.lost.is_none() && !held.is_held() {
                    self.lost = Some(lost.await);
                }
                return;
            }
            let wake = self.next_look();
            tokio::select! {
                biased;
                (key, reason) = &mut lost, if self.lost.is_none() => self.take_loss(key, reason),
                // The grace was counted into the time of each part. Another that is lost now has none.
                _ = &mut taken, if self.is_in_grace() => self.kill(),
                signal = signals.next() => self.take_signal(signal),
                () = sleep_until(self.kill_at.unwrap_or(wake)), if self.kill_at.is_some() => self.kill(),
                () = sleep_until(wake) => {}
            }
            if self.job.ended().is_some() && self.kill_at.is_none() && self.killed_at.is_none() {
                self.part();
            }
        }
    }

    /// Whether the loss of the lease stops the command.
    fn minds(&self) -> bool {
        self.policy.minds()
    }

    /// Whether time has ended the lease, and the command may still do something.
    fn is_in_grace(&self) -> bool {
        let by_time = matches!(self.lost, Some((_, LostReason::Expired)));
        by_time && self.minds() && self.kill_at.is_some()
    }

    /// Sees to it that there is a watch, and tells it when the group must be gone, whatever becomes of this process.
    fn wind_watch(&mut self) {
        self.job.mend_watch();
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

    /// Whether no process of the group is left. Those that were killed are not waited for without end: after a loss there is nothing to wait
    /// for, and otherwise those do not count that have ended and whose parents do not bury them.
    fn is_over(&self) -> bool {
        if !self.job.is_alive() {
            return true;
        }
        if self.killed_at.is_none_or(|at| at.elapsed() < BURIAL) {
            return false;
        }
        let is_able = self.job.is_able();
        if is_able && self.lost.is_some() {
            tell::warn("processes of the command are left: they were killed, and the system has not ended them yet");
        }
        !is_able || self.lost.is_some()
    }

    fn take_loss(&mut self, key: Key, reason: LostReason) {
        let now = Instant::now();
        match self.policy.on_loss {
            OnLoss::Ignore => tell::warn(&format!(
                "the lease of {key} was lost, and the command goes on: {reason}"
            )),
            OnLoss::Kill => self.kill(),
            OnLoss::Term => {
                // When time has ended it, the server keeps it for as long as it was given up early. Otherwise it may be another's by now.
                let by = match reason {
                    LostReason::Expired => (now.min(self.held.held_until())) + self.policy.times.grace,
                    _ => now,
                };
                self.stop_by(by);
            }
        }
        self.lost = Some((key, reason));
    }

    /// Processes of the group have outlived the command: they end before the lease is given back.
    fn part(&mut self) {
        if self.job.is_alive() {
            self.stop_by(Instant::now() + self.policy.parting);
        }
    }

    /// Stops the group: kindly, if there is time for that.
    fn stop_by(&mut self, by: Instant) {
        if by <= Instant::now() {
            return self.kill();
        }
        self.job.signal(Signal::TERM);
        // What is stopped takes no signal but this.
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

    /// The command was stopped. Where a shell has stopped it, this process stops as well, so that the shell goes on.
    fn take_stop(&mut self, by: i32) {
        if self.kill_at.is_some() || self.killed_at.is_some() {
            return;
        }
        let by_user = by == Signal::TSTP.as_raw();
        let by_terminal = by == Signal::TTIN.as_raw() || by == Signal::TTOU.as_raw();
        if !by_user && !by_terminal && !self.job.has_terminal() {
            // An operator did that, and will continue it. The lease is renewed meanwhile.
            return;
        }
        let was_stopped = self.job.stop_with_it();
        // Where there is no shell, what the user has stopped would stay so.
        if was_stopped || by_user {
            self.resume();
        }
    }

    /// Continues the command, unless the lease was lost while it was stopped.
    fn resume(&mut self) {
        if self.minds() && (self.lost.is_some() || !self.held.is_held()) {
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
