//! The life of one connection in a task of its own: a pause, the connecting, the work, the end. What happens is told to
//! whoever opened it.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::connect::{ConnectOptions, Purpose, Shown};
use super::lane::{self, Caller, Command, LaneEnd, LaneSettings, Report};
use super::metrics::LaneMetrics;
use crate::error::Error;

/// How to reach a server, and how to treat the connection.
#[derive(Clone)]
pub(crate) struct Dial {
    pub(crate) connect: ConnectOptions,
    pub(crate) keepalive: Duration,
    pub(crate) reply_timeout: Duration,
    pub(crate) max_in_flight: usize,
    /// Whether signals may come between the answers.
    pub(crate) hears_signals: bool,
    pub(crate) metrics: LaneMetrics,
}

/// What happens on a connection.
pub(crate) enum LaneEvent<T> {
    /// It is ready.
    Up(Shown),
    /// It could not be established.
    Failed(Error),
    /// Answers came, or signals.
    Report(Report<T>),
    /// It is over.
    Ended(Box<LaneEnd<T>>),
}

impl Dial {
    /// Connects after a pause and works on what `queue` brings, until that is closed or the connection fails.
    ///
    /// # Cancel safety
    ///
    /// Dropping it closes the connection.
    pub(crate) async fn run<T: Caller>(
        self,
        pause: Duration,
        queue: mpsc::UnboundedReceiver<Command<T>>,
        tell: impl Fn(LaneEvent<T>),
    ) {
        if !pause.is_zero() {
            sleep(pause).await;
        }
        let connected = match self.connect.connect().await {
            Ok(connected) => connected,
            Err(error) => return tell(LaneEvent::Failed(error)),
        };
        let abilities = connected.shown.abilities;
        tell(LaneEvent::Up(connected.shown));
        let settings = LaneSettings {
            keepalive: self.keepalive,
            reply_timeout: self.reply_timeout,
            max_in_flight: self.max_in_flight,
            hears_signals: self.hears_signals,
            has_to_lead: matches!(self.connect.purpose, Purpose::Leading(_)),
            abilities,
            metrics: self.metrics,
        };
        let end = lane::run(connected.stream, queue, settings, |report| {
            tell(LaneEvent::Report(report))
        })
        .await;
        tell(LaneEvent::Ended(Box::new(end)));
    }
}
