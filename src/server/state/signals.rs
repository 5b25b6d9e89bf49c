//! The requests about signals, in releases that have signals and in those that do not.

use super::{ConnectionId, ServerAnswer, State};
use crate::protocol::{MAX_LONG_LINE, Response, Status, trim};
use crate::server::signals::{RawGroup, RawPattern, has_wildcards};

const REFUSED: Response = Response::Refused(Status::Error);

impl State {
    pub(super) fn listen(&mut self, connection: ConnectionId, pattern: &[u8], group: &[u8]) -> ServerAnswer {
        let (Some(signals), Some(pattern)) = (&mut self.signals, RawPattern::read(pattern)) else {
            return ServerAnswer::Now(REFUSED);
        };
        match signals.listen(connection, pattern, group_of(group)) {
            Ok(Some(inbox)) => ServerAnswer::Listening(inbox),
            Ok(None) => ServerAnswer::Now(Response::Done),
            Err(_) => ServerAnswer::Now(REFUSED),
        }
    }

    pub(super) fn unlisten(&mut self, connection: ConnectionId, pattern: &[u8], group: &[u8]) -> Response {
        let Some(signals) = &mut self.signals else {
            return REFUSED;
        };
        match RawPattern::read(pattern) {
            Some(pattern) => signals.unlisten(connection, pattern, group_of(group)),
            None if self.options.release.checks_signals_strictly() => return REFUSED,
            // No connection listens to an invalid pattern.
            None => {}
        }
        Response::Done
    }

    pub(super) fn signal(&mut self, channel: &[u8], payload: &[u8]) -> Response {
        let Some(signals) = &mut self.signals else {
            return REFUSED;
        };
        let is_blank = self.options.release.checks_signals_strictly() && trim(payload).is_empty();
        let length = b"sig  ".len() + channel.len() + payload.len();
        if has_wildcards(channel) || is_blank || length > MAX_LONG_LINE {
            return REFUSED;
        }
        Response::Count(signals.publish(channel, payload))
    }
}

/// Reads the name of a group. An empty name means no group.
fn group_of(name: &[u8]) -> Option<RawGroup> {
    (!name.is_empty()).then(|| name.into())
}
