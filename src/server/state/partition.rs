//! Members that do not reach the others.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::oneshot;

use crate::protocol::Response;

type Told = oneshot::Sender<Response>;

/// Which members do not reach the others, and what is owed to their connections.
#[derive(Default)]
pub(super) struct Partition {
    cut_off: BTreeSet<usize>,
    /// Those that believe to lead, and their terms.
    believe: BTreeMap<usize, u64>,
    /// Requests that wait for a majority.
    hung: Vec<(usize, Told)>,
    /// Grants that they have not heard of yet.
    grants: Vec<(usize, Told, Response)>,
}

/// What a member that reaches the others again has to tell.
pub(super) struct Healed {
    pub(super) hung: Vec<Told>,
    pub(super) grants: Vec<(Told, Response)>,
}

impl Partition {
    pub(super) fn cuts_off(&self, member: usize) -> bool {
        self.cut_off.contains(&member)
    }

    /// The term in which a member believes to lead.
    pub(super) fn term_of_belief(&self, member: usize) -> Option<u64> {
        self.believe.get(&member).copied()
    }

    pub(super) fn cut_off(&mut self, member: usize, leads_in: Option<u64>) {
        self.cut_off.insert(member);
        if let Some(term) = leads_in {
            self.believe.insert(member, term);
        }
    }

    pub(super) fn hang(&mut self, member: usize, told: Told) {
        self.hung.retain(|(_, told)| !told.is_closed());
        self.hung.push((member, told));
    }

    /// Tells a grant by a member, as soon as it hears of it.
    pub(super) fn tell(&mut self, member: usize, told: Told, grant: Response) {
        match self.cuts_off(member) {
            true => self.grants.push((member, told, grant)),
            // A request that has just ended does not hear it.
            false => drop(told.send(grant)),
        }
    }

    pub(super) fn heal(&mut self, member: usize) -> Healed {
        self.cut_off.remove(&member);
        self.believe.remove(&member);
        let (own, others) = std::mem::take(&mut self.hung)
            .into_iter()
            .partition(|(at, _)| *at == member);
        self.hung = others;
        let hung: Vec<(usize, Told)> = own;
        let (own, others) = std::mem::take(&mut self.grants)
            .into_iter()
            .partition(|(at, ..)| *at == member);
        self.grants = others;
        let grants: Vec<(usize, Told, Response)> = own;
        Healed {
            hung: hung.into_iter().map(|(_, told)| told).collect(),
            grants: grants.into_iter().map(|(_, told, grant)| (told, grant)).collect(),
        }
    }
}
