//! Renewals: on their way, and what became of them.

use std::time::Duration;

use tokio::time::Instant;
use tracing::field;

use super::Shard;
use crate::actor::message::Renewal;
use crate::lease::registry::{LaneId, LeaseId};
use crate::protocol::{Response, Status};

/// A server that refuses a renewal for a reason that passes is asked again after this.
const RENEW_AGAIN: Duration = Duration::from_millis(500);

impl Shard {
    /// A renewal, with the span that covers it until it is answered.
    pub(super) fn renewal(&self, id: LeaseId) -> Renewal {
        let span = match self.registry.claim(id) {
            Some(claim) if tracing::enabled!(tracing::Level::TRACE) => {
                let cell = claim.cell;
                tracing::trace_span!(
                    "renew",
                    shard = self.index,
                    key = %cell.key,
                    kind = cell.kind.as_str(),
                    token = %cell.token,
                    outcome = field::Empty
                )
            }
            _ => tracing::Span::none(),
        };
        Renewal { id, span }
    }

    pub(super) fn renewal_answered(&mut self, renewal: &Renewal, response: &Response, sent_at: Instant, from: LaneId) {
        let Renewal { id, span } = renewal;
        let outcome = match response {
            Response::Renewed(left) => {
                self.registry.renewed(*id, sent_at, *left);
                if self.failover.is_cluster() && from == self.main {
                    self.adopted(*id, from);
                }
                "renewed"
            }
            Response::Refused(Status::Error | Status::LeaseExpired) => {
                if self.registry.renewal_rejected(*id) {
                    if let Some(claim) = self.registry.claim(*id) {
                        tracing::warn!(
                            shard = self.index,
                            endpoint = %self.endpoint(),
                            key = %claim.cell.key,
                            token = %claim.cell.token,
                            "lease lost: the server says that it is not held"
                        );
                    }
                }
                "rejected"
            }
            _ => {
                self.registry.renew_again_at(*id, Instant::now() + RENEW_AGAIN);
                "put_off"
            }
        };
        span.record("outcome", outcome);
    }

    /// It was not sent, or its answer was lost: the lease stays due.
    pub(super) fn renewal_unanswered(&mut self, renewal: &Renewal) {
        renewal.is_unanswered();
        self.registry.renewal_failed(renewal.id);
    }

    /// Renews everything that is due and could not be renewed when it became so.
    pub(super) fn renew_overdue(&mut self) {
        let overdue = self.registry.overdue();
        self.renew_all(overdue);
    }
}
