//! Collects from the lines of a record the facts that the rules need.

pub mod grants;
pub mod half_open;
pub mod holders;
pub mod operations;
pub mod processes;
pub mod signals;
pub mod troubles;
pub mod windows;

use std::collections::HashMap;

use self::grants::Grants;
use self::half_open::HalfOpens;
use self::holders::{Holder, Holders};
use self::operations::Operations;
use self::processes::{Lives, Processes};
use self::signals::Signals;
use self::troubles::{Gathered, Troubles};
use self::windows::Windows;
use super::record::{Action, Line, Name, Outcome, Return, What};

pub struct Facts<'a> {
    pub lines: &'a [Line],
    /// The time of the last line.
    pub end: u64,
    pub processes: Processes,
    pub troubles: Troubles,
    pub grants: Grants,
    pub operations: Operations,
    pub holders: Holders,
    pub signals: Signals,
    pub half_open: HalfOpens,
    /// Whether the record has lines of servers. `server_started` lines do not count.
    pub servers_recorded: bool,
    /// For each server that was started at the address of an earlier server: the first server at that address.
    pub first_of: HashMap<Name, Name>,
    /// The lines that cannot follow the lines before them: the index of each line, and the reason.
    pub unfounded: Vec<(usize, &'static str)>,
}

impl<'a> Facts<'a> {
    /// Gathers the facts. `lines` must be sorted by time.
    pub fn gather(lines: &'a [Line]) -> Self {
        let mut gathering = Gathering {
            facts: Self {
                lines,
                end: lines.last().map_or(0, |line| line.at),
                processes: Processes::default(),
                troubles: Troubles::default(),
                grants: Grants::default(),
                operations: Operations::default(),
                holders: Holders::default(),
                signals: Signals::default(),
                half_open: HalfOpens::default(),
                servers_recorded: false,
                first_of: HashMap::new(),
                unfounded: Vec::new(),
            },
            lives: Lives::default(),
            troubles: Gathered::default(),
            half_open: half_open::Gathered::default(),
        };
        for (number, line) in lines.iter().enumerate() {
            gathering.see(number, line);
        }
        gathering.finish()
    }

    /// Returns when there was trouble at a server, or at another server at the same address.
    pub fn troubles_of(&self, server: &Name) -> &Windows {
        self.troubles.of(self.first_of(server))
    }

    /// Returns the first server that had the address of `server`.
    pub fn first_of<'b>(&'b self, server: &'b Name) -> &'b Name {
        self.first_of.get(server).unwrap_or(server)
    }

    /// Returns the time of the `invoke` that requested a holder's grant. For a ticket, that is the `invoke` of the
    /// `enqueue`.
    pub fn requested_at(&self, holder: &Holder) -> u64 {
        let Some(operation) = self.operations.of(&holder.process, holder.op) else {
            return holder.at;
        };
        let enqueued = operation
            .ticket
            .and_then(|ticket| self.operations.of(&holder.process, ticket));
        enqueued.unwrap_or(operation).at
    }
}

struct Gathering<'a> {
    facts: Facts<'a>,
    lives: Lives,
    troubles: Gathered,
    half_open: half_open::Gathered,
}

impl<'a> Gathering<'a> {
    fn see(&mut self, number: usize, line: &Line) {
        let (at, facts) = (line.at, &mut self.facts);
        let founded = match &line.what {
            What::Invoke(invoke) => {
                if let (Action::Release, Some(holder)) = (invoke.action, invoke.holder) {
                    facts.let_go(at, &invoke.process, holder);
                }
                facts.operations.invoke(number, at, invoke)
            }
            What::Return(end) => facts.operation_ended(at, end),
            What::Acquired(acquired) => facts.holders.begin(number, at, acquired),
            What::Use(belief) => match facts.holders.of_mut(&belief.process, belief.holder) {
                None => false,
                Some(holder) => {
                    match belief.held {
                        true => holder.believed.push((number, at)),
                        false => drop(holder.doubted.get_or_insert(at)),
                    }
                    true
                }
            },
            What::Lost(lost) => match facts.holders.of_mut(&lost.process, lost.holder) {
                None => false,
                Some(holder) => {
                    holder.lost.get_or_insert((number, at));
                    true
                }
            },
            What::LetGo(let_go) => {
                if let Some(enqueued) = let_go.ticket {
                    facts.operations.end_ticket(at, &let_go.process, enqueued);
                }
                match let_go.holder {
                    Some(holder) => facts.let_go(at, &let_go.process, holder),
                    None => true,
                }
            }
            What::TroubleBegun(trouble) => self.troubles.begin(at, trouble),
            What::TroubleEnded(trouble) => self.troubles.end(at, trouble),
            What::HalfOpenBegun(half_open) => self.half_open.begin(at, half_open),
            What::HalfOpenEnded(ended) => self.half_open.end(at, ended.connection),
            What::ServerStarted(started) => {
                if let Some(before) = &started.succeeds {
                    let first = facts.first_of(before).clone();
                    facts.first_of.insert(started.server.clone(), first);
                }
                true
            }
            What::ProcessStarted(_)
            | What::ProcessEnded(_)
            | What::ProcessKilled(_)
            | What::ProcessFrozen(_)
            | What::ProcessThawed(_) => self.lives.see(at, &line.what),
            what if what.entry().is_some() || matches!(what, What::ServerEnded(_)) => {
                facts.servers_recorded = true;
                facts.grants.see(number, at, what);
                true
            }
            what => facts.signals.see(number, at, what),
        };
        if !founded {
            let why = match &line.what {
                What::ProcessFrozen(_) => "a frozen process is frozen again",
                What::ProcessThawed(_) => "a process that is not frozen is thawed",
                What::TroubleBegun(_) => "a trouble that has not ended begins again",
                What::HalfOpenBegun(_) => "a half-open connection becomes half open again",
                _ => "cannot follow the lines before it",
            };
            self.facts.unfounded.push((number, why));
        }
    }

    fn finish(self) -> Facts<'a> {
        let Self {
            mut facts,
            lives,
            troubles,
            half_open,
        } = self;
        facts.troubles = troubles.collect(|server| facts.first_of(server).clone());
        facts.processes = lives.collect();
        facts.half_open = half_open.collect();
        facts
    }
}

impl Facts<'_> {
    fn let_go(&mut self, at: u64, process: &Name, holder: u64) -> bool {
        let holder = self.holders.of_mut(process, holder);
        holder.map(|holder| holder.let_go.get_or_insert(at)).is_some()
    }

    fn operation_ended(&mut self, at: u64, end: &Return) -> bool {
        if !self.operations.end(at, end) {
            return false;
        }
        let operation = self.operations.of(&end.process, end.op);
        let released =
            operation.filter(|operation| operation.action == Action::Release && end.outcome == Outcome::Done);
        let holder = released.and_then(|operation| operation.holder);
        if let Some(holder) = holder.and_then(|holder| self.holders.of_mut(&end.process, holder)) {
            holder.released.get_or_insert(at);
        }
        true
    }
}
