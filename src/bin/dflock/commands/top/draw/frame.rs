//! The first and the last line of the screen.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

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
    let width = usize::from(area.width);
    let line = match &model.view {
        View::Filter { text, refused } => {
            let hint = refused
                .as_deref()
                .unwrap_or("Enter keeps it, Esc drops it; * is any text, ? one character");
            filter(text, hint, refused.is_some(), palette, width)
        }
        View::Keys | View::Help => hints(model, palette, width),
    };
    frame.render_widget(line, area);
}

/// Returns the line of the filter that the user enters. It shows the end of the text, and a hint behind it if there is
/// room. The reason for a refusal always has room.
fn filter(text: &str, hint: &str, is_refused: bool, palette: &Palette, width: usize) -> Line<'static> {
    const HEAD: &str = "filter: ";
    let (kept, style) = match is_refused {
        true => (hint.width() + 2, palette.bad),
        false => (0, palette.dim),
    };
    let room = width.saturating_sub(HEAD.width() + 1 + kept);
    Line::from_iter([
        Span::styled(HEAD, palette.head),
        Span::raw(end(&plain(text), room)),
        Span::styled(" ", palette.bar),
        Span::styled(format!("  {hint}"), style),
    ])
}

/// Returns the longest end of a text that is no wider than `width`, with a mark before it if the text was cut.
fn end(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    // One column is left for the mark.
    let (mut used, mut from) = (1, text.len());
    for (at, c) in text.char_indices().rev() {
        used += c.width().unwrap_or_default();
        if used > width {
            break;
        }
        from = at;
    }
    format!("…{}", text.get(from..).unwrap_or_default())
}

/// Returns the line of the keys that do something, as many as fit beside the position in the list.
fn hints(model: &Model, palette: &Palette, width: usize) -> Line<'static> {
    let pause = if model.is_paused { "go on" } else { "pause" };
    let place = place(model);
    let mut left = width.saturating_sub(place.width());
    let mut spans = Vec::new();
    for (key, does) in [
        ("q", "quit"),
        ("?", "help"),
        ("s", "sort"),
        ("/", "filter"),
        ("p", pause),
        ("↑↓", "scroll"),
    ] {
        let does = format!(" {does}   ");
        let Some(rest) = left.checked_sub(key.width() + does.width()) else {
            break;
        };
        left = rest;
        spans.push(Span::styled(key, palette.head));
        spans.push(Span::styled(does, palette.dim));
    }
    spans.push(Span::styled(format!("{}{place}", " ".repeat(left)), palette.dim));
    Line::from(spans)
}

/// Returns which part of the list is shown; empty if that is all of it.
fn place(model: &Model) -> String {
    let count = model.rows.len();
    let last = (model.scrolled + model.page).min(count);
    match last - model.scrolled < count {
        true => format!("{}-{last} of {count}", model.scrolled + 1),
        false => String::new(),
    }
}
