//! Signals: what a server answers that knows them, or does not.

use super::{Answer, Connection, State};
use crate::protocol::{Channel, Group, Pattern, Payload, Response, Status};

impl State {
    pub(super) fn listen(&mut self, connection: Connection, pattern: Pattern, group: Option<Group>) -> Answer {
        let signals = self.signals.as_mut();
        match signals.map(|signals| signals.listen(connection, pattern, group)) {
            Some(Ok(Some(inbox))) => Answer::Listening(inbox),
            Some(Ok(None)) => Answer::Now(Response::Done),
            Some(Err(_)) | None => Answer::Now(Response::Refused(Status::Error)),
        }
    }

    pub(super) fn unlisten(&mut self, connection: Connection, pattern: Pattern, group: Option<Group>) -> Response {
        let Some(signals) = &mut self.signals else {
            return Response::Refused(Status::Error);
        };
        signals.unlisten(connection, pattern, group);
        Response::Done
    }

    pub(super) fn signal(&mut self, channel: Channel, payload: Payload) -> Response {
        match &mut self.signals {
            Some(signals) => Response::Count(signals.publish(channel, payload)),
            None => Response::Refused(Status::Error),
        }
    }
}
