//! When client processes were frozen, and how they ended.

use std::collections::HashMap;

use super::super::record::{Name, What};
use super::windows::Windows;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// In an orderly way.
    Ended,
    Killed,
}

#[derive(Clone, Debug, Default)]
pub struct Life {
    pub death: Option<(u64, Death)>,
    pub frozen: Windows,
}

impl Life {
    /// Returns when the process was killed.
    pub fn killed(&self) -> Option<u64> {
        self.death
            .filter(|(_, death)| *death == Death::Killed)
            .map(|(at, _)| at)
    }
}

/// All client processes. A process without a freeze or an end in the record ran all the time.
#[derive(Debug, Default)]
pub struct Processes {
    lives: HashMap<Name, Life>,
    always: Life,
}

impl Processes {
    pub fn life(&self, process: &Name) -> &Life {
        self.lives.get(process).unwrap_or(&self.always)
    }

    /// Returns how long a process was not frozen between `from` and `to`, in nanoseconds.
    pub fn ran(&self, process: &Name, from: u64, to: u64) -> u64 {
        self.life(process).frozen.outside(from, to)
    }

    /// Returns when a process ended, or `end` if the record does not contain its end.
    pub fn last_moment(&self, process: &Name, end: u64) -> u64 {
        self.life(process).death.map_or(end, |(at, _)| at)
    }
}

/// Builds [`Processes`] from the lines of a record.
#[derive(Default)]
pub struct Lives {
    deaths: HashMap<Name, (u64, Death)>,
    frozen: HashMap<Name, Vec<(u64, u64)>>,
}

impl Lives {
    /// Returns false if a frozen process is frozen again, or a process that is not frozen is thawed. A second freeze
    /// has no effect, so one thaw ends the freeze.
    pub fn see(&mut self, at: u64, what: &What) -> bool {
        match what {
            What::ProcessEnded(process) => drop(self.deaths.insert(process.process.clone(), (at, Death::Ended))),
            What::ProcessKilled(process) => drop(self.deaths.insert(process.process.clone(), (at, Death::Killed))),
            What::ProcessFrozen(process) => {
                if self.open(&process.process).is_some() {
                    return false;
                }
                let frozen = self.frozen.entry(process.process.clone()).or_default();
                frozen.push((at, u64::MAX));
            }
            What::ProcessThawed(process) => match self.open(&process.process) {
                Some(end) => *end = at,
                None => return false,
            },
            _ => {}
        }
        true
    }

    /// Returns the end of the current freeze of a process. The end is `u64::MAX` until the thaw.
    fn open(&mut self, process: &Name) -> Option<&mut u64> {
        let (_, end) = self.frozen.get_mut(process)?.last_mut()?;
        (*end == u64::MAX).then_some(end)
    }

    pub fn collect(self) -> Processes {
        let mut processes = Processes::default();
        for (process, death) in self.deaths {
            processes.lives.entry(process).or_default().death = Some(death);
        }
        for (process, frozen) in self.frozen {
            processes.lives.entry(process).or_default().frozen = Windows::of(frozen);
        }
        processes
    }
}
