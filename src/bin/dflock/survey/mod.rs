//! Looks at all shards, once or again and again. A shard that does not answer does not hold up the others.

mod glob;
mod look;
mod row;

use std::time::{Duration, Instant, SystemTime};

use dflockd_client::{Client, ConnectionState, Error, ShardHealth, Stats};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

pub(crate) use self::glob::Glob;
pub(crate) use self::look::{Look, Missing, Round};
pub(crate) use self::row::{Field, Kind, Row, arrange, rows};

/// How long shards have to answer before a repeated look shows them as late; half of the interval between looks, if
/// that is shorter. Also the interval at which a single look checks whether it must wait longer.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long a single look waits for shards whose first attempt to connect is still under way, once another shard has
/// answered.
const FIRST_ATTEMPT: Duration = Duration::from_secs(2);

/// Asks shards and collects their answers.
pub(crate) struct Survey {
    client: Client,
    shards: Vec<Asked>,
    tell: mpsc::UnboundedSender<Answer>,
    told: mpsc::UnboundedReceiver<Answer>,
}

#[derive(Default)]
struct Asked {
    /// When the request was sent whose answer is awaited; `None` if no answer is awaited.
    since: Option<Instant>,
    /// The answer that came since the last look.
    answer: Option<Answer>,
}

struct Answer {
    shard: usize,
    latency: Duration,
    moment: Instant,
    stats: Result<Stats, Error>,
}

impl Survey {
    pub(crate) fn new(client: Client) -> Self {
        let shards = client.health().iter().map(|_| Asked::default()).collect();
        let (tell, told) = mpsc::unbounded_channel();
        Self {
            client,
            shards,
            tell,
            told,
        }
    }

    /// Looks once, and waits until every shard has answered or failed. If one shard has answered, it does not wait
    /// long for shards to which there is no connection.
    pub(crate) async fn once(mut self) -> Round {
        self.ask();
        while timeout(PATIENCE, self.answered()).await.is_err() && !self.is_enough() {}
        self.take()
    }

    /// Returns whether a shard has answered and the shards without an answer are not connected. While the
    /// first attempt to connect to a shard is under way, the shard counts as not connected only after
    /// [`FIRST_ATTEMPT`].
    fn is_enough(&self) -> bool {
        let has_answered = |asked: &Asked| asked.answer.as_ref().is_some_and(|answer| answer.stats.is_ok());
        let health = self.client.health();
        let is_given_up = |(asked, health): (&Asked, &ShardHealth)| {
            let waited = asked.since.map(|since| since.elapsed());
            match &health.state {
                ConnectionState::Connecting => waited.is_none_or(|waited| waited >= FIRST_ATTEMPT),
                _ => waited.is_none() || health.last_error().is_some(),
            }
        };
        self.shards.iter().any(has_answered) && self.shards.iter().zip(&health).all(is_given_up)
    }

    /// Looks once in every period until the receiver is dropped. If the receiver is slow, looks are left out.
    pub(crate) fn every(mut self, period: Duration) -> mpsc::Receiver<Round> {
        let (rounds, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                self.ask();
                // A shard without an answer by then is shown as late.
                let _ = timeout(PATIENCE.min(period / 2), self.answered()).await;
                if rounds.send(self.take()).await.is_err() {
                    return;
                }
            }
        });
        receiver
    }

    /// Asks every shard from which no answer is awaited.
    fn ask(&mut self) {
        for (shard, asked) in self.shards.iter_mut().enumerate() {
            if asked.since.is_some() {
                continue;
            }
            let since = Instant::now();
            asked.since = Some(since);
            let (client, tell) = (self.client.clone(), self.tell.clone());
            tokio::spawn(async move {
                let stats = client.shard_stats(shard).await;
                let moment = Instant::now();
                // The survey may be over.
                let _ = tell.send(Answer {
                    shard,
                    latency: moment - since,
                    moment,
                    stats,
                });
            });
        }
    }

    /// Waits until no answer is awaited.
    ///
    /// Cancel safe.
    async fn answered(&mut self) {
        while self.shards.iter().any(|asked| asked.since.is_some()) {
            let Some(answer) = self.told.recv().await else {
                return;
            };
            if let Some(asked) = self.shards.get_mut(answer.shard) {
                asked.since = None;
                asked.answer = Some(answer);
            }
        }
    }

    /// Takes the answers that have come since the last call.
    fn take(&mut self) -> Round {
        let health = self.client.health();
        let looks = health.iter().zip(&mut self.shards).map(|(health, asked)| {
            let late = || Missing::Late {
                after: asked.since.map(|since| since.elapsed()).unwrap_or_default(),
                because: health.last_error().map(Error::to_string),
            };
            let (latency, moment, stats) = match asked.answer.take() {
                Some(answer) => (
                    answer.stats.is_ok().then_some(answer.latency),
                    answer.moment,
                    answer.stats.map_err(Missing::Failed),
                ),
                None => (None, Instant::now(), Err(late())),
            };
            Look {
                shard: health.shard,
                server: health.endpoint.to_string(),
                state: health.state.as_str(),
                failovers: health.failovers,
                latency,
                moment,
                stats,
            }
        });
        Round {
            at: SystemTime::now(),
            looks: looks.collect(),
        }
    }
}
