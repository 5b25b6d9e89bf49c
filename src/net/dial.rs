//! The life of one connection in a task of its own: a pause, the connecting, the work, the end. What happens is told to the
//! owner of the connection.

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

/// How to reach a server, and how to treat the connection.
#[derive(Clone)]
pub(crate) struct Dial {
    pub(crate) connect: ConnectOptions,
    pub(crate) metrics: LaneMetrics,
}

/// What happens on a connection. The last event is `Failed` or `Ended`, and there is always one.
pub(crate) enum LaneEvent<T> {
    /// It is ready.
    Up(Shown),
    /// It could not be established.
    Failed(Error),
    /// Answers came, or signals.
    Report(LaneReport<T>),
    /// It is over.
    Ended(Box<LaneEnd<T>>),
}

impl Dial {
    /// Connects after a pause and works on what `queue` brings, until that is closed or the connection fails. The end is told
    /// however it comes about: also if this panics, and if it is dropped, begun or not.
    ///
    /// # Cancel safety
    ///
    /// Dropping it closes the connection.
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

/// The owner of a connection, as its task sees it: it hears of the end exactly once, whatever ends the task.
struct Owner<T, F: Fn(LaneEvent<T>)> {
    tell: F,
    stage: DialStage,
    event: PhantomData<fn(T)>,
}

#[derive(Clone, Copy)]
enum DialStage {
    Connecting,
    /// Since then.
    Up(Moment),
    /// The end was told.
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

/// The task was dropped, and with it what was in flight: its callers see their channels closed.
impl<T, F: Fn(LaneEvent<T>)> Drop for Owner<T, F> {
    fn drop(&mut self) {
        let what = match std::thread::panicking() {
            true => "its task panicked",
            false => "its task was dropped, as where a runtime ends",
        };
        match self.stage {
            DialStage::Connecting => self.failed(Error::new(ErrorKind::Connect, format!("not connected: {what}"))),
            DialStage::Up(since) => self.ended(LaneEnd {
                cause: Some(lane::lost(what)),
                leftovers: Leftovers::nothing(),
                was_silent: false,
                // Nothing later is known.
                heard: since,
            }),
            DialStage::Over => {}
        }
    }
}

#[cfg(test)]
mod tests;
