//! Makes correct histories with a small model of a server, its clients, and signals.

use std::collections::VecDeque;

use fastrand::Rng;

use super::hand::{MS, process, token};
use crate::support::history::bounds::Bounds;
use crate::support::history::record::{
    Acquired, Action, Entry, Extent, Gap, Invoke, Kind, LetGo, Line, Lost, Name, Outcome, Received, Return, Subscribed,
    Token, Trouble, Use, What,
};

/// The bounds that every history of the model keeps.
pub(crate) const BOUNDS: Bounds = Bounds {
    scheduling: 2 * MS,
    unnoticed: 8 * MS,
    silence: 8 * MS,
    unowned: 4 * MS,
    transit: 0,
    delivery: 2 * MS,
};

const TICKS: u64 = 600;
const TTL: u64 = 40 * MS;
/// How long before the end of a lease the client reports the lease lost.
const MARGIN: u64 = 2 * MS;
const CALLERS: usize = 6;
const CHANNEL: &str = "c.d";

/// The key of a lock, or of a semaphore with a limit of two.
struct Key {
    kind: Kind,
    limit: u64,
    held: Vec<Token>,
    queue: VecDeque<(u64, usize)>,
}

struct Grant {
    holder: u64,
    token: Token,
    ends: u64,
    /// After the connection has ended: the time at which the client will notice the end.
    unnoticed_until: Option<u64>,
}

enum State {
    Idle,
    Waits {
        op: u64,
        key: usize,
        place: u64,
        deadline: u64,
    },
    Holds {
        key: usize,
        grant: Grant,
    },
}

pub(crate) struct Model {
    rng: Rng,
    now: u64,
    lines: Vec<Line>,
    keys: Vec<Key>,
    callers: Vec<State>,
    /// Leases that no caller owns: the time at which each lease ends, its last caller, its key and its token.
    expiring: Vec<(u64, usize, usize, Token)>,
    last_id: u64,
    last_fence: u64,
    last_place: u64,
    cuts: u64,
    /// Signals that were emitted and are not delivered yet.
    on_the_way: VecDeque<u64>,
    gap: bool,
    published: u64,
}

/// Returns a correct history from this seed.
pub(crate) fn history(seed: u64) -> Vec<Line> {
    let key = |kind, limit| Key {
        kind,
        limit,
        held: Vec::new(),
        queue: VecDeque::new(),
    };
    let mut model = Model {
        rng: Rng::with_seed(seed),
        now: 0,
        lines: Vec::new(),
        keys: vec![key(Kind::Lock, 1), key(Kind::Semaphore, 2)],
        callers: (0..CALLERS).map(|_| State::Idle).collect(),
        expiring: Vec::new(),
        last_id: 0,
        last_fence: 0,
        last_place: 0,
        cuts: 0,
        on_the_way: VecDeque::new(),
        gap: false,
        published: 0,
    };
    model.run();
    model.lines
}

impl Model {
    fn run(&mut self) {
        self.note(What::Subscribed(Subscribed {
            process: "s".into(),
            subscription: 1,
            pattern: "c.*".into(),
            group: None,
        }));
        for tick in 1..=TICKS {
            self.now = tick * MS;
            self.pass_time();
            for caller in 0..CALLERS {
                if self.rng.u8(0..6) == 0 {
                    self.act(caller);
                }
            }
            self.signal();
        }
        // After the last tick, the model runs until every lease and every wait has ended.
        for tick in TICKS + 1..TICKS + 100 {
            self.now = tick * MS;
            self.pass_time();
            for caller in 0..CALLERS {
                if matches!(self.callers[caller], State::Holds { .. }) {
                    self.let_go(caller);
                }
            }
            self.deliver();
        }
        for caller in 0..CALLERS {
            self.note(What::ProcessEnded(process(&name(caller))));
        }
    }

    /// Adds a line. The clock then advances by 1 ns, so that each line has its own time.
    fn note(&mut self, what: What) {
        self.lines.push(Line { at: self.now, what });
        self.now += 1;
    }

    fn id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn entry(&self, key: usize, caller: usize) -> Entry {
        Entry {
            server: "s".into(),
            connection: caller as u64,
            kind: self.keys[key].kind,
            key: "k".into(),
            limit: self.keys[key].limit,
            token: None,
            fence: None,
            place: None,
            ends: None,
        }
    }

