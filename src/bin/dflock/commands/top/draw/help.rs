//! The help, which `?` shows.

use ratatui::Frame;
use ratatui::layout::{Constraint, Flex, Layout, Rect};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Clear, Padding, Paragraph};

use super::palette::Palette;

/// The width of the help: that of the smallest terminal, without the frame.
const WIDTH: u16 = 56;

const KEYS: [(&str, &str); 8] = [
    ("q, Ctrl-C", "quit"),
    ("s, S", "order keys by the next or previous field"),
    ("/", "filter keys: * is any text, ? a character"),
    ("p, space", "pause, and go on"),
    ("↑ ↓ k j", "scroll; PageUp, PageDown, Home, End too"),
    ("Ctrl-Z", "stop; the shell's fg goes on"),
    ("?", "this help; any key closes it"),
    ("", ""),
];

const COLUMNS: [(&str, &str); 10] = [
    ("LATENCY", "how long the answer to `stats` took"),
    ("GRANTS/S", "a lower bound. Counted are locks that were"),
    ("", "free and are held, or moved to another"),
    ("", "connection; more held slots; and keys that"),
    ("", "were idle, were used and are idle again."),
    ("EXTENDED/S", "leases that end later than before, at the"),
    ("", "same connection: renewals, and new grants"),
    ("COMMITS/S", "entries that a cluster committed"),
    ("LEASE, IDLE", "until the lease ends; since the last use"),
    ("SIGNALS OF", "patterns of listeners, from 160 columns on"),
];

pub(super) fn draw(palette: &Palette, frame: &mut Frame, area: Rect) {
    let rows = KEYS.iter().chain(&COLUMNS);
    let lines = rows
        .map(|(name, means)| Line::from_iter([Span::styled(format!("{name:<13}"), palette.head), Span::raw(*means)]));
    let text = Text::from_iter(lines);
    let height = u16::try_from(text.height()).unwrap_or(u16::MAX).saturating_add(2);
    let [row] = Layout::vertical([Constraint::Max(height)])
        .flex(Flex::Center)
        .areas(area);
    let [place] = Layout::horizontal([Constraint::Max(WIDTH + 4)])
        .flex(Flex::Center)
        .areas(row);
    let block = Block::bordered().title(" Help ").padding(Padding::horizontal(1));
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(text).block(block), place);
}
