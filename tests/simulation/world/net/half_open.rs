//! Connections that their servers have still and their clients do not, since they were cut in silence or closed: as members of which groups, and for
//! how long.

use std::collections::BTreeMap;

use dflockd_client::protocol::{Request, RequestDecoder};
use dflockd_client::{Group, Pattern};

use super::{PipeId, Time};

/// What a client has said over a connection, as far as it tells of groups.
#[derive(Default)]
pub(super) struct Memberships {
    decoder: RequestDecoder,
    joined: Vec<(Pattern, Group)>,
}

impl Memberships {
    /// The server reads this.
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

/// A connection that its client had no more, as long as its server had it.
#[derive(Clone, Debug)]
pub struct HalfOpen {
    pub connection: PipeId,
    /// As a member of which groups, each since when.
    pub of: Vec<(Time, Pattern, Group)>,
    /// None while it lasts.
    pub until: Option<Time>,
}

/// All of them.
#[derive(Default)]
pub(super) struct HalfOpens {
    open: BTreeMap<PipeId, HalfOpen>,
    over: Vec<HalfOpen>,
}

impl HalfOpens {
    /// A connection that its server has still is cut, or closed by its client.
    pub(super) fn begin(&mut self, now: Time, connection: PipeId, memberships: &Memberships) {
        self.open.entry(connection).or_insert_with(|| HalfOpen {
            connection,
            of: Vec::new(),
            until: None,
        });
        self.joined(now, connection, memberships);
    }

    /// Something has arrived over a connection. Nothing comes of it unless that became half open since it was sent.
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

    /// The server has ended the connection.
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