    /// Makes everything happen that is due now: waits time out, holders learn of losses, and at most one lease without
    /// an owner expires.
    fn pass_time(&mut self) {
        let over = self.expiring.iter().position(|(ends, ..)| *ends <= self.now);
        if let Some(over) = over {
            let (_, caller, key, token) = self.expiring.remove(over);
            self.end(caller, key, token, What::Expired);
        }
        for caller in 0..CALLERS {
            match &mut self.callers[caller] {
                State::Waits {
                    op,
                    key,
                    place,
                    deadline,
                } if *deadline <= self.now => {
                    let (op, key, place) = (*op, *key, *place);
                    self.leave(caller, key, place);
                    self.ended(caller, op, Outcome::TimedOut);
                    self.callers[caller] = State::Idle;
                }
                State::Holds { grant, .. } if grant.unnoticed_until.is_some_and(|until| until <= self.now) => {
                    self.lose(caller, "disconnected");
                }
                State::Holds { grant, .. } if grant.ends <= self.now + MARGIN && grant.unnoticed_until.is_none() => {
                    self.lose(caller, "expired");
                }
                _ => {}
            }
        }
    }

    fn act(&mut self, caller: usize) {
        match self.callers[caller] {
            State::Idle => self.acquire(caller),
            State::Waits { op, key, place, .. } if self.rng.u8(0..8) == 0 => {
                self.leave(caller, key, place);
                self.ended(caller, op, Outcome::Cancelled);
                self.callers[caller] = State::Idle;
            }
            State::Waits { .. } => {}
            State::Holds { .. } => match self.rng.u8(0..10) {
                0..4 => self.use_it(caller),
                4 | 5 => self.renew(caller),
                6 if self.now < TICKS / 2 * MS => self.disconnect(caller),
                _ => self.let_go(caller),
            },
        }
    }

    fn acquire(&mut self, caller: usize) {
        let (op, key) = (self.id(), self.rng.usize(0..self.keys.len()));
        let timeout = self.rng.u64(5..60) * MS;
        self.note(What::Invoke(Invoke {
            kind: Some(self.keys[key].kind),
            key: Some("k".into()),
            limit: Some(self.keys[key].limit),
            timeout: Some(timeout),
            ..call(caller, op, Action::Acquire)
        }));
        let deadline = self.now + timeout;
        let room = (self.keys[key].held.len() as u64) < self.keys[key].limit;
        if room && self.keys[key].queue.is_empty() {
            return self.grant(caller, key, op, None);
        }
        self.last_place += 1;
        let place = self.last_place;
        let entry = self.entry(key, caller);
        self.note(What::Queued(Entry {
            place: Some(place),
            ..entry
        }));
        self.keys[key].queue.push_back((place, caller));
        self.callers[caller] = State::Waits {
            op,
            key,
            place,
            deadline,
        };
    }

    fn grant(&mut self, caller: usize, key: usize, op: u64, place: Option<u64>) {
        self.last_fence += 1 + self.rng.u64(0..3);
        let (fence, holder) = (self.last_fence, self.id());
        let (token, ends) = (token(fence), self.now + TTL);
        self.keys[key].held.push(token);
        let entry = self.entry(key, caller);
        self.note(What::Granted(Entry {
            token: Some(token),
            fence: Some(fence),
            place,
            ends: Some(ends),
            ..entry
        }));
        self.note(What::Acquired(Acquired {
            process: name(caller).as_str().into(),
            holder,
            op,
            kind: self.keys[key].kind,
            key: "k".into(),
            limit: self.keys[key].limit,
            token,
            fence: Some(fence),
            watched: true,
        }));
        self.ended(caller, op, Outcome::Granted);
        let unnoticed_until = None;
        let grant = Grant {
            holder,
            token,
            ends,
            unnoticed_until,
        };
        self.callers[caller] = State::Holds { key, grant };
    }

    fn leave(&mut self, caller: usize, key: usize, place: u64) {
        self.keys[key].queue.retain(|(of, _)| *of != place);
        let entry = self.entry(key, caller);
        self.note(What::Left(Entry {
            place: Some(place),
            ..entry
        }));
    }

    fn ended(&mut self, caller: usize, op: u64, outcome: Outcome) {
        self.note(What::Return(Return {
            process: name(caller).as_str().into(),
            op,
            outcome,
            token: None,
            fence: None,
            error: None,
        }));
    }

    fn use_it(&mut self, caller: usize) {
        let State::Holds { grant, .. } = &self.callers[caller] else {
            return;
        };
        let holder = grant.holder;
        self.note(What::Use(Use {
            process: name(caller).as_str().into(),
            holder,
            held: true,
        }));
    }

    fn renew(&mut self, caller: usize) {
        let ends = self.now + TTL;
        let State::Holds { key, grant } = &mut self.callers[caller] else {
            return;
        };
        if grant.unnoticed_until.is_some() {
            return;
        }
        grant.ends = ends;
        let (key, token) = (*key, grant.token);
        let entry = self.entry(key, caller);
        self.note(What::Renewed(Entry {
            token: Some(token),
            ends: Some(ends),
            ..entry
        }));
    }

