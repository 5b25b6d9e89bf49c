//! The answers of a server, and the requests that a connection left unanswered.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::LinkMachine;
use crate::error::{Error, ErrorKind, Result};
use crate::events::ClientEvent;
use crate::net::backoff::OF_USE_AFTER;
use crate::net::lane::LaneEnd;
use crate::net::pipeline::Reply;
use crate::protocol::{Call, Response};
use crate::shard::ask::Ask;
use crate::signal::message::{LinkRequest, Subscription};

impl LinkMachine {
    pub(super) fn ended(&mut self, end: LaneEnd<LinkRequest>) {
        let cause = end
            .cause
            .unwrap_or_else(|| Error::new(ErrorKind::Disconnected, "the connection was closed"))
            .at(self.endpoint());
        self.metrics.disconnected(&cause);
        if !std::mem::replace(&mut self.lost, true) {
            if !self.subscriptions.is_empty() {
                self.metrics.gap();
                self.events.tell(|shard| ClientEvent::SignalsGap {
                    shard,
                    cause: cause.clone(),
                });
            }
            self.buffer.lost(self.index, cause.clone());
        }
        self.renewing = 0;
        let mut parked = VecDeque::new();
        for pending in end.leftovers.unknown {
            match pending {
                // Never sent again: the signal could be delivered twice.
                LinkRequest::Emit(_, _, ask) => ask.tell(Err(cause.clone())),
                // The end of the connection has ended the subscription, if the server had not ended it before.
                LinkRequest::Unlisten(subscription, ask) => {
                    self.subscriptions.remove(&subscription);
                    ask.tell(Ok(()));
                }
                LinkRequest::Renew(_) | LinkRequest::Withdraw(_) => {}
                listen @ LinkRequest::Listen(..) => parked.push_back(listen),
            }
        }
        for pending in end.leftovers.unwritten {
            match pending {
                LinkRequest::Unlisten(subscription, ask) => {
                    self.subscriptions.remove(&subscription);
                    ask.tell(Ok(()));
                }
                LinkRequest::Renew(_) | LinkRequest::Withdraw(_) => {}
                other => parked.push_back(other),
            }
        }
        parked.append(&mut self.parked);
        self.parked = parked;
        let now = Instant::now();
        // If the connection ended soon after it was up, the sequence of pauses continues instead of starting again.
        let of_use = self
            .lane
            .up
            .is_some_and(|since| now.saturating_duration_since(since) >= OF_USE_AFTER);
        if of_use {
            self.reconnect.proved();
        }
        let retry = self.reconnect.lost(&cause, of_use, now, now);
        self.schedule_retry(cause, retry);
    }

    pub(super) fn reply(&mut self, reply: Reply<LinkRequest>) {
        let Reply { tag, response, .. } = reply;
        match tag {
            LinkRequest::Listen(subscription, ask) => match subscribed(&subscription, response) {
                Ok(()) => self.confirm_subscription(subscription, ask),
                Err(error) => ask.tell(Err(error.at(self.endpoint()))),
            },
            LinkRequest::Renew(subscription) => match subscribed(&subscription, response) {
                Ok(()) => {
                    self.renewing = self.renewing.saturating_sub(1);
                    self.report_connected_if_renewed();
                }
                // The server refuses what was accepted before the connection was lost. Continuing without the
                // subscription would be a gap that never ends.
                Err(error) => self.end(error.at(self.endpoint())),
            },
            LinkRequest::Unlisten(subscription, ask) => {
                self.subscriptions.remove(&subscription);
                let (pattern, group) = subscription;
                let outcome = Call::unlisten(pattern, group).finish(response);
                ask.tell(outcome.map_err(|error| error.at(self.endpoint())));
            }
            LinkRequest::Withdraw(_) => {}
            LinkRequest::Emit(channel, payload, ask) => {
                let outcome = Call::emit(channel, payload).finish(response);
                ask.tell(outcome.map_err(|error| error.at(self.endpoint())));
            }
        }
    }

    /// Handles a confirmed subscription. If its caller is gone, ends the subscription, because the caller never
    /// will.
    fn confirm_subscription(&mut self, subscription: Subscription, ask: Ask<()>) {
        if self.subscriptions.contains(&subscription) {
            return ask.tell(Ok(()));
        }
        if ask.is_gone() {
            return self.send(LinkRequest::Withdraw(subscription));
        }
        self.subscriptions.insert(subscription);
        ask.tell(Ok(()));
    }
}

fn subscribed((pattern, group): &Subscription, response: Response) -> Result<()> {
    Call::listen(pattern.clone(), group.clone()).finish(response)
}

pub(super) fn refuse(pending: LinkRequest, error: &Error) {
    match pending {
        LinkRequest::Listen(_, ask) | LinkRequest::Unlisten(_, ask) => ask.tell(Err(error.clone())),
        LinkRequest::Emit(_, _, ask) => ask.tell(Err(error.clone())),
        LinkRequest::Renew(_) | LinkRequest::Withdraw(_) => {}
    }
}
