//! Takes the whole terminal, and restores it however the program ends.

use std::io::{Stdout, stdout};
use std::sync::Once;

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui::{Frame, Terminal};

use crate::failure::Failure;
use crate::output::unwritten;

/// The terminal while this program uses it. Dropping this restores it.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    pub(super) fn enter() -> Result<Self, Failure> {
        give_back_on_panic();
        // If anything fails from here on, dropping this restores the terminal.
        let mut screen = Self {
            terminal: Terminal::new(CrosstermBackend::new(stdout())).map_err(unwritten)?,
        };
        screen.again()?;
        Ok(screen)
    }

    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame)) -> Result<(), Failure> {
        self.terminal.draw(draw).map(drop).map_err(unwritten)
    }

    /// Restores the terminal for a while.
    pub(super) fn leave(&mut self) {
        give_back();
    }

    /// Takes the terminal, for the first time or again: the shell may have changed it meanwhile, and shown something
    /// on it.
    pub(super) fn again(&mut self) -> Result<(), Failure> {
        // crossterm does not set raw mode if it believes that raw mode is set already.
        let taken = disable_raw_mode()
            .and_then(|()| enable_raw_mode())
            .and_then(|()| execute!(stdout(), EnterAlternateScreen))
            .and_then(|()| self.terminal.clear());
        taken.map_err(unwritten)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Restores the terminal. If the terminal has gone, there is nothing to restore.
fn give_back() {
    drop(disable_raw_mode());
    drop(execute!(stdout(), LeaveAlternateScreen, Show));
}

/// Restores the terminal before a panic prints its message.
fn give_back_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
    });
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::Command;

    use super::*;

    const PANICS: &str = "commands::top::screen::tests::a_panic_with_the_screen";

    /// Panics while it has the screen. The next test runs this in a terminal of its own.
    #[test]
    #[ignore = "the next test runs it"]
    fn a_panic_with_the_screen() {
        let mut screen = Screen::enter().unwrap_or_else(|failure| panic!("{failure:?}"));
        screen
            .draw(|_| panic!("planted"))
            .unwrap_or_else(|failure| panic!("{failure:?}"));
    }

    #[test]
    fn a_panic_is_reported_on_the_restored_terminal() {
        let this = std::env::current_exe().unwrap();
        let run = format!("{} --exact {PANICS} --ignored --nocapture; stty -a", this.display());
        let output = Command::new("script")
            .args(["--quiet", "--command", &run, "/dev/null"])
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&output.stdout);
        let at = |text: &str| shown.find(text).unwrap_or_else(|| panic!("no {text:?} in {shown:?}"));
        assert!(
            at("\u{1b}[?1049h") < at("\u{1b}[?1049l") && at("\u{1b}[?1049l") < at("planted"),
            "{shown:?}"
        );
        assert!(shown.contains(" icanon") && shown.contains(" echo "), "{shown:?}");
    }
}
