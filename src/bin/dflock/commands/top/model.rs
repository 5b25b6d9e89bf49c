//! The known state and the user's choices. Looks become shards with rates, a list of keys in an order, and sums over
//! time.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant, SystemTime};

use dflockd_client::{SignalChannelStats, Stats};
use unicode_width::UnicodeWidthStr;

use super::history::History;
use super::rates::{Rates, between};
use crate::plain::plain;
use crate::survey::{Field, Glob, Kind, Look, Round, Row, rows};

pub(super) struct Model {
    pub(super) period: Duration,
    pub(super) sort: Field,
    pub(super) filter: Option<Glob>,
    pub(super) is_paused: bool,
    pub(super) view: View,
    /// The first key that is shown.
    pub(super) scrolled: usize,
    /// How many keys the terminal shows at once.
    pub(super) page: usize,
    /// The time of the last look, if there was one.
    pub(super) at: Option<SystemTime>,
    pub(super) shards: Vec<Shard>,
    /// Keys that fit the filter, in their order.
    pub(super) rows: Vec<Row>,
    /// The width of the widest key.
    pub(super) longest: usize,
    pub(super) sums: Sums,
    /// The number of waiters over time, for keys that have waiters or had some lately.
    trends: HashMap<Subject, History>,
}

/// What the terminal shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum View {
    Keys,
    Help,
    /// A filter is being entered.
    Filter {
        text: String,
        /// Why the filter was refused.
        refused: Option<String>,
    },
}

type Subject = (usize, Kind, String);

/// One shard.
pub(super) struct Shard {
    pub(super) look: Look,
    /// The rates between its last two answers.
    pub(super) rates: Option<Rates>,
    /// Latencies in milliseconds.
    pub(super) latency: History,
    /// The last answer, and when it came.
    before: Option<(Instant, Stats)>,
}

/// Sums over the shards that answered.
#[derive(Default)]
pub(super) struct Sums {
    pub(super) waiters: History,
    pub(super) held: History,
    pub(super) grants: History,
    pub(super) connections: History,
}

impl Model {
    pub(super) fn new(period: Duration, sort: Field, filter: Option<Glob>) -> Self {
        Self {
            period,
            sort,
            filter,
            is_paused: false,
            view: View::Keys,
            scrolled: 0,
            page: 1,
            at: None,
            shards: Vec::new(),
            rows: Vec::new(),
            longest: 0,
            sums: Sums::default(),
            trends: HashMap::new(),
        }
    }

    /// Applies another look, unless the display is paused.
    pub(super) fn apply(&mut self, round: Round) {
        if self.is_paused {
            return;
        }
        self.at = Some(round.at);
        for (place, look) in round.looks.into_iter().enumerate() {
            match self.shards.get_mut(place) {
                Some(shard) => shard.see(look),
                None => self.shards.push(Shard::new(look)),
            }
        }
        self.add_up();
        self.follow();
        self.arrange();
    }

    /// Filters and orders the keys again.
    pub(super) fn arrange(&mut self) {
        let looks = self.shards.iter().map(|shard| &shard.look);
        self.rows = rows(looks, self.filter.as_ref(), self.sort);
        let widths = self.rows.iter().map(|row| plain(&row.key).width());
        self.longest = widths.max().unwrap_or_default();
        self.scroll_to(self.scrolled);
    }

    /// Scrolls to this key, or less far if the list ends before.
    pub(super) fn scroll_to(&mut self, first: usize) {
        self.scrolled = first.min(self.rows.len().saturating_sub(self.page));
    }

    /// Returns the number of waiters of a key over time, if the key has waiters or had some lately.
    pub(super) fn trend(&self, row: &Row) -> Option<&History> {
        self.trends.get(&subject(row))
    }

    /// Returns the signal patterns that have listeners, each with its shard.
    pub(super) fn listeners(&self) -> impl Iterator<Item = (usize, &SignalChannelStats)> {
        self.shards.iter().flat_map(|shard| {
            let channels = shard.look.stats.iter().flat_map(|stats| &stats.signal_channels);
            channels.map(|channel| (shard.look.shard, channel))
        })
    }

    fn add_up(&mut self) {
        let answered = || self.shards.iter().filter_map(|shard| shard.look.stats.as_ref().ok());
        let sum = |of: fn(&Stats) -> u64| answered().map(of).sum::<u64>() as f64;
        self.sums.waiters.push(sum(waiters));
        self.sums.held.push(sum(held));
        self.sums.connections.push(sum(|stats| stats.connections));
        let rates = || self.shards.iter().filter_map(|shard| shard.rates);
        if rates().next().is_some() {
            self.sums.grants.push(rates().map(|rates| rates.grants).sum());
        }
    }

    /// Continues the histories of keys, and forgets those of keys that have had no waiter for long.
    fn follow(&mut self) {
        let looks = self.shards.iter().map(|shard| &shard.look);
        let mut seen = HashSet::new();
        for row in rows(looks, None, Field::Key) {
            let subject = subject(&row);
            if row.waiters == 0 && !self.trends.contains_key(&subject) {
                continue;
            }
            self.trends.entry(subject.clone()).or_default().push(row.waiters as f64);
            seen.insert(subject);
        }
        self.trends
            .retain(|subject, history| seen.contains(subject) && !history.is_flat());
    }
}

fn subject(row: &Row) -> Subject {
    (row.shard, row.kind, row.key.clone())
}

impl Shard {
    fn new(look: Look) -> Self {
        let mut shard = Self {
            look: look.clone(),
            rates: None,
            latency: History::default(),
            before: None,
        };
        shard.see(look);
        shard
    }

