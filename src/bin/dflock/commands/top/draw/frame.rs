//! The first line and the last.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::cells::{Side, fit};
use super::palette::Palette;
use crate::plain::plain;
use crate::utc::utc;

use super::super::model::{Model, View};

pub(super) fn head(model: &Model, palette: &Palette, frame: &mut Frame, area: Rect) {
    let mut parts = vec![
        "dflock top".to_owned(),
        format!("every {:?}", model.period),
        format!("by {}", model.sort),
    ];
    if let Some(filter) = &model.filter {
        parts.push(format!("only {}", plain(&filter.to_string())));
    }
    if model.is_paused {
        parts.push("PAUSED".to_owned());
    }
    let clock = model.at.map(utc).unwrap_or_default();
    let clock = clock.split(' ').next_back().unwrap_or_default();
    let width = usize::from(area.width);
    let room = width.saturating_sub(clock.width() + 3);
    let text = format!(" {} {clock} ", fit(&parts.join(" · "), room, Side::Left));
    frame.render_widget(Line::styled(text, palette.bar), area);
}

pub(super) fn foot(model: &Model, palette: &Palette, frame: &mut Frame, area: Rect) {
    let line = match &model.view {
        View::Filter { text, refused: None } => Line::from(vec![
            Span::styled("filter: ", palette.head),
            Span::raw(plain(text)),
            Span::styled(" ", palette.bar),
            Span::styled(
                "  Enter keeps it, Esc drops it; * is any text, ? one character",
                palette.dim,
            ),
        ]),
        View::Filter {
            text,
            refused: Some(why),
        } => Line::from(vec![
            Span::styled("filter: ", palette.head),
            Span::raw(plain(text)),
            Span::styled(" ", palette.bar),
            Span::styled(format!("  {why}"), palette.bad),
        ]),
        View::Keys | View::Help => {
            let pause = if model.is_paused { "go on" } else { "pause" };
            let keys = [
                ("q", "quit"),
                ("?", "help"),
                ("s", "sort"),
                ("/", "filter"),
                ("p", pause),
                ("↑↓", "scroll"),
            ];
            let spans = keys.into_iter().flat_map(|(key, does)| {
                [
                    Span::styled(key, palette.head),
                    Span::styled(format!(" {does}   "), palette.dim),
                ]
            });
            let place = place(model);
            let line = Line::from_iter(spans);
            let missing = usize::from(area.width).saturating_sub(line.width() + place.width());
            let rest = Span::styled(format!("{}{place}", " ".repeat(missing)), palette.dim);
            Line::from_iter(line.spans.into_iter().chain([rest]))
        }
    };
    frame.render_widget(line, area);
}

/// Which keys are shown, where not all are.
fn place(model: &Model) -> String {
    let count = model.rows.len();
    let last = (model.scrolled + model.page).min(count);
    match last - model.scrolled < count {
        true => format!("{}-{last} of {count}", model.scrolled + 1),
        false => String::new(),
    }
}
