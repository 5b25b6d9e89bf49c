//! The styles of text, with or without colours.

use ratatui::style::{Color, Modifier, Style};

pub(in super::super) struct Palette {
    /// The first line.
    pub(super) bar: Style,
    /// The heads of columns.
    pub(super) head: Style,
    /// Less important text.
    pub(super) dim: Style,
    /// Charts.
    pub(super) chart: Style,
    /// Keys that have waiters.
    pub(super) waited: Style,
    /// States of shards that work.
    pub(super) good: Style,
    /// Failures.
    pub(super) bad: Style,
}

impl Palette {
    /// Creates a palette. Without colours it has bold, dim and reversed text.
    pub(in super::super) fn new(colors: bool) -> Self {
        let color = |color: Color| match colors {
            true => Style::new().fg(color),
            false => Style::new(),
        };
        Self {
            bar: Style::new().add_modifier(Modifier::REVERSED),
            head: Style::new().add_modifier(Modifier::BOLD),
            dim: Style::new().add_modifier(Modifier::DIM),
            chart: color(Color::Cyan),
            waited: color(Color::Yellow),
            good: color(Color::Green),
            bad: color(Color::Red).add_modifier(Modifier::BOLD),
        }
    }
}
