//! The connection of a link: up, or opening.

use std::sync::Arc;
use std::time::Duration;

use ractor::ActorRef;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use crate::net::dial::{Dial, LaneEvent};
use crate::net::lane::Command;
use crate::signal::buffer::Buffer;
use crate::signal::message::{LinkLaneId, LinkMessage, LinkRequest};
use crate::signal::metrics::SignalCounters;

/// The connection that is up or opening.
pub(super) struct LinkLane {
    pub(super) id: LinkLaneId,
    /// When the connection came up; `None` while it is opening.
    pub(super) up: Option<Instant>,
    pub(super) commands: mpsc::UnboundedSender<Command<LinkRequest>>,
    _task: AbortOnDropHandle<()>,
}

impl LinkLane {
    pub(super) fn is_up(&self) -> bool {
        self.up.is_some()
    }

    pub(super) fn open(
        id: LinkLaneId,
        pause: Duration,
        dial: &Dial,
        link: &ActorRef<LinkMessage>,
        buffer: &Arc<Buffer>,
        counters: &SignalCounters,
    ) -> Self {
        let (commands, queue) = mpsc::unbounded_channel();
        let (link, buffer, counters) = (link.clone(), Arc::clone(buffer), counters.clone());
        // If the actor is gone, this task is about to be aborted, and there is no receiver.
        let tell = move |mut event| {
            if let LaneEvent::Report(report) = &mut event {
                let signals = std::mem::take(&mut report.received.signals);
                let count = signals.len();
                let put_report = buffer.put(signals);
                if put_report.overflowed {
                    drop(link.send_message(LinkMessage::Overflowed));
                }
                if !report.is_nothing() {
                    drop(link.send_message(LinkMessage::Lane(id, event)));
                }
                // Last, because a recorder is a user's code: a panic in it must not drop answers.
                return counters.received(count, put_report);
            }
            drop(link.send_message(LinkMessage::Lane(id, event)));
        };
        let task = tokio::spawn(dial.clone().run(pause, queue, tell).in_current_span());
        Self {
            id,
            up: None,
            commands,
            _task: AbortOnDropHandle::new(task),
        }
    }
}
