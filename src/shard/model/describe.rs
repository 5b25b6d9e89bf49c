//! The names of inputs, requests and answers in histories.

use super::trace::grant;
use crate::error::Result;
use crate::net::dial::LaneEvent;
use crate::protocol::Request;
use crate::shard::held::Acquired;
use crate::shard::input::Input;
use crate::shard::request::Pending;

/// Returns the name of an input.
pub(super) fn name_of(input: &Input) -> &'static str {
    match input {
        Input::Acquire(..) => "acquire",
        Input::Collect(..) => "collect",
        Input::GiveUp(_) => "give up",
        Input::Ask(_) => "ask",
        Input::Failback(_) => "failback",
        Input::FirstProbed(..) => "first probed",
        Input::Release { .. } => "release",
        Input::RenewFor { .. } => "renew for",
        Input::Lane(_, LaneEvent::Up(_)) => "up",
        Input::Lane(_, LaneEvent::Failed(_)) => "failed",
        Input::Lane(_, LaneEvent::Report(_)) => "report",
        Input::Lane(_, LaneEvent::Ended(_)) => "ended",
        Input::Tick => "tick",
        Input::Shutdown(_) => "shutdown",
        Input::CheckLease(_) => "check lease",
        Input::Die => "die",
    }
}

/// Returns the name of the grant in a renewal or release; empty for other requests.
pub(super) fn grant_of(request: &Request) -> String {
    match request {
        Request::Renew { token, .. } | Request::Release { token, .. } => grant(*token),
        _ => String::new(),
    }
}

pub(super) fn describe(input: &Input) -> String {
    match input {
        Input::Acquire(acquire, patience) => {
            format!("{:?} {:?} {:?} {patience:?}", acquire.target, acquire.key, acquire.ttl)
        }
        Input::Release { id, reply } => format!("{id:?}, reply: {}", reply.is_some()),
        Input::Lane(_, LaneEvent::Failed(error)) => error.to_string(),
        Input::Lane(_, LaneEvent::Report(report)) => {
            let replies: Vec<String> = report
                .received
                .replies
                .iter()
                .map(|reply| format!("{:?} → {:?}", reply.tag.kind(), reply.response))
                .collect();
            let skipped: Vec<_> = report.skipped.iter().map(Pending::kind).collect();
            format!("{} skipped {skipped:?}", replies.join(", "))
        }
        Input::Lane(_, LaneEvent::Ended(end)) => {
            let kinds = |pending: &[Pending]| -> Vec<_> { pending.iter().map(Pending::kind).collect() };
            format!(
                "{:?} unknown {:?} unwritten {:?}",
                end.cause.as_ref().map(ToString::to_string),
                kinds(&end.leftovers.unknown),
                kinds(&end.leftovers.unwritten)
            )
        }
        _ => String::new(),
    }
}

pub(super) fn describe_answer(answer: &Result<Acquired>) -> String {
    match answer {
        Ok(Acquired::Lease(lease)) => format!("lease {:?} {}", lease.cell.key, grant(lease.cell.token)),
        Ok(Acquired::Busy(_)) => "busy".to_owned(),
        Ok(Acquired::Queued(ticket)) => format!("queued {:?}", ticket.key),
        Err(error) => format!("{error:?}"),
    }
}
