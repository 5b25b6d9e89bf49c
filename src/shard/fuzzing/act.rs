//! The events of a fuzzed shard.

use std::time::Duration;

use arbitrary::Arbitrary;

use super::Bench;
use super::answer::{How, leader, opening_error, shown};
use super::callers::Callers;
use crate::clock::Moment;
use crate::error::{Error, ErrorKind};
use crate::net::dial::LaneEvent;
use crate::net::lane::LaneReport;
use crate::net::pipeline::{Received, Reply};
use crate::shard::acquire::Patience;
use crate::shard::ids::LaneId;
use crate::shard::input::{Input, Shutdown};
use crate::shard::request::Pending;

/// One event. The numbers choose among the objects that exist.
#[derive(Arbitrary, Debug)]
pub(super) enum Act {
    // Callers.
    Try(u8, u8),
    TryThenWait(u8, u8),
    Wait(u8, u8, u8),
    Enqueue(u8, u8),
    Collect(u8, u8),
    Ask(u8),
    Leave(u8),
    Release(u8),
    Drop(u8),
    Failback,
    ProbeEnds(bool),
    // Connections.
    Up(u8, u8),
    Fail(u8, u8),
    /// Writes the sent requests, except requests whose callers are gone.
    Write(u8),
    /// Answers this many requests at once.
    Answer(u8, u8, How, How),
    /// Ends the connection. The fate of written requests is unknown.
    End(u8, bool),
    /// A member answers a request of the connection itself, such as a keepalive: it does not lead.
    Deposed(u8, u8),
    // Time.
    Pass(u16),
    PassLong(u8),
    /// Time passes without a turn of the driver.
    Stall(u16),
    Tick,
    Suspend(u8),
    ShutDown(u8),
}

impl Bench {
    pub(super) fn act(&mut self, act: Act) {
        self.end_hung_up();
        match act {
            Act::Try(what, ttl) => self.acquire(what, ttl, Patience::Try),
            Act::TryThenWait(what, ttl) => self.acquire(what, ttl, Patience::TryThenWait),
            Act::Wait(what, ttl, wait) => {
                let until = self.now + Duration::from_millis(100) * u32::from(wait);
                let refusal = Callers::refusal(self.now);
                self.acquire(what, ttl, Patience::Until(until, refusal));
            }
            Act::Enqueue(what, ttl) => self.acquire(what, ttl, Patience::Enqueue),
            Act::Collect(which, wait) => {
                let until = self.now + Duration::from_millis(100) * u32::from(wait);
                self.callers.collect(which, until);
                self.tell_what_was_sent();
            }
            Act::Ask(which) => {
                let question = self.callers.ask(which);
                self.tell(Input::Ask(question));
            }
            Act::Leave(which) => self.callers.leave(which),
            Act::Release(which) => {
                self.callers.release(which);
                self.tell_what_was_sent();
            }
            Act::Drop(which) => {
                self.callers.drop_position(which);
                self.tell_what_was_sent();
            }
            Act::Failback => {
                let ask = self.callers.failback();
                self.tell(Input::Failback(ask));
            }
            Act::ProbeEnds(is_there) => {
                if let Some(ask) = self.callers.probes.pop() {
                    let outcome = match is_there {
                        true => Ok(()),
                        false => Err(Error::new(ErrorKind::Connect, "refused")),
                    };
                    self.tell(Input::FirstProbed(outcome, ask));
                }
            }
            Act::Up(which, how) => {
                if let Some(lane) = self.lanes.comes_up(which) {
                    self.lane_event(lane, LaneEvent::Up(shown(how)));
                }
            }
            Act::Fail(which, how) => {
                if let Some(lane) = self.lanes.fails(which) {
                    self.lane_event(lane, LaneEvent::Failed(opening_error(how)));
                }
            }
            Act::Write(which) => self.write(which),
            Act::Answer(which, count, first, next) => self.answer_requests(which, count, first, next),
            Act::End(which, was_silent) => {
                if let Some((lane, end)) = self.lanes.ends(which, was_silent, self.moment()) {
                    self.lane_event(lane, LaneEvent::Ended(Box::new(end)));
                }
            }
            Act::Deposed(which, how) => {
                if let Some(lane) = self.lanes.up(which) {
                    let mut received = Received::nothing();
                    received.not_leader = Some(Box::new(leader(how)));
                    self.report(lane, received, Vec::new());
                }
            }
            Act::Pass(milliseconds) => self.pass(Duration::from_millis(u64::from(milliseconds))),
            Act::PassLong(seconds) => self.pass(Duration::from_secs(u64::from(seconds))),
            Act::Stall(milliseconds) => self.now += Duration::from_millis(u64::from(milliseconds)),
            Act::Tick => self.tick(),
            Act::Suspend(seconds) => {
                self.callers.suspended += Duration::from_secs(u64::from(seconds));
                self.shard.note_suspended(self.callers.suspended, self.now);
            }
            Act::ShutDown(wait) => {
                let until = self.now + Duration::from_millis(100) * u32::from(wait);
                self.ends_by = Some(self.ends_by.map_or(until, |by| by.max(until)));
                let reply = Some(self.callers.shutdown());
                self.tell(Input::Shutdown(Shutdown { until, reply }));
            }
        }
    }

    fn acquire(&mut self, what: u8, ttl: u8, patience: Patience) {
        let acquire = self.callers.acquire(what, ttl);
        self.tell(Input::Acquire(acquire, patience));
    }

    /// Ends the connections that the shard hung up or finished.
    fn end_hung_up(&mut self) {
        while let Some((lane, end)) = self.lanes.hung_up(self.moment()) {
            self.lane_event(lane, LaneEvent::Ended(Box::new(end)));
        }
    }

    fn tell_what_was_sent(&mut self) {
        if let Some(input) = self.next_input() {
            self.tell(input);
        }
    }

    fn write(&mut self, which: u8) {
        let Some(lane) = self.lanes.up(which) else { return };
        let skipped = self.lanes.write(lane, self.moment());
        if !skipped.is_empty() {
            self.report(lane, Received::nothing(), skipped);
        }
    }

    fn answer_requests(&mut self, which: u8, count: u8, first: How, next: How) {
        let Some(lane) = self.lanes.up(which) else { return };
        let skipped = self.lanes.write(lane, self.moment());
        let mut received = Received::nothing();
        for index in 0..=count % 4 {
            let Some((outgoing, sent_at)) = self.lanes.oldest(lane) else {
                break;
            };
            let how = if index == 0 { first } else { next };
            let response = how.response(&outgoing.request, &mut self.callers);
            self.callers.note(&outgoing.request, &response, lane, sent_at.at);
            let tag = outgoing.tag;
            received.replies.push(Reply { tag, response, sent_at });
        }
        if !received.is_nothing() || !skipped.is_empty() {
            self.report(lane, received, skipped);
        }
    }

    fn moment(&self) -> Moment {
        Moment {
            at: self.now,
            suspended: self.callers.suspended,
        }
    }

    fn report(&mut self, lane: LaneId, received: Received<Pending>, skipped: Vec<Pending>) {
        self.lane_event(lane, LaneEvent::Report(LaneReport { received, skipped }));
    }
}
