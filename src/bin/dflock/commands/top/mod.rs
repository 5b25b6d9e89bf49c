//! `dflock top`: shows what servers hold, as it changes.
//!
//!     survey (looks) ─┐
//!     keys (presses) ─┼─► model ─► draw ─► screen
//!     signals ────────┘
//!
//! The model and the drawing are pure; `keys` and `screen` use the terminal.

mod draw;
mod history;
mod keys;
mod model;
mod press;
mod rates;
mod screen;

use std::io::stdout;

use tokio::sync::mpsc;

use crate::args::{SourceFlags, TopArguments};
use crate::colors;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::process::{self, Signals, TerminalSignal};
use crate::sources::Sources;
use crate::survey::{Field, Survey};

use self::draw::Palette;
use self::model::Model;
use self::press::{Act, Press};
use self::screen::Screen;

pub(super) async fn top(flags: &SourceFlags, of: &TopArguments) -> Result<Exit, Failure> {
    if !colors::is_screen(&stdout()) {
        return Err(Failure::new(
            Exit::USAGE,
            "`dflock top` draws on a terminal, and standard output is not a terminal",
        )
        .remedy("`dflock stats --watch` prints the same as lines, with --json for programs"));
    }
    let sources = Sources::read(flags, &[], &[])?;
    let mut signals = Signals::that_end()?;
    signals.add_terminal()?;
    let mut rounds = Survey::new(sources.client()?).every(of.interval);
    let sort = of.shown.sort.unwrap_or(Field::Waiters);
    let mut model = Model::new(of.interval, sort, of.shown.filter.clone());
    let palette = Palette::new(colors::taken_by(&stdout()));
    let mut screen = Screen::enter()?;
    let mut presses = keys::presses();
    loop {
        screen.draw(|frame| draw::draw(&mut model, &palette, frame))?;
        let act = tokio::select! {
            biased;
            signal = signals.next_of_terminal() => match signal {
                TerminalSignal::End(exit) => return Ok(exit.unless_interrupted()),
                TerminalSignal::Stop => Act::Stop,
                TerminalSignal::Continue => {
                    screen.again()?;
                    Act::Draw
                }
            },
            press = presses.recv() => match press {
                Some(press) => press_all(&mut model, press, &mut presses),
                None => return Err(Failure::new(Exit::IO, "the terminal cannot be read any more")),
            },
            round = rounds.recv() => match round {
                Some(round) => {
                    model.apply(round);
                    Act::Draw
                }
                None => return Err(Failure::new(Exit::SOFTWARE, "the survey of the servers has ended")),
            },
        };
        match act {
            Act::Draw => {}
            Act::Quit => return Ok(Exit::SUCCESS),
            Act::Stop => {
                screen.leave();
                process::stop();
                screen.again()?;
            }
        }
    }
}

/// How many keys are handled at most between two drawings. So the screen is drawn even if keys arrive without end.
const KEYS_PER_DRAWING: usize = 16;

/// Handles a key, and the keys that have arrived meanwhile, up to one that ends or stops the program. So several keys
/// that are typed fast cause only one drawing.
fn press_all(model: &mut Model, first: Press, presses: &mut mpsc::Receiver<Press>) -> Act {
    let mut act = press::press(model, first);
    for _ in 1..KEYS_PER_DRAWING {
        if act != Act::Draw {
            break;
        }
        match presses.try_recv() {
            Ok(next) => act = press::press(model, next),
            Err(_) => break,
        }
    }
    act
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_endless_stream_of_pressed_keys_does_not_prevent_a_drawing() {
        let mut model = Model::new(Duration::from_secs(1), Field::Key, None);
        let (tell, mut presses) = mpsc::channel(2 * KEYS_PER_DRAWING);
        let queue = |press, count| (0..count).for_each(|_| tell.try_send(press).unwrap());
        queue(Press::Down, 2 * KEYS_PER_DRAWING);
        assert_eq!(press_all(&mut model, Press::Up, &mut presses), Act::Draw);
        assert_eq!(presses.len(), KEYS_PER_DRAWING + 1);
        assert_eq!(press_all(&mut model, Press::CtrlZ, &mut presses), Act::Stop);
        assert_eq!(presses.len(), KEYS_PER_DRAWING + 1);
        queue(Press::CtrlC, 1);
        assert_eq!(press_all(&mut model, Press::Up, &mut presses), Act::Draw);
        assert_eq!(press_all(&mut model, Press::Up, &mut presses), Act::Quit);
        assert!(presses.is_empty());
    }
}
