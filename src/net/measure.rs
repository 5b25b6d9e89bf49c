//! A connection at work over any stream, for benchmarks.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::abilities::Abilities;
use super::lane::{Caller, Command, Lane, LaneSettings, Outgoing, OwnCommands};
use super::metrics::LaneMetrics;
use crate::protocol::Request;
use crate::telemetry::sink::ShardSink;

/// A connection that carries many requests at once.
pub struct PipelinedLane<S>(Lane<S, Asked, OwnCommands<Asked>>);

/// A caller that always waits.
struct Asked;

impl Caller for Asked {
    fn is_gone(&self) -> bool {
        false
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> PipelinedLane<S> {
    /// Creates a lane over a stream. Needs a tokio runtime with a timer.
    #[must_use]
    pub fn new(stream: S) -> Self {
        let settings = LaneSettings {
            keepalive: Duration::from_secs(3600),
            reply_timeout: Duration::from_secs(3600),
            max_in_flight: 4_096,
            hears_signals: false,
            abilities: Abilities {
                ping: Some(true),
                sessions: None,
            },
            metrics: LaneMetrics::new(&ShardSink::nowhere()),
        };
        Self(Lane::new(stream, OwnCommands::new(), settings))
    }

    /// Sends these requests at once and takes their answers. Returns the number of answers that came before the
    /// connection ended.
    ///
    /// # Cancel safety
    ///
    /// Not safe: answers that arrive later count for the next call.
    pub async fn ask_all(&mut self, requests: impl IntoIterator<Item = Request>) -> usize {
        let mut asked = 0;
        for request in requests {
            self.0.tell(Command::Send(Outgoing { request, tag: Asked }));
            asked += 1;
        }
        let mut answered = 0;
        poll_fn(|cx| {
            let turn = self
                .0
                .poll_turn(cx, &mut |report| answered += report.received.replies.len());
            match turn {
                Poll::Ready(_) => Poll::Ready(answered),
                Poll::Pending if answered >= asked => Poll::Ready(answered),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}
