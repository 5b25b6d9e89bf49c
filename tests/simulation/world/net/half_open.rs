//! Records of half-open connections. Such a connection was cut in silence, or its client has closed it. Its server has
//! not closed it yet. Each record has the groups that the connection has joined, and the time in which it was half
//! open.

use std::collections::BTreeMap;

use dflockd_client::protocol::{Request, RequestDecoder};
use dflockd_client::{Group, Pattern};

use super::{PipeId, Time};

/// The groups that a client has joined over a connection, according to the requests that have reached the server.
#[derive(Default)]
pub(super) struct Memberships {
    decoder: RequestDecoder,
    joined: Vec<(Pattern, Group)>,
}

impl Memberships {
    /// Decodes bytes that have reached the server. Updates the groups from the requests in the bytes.
    pub(super) fn decode(&mut self, bytes: &[u8]) {
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

/// The record of one half-open connection.
#[derive(Clone, Debug)]
pub struct HalfOpen {
    pub connection: PipeId,
    /// The groups that the connection has joined. The time of a group is the later of two times: when the connection
    /// became half open, and when its request to join the group reached the server.
    pub groups: Vec<(Time, Pattern, Group)>,
    /// When the server ended the connection. `None` while the connection is half open.
    pub until: Option<Time>,
}

/// All half-open connections.
#[derive(Default)]
pub(super) struct HalfOpens {
    open: BTreeMap<PipeId, HalfOpen>,
    over: Vec<HalfOpen>,
}

impl HalfOpens {
    /// Records that a connection is half open from now on.
    pub(super) fn begin(&mut self, now: Time, connection: PipeId, memberships: &Memberships) {
        self.open.entry(connection).or_insert_with(|| HalfOpen {
            connection,
            groups: Vec::new(),
            until: None,
        });
        self.update_groups(now, connection, memberships);
    }

    /// Records the groups that a half-open connection has joined. Does nothing for other connections. A connection can
    /// join a group while it is half open, because the request was on its way when the connection became half open.
    pub(super) fn update_groups(&mut self, now: Time, connection: PipeId, memberships: &Memberships) {
        let Some(half_open) = self.open.get_mut(&connection) else {
            return;
        };
        for (pattern, group) in &memberships.joined {
            if !half_open.groups.iter().any(|(_, p, g)| (p, g) == (pattern, group)) {
                half_open.groups.push((now, pattern.clone(), group.clone()));
            }
        }
    }

    /// Records that the server has ended the connection.
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
        all.filter(|half_open| !half_open.groups.is_empty()).collect()
    }
}
