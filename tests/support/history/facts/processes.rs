//! The lives of client processes.

use std::collections::HashMap;

use super::super::record::{Name, What};
use super::windows::Windows;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// In order.
    Ended,
    Killed,
}

#[derive(Clone, Debug, Default)]
pub struct Life {
    pub death: Option<(u64, Death)>,
    pub frozen: Windows,
}

impl Life {
    /// When it was killed.
    pub fn killed(&self) -> Option<u64> {
        self.death
            .filter(|(_, death)| *death == Death::Killed)
            .map(|(at, _)| at)
    }
}

/// All client processes. One that no line names ran all the time.
#[derive(Debug, Default)]
pub struct Processes {
    lives: HashMap<Name, Life>,
    always: Life,
}

impl Processes {
    pub fn life(&self, process: &Name) -> &Life {
        self.lives.get(process).unwrap_or(&self.always)
    }

    /// For how much of the time between a process ran.
    pub fn ran(&self, process: &Name, from: u64, to: u64) -> u64 {
        self.life(process).frozen.outside(from, to)
    }

    /// The moment at which a process was no more, or the end of the record.
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
    pub fn see(&mut self, at: u64, what: &What) {
        match what {
            What::ProcessEnded(process) => drop(self.deaths.insert(process.process.clone(), (at, Death::Ended))),
            What::ProcessKilled(process) => drop(self.deaths.insert(process.process.clone(), (at, Death::Killed))),
            What::ProcessFrozen(process) => {
                let frozen = self.frozen.entry(process.process.clone()).or_default();
                frozen.push((at, u64::MAX));
            }
            What::ProcessThawed(process) => {
                let frozen = self.frozen.get_mut(&process.process);
                if let Some(last) = frozen.and_then(|frozen| frozen.last_mut()) {
                    last.1 = last.1.min(at);
                }
            }
            _ => {}
        }
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
