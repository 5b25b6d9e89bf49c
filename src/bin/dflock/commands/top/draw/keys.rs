//! The table of keys.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Text};

use super::cells::{Column, heads, left_over, line};
use super::palette::Palette;
use super::{MIDDLE, NARROW};
use crate::plain::plain;
use crate::survey::Row;

use super::super::model::Model;

/// How wide the charts of waiters are.
const CHART: usize = 24;

/// The minimum width of the column of keys, if there is room.
const KEY: usize = 40;

/// What a column shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shows {
    Kind,
    Key,
    Held,
    Waiters,
    Lease,
    Idle,
    Shard,
    Chart,
}

pub(super) fn draw(model: &mut Model, palette: &Palette, frame: &mut Frame, area: Rect) {
    model.page = usize::from(area.height.saturating_sub(1)).max(1);
    model.scroll_to(model.scrolled);
    let columns = columns(area.width, model.longest);
    let mut lines = vec![heads(columns.iter().map(|(_, column)| column), palette.head)];
    let shown = model.rows.iter().skip(model.scrolled).take(model.page);
    lines.extend(shown.map(|row| of_key(model, row, &columns, palette)));
    if lines.len() == 1 {
        lines.push(Line::styled(none(model), palette.dim));
    }
    frame.render_widget(Text::from(lines), area);
}

/// Returns the reason why the list has no key.
fn none(model: &Model) -> String {
    match (&model.filter, model.at) {
        (_, None) => String::new(),
        (Some(filter), _) => format!("no key fits {}", plain(&filter.to_string())),
        (None, _) => "no key is held, waited for or idle".to_owned(),
    }
}

/// Returns the most important columns, as many as fit. The column of keys is as wide as the longest key, but at least
/// `KEY` if there is room.
fn columns(width: u16, longest: usize) -> Vec<(Shows, Column)> {
    let mut columns = vec![
        (Shows::Kind, Column::left("KIND", 9)),
        (Shows::Held, Column::right("HELD", 9)),
        (Shows::Waiters, Column::right("WAITERS", 7)),
    ];
    if width >= NARROW {
        columns.extend([
            (Shows::Lease, Column::right("LEASE", 6)),
            (Shows::Idle, Column::right("IDLE", 6)),
        ]);
    }
    columns.push((Shows::Shard, Column::right("SHARD", 5)));
    if width >= MIDDLE {
        columns.push((Shows::Chart, Column::left("WAITERS OVER TIME", CHART)));
    }
    let key = left_over(width, columns.iter().map(|(_, column)| column));
    columns.insert(1, (Shows::Key, Column::left("KEY", key.min(longest.max(KEY)))));
    columns
}

fn of_key(model: &Model, row: &Row, columns: &[(Shows, Column)], palette: &Palette) -> Line<'static> {
    let style = match (row.waiters, row.idle_s) {
        (1.., _) => palette.waited,
        (_, Some(_)) => palette.dim,
        _ => Style::new(),
    };
    let cells = columns.iter().map(|(shows, _)| match shows {
        Shows::Chart => (cell(model, row, Shows::Chart), palette.chart),
        shows => (cell(model, row, *shows), style),
    });
    line(columns.iter().map(|(_, column)| column), cells)
}

fn cell(model: &Model, row: &Row, shows: Shows) -> String {
    let seconds = |seconds: Option<u64>| seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds}s"));
    match shows {
        Shows::Kind => row.kind.to_string(),
        Shows::Key => row.key.clone(),
        Shows::Held => row.share(),
        Shows::Waiters => row.waiters.to_string(),
        Shows::Lease => seconds(row.lease_s),
        Shows::Idle => seconds(row.idle_s),
        Shows::Shard => row.shard.to_string(),
        Shows::Chart => model.trend(row).map(|trend| trend.bars(CHART)).unwrap_or_default(),
    }
}
