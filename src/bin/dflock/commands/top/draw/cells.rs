//! Lines of cells in columns.

use ratatui::style::Style;
use ratatui::text::{Line, Span};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::plain::plain;

/// A column. A text that is too wide for it is cut, and ends with a mark.
pub(super) struct Column {
    pub(super) head: &'static str,
    pub(super) width: usize,
    pub(super) side: Side,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

const BETWEEN: &str = "  ";

impl Column {
    pub(super) fn left(head: &'static str, width: usize) -> Self {
        Self {
            head,
            width,
            side: Side::Left,
        }
    }

    pub(super) fn right(head: &'static str, width: usize) -> Self {
        Self {
            head,
            width,
            side: Side::Right,
        }
    }
}

/// Returns the width that is left for one more column beside these.
pub(super) fn left_over<'a>(width: u16, columns: impl IntoIterator<Item = &'a Column>) -> usize {
    let used: usize = columns.into_iter().map(|column| column.width + BETWEEN.len()).sum();
    usize::from(width).saturating_sub(used)
}

/// Returns the line of the columns' heads.
pub(super) fn heads<'a>(columns: impl Iterator<Item = &'a Column> + Clone, style: Style) -> Line<'static> {
    let heads = columns.clone().map(|column| (column.head.to_owned(), style));
    line(columns, heads)
}

/// Returns a line of cells, one for each column. Text from servers is shown escaped.
pub(super) fn line<'a>(
    columns: impl IntoIterator<Item = &'a Column>,
    cells: impl IntoIterator<Item = (String, Style)>,
) -> Line<'static> {
    let mut spans = Vec::new();
    for (column, (text, style)) in columns.into_iter().zip(cells) {
        if !spans.is_empty() {
            spans.push(Span::raw(BETWEEN));
        }
        spans.push(Span::styled(fit(&plain(&text), column.width, column.side), style));
    }
    Line::from(spans)
}

/// Pads or cuts a text to exactly this width.
pub(super) fn fit(text: &str, width: usize, side: Side) -> String {
    let missing = width.saturating_sub(text.width());
    if text.width() <= width {
        let blanks = " ".repeat(missing);
        return match side {
            Side::Left => format!("{text}{blanks}"),
            Side::Right => format!("{blanks}{text}"),
        };
    }
    let mut cut = String::new();
    let mut used = 0;
    for c in text.chars() {
        let next = c.width().unwrap_or_default();
        // One column is left for the mark.
        if used + next + 1 > width {
            break;
        }
        used += next;
        cut.push(c);
    }
    if width > 0 {
        cut.push('…');
        used += 1;
    }
    cut.push_str(&" ".repeat(width - used));
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_exactly_as_wide_as_their_column() {
        for (text, width, side, fitting) in [
            ("ab", 4, Side::Left, "ab  "),
            ("ab", 4, Side::Right, "  ab"),
            ("abcde", 4, Side::Right, "abc…"),
            ("abcd", 4, Side::Left, "abcd"),
            ("\u{6ce8}\u{6587}", 3, Side::Left, "\u{6ce8}…"),
            ("\u{6ce8}\u{6587}x", 4, Side::Left, "\u{6ce8}… "),
            ("ab", 0, Side::Left, ""),
            ("ab", 1, Side::Left, "…"),
        ] {
            assert_eq!(fit(text, width, side), fitting, "{text} {width}");
        }
    }

    #[test]
    fn text_from_servers_is_escaped() {
        let columns = [Column::left("KEY", 12), Column::right("HELD", 4)];
        let cells = [("a\u{1b}[2J".to_owned(), Style::new()), ("1".to_owned(), Style::new())];
        assert_eq!(line(&columns, cells).to_string(), r"a\u{1b}[2J       1");
        assert_eq!(heads(columns.iter(), Style::new()).to_string(), "KEY           HELD");
        assert_eq!((left_over(40, &columns), left_over(10, &columns)), (20, 0));
    }
}
