//! The servers' answers: well-formed, and otherwise arbitrary.

use arbitrary::Arbitrary;

use super::callers::Callers;
use crate::error::{Error, ErrorKind};
use crate::net::abilities::Abilities;
use crate::net::connect::Shown;
use crate::net::fencing::FencesShown;
use crate::protocol::{Expect, Request, Response, Status};
use crate::stats::ClusterStats;
use crate::types::{Fence, Grant, Ttl};

/// How a server answers a request.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum How {
    /// With success. The number determines the seconds of a grant or a renewal.
    Well(u8),
    /// With the answer that the key is held, or, for other requests, with `error`.
    Busy,
    Refused(u8),
}

impl How {
    pub(super) fn response(self, request: &Request, callers: &mut Callers) -> Response {
        let expect = request.expect();
        match (self, expect) {
            (Self::Well(ttl), Expect::Grant) => Response::Granted(grant(ttl, callers)),
            (Self::Well(ttl), Expect::Place) => Response::Acquired(grant(ttl, callers)),
            (Self::Well(0), Expect::Renewal) => Response::Renewed(None),
            (Self::Well(left), Expect::Renewal) => Response::Renewed(Some(u64::from(left))),
            (Self::Well(_), Expect::Done) => Response::Done,
            (Self::Well(count), Expect::Count) => Response::Count(u64::from(count)),
            (Self::Well(how), Expect::Json) => Response::Json(stats(how).into()),
            (Self::Busy, Expect::Place) => Response::Queued,
            (Self::Busy, Expect::Grant) => Response::TimedOut,
            (Self::Busy, _) => Response::Refused(Status::Error),
            (Self::Refused(status), _) => Response::Refused(refusal(status)),
        }
    }
}

/// Creates a grant with a new token.
fn grant(how: u8, callers: &mut Callers) -> Grant {
    let ttl = Ttl::from_secs(u64::from(how % 32) + 1).unwrap();
    let mut grant = Grant::new(callers.next_token(), ttl);
    if how >= 224 {
        grant.fence = Some(Fence(grant.token.first_half()));
    }
    grant
}

fn refusal(status: u8) -> Status {
    match status % 12 {
        0 => Status::Error,
        1 => Status::Auth,
        2 => Status::MaxLocks,
        3 => Status::MaxWaiters,
        4 => Status::LimitMismatch,
        5 => Status::NotEnqueued,
        6 => Status::AlreadyEnqueued,
        7 => Status::LeaseExpired,
        8 => Status::Draining,
        _ => Status::NotLeader(leader(status / 12)),
    }
}

/// Returns the leader that a member names.
pub(super) fn leader(how: u8) -> Option<Box<str>> {
    match how % 4 {
        0 => None,
        1 => Some("a:1".into()),
        2 => Some("b:1".into()),
        _ => Some("z:9".into()),
    }
}

fn stats(how: u8) -> &'static str {
    match how % 4 {
        0 => "{}",
        1 => r#"{"cluster":{"role":"leader","node_id":"a","voters":["a","b"]}}"#,
        2 => r#"{"cluster":{"role":"follower","node_id":"b","leader_addr":"a:1"}}"#,
        _ => "{",
    }
}

/// Returns what a greeting shows.
pub(super) fn shown(how: u8) -> Shown {
    let known = |bits: u8| match bits % 3 {
        0 => None,
        1 => Some(false),
        _ => Some(true),
    };
    let cluster = |leads: bool| ClusterStats {
        role: if leads { "leader" } else { "follower" }.to_owned(),
        leader_addr: Some("b:1".to_owned()),
        ..ClusterStats::default()
    };
    Shown {
        abilities: Abilities {
            ping: known(how),
            sessions: known(how / 3),
        },
        cluster: match how / 9 % 3 {
            0 => None,
            1 => Some(Box::new(cluster(true))),
            _ => Some(Box::new(cluster(false))),
        },
        fences: match how / 27 % 3 {
            0 => FencesShown::Nothing,
            1 => FencesShown::Counted(Some(u64::from(how))),
            _ => FencesShown::Named,
        },
    }
}

/// Returns the error of a connection that cannot be opened.
pub(super) fn opening_error(how: u8) -> Error {
    let error = match how % 6 {
        0 | 1 => Error::new(ErrorKind::Connect, "refused"),
        2 => Error::new(ErrorKind::Auth, "wrong secret"),
        3 => Error::new(ErrorKind::Protocol, "not a dflockd server"),
        4 => Error::new(ErrorKind::NotLeader, "another leads").led_by(leader(how / 6).as_deref().unwrap_or("c:1")),
        _ => Error::new(ErrorKind::Disconnected, "closed at once"),
    };
    match how >= 200 {
        true => error.fatal(),
        false => error,
    }
}
