//! The lives of client processes.

use std::collections::HashMap;

use super::super::record::{Name, What};
use super::windows::Windows;

/// How a process ended.
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
    /// Returns when it was killed.
    pub fn killed(&self) -> Option<u64> {
        self.death
            .filter(|(_, death)| *death == Death::Killed)
            .map(|(at, _)| at)
    }
}

/// All client processes. A process that no line names ran all the time.
#[derive(Debug, Default)]
pub struct Processes {
    lives: HashMap<Name, Life>,
    always: Life,
}

impl Processes {
    pub fn life(&self, process: &Name) -> &Life {
        self.lives.get(process).unwrap_or(&self.always)
    }

    /// Returns for how much of this time a process ran.
    pub fn ran(&self, process: &Name, from: u64, to: u64) -> u64 {
        self.life(process).frozen.outside(from, to)
    }

    /// Returns when a process ended, or the end of the record.
    pub fn last_moment(&self, process: &Name, end: u64) -> u64 {
        self.life(process).death.map_or(end, |(at, _)| at)
    }
}

/// Collects the lives.
#[derive(Default)]
pub struct Lives {
    deaths: HashMap<Name, (u64, Death)>,
    frozen: HashMap<Name, Vec<(u64, u64)>>,
}

impl Lives {
    /// Returns false if a process is frozen twice, or thawed without a freeze. The first thaw resumes it, however often it was frozen.
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

    /// The open end of the current freeze of a process.
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
