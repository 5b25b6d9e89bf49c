//! The table of patterns of signals.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Text;

use super::cells::{Column, heads, line};
use super::palette::Palette;

use super::super::model::Model;

pub(super) fn draw(model: &Model, palette: &Palette, frame: &mut Frame, area: Rect) {
    let columns = [
        Column::left("SIGNALS OF", 20),
        Column::left("GROUP", 14),
        Column::right("LISTENERS", 9),
        Column::right("SHARD", 5),
    ];
    let mut lines = vec![heads(columns.iter(), palette.head)];
    lines.extend(model.listeners().map(|(shard, channel)| {
        let cells = [
            channel.pattern.clone(),
            channel.group.clone().unwrap_or_else(|| "-".to_owned()),
            channel.listeners.to_string(),
            shard.to_string(),
        ];
        line(&columns, cells.map(|cell| (cell, Style::new())))
    }));
    frame.render_widget(Text::from(lines), area);
}
