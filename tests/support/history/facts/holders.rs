//! The holders of a record (guards and permits of callers), and when the callers used and lost them.

use std::collections::HashMap;

use super::super::record::{Acquired, Kind, Name, Token};

#[derive(Clone, Debug)]
pub struct Holder {
    pub process: Name,
    pub holder: u64,
    pub op: u64,
    pub kind: Kind,
    pub key: Name,
    pub limit: u64,
    pub token: Token,
    pub fence: Option<u64>,
    pub watched: bool,
    pub line: usize,
    pub at: u64,
    /// The lines and times of the uses for which `is_held` returned true.
    pub believed: Vec<(usize, u64)>,
    /// The time of the first use for which `is_held` returned false.
    pub doubted: Option<u64>,
    /// The line and the time at which the caller learnt of the loss.
    pub lost: Option<(usize, u64)>,
    /// When the caller dropped the holder or began to release it.
    pub let_go: Option<u64>,
    /// When the release was acknowledged.
    pub released: Option<u64>,
}

/// All holders, in the order of their `acquired` lines.
#[derive(Debug, Default)]
pub struct Holders {
    pub all: Vec<Holder>,
    by_id: HashMap<(Name, u64), usize>,
    by_token: HashMap<Token, Vec<usize>>,
}

impl Holders {
    pub fn of(&self, process: &Name, holder: u64) -> Option<&Holder> {
        self.all.get(*self.by_id.get(&(process.clone(), holder))?)
    }

    pub fn of_mut(&mut self, process: &Name, holder: u64) -> Option<&mut Holder> {
        self.all.get_mut(*self.by_id.get(&(process.clone(), holder))?)
    }

    /// Returns the holders of one grant. There are several if a session reclaimed the grant.
    pub fn of_token(&self, token: Token) -> impl Iterator<Item = &Holder> {
        let numbers = self.by_token.get(&token).into_iter().flatten();
        numbers.filter_map(|number| self.all.get(*number))
    }

    /// Returns false if the process already has a holder with this number.
    pub fn begin(&mut self, line: usize, at: u64, acquired: &Acquired) -> bool {
        let number = self.all.len();
        self.by_token.entry(acquired.token).or_default().push(number);
        let before = self.by_id.insert((acquired.process.clone(), acquired.holder), number);
        self.all.push(Holder {
            process: acquired.process.clone(),
            holder: acquired.holder,
            op: acquired.op,
            kind: acquired.kind,
            key: acquired.key.clone(),
            limit: acquired.limit,
            token: acquired.token,
            fence: acquired.fence,
            watched: acquired.watched,
            line,
            at,
            believed: Vec::new(),
            doubted: None,
            lost: None,
            let_go: None,
            released: None,
        });
        before.is_none()
    }
}

impl Holder {
    /// Returns the time of the last use for which `is_held` returned true.
    pub fn last_belief(&self) -> Option<u64> {
        self.believed.iter().map(|(_, at)| *at).max()
    }

    /// Returns when the caller gave up the holder: it dropped the holder, began to release it, or learnt of the loss.
    pub fn given_up(&self) -> Option<u64> {
        let lost = self.lost.map(|(_, at)| at);
        self.let_go.into_iter().chain(lost).min()
    }
}
