//! Draws the model.

mod cells;
mod frame;
mod help;
mod keys;
mod palette;
mod shards;
mod signals;
mod sums;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::widgets::{Paragraph, Wrap};

pub(super) use self::palette::Palette;
use super::model::{Model, View};

/// The smallest terminal on which every part has room, in columns and rows.
const LEAST: (u16, u16) = (60, 12);

/// Below these widths the less important columns are left out. From this height on, charts are higher.
const NARROW: u16 = 72;
const MIDDLE: u16 = 90;
const WIDE: u16 = 120;
const HIGH: u16 = 40;

/// The width of the list of signal patterns, and the minimum width of a terminal that shows it beside the keys.
const SIGNALS: u16 = 54;
const VERY_WIDE: u16 = 160;

/// Draws everything, and stores in the model how many keys fit on the screen.
pub(super) fn draw(model: &mut Model, palette: &Palette, frame: &mut Frame) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        too_small(frame, area);
        return;
    }
    let [head, sums, shards, below, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(if area.height < HIGH { 3 } else { 5 }),
        Constraint::Length(shards::height(model, area.height)),
        Constraint::Min(2),
        Constraint::Length(1),
    ])
    .areas(area);
    frame::head(model, palette, frame, head);
    sums::draw(model, palette, frame, sums);
    shards::draw(model, palette, frame, shards);
    let has_signals = area.width >= VERY_WIDE && model.listeners().next().is_some();
    match has_signals {
        true => {
            let [keys, _, signals] =
                Layout::horizontal([Constraint::Min(1), Constraint::Length(2), Constraint::Length(SIGNALS)])
                    .areas(below);
            keys::draw(model, palette, frame, keys);
            signals::draw(model, palette, frame, signals);
        }
        false => keys::draw(model, palette, frame, below),
    }
    frame::foot(model, palette, frame, foot);
    if model.view == View::Help {
        help::draw(palette, frame, area);
    }
}

fn too_small(frame: &mut Frame, area: Rect) {
    let (width, height) = LEAST;
    let text = format!(
        "dflock top needs a terminal of {width}x{height}; this one is {}x{}. q quits.",
        area.width, area.height
    );
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
}

#[cfg(test)]
mod tests;
