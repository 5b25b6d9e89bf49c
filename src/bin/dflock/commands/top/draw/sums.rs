//! Sums over all shards, with their charts.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect, Spacing};
use ratatui::text::{Line, Span};
use ratatui::widgets::Sparkline;

use super::palette::Palette;

use super::super::history::History;
use super::super::model::Model;

pub(super) fn draw(model: &Model, palette: &Palette, frame: &mut Frame, area: Rect) {
    let sums = &model.sums;
    let whole = |history: &History| history.newest().map(|value| format!("{value:.0}"));
    let grants = sums.grants.newest().map(|rate| format!("≥ {rate:.1}"));
    let charts = [
        ("WAITERS", &sums.waiters, whole(&sums.waiters)),
        ("HELD", &sums.held, whole(&sums.held)),
        ("GRANTS/S", &sums.grants, grants),
        ("CONNECTIONS", &sums.connections, whole(&sums.connections)),
    ];
    let areas: [Rect; 4] = Layout::horizontal([Constraint::Fill(1); 4])
        .spacing(Spacing::Space(2))
        .areas(area);
    for ((name, history, value), area) in charts.into_iter().zip(areas) {
        // The last row is empty.
        let [title, chart, _] =
            Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)]).areas(area);
        // The value comes first, so that it is not cut if there is little room.
        let value = value.unwrap_or_else(|| "-".to_owned());
        let line = Line::from_iter([
            Span::styled(value, palette.head),
            Span::styled(format!(" {name}"), palette.dim),
        ]);
        frame.render_widget(line, title);
        let bars = Sparkline::default()
            .data(history.scaled(chart.width.into()))
            .style(palette.chart);
        frame.render_widget(bars, chart);
    }
}
