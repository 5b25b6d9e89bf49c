//! `dflock stats --watch`.

use std::io::{Write, stdout};
use std::time::Duration;

use ratatui::crossterm::terminal;
use unicode_width::UnicodeWidthChar;

use super::block::{Line, block};
use super::told::Told;
use crate::args::StatsArguments;
use crate::colors;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{self, unwritten};
use crate::process::Signals;
use crate::survey::{Round, Survey};
use crate::utc::utc;

/// Shows each look until a signal ends the watch.
pub(super) async fn watch(
    survey: Survey,
    period: Duration,
    of: &StatsArguments,
    signals: &mut Signals,
) -> Result<Exit, Failure> {
    let mut rounds = survey.every(period);
    let is_screen = !of.json && colors::is_screen(&stdout());
    let mut is_first = true;
    loop {
        let round = tokio::select! {
            biased;
            exit = signals.ended() => return Ok(exit.unless_interrupted()),
            round = rounds.recv() => round,
        };
        let Some(round) = round else {
            return Err(Failure::new(Exit::SOFTWARE, "the survey of the servers has ended"));
        };
        match (of.json, is_screen) {
            (true, _) => output::json(&Told::of_watch(round, &of.shown))?,
            (false, true) => redraw(&lines(&round, period, of), is_first)?,
            (false, false) => {
                if !is_first {
                    output::line("")?;
                }
                for line in lines(&round, period, of) {
                    output::line(line.text)?;
                }
            }
        }
        is_first = false;
    }
}

fn lines(round: &Round, period: Duration, of: &StatsArguments) -> Vec<Line> {
    let head = Line::head(format!("{}  every {period:?}", utc(round.at)));
    let mut lines = vec![head];
    lines.extend(block(round, &of.shown));
    lines
}

/// Draws over the previous look.
fn redraw(lines: &[Line], is_first: bool) -> Result<(), Failure> {
    let (width, height) = terminal::size().unwrap_or((80, 24));
    let screen = screen(lines, width.into(), height.into(), colors::taken_by(&stdout()));
    let clear = if is_first { "\x1b[2J" } else { "" };
    let mut to = stdout().lock();
    write!(to, "{clear}\x1b[H{screen}\x1b[J")
        .and_then(|()| to.flush())
        .map_err(unwritten)
}

/// Returns the lines that fit, each cleared to the end of its row.
fn screen(lines: &[Line], width: usize, height: usize, colors: bool) -> String {
    // The cursor needs the last row.
    let room = height.saturating_sub(1).max(1);
    let hidden = match lines.len() > room {
        true => lines.len() - room + 1,
        false => 0,
    };
    let mut screen = String::new();
    for line in lines.iter().take(lines.len() - hidden) {
        let fitting = Line {
            text: cut(&line.text, width).to_owned(),
            ..line.clone()
        };
        screen.push_str(&fitting.painted(colors));
        screen.push_str("\x1b[K\n");
    }
    if hidden > 0 {
        let text = format!("… {hidden} more lines: --filter shows fewer keys");
        screen.push_str(&format!("{}\x1b[K\n", cut(&text, width)));
    }
    screen
}

/// Returns the longest beginning of a text that is no wider than `width`.
fn cut(text: &str, width: usize) -> &str {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += c.width().unwrap_or_default();
        if used > width {
            return text.get(..at).unwrap_or_default();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_holds_what_fits_and_says_what_does_not() {
        let lines: Vec<Line> = ["one", "two", "\u{6ce8}\u{6587}x", "four"]
            .map(|text| Line::head(text.to_owned()))
            .to_vec();
        assert_eq!(
            screen(&lines, 4, 5, false),
            "one\x1b[K\ntwo\x1b[K\n\u{6ce8}\u{6587}\x1b[K\nfour\x1b[K\n"
        );
        assert_eq!(
            screen(&lines, 80, 4, false),
            "one\x1b[K\ntwo\x1b[K\n… 2 more lines: --filter shows fewer keys\x1b[K\n"
        );
        assert_eq!(screen(&lines, 3, 2, false), "… 4\x1b[K\n");
        assert_eq!(screen(&lines, 2, 9, true).matches("\x1b[1m").count(), 4);
    }
}
