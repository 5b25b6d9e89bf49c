//! The table of shards.

use dflockd_client::Stats;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Text};

use super::cells::{Column, Side, fit, heads, left_over, line};
use super::palette::Palette;
use super::{MIDDLE, NARROW, WIDE};
use crate::plain::plain;

use super::super::model::{Model, Shard, held, waiters};

/// How wide the charts of latencies are.
const CHART: usize = 24;

/// The minimum and the maximum width of the column of servers. The minimum holds only on terminals that are at least
/// [`WIDE`] wide. There, other columns of the table are left out to make room.
const SERVER: std::ops::RangeInclusive<usize> = 24..=40;

/// What a column shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shows {
    Shard,
    Server,
    State,
    Role,
    Latency,
    Connections,
    Waiters,
    Grants,
    Held,
    Idle,
    Extended,
    Commits,
    Failovers,
    Chart,
}

/// Returns how many rows the table has on a terminal of this height, including the empty row below it.
pub(super) fn height(model: &Model, terminal: u16) -> u16 {
    let most = (terminal / 3).max(2);
    let wanted = u16::try_from(model.shards.len()).unwrap_or(u16::MAX).max(1);
    // The heads, and the empty row.
    wanted.min(most) + 2
}

pub(super) fn draw(model: &Model, palette: &Palette, frame: &mut Frame, area: Rect) {
    let columns = columns(area.width);
    let room = usize::from(area.height.saturating_sub(2));
    let mut lines = vec![heads(columns.iter().map(|(_, column)| column), palette.head)];
    if model.shards.is_empty() {
        lines.push(Line::styled("the servers are asked…", palette.dim));
    }
    let hidden = match model.shards.len() > room {
        true => model.shards.len() - room + 1,
        false => 0,
    };
    // If there is no room for all shards, those without an answer come first.
    let mut shown: Vec<&Shard> = model.shards.iter().collect();
    if hidden > 0 {
        shown.sort_by_key(|shard| shard.look.stats.is_ok());
    }
    let rows = shown.into_iter().take(model.shards.len() - hidden);
    lines.extend(rows.map(|shard| row(shard, &columns, palette, area.width)));
    if hidden > 0 {
        lines.push(Line::styled(format!("… {hidden} more shards"), palette.dim));
    }
    frame.render_widget(Text::from(lines), area);
}

/// Returns the most important columns, as many as fit.
fn columns(width: u16) -> Vec<(Shows, Column)> {
    let mut columns = vec![
        (Shows::Shard, Column::left("SHARD", 5)),
        (Shows::State, Column::left("STATE", 12)),
    ];
    if width >= NARROW {
        columns.push((Shows::Role, Column::left("ROLE", 9)));
    }
    columns.extend([
        (Shows::Latency, Column::right("LATENCY", 8)),
        (Shows::Connections, Column::right("CONN", 5)),
        (Shows::Waiters, Column::right("WAITERS", 7)),
    ]);
    if width >= MIDDLE {
        columns.push((Shows::Grants, Column::right("GRANTS/S", 8)));
    }
    if width >= WIDE {
        for more in [
            (Shows::Held, Column::right("HELD", 7)),
            (Shows::Idle, Column::right("IDLE KEYS", 9)),
            (Shows::Extended, Column::right("EXTENDED/S", 10)),
            (Shows::Commits, Column::right("COMMITS/S", 9)),
            (Shows::Failovers, Column::right("FAILOVERS", 9)),
            (Shows::Chart, Column::left("LATENCY OVER TIME", CHART)),
        ] {
            columns.push(more);
            if left_over(width, columns.iter().map(|(_, column)| column)) < *SERVER.start() {
                columns.pop();
                break;
            }
        }
    }
    let server = left_over(width, columns.iter().map(|(_, column)| column)).min(*SERVER.end());
    columns.insert(1, (Shows::Server, Column::left("SERVER", server)));
    columns
}

fn row(shard: &Shard, columns: &[(Shows, Column)], palette: &Palette, width: u16) -> Line<'static> {
    let missing = shard.look.stats.as_ref().err();
    // The reason replaces the columns whose values are unknown.
    let known = columns.iter().filter(|(shows, _)| {
        let always = matches!(shows, Shows::Shard | Shows::Server | Shows::State);
        always || missing.is_none()
    });
    let cells = known.clone().map(|(shows, _)| {
        let style = match shows {
            Shows::State if missing.is_some() => palette.bad,
            Shows::State => palette.good,
            Shows::Chart => palette.chart,
            _ => Style::new(),
        };
        (cell(shard, *shows), style)
    });
    let mut line = line(known.clone().map(|(_, column)| column), cells);
    if let Some(missing) = missing {
        let left = usize::from(width).saturating_sub(line.width() + 2);
        line.push_span(format!("  {}", fit(&plain(&missing.to_string()), left, Side::Left)));
    }
    line
}

fn cell(shard: &Shard, shows: Shows) -> String {
    let look = &shard.look;
    let of_stats = |of: fn(&Stats) -> u64| look.stats.as_ref().map(of).unwrap_or_default().to_string();
    let rate = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}"));
    match shows {
        Shows::Shard => look.shard.to_string(),
        Shows::Server => look.server.clone(),
        Shows::State => look.state.to_owned(),
        Shows::Role => look.role().unwrap_or("-").to_owned(),
        Shows::Latency => match look.latency {
            Some(latency) => format!("{:.1}ms", latency.as_secs_f64() * 1e3),
            None => "-".to_owned(),
        },
        Shows::Connections => of_stats(|stats| stats.connections),
        Shows::Waiters => of_stats(waiters),
        Shows::Held => of_stats(held),
        Shows::Idle => of_stats(|stats| (stats.idle_locks.len() + stats.idle_semaphores.len()) as u64),
        Shows::Grants => rate(shard.rates.map(|rates| rates.grants)),
        Shows::Extended => rate(shard.rates.map(|rates| rates.extensions)),
        Shows::Commits => rate(shard.rates.and_then(|rates| rates.commits)),
        Shows::Failovers => look.failovers.to_string(),
        Shows::Chart => shard.latency.bars(CHART),
    }
}
