//! The life of one connection in a task of its own: a pause, connecting, working, the end. The task reports each event
//! to the owner of the connection.

use std::marker::PhantomData;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::connect::{ConnectOptions, Connected, Shown};
use super::lane::{self, Caller, Command, LaneEnd, LaneReport};
use super::metrics::LaneMetrics;
use super::pipeline::Leftovers;
use crate::clock::Moment;
use crate::error::{Error, ErrorKind, Result};

/// The parameters of a connection's task.
#[derive(Clone)]
pub(crate) struct Dial {
    pub(crate) connect: ConnectOptions,
    pub(crate) metrics: LaneMetrics,
}

/// An event of a connection. The last event is `Failed` or `Ended`, and there is always one.
pub(crate) enum LaneEvent<T> {
    /// The connection is ready.
    Up(Shown),
    /// The connection could not be opened.
    Failed(Error),
    /// Answers or signals arrived.
    Report(LaneReport<T>),
    /// The connection has ended.
    Ended(Box<LaneEnd<T>>),
}

impl Dial {
    /// Connects after a pause, and executes the commands from `queue` until the queue is closed or the connection
    /// fails. The owner learns of the end in every case, even if this future panics, or is dropped before its first
    /// poll.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    pub(crate) fn run<T, F>(
        self,
        pause: Duration,
        queue: mpsc::UnboundedReceiver<Command<T>>,
        tell: F,
    ) -> impl Future<Output = ()> + use<T, F>
    where
        T: Caller,
        F: Fn(LaneEvent<T>),
    {
        let mut owner = Owner::new(tell);
        async move {
            let connected = match self.connected(pause).await {
                Ok(connected) => connected,
                Err(error) => return owner.failed(error),
            };
            let abilities = connected.shown.abilities;
            owner.up(connected.shown);
            let settings = self.connect.lane_settings(abilities, self.metrics);
            let end = lane::run(connected.stream, queue, settings, |report| owner.report(report)).await;
            owner.ended(end);
        }
    }

    async fn connected(&self, pause: Duration) -> Result<Connected> {
        if !pause.is_zero() {
            sleep(pause).await;
        }
        self.connect.connect().await
    }
}

/// Reports the events of a connection to its owner. It reports the end exactly once, however the task ends.
struct Owner<T, F: Fn(LaneEvent<T>)> {
    tell: F,
    stage: DialStage,
    event: PhantomData<fn(T)>,
}

#[derive(Clone, Copy)]
enum DialStage {
    Connecting,
    /// Connected since this moment.
    Up(Moment),
    /// The owner was told of the end.
    Over,
}

impl<T, F: Fn(LaneEvent<T>)> Owner<T, F> {
    fn new(tell: F) -> Self {
        Self {
            tell,
            stage: DialStage::Connecting,
            event: PhantomData,
        }
    }

    fn up(&mut self, shown: Shown) {
        self.stage = DialStage::Up(Moment::now());
        (self.tell)(LaneEvent::Up(shown));
    }

    fn report(&self, report: LaneReport<T>) {
        (self.tell)(LaneEvent::Report(report));
    }

    fn failed(&mut self, error: Error) {
        self.stage = DialStage::Over;
        (self.tell)(LaneEvent::Failed(error));
    }

    fn ended(&mut self, end: LaneEnd<T>) {
        self.stage = DialStage::Over;
        (self.tell)(LaneEvent::Ended(Box::new(end)));
    }
}

/// Reports the end if the task was dropped before it could. The requests in flight are dropped, too: their callers see
/// closed channels.
impl<T, F: Fn(LaneEvent<T>)> Drop for Owner<T, F> {
    fn drop(&mut self) {
        let what = match std::thread::panicking() {
            true => "its task panicked",
            false => "its task was dropped, as happens when a runtime ends",
        };
        match self.stage {
            DialStage::Connecting => self.failed(Error::new(ErrorKind::Connect, format!("not connected: {what}"))),
            DialStage::Up(since) => self.ended(LaneEnd {
                cause: Some(lane::lost(what)),
                leftovers: Leftovers::nothing(),
                was_silent: false,
                // The time of the last answer was lost with the task. The server was reachable at least when the
                // connection came up.
                heard: since,
            }),
            DialStage::Over => {}
        }
    }
}

#[cfg(test)]
mod tests;
