//! The keyboard.

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;

use super::press::Press;

/// Returns the keys that the user presses. A thread reads them until this process ends. The channel closes when the
/// terminal cannot be read.
pub(super) fn presses() -> mpsc::Receiver<Press> {
    let (tell, told) = mpsc::channel(16);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            let Some(press) = read(&event) else {
                continue;
            };
            if tell.blocking_send(press).is_err() {
                return;
            }
        }
    });
    told
}

fn read(event: &Event) -> Option<Press> {
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => Some(of_key(key)),
        Event::Resize(..) => Some(Press::Resize),
        _ => None,
    }
}

fn of_key(key: &KeyEvent) -> Press {
    match (key.code, key.modifiers.contains(KeyModifiers::CONTROL)) {
        (KeyCode::Char('c'), true) => Press::CtrlC,
        (KeyCode::Char('z'), true) => Press::CtrlZ,
        (KeyCode::Char('h'), true) => Press::Backspace,
        (KeyCode::Char(c), false) => Press::Char(c),
        (KeyCode::Enter, _) => Press::Enter,
        (KeyCode::Esc, _) => Press::Escape,
        (KeyCode::Backspace, _) => Press::Backspace,
        (KeyCode::Up, _) => Press::Up,
        (KeyCode::Down, _) => Press::Down,
        (KeyCode::PageUp, _) => Press::PageUp,
        (KeyCode::PageDown, _) => Press::PageDown,
        (KeyCode::Home, _) => Press::Home,
        (KeyCode::End, _) => Press::End,
        _ => Press::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_the_terminal_are_read_as_pressed_keys() {
        let key = |code, modifiers| read(&Event::Key(KeyEvent::new(code, modifiers)));
        let (plain, control) = (KeyModifiers::NONE, KeyModifiers::CONTROL);
        assert_eq!(key(KeyCode::Char('c'), control), Some(Press::CtrlC));
        assert_eq!(key(KeyCode::Char('c'), plain), Some(Press::Char('c')));
        assert_eq!(key(KeyCode::Char('S'), KeyModifiers::SHIFT), Some(Press::Char('S')));
        assert_eq!(key(KeyCode::F(1), plain), Some(Press::Other));
        assert_eq!(read(&Event::Resize(1, 1)), Some(Press::Resize));
        assert_eq!(read(&Event::FocusGained), None);
        let released = KeyEvent::new_with_kind(KeyCode::Char('q'), plain, KeyEventKind::Release);
        assert_eq!(read(&Event::Key(released)), None);
    }
}
