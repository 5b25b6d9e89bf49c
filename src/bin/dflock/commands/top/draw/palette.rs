//! Colours, or none.

use ratatui::style::{Color, Modifier, Style};

pub(in super::super) struct Palette {
    /// The first line.
    pub(super) bar: Style,
    /// The heads of columns.
    pub(super) head: Style,
    /// What is less important.
    pub(super) dim: Style,
    /// Charts.
    pub(super) chart: Style,
    /// Keys that are waited for.
    pub(super) waited: Style,
    /// What works.
    pub(super) good: Style,
    /// What does not.
    pub(super) bad: Style,
}

impl Palette {
    /// Without colours there are bold, dim and reversed texts.
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
