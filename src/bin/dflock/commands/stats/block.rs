//! The tables of one look.

use crate::args::Shown;
use crate::output::Table;
use crate::plain::plain;
use crate::survey::{Field, Look, Round, Row, rows};

/// A line and its tone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) tone: Tone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Text,
    Head,
    /// A key that has waiters.
    Waited,
    /// A shard that did not answer.
    Away,
}

impl Line {
    fn new(tone: Tone, text: String) -> Self {
        Self { text, tone }
    }

    pub(super) fn head(text: String) -> Self {
        Self::new(Tone::Head, text)
    }

    fn empty() -> Self {
        Self::new(Tone::Text, String::new())
    }

    /// Returns the line for a terminal, with or without colours.
    pub(super) fn painted(&self, colors: bool) -> String {
        let code = match self.tone {
            Tone::Head => "1",
            Tone::Waited => "33",
            Tone::Away => "31",
            Tone::Text => "",
        };
        match colors && !code.is_empty() {
            true => format!("\x1b[{code}m{}\x1b[0m", self.text),
            false => self.text.clone(),
        }
    }
}

/// Returns the tables of shards, of keys if there are any, and of signal patterns if any have listeners.
pub(super) fn block(round: &Round, shown: &Shown) -> Vec<Line> {
    let keys = rows(
        &round.looks,
        shown.filter.as_ref(),
        shown.sort.unwrap_or(Field::Waiters),
    );
    let mut lines = shards(&round.looks);
    for more in [of_keys(&keys), signals(&round.looks)] {
        if more.len() > 1 {
            lines.push(Line::empty());
            lines.extend(more);
        }
    }
    lines
}

/// Returns the lines of a table whose rows have these tones.
fn lines(table: &Table, tones: impl IntoIterator<Item = Tone>) -> Vec<Line> {
    let tones = std::iter::once(Tone::Head).chain(tones);
    let lines = table.lines().into_iter().zip(tones);
    lines.map(|(text, tone)| Line::new(tone, text)).collect()
}

fn shards(looks: &[Look]) -> Vec<Line> {
    let heads = [
        "SHARD",
        "SERVER",
        "STATE",
        "ROLE",
        "LATENCY",
        "CONNECTIONS",
        "LOCKS",
        "SEMAPHORES",
        "IDLE KEYS",
    ];
    let mut table = Table::new(heads);
    for look in looks {
        let count = |count: usize| count.to_string();
        let none = || "-".to_owned();
        let [connections, locks, semaphores, idle] = match &look.stats {
            Ok(stats) => [
                stats.connections.to_string(),
                count(stats.locks.len()),
                count(stats.semaphores.len()),
                count(stats.idle_locks.len() + stats.idle_semaphores.len()),
            ],
            Err(_) => [none(), none(), none(), none()],
        };
        table.row([
            look.shard.to_string(),
            look.server.clone(),
            look.state.to_owned(),
            look.role().unwrap_or("-").to_owned(),
            look.latency
                .map_or_else(none, |latency| format!("{:.1}ms", latency.as_secs_f64() * 1e3)),
            connections,
            locks,
            semaphores,
            idle,
        ]);
    }
    let tones = looks.iter().map(|look| match look.stats {
        Ok(_) => Tone::Text,
        Err(_) => Tone::Away,
    });
    let mut lines = lines(&table, tones);
    let away = looks.iter().filter_map(|look| {
        let missing = look.stats.as_ref().err()?;
        let text = format!("shard {}: {missing}", look.shard);
        Some(Line::new(Tone::Away, plain(&text)))
    });
    lines.extend(away);
    lines
}

fn of_keys(keys: &[Row]) -> Vec<Line> {
    let mut table = Table::new(["KIND", "KEY", "HELD", "WAITERS", "LEASE ENDS IN", "IDLE FOR", "SHARD"]);
    let seconds = |seconds: Option<u64>| seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds}s"));
    for row in keys {
        table.row([
            row.kind.to_string(),
            row.key.clone(),
            row.share(),
            row.waiters.to_string(),
            seconds(row.lease_s),
            seconds(row.idle_s),
            row.shard.to_string(),
        ]);
    }
    let tones = keys.iter().map(|row| match row.waiters {
        0 => Tone::Text,
        _ => Tone::Waited,
    });
    lines(&table, tones)
}

