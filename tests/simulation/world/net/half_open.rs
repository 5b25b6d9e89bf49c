//! Half-open connections: cut in silence, or closed by the client, while the server still has them. Records their groups and their
//! duration.

use std::collections::BTreeMap;

use dflockd_client::protocol::{Request, RequestDecoder};
use dflockd_client::{Group, Pattern};

use super::{PipeId, Time};

/// The groups that a client has joined over a connection, by the requests that reached its server.
#[derive(Default)]
pub(super) struct Memberships {
    decoder: RequestDecoder,
    joined: Vec<(Pattern, Group)>,
}

impl Memberships {
    /// Notes the groups that a client joins or leaves with bytes that the server reads.
    pub(super) fn hear(&mut self, bytes: &[u8]) {
        self.decoder.read_space().extend_from_slice(bytes);
        while let Ok(Some(request)) = self.decoder.next_request() {
            match request {
                Request::Listen {
                    pattern,
                    group: Some(group),
                } => self.joined.push((pattern, group)),
                Request::Unlisten {
                    pattern,
                    group: Some(group),
                } => self.joined.retain(|joined| *joined != (pattern.clone(), group.clone())),
                _ => {}
            }
        }
    }
}

/// A half-open connection, as long as its server has it.
#[derive(Clone, Debug)]
pub struct HalfOpen {
    pub connection: PipeId,
    /// The groups in which its server has it as a member, each with the later of two times: when the connection became
    /// half open, and when its request to join reached the server.
    pub of: Vec<(Time, Pattern, Group)>,
    /// `None` while it lasts.
    pub until: Option<Time>,
}

/// All half-open connections.
#[derive(Default)]
pub(super) struct HalfOpens {
    open: BTreeMap<PipeId, HalfOpen>,
    over: Vec<HalfOpen>,
}

impl HalfOpens {
    /// Notes that a connection was cut, or closed by its client, while its server still has it.
    pub(super) fn begin(&mut self, now: Time, connection: PipeId, memberships: &Memberships) {
        self.open.entry(connection).or_insert_with(|| HalfOpen {
            connection,
            of: Vec::new(),
            until: None,
        });
        self.joined(now, connection, memberships);
    }

    /// Notes that bytes have arrived over a connection. They matter only if it is half open now, because it became so
    /// while they were on their way.
    pub(super) fn joined(&mut self, now: Time, connection: PipeId, memberships: &Memberships) {
        let Some(half_open) = self.open.get_mut(&connection) else {
            return;
        };
        for (pattern, group) in &memberships.joined {
            if !half_open.of.iter().any(|(_, p, g)| (p, g) == (pattern, group)) {
                half_open.of.push((now, pattern.clone(), group.clone()));
            }
        }
    }

    /// Notes that the server has ended the connection.
    pub(super) fn end(&mut self, now: Time, connection: PipeId) {
        let ended = self.open.remove(&connection);
        self.over.extend(ended.map(|open| HalfOpen {
            until: Some(now),
            ..open
        }));
    }

    pub(super) fn take(&mut self) -> Vec<HalfOpen> {
        let open = std::mem::take(&mut self.open).into_values();
        let all = std::mem::take(&mut self.over).into_iter().chain(open);
        all.filter(|half_open| !half_open.of.is_empty()).collect()
    }
}