    /// Ends a connection. The server notices the end at once, and the client a few milliseconds later.
    fn disconnect(&mut self, caller: usize) {
        let noticed = self.now + self.rng.u64(1..6) * MS;
        let State::Holds { key, grant } = &mut self.callers[caller] else {
            return;
        };
        if grant.unnoticed_until.is_some() {
            return;
        }
        grant.unnoticed_until = Some(noticed.min(grant.ends.saturating_sub(MARGIN)));
        let (key, token) = (*key, grant.token);
        self.cuts += 1;
        let cut = Trouble {
            trouble: format!("cut {}", self.cuts).as_str().into(),
            server: Some("s".into()),
        };
        self.note(What::TroubleBegun(cut.clone()));
        self.end(caller, key, token, What::Disconnected);
        self.note(What::TroubleEnded(cut));
    }

    /// Ends a grant at the server and serves the next waiter.
    fn end(&mut self, caller: usize, key: usize, token: Token, why: fn(Entry) -> What) {
        let entry = self.entry(key, caller);
        self.note(why(Entry {
            token: Some(token),
            ..entry
        }));
        self.keys[key].held.retain(|held| *held != token);
        if let Some((place, next)) = self.keys[key].queue.pop_front() {
            if let State::Waits { op, .. } = self.callers[next] {
                self.grant(next, key, op, Some(place));
            }
        }
    }

    fn lose(&mut self, caller: usize, reason: &str) {
        let State::Holds { key, grant } = std::mem::replace(&mut self.callers[caller], State::Idle) else {
            return;
        };
        let of = || Name::from(name(caller).as_str());
        self.note(What::Lost(Lost {
            process: of(),
            holder: grant.holder,
            reason: reason.into(),
        }));
        self.note(What::Use(Use {
            process: of(),
            holder: grant.holder,
            held: false,
        }));
        self.note(What::LetGo(LetGo {
            process: of(),
            holder: Some(grant.holder),
            ticket: None,
        }));
        if grant.unnoticed_until.is_none() {
            self.expiring.push((grant.ends, caller, key, grant.token));
        }
    }

    fn let_go(&mut self, caller: usize) {
        let State::Holds { key, grant } = std::mem::replace(&mut self.callers[caller], State::Idle) else {
            return;
        };
        let is_held = grant.unnoticed_until.is_none();
        if self.rng.bool() {
            self.note(What::LetGo(LetGo {
                process: name(caller).as_str().into(),
                holder: Some(grant.holder),
                ticket: None,
            }));
            if is_held {
                self.end(caller, key, grant.token, What::Released);
            }
            return;
        }
        let op = self.id();
        self.note(What::Invoke(Invoke {
            holder: Some(grant.holder),
            ..call(caller, op, Action::Release)
        }));
        if is_held {
            self.end(caller, key, grant.token, What::Released);
        }
        let outcome = if is_held { Outcome::Done } else { Outcome::Failed };
        self.ended(caller, op, outcome);
    }

    /// Makes a random step of the signals. The model has one publisher and one subscription, and sometimes a gap.
    fn signal(&mut self) {
        match self.rng.u8(0..12) {
            0..5 => {
                self.published += 1;
                let (op, payload) = (self.id(), self.published);
                self.note(What::Invoke(Invoke {
                    channel: Some(CHANNEL.into()),
                    payload: Some(payload.to_string().as_str().into()),
                    ..call(CALLERS, op, Action::Emit)
                }));
                self.ended(CALLERS, op, Outcome::Done);
                if !self.gap {
                    self.on_the_way.push_back(payload);
                }
                self.deliver();
            }
            5 if self.on_the_way.is_empty() => {
                let extent = if self.gap { Extent::Ends } else { Extent::Begins };
                self.gap = !self.gap;
                self.tell_gap(extent);
            }
            _ => self.deliver(),
        }
    }

    fn tell_gap(&mut self, extent: Extent) {
        self.note(What::Gap(Gap {
            process: "s".into(),
            subscription: 1,
            extent,
        }));
    }

    fn deliver(&mut self) {
        while let Some(payload) = self.on_the_way.pop_front() {
            self.note(What::Received(Received {
                process: "s".into(),
                subscription: 1,
                channel: CHANNEL.into(),
                payload: payload.to_string().as_str().into(),
            }));
        }
    }
}

fn name(caller: usize) -> String {
    format!("p{caller}")
}

fn call(caller: usize, op: u64, action: Action) -> Invoke {
    Invoke {
        process: name(caller).as_str().into(),
        caller: 1,
        op,
        action,
        kind: None,
        key: None,
        limit: None,
        timeout: None,
        ttl: None,
        holder: None,
        ticket: None,
        channel: None,
        payload: None,
    }
}