fn signals(looks: &[Look]) -> Vec<Line> {
    let mut table = Table::new(["PATTERN", "GROUP", "LISTENERS", "SHARD"]);
    let mut count = 0;
    for look in looks {
        for channel in look.stats.iter().flat_map(|stats| &stats.signal_channels) {
            count += 1;
            table.row([
                channel.pattern.clone(),
                channel.group.clone().unwrap_or_else(|| "-".to_owned()),
                channel.listeners.to_string(),
                look.shard.to_string(),
            ]);
        }
    }
    lines(&table, std::iter::repeat_n(Tone::Text, count))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant, SystemTime};

    use super::*;
    use crate::survey::Missing;

    fn round() -> Round {
        let stats = r#"{"connections":3,"locks":[{"key":"a","lease_expires_in_s":9,"waiters":0},
            {"key":"b\u001b[2J","lease_expires_in_s":20,"waiters":2}],"semaphores":[{"key":"s","limit":5,"holders":3,"waiters":0}],
            "idle_locks":[{"key":"i","idle_s":4}],"signal_channels":[{"pattern":"x.>","group":"g","listeners":2}],
            "cluster":{"role":"leader"}}"#;
        let look = Look {
            shard: 0,
            server: "a.example:6388".to_owned(),
            state: "connected",
            failovers: 0,
            latency: Some(Duration::from_micros(1_234)),
            moment: Instant::now(),
            stats: Ok(serde_json::from_str(stats).unwrap_or_else(|e| panic!("{e}"))),
        };
        let away = Look {
            shard: 1,
            state: "reconnecting",
            latency: None,
            stats: Err(Missing::Late {
                after: Duration::from_millis(1_500),
                because: Some("refused".to_owned()),
            }),
            ..look.clone()
        };
        Round {
            at: SystemTime::UNIX_EPOCH,
            looks: vec![look, away],
        }
    }

    fn all() -> Shown {
        Shown {
            sort: None,
            filter: None,
        }
    }

    #[test]
    fn a_block_shows_shards_keys_and_listeners() {
        let lines: Vec<String> = block(&round(), &all()).into_iter().map(|line| line.text).collect();
        let expected = [
            "SHARD  SERVER          STATE         ROLE    LATENCY  CONNECTIONS  LOCKS  SEMAPHORES  IDLE KEYS",
            "0      a.example:6388  connected     leader  1.2ms    3            2      1           1",
            "1      a.example:6388  reconnecting  -       -        -            -      -           -",
            "shard 1: refused (no answer for 1.5s)",
            "",
            r"KIND       KEY         HELD  WAITERS  LEASE ENDS IN  IDLE FOR  SHARD",
            r"lock       b\u{1b}[2J  1/1   2        20s            -         0",
            r"semaphore  s           3/5   0        -              -         0",
            r"lock       a           1/1   0        9s             -         0",
            r"lock       i           0/1   0        -              4s        0",
            "",
            "PATTERN  GROUP  LISTENERS  SHARD",
            "x.>      g      2          0",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn an_empty_list_has_no_table() {
        let shown = Shown {
            filter: Some("nothing".parse().unwrap_or_else(|e| panic!("{e}"))),
            ..all()
        };
        let mut round = round();
        round.looks.truncate(1);
        for look in &mut round.looks {
            look.stats = Ok(dflockd_client::Stats::default());
        }
        assert_eq!(block(&round, &shown).len(), 2);
    }

    #[test]
    fn lines_have_colours_only_on_demand() {
        let lines = block(&round(), &all());
        assert!(lines.iter().all(|line| line.painted(false) == line.text));
        let painted: Vec<String> = lines.iter().map(|line| line.painted(true)).collect();
        assert!(painted[0].starts_with("\x1b[1mSHARD") && painted[0].ends_with("\x1b[0m"));
        assert!(painted[2].starts_with("\x1b[31m1 "));
        assert!(painted[6].starts_with("\x1b[33mlock"));
        assert_eq!(painted[7], lines[7].text);
    }
}