    fn see(&mut self, look: Look) {
        self.rates = None;
        if let Ok(stats) = &look.stats {
            if let Some((moment, before)) = &self.before {
                let elapsed = look.moment.saturating_duration_since(*moment);
                self.rates = Some(between(before, stats, elapsed));
            }
            self.before = Some((look.moment, stats.clone()));
        }
        if let Some(latency) = look.latency {
            self.latency.push(latency.as_secs_f64() * 1e3);
        }
        self.look = look;
    }
}

/// Returns how many callers wait at a server.
pub(super) fn waiters(stats: &Stats) -> u64 {
    let of_locks = stats.locks.iter().map(|lock| lock.waiters);
    of_locks
        .chain(stats.semaphores.iter().map(|semaphore| semaphore.waiters))
        .sum()
}

/// Returns how many locks and slots are held at a server.
pub(super) fn held(stats: &Stats) -> u64 {
    let slots: u64 = stats.semaphores.iter().map(|semaphore| semaphore.holders).sum();
    stats.locks.len() as u64 + slots
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::survey::Missing;

    /// Returns a look at a shard after this number of seconds.
    pub(in super::super) fn look(shard: usize, start: Instant, second: u64, stats: &str) -> Look {
        Look {
            shard,
            server: format!("{}.example:6388", ["a", "b", "c"][shard]),
            state: "connected",
            failovers: 0,
            latency: Some(Duration::from_micros(800 + 100 * (second % 3))),
            moment: start + Duration::from_secs(second),
            stats: Ok(serde_json::from_str(stats).unwrap_or_else(|e| panic!("{stats}: {e}"))),
        }
    }

    pub(in super::super) fn away(look: Look) -> Look {
        Look {
            state: "reconnecting",
            latency: None,
            stats: Err(Missing::Late {
                after: Duration::from_millis(1_200),
                because: Some("connection refused".to_owned()),
            }),
            ..look
        }
    }

    fn round(looks: Vec<Look>) -> Round {
        Round {
            at: SystemTime::UNIX_EPOCH,
            looks,
        }
    }

    fn model() -> Model {
        Model::new(Duration::from_secs(1), Field::Waiters, None)
    }

    fn held_by(owner: u64, waiters: u64) -> String {
        format!(r#"{{"connections":3,"locks":[{{"key":"a","owner_conn_id":{owner},"waiters":{waiters}}}]}}"#)
    }

    #[test]
    fn rates_are_computed_between_answers_even_if_looks_between_them_failed() {
        let (mut model, start) = (model(), Instant::now());
        model.apply(round(vec![look(0, start, 0, &held_by(1, 2))]));
        assert_eq!(model.shards[0].rates, None);
        model.apply(round(vec![away(look(0, start, 2, "{}"))]));
        assert_eq!((model.shards[0].rates, model.rows.len()), (None, 0));
        assert_eq!(model.sums.waiters.newest(), Some(0.0));
        model.apply(round(vec![look(0, start, 4, &held_by(2, 1))]));
        assert_eq!(model.shards[0].rates.map(|rates| rates.grants), Some(0.25));
        assert_eq!(model.sums.grants.newest(), Some(0.25));
    }

    #[test]
    fn sums_include_all_shards_that_answer() {
        let (mut model, start) = (model(), Instant::now());
        let semaphore = r#"{"connections":4,"semaphores":[{"key":"s","limit":5,"holders":3,"waiters":5}]}"#;
        model.apply(round(vec![
            look(0, start, 0, &held_by(1, 2)),
            look(1, start, 0, semaphore),
            away(look(2, start, 0, "{}")),
        ]));
        let sums = &model.sums;
        assert_eq!(
            [&sums.waiters, &sums.held, &sums.connections].map(History::newest),
            [Some(7.0), Some(4.0), Some(7.0)]
        );
        assert_eq!(sums.grants.newest(), None);
        assert_eq!(model.rows[0].key, "s");
    }

    #[test]
    fn nothing_changes_while_it_is_paused() {
        let (mut model, start) = (model(), Instant::now());
        model.is_paused = true;
        model.apply(round(vec![look(0, start, 0, &held_by(1, 2))]));
        assert_eq!((model.at, model.rows.len()), (None, 0));
    }

    #[test]
    fn trends_are_kept_for_keys_with_waiters() {
        let (mut model, start) = (model(), Instant::now());
        for (second, waiters, trend) in [
            (0, 0, None),
            (1, 2, Some("  █")),
            (2, 1, Some(" █▅")),
            (3, 0, Some("█▅▁")),
        ] {
            model.apply(round(vec![look(0, start, second, &held_by(1, waiters))]));
            let shown = model.trend(&model.rows[0]).map(|trend| trend.bars(3));
            assert_eq!(shown.as_deref(), trend, "{second}");
        }
        model.apply(round(vec![look(0, start, 4, "{}")]));
        assert!(model.trends.is_empty());
    }

    #[test]
    fn scrolling_ends_at_the_last_page() {
        let (mut model, start) = (model(), Instant::now());
        let idle: Vec<String> = (0..9).map(|key| format!(r#"{{"key":"{key}"}}"#)).collect();
        model.page = 4;
        model.apply(round(vec![look(
            0,
            start,
            0,
            &format!(r#"{{"idle_locks":[{}]}}"#, idle.join(",")),
        )]));
        model.scroll_to(usize::MAX);
        assert_eq!(model.scrolled, 5);
        model.apply(round(vec![look(0, start, 1, &held_by(1, 1))]));
        assert_eq!(model.scrolled, 0);
    }
}
