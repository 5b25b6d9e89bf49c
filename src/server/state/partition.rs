//! Members that are cut off from the others.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::oneshot;

use crate::protocol::Response;

type ReplySender = oneshot::Sender<Response>;

/// The members that are cut off from the others, and the answers that their connections have not received yet.
#[derive(Default)]
pub(super) struct Partition {
    cut_off: BTreeSet<usize>,
    /// The members that believe that they lead, with their terms.
    believe: BTreeMap<usize, u64>,
    /// Requests that wait for a majority.
    hung: Vec<(usize, ReplySender)>,
    /// Grants that the members have not learned of yet.
    grants: Vec<(usize, ReplySender, Response)>,
}

/// The answers that become possible when a member reaches the others again.
pub(super) struct Healed {
    pub(super) hung: Vec<ReplySender>,
    pub(super) grants: Vec<(ReplySender, Response)>,
}

impl Partition {
    pub(super) fn cuts_off(&self, member: usize) -> bool {
        self.cut_off.contains(&member)
    }

    /// Returns the term in which a member believes that it leads.
    pub(super) fn believed_term(&self, member: usize) -> Option<u64> {
        self.believe.get(&member).copied()
    }

    pub(super) fn cut_off(&mut self, member: usize, leads_in: Option<u64>) {
        self.cut_off.insert(member);
        if let Some(term) = leads_in {
            self.believe.insert(member, term);
        }
    }

    pub(super) fn hang(&mut self, member: usize, reply: ReplySender) {
        self.hung.retain(|(_, reply)| !reply.is_closed());
        self.hung.push((member, reply));
    }

    /// Sends a grant through a member, as soon as the member learns of it.
    pub(super) fn tell(&mut self, member: usize, reply: ReplySender, grant: Response) {
        match self.cuts_off(member) {
            true => self.grants.push((member, reply, grant)),
            // A request that has just ended does not receive the grant.
            false => drop(reply.send(grant)),
        }
    }

    pub(super) fn heal(&mut self, member: usize) -> Healed {
        self.cut_off.remove(&member);
        self.believe.remove(&member);
        let (own, others) = std::mem::take(&mut self.hung)
            .into_iter()
            .partition(|(at, _)| *at == member);
        self.hung = others;
        let hung: Vec<(usize, ReplySender)> = own;
        let (own, others) = std::mem::take(&mut self.grants)
            .into_iter()
            .partition(|(at, ..)| *at == member);
        self.grants = others;
        let grants: Vec<(usize, ReplySender, Response)> = own;
        Healed {
            hung: hung.into_iter().map(|(_, reply)| reply).collect(),
            grants: grants.into_iter().map(|(_, reply, grant)| (reply, grant)).collect(),
        }
    }
}
