//! Functions that make the lines of short records. All times are in milliseconds.

use crate::support::history::History;
use crate::support::history::bounds::Bounds;
use crate::support::history::record::{
    Acquired, Action, ConnectionId, Entry, Extent, Gap, HalfOpen, Invoke, Kind, LetGo, Line, Lost, Name, Outcome,
    Process, Received, Return, ServerId, ServerStarted, Subscribed, Subscription, Token, Trouble, Use, What,
};
use crate::support::history::verdict::{Rule, Verdict};

pub(crate) const MS: u64 = 1_000_000;

/// Short bounds, so that records are short.
pub(crate) const BOUNDS: Bounds = Bounds {
    scheduling: 10 * MS,
    unnoticed: 100 * MS,
    silence: 150 * MS,
    unowned: 50 * MS,
    transit: 5 * MS,
    delivery: 20 * MS,
};

pub(crate) fn at(ms: u64, what: What) -> Line {
    Line { at: ms * MS, what }
}

/// Returns the token with this fence.
pub(crate) fn token(fence: u64) -> Token {
    Token(u128::from(fence) << 64)
}

/// An entry about lock `k` of server `s`.
pub(crate) fn entry() -> Entry {
    Entry {
        server: "s".into(),
        connection: 9,
        kind: Kind::Lock,
        key: "k".into(),
        limit: 1,
        token: None,
        fence: None,
        place: None,
        ends: None,
    }
}

/// An entry about the grant whose token has this fence.
pub(crate) fn grant(fence: u64) -> Entry {
    Entry {
        token: Some(token(fence)),
        ..entry()
    }
}

/// An entry about a grant to the queue position `place`. The token of the grant has this fence.
pub(crate) fn grant_from(place: u64, fence: u64) -> Entry {
    Entry {
        place: Some(place),
        ..grant(fence)
    }
}

/// An entry about a queue position.
pub(crate) fn place(place: u64) -> Entry {
    Entry {
        place: Some(place),
        ..entry()
    }
}

/// Returns the entry with a lease that ends at `ms`.
pub(crate) fn until(ms: u64, entry: Entry) -> Entry {
    let ends = Some(ms * MS);
    Entry { ends, ..entry }
}

/// Returns the entry for another server.
pub(crate) fn at_server(server: &str, entry: Entry) -> Entry {
    let server = server.into();
    Entry { server, ..entry }
}

pub(crate) fn process(name: &str) -> Process {
    Process { process: name.into() }
}

pub(crate) fn server_id(name: &str) -> ServerId {
    ServerId { server: name.into() }
}

pub(crate) fn started(name: &str, succeeds: &str) -> What {
    What::ServerStarted(ServerStarted {
        server: name.into(),
        succeeds: Some(succeeds.into()),
    })
}

pub(crate) fn trouble(name: &str) -> Trouble {
    Trouble {
        trouble: name.into(),
        server: None,
    }
}

/// Trouble at this server only.
pub(crate) fn trouble_of(server: &str, name: &str) -> Trouble {
    Trouble {
        server: Some(server.into()),
        ..trouble(name)
    }
}

/// Starts an operation of process `p` on lock `k`.
pub(crate) fn invoke(op: u64, action: Action) -> Invoke {
    Invoke {
        process: "p".into(),
        caller: 1,
        op,
        action,
        kind: Some(Kind::Lock),
        key: Some("k".into()),
        limit: Some(1),
        timeout: None,
        ttl: None,
        holder: None,
        ticket: None,
        channel: None,
        payload: None,
    }
}

pub(crate) fn within(ms: u64, invoke: Invoke) -> What {
    let timeout = Some(ms * MS);
    What::Invoke(Invoke { timeout, ..invoke })
}

pub(crate) fn returned(op: u64, outcome: Outcome) -> What {
    What::Return(Return {
        process: "p".into(),
        op,
        outcome,
        token: None,
        fence: None,
        error: None,
    })
}

/// Holder `n` of process `p` received grant `n` of lock `k` from operation `n`.
pub(crate) fn acquired(n: u64) -> Acquired {
    Acquired {
        process: "p".into(),
        holder: n,
        op: n,
        kind: Kind::Lock,
        key: "k".into(),
        limit: 1,
        token: token(n),
        fence: None,
        watched: false,
    }
}

pub(crate) fn uses(holder: u64, held: bool) -> What {
    let process = "p".into();
    What::Use(Use { process, holder, held })
}

pub(crate) fn lost(holder: u64) -> What {
    What::Lost(Lost {
        process: "p".into(),
        holder,
        reason: "expired".into(),
    })
}

pub(crate) fn let_go(holder: u64) -> What {
    What::LetGo(LetGo {
        process: "p".into(),
        holder: Some(holder),
        ticket: None,
    })
}

pub(crate) fn releases(op: u64, holder: u64) -> What {
    What::Invoke(Invoke {
        holder: Some(holder),
        kind: None,
        key: None,
        limit: None,
        ..invoke(op, Action::Release)
    })
}

pub(crate) fn emits(op: u64, channel: &str, payload: &str) -> What {
    What::Invoke(Invoke {
        kind: None,
        key: None,
        limit: None,
        channel: Some(channel.into()),
        payload: Some(payload.into()),
        ..invoke(op, Action::Emit)
    })
}

pub(crate) fn subscribed(subscription: u64, pattern: &str, group: Option<&str>) -> What {
    What::Subscribed(Subscribed {
        process: "p".into(),
        subscription,
        pattern: pattern.into(),
        group: group.map(Name::from),
    })
}

pub(crate) fn unsubscribed(subscription: u64) -> What {
    let process = "p".into();
    What::Unsubscribed(Subscription { process, subscription })
}

pub(crate) fn received(subscription: u64, channel: &str, payload: &str) -> What {
    What::Received(Received {
        process: "p".into(),
        subscription,
        channel: channel.into(),
        payload: payload.into(),
    })
}

pub(crate) fn gap(subscription: u64, extent: Extent) -> What {
    What::Gap(Gap {
        process: "p".into(),
        subscription,
        extent,
    })
}

/// Connection 7, which has joined this group, is half open. The read timeout of its server is 12 ms.
pub(crate) fn half_open(pattern: &str, group: &str) -> What {
    What::HalfOpenBegun(HalfOpen {
        connection: 7,
        pattern: pattern.into(),
        group: group.into(),
        read_timeout: 12 * MS,
    })
}

pub(crate) fn half_open_ended() -> What {
    What::HalfOpenEnded(ConnectionId { connection: 7 })
}

pub(crate) fn judge(lines: &[Line]) -> Verdict {
    History::default().with(lines.to_vec()).judge(&BOUNDS)
}

/// Asserts that exactly the expected rules are broken, in this order, and that each violation contains the expected
/// text.
#[track_caller]
pub(crate) fn assert_broken(lines: &[Line], expected: &[(Rule, &str)]) {
    let verdict = judge(lines);
    let found: Vec<(Rule, &str)> = verdict
        .violations
        .iter()
        .map(|violation| (violation.rule, violation.what.as_str()))
        .collect();
    let rules = |list: &[(Rule, &str)]| list.iter().map(|(rule, _)| *rule).collect::<Vec<_>>();
    assert_eq!(rules(&found), rules(expected), "{verdict}");
    for ((_, found), (_, said)) in found.iter().zip(expected) {
        assert!(found.contains(said), "{found:?} without {said:?}");
    }
}

#[track_caller]
pub(crate) fn assert_fine(lines: &[Line]) {
    assert_broken(lines, &[]);
}
