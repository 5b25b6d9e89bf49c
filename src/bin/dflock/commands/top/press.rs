//! The effects of keys on the model.

use super::model::{Model, View};
use crate::survey::Field;

/// A key of the keyboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Press {
    Char(char),
    Enter,
    Escape,
    Backspace,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    CtrlC,
    CtrlZ,
    /// A key without a meaning of its own.
    Other,
    /// No key: the terminal has a new size.
    Resize,
}

/// The action that follows a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Draw everything again.
    Draw,
    Quit,
    /// Give the terminal back to the shell until the shell continues this process.
    Stop,
}

pub(super) fn press(model: &mut Model, press: Press) -> Act {
    match press {
        Press::CtrlC => return Act::Quit,
        Press::CtrlZ => return Act::Stop,
        Press::Resize => return Act::Draw,
        _ => {}
    }
    match &mut model.view {
        View::Help => {
            model.view = View::Keys;
            Act::Draw
        }
        View::Filter { text, refused } => {
            *refused = None;
            match press {
                Press::Char(c) => text.push(c),
                Press::Backspace => drop(text.pop()),
                Press::Escape => model.view = View::Keys,
                Press::Enter => accept(model),
                _ => {}
            }
            Act::Draw
        }
        View::Keys => choose(model, press),
    }
}

/// Applies the filter that the user entered. An empty text removes the filter.
fn accept(model: &mut Model) {
    let View::Filter { text, refused } = &mut model.view else {
        return;
    };
    let filter = match text.is_empty() {
        true => Ok(None),
        false => text.parse().map(Some),
    };
    match filter {
        Ok(filter) => {
            model.filter = filter;
            model.view = View::Keys;
            model.scrolled = 0;
            model.arrange();
        }
        Err(why) => *refused = Some(why),
    }
}

fn choose(model: &mut Model, press: Press) -> Act {
    let (scrolled, page) = (model.scrolled, model.page);
    match press {
        Press::Char('q') => return Act::Quit,
        Press::Char('?' | 'h') => model.view = View::Help,
        Press::Char('s') => order(model, 1),
        Press::Char('S') => order(model, Field::ALL.len() - 1),
        Press::Char('p' | ' ') => model.is_paused = !model.is_paused,
        Press::Char('/') => {
            model.view = View::Filter {
                text: model.filter.as_ref().map(ToString::to_string).unwrap_or_default(),
                refused: None,
            };
        }
        Press::Up | Press::Char('k') => model.scroll_to(scrolled.saturating_sub(1)),
        Press::Down | Press::Char('j') => model.scroll_to(scrolled + 1),
        Press::PageUp => model.scroll_to(scrolled.saturating_sub(page)),
        Press::PageDown => model.scroll_to(scrolled + page),
        Press::Home => model.scroll_to(0),
        Press::End => model.scroll_to(usize::MAX),
        _ => {}
    }
    Act::Draw
}

/// Orders keys by another field.
fn order(model: &mut Model, by: usize) {
    let now = Field::ALL.iter().position(|field| *field == model.sort);
    let next = (now.unwrap_or_default() + by) % Field::ALL.len();
    if let Some(field) = Field::ALL.get(next) {
        model.sort = *field;
    }
    model.scrolled = 0;
    model.arrange();
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant, SystemTime};

    use super::super::model::tests::look;
    use super::*;
    use crate::survey::Round;

    fn model() -> Model {
        let mut model = Model::new(Duration::from_secs(1), Field::Waiters, None);
        let idle: Vec<String> = (0..9).map(|key| format!(r#"{{"key":"k/{key}"}}"#)).collect();
        let stats = format!(r#"{{"idle_locks":[{}]}}"#, idle.join(","));
        model.page = 4;
        model.apply(Round {
            at: SystemTime::UNIX_EPOCH,
            looks: vec![look(0, Instant::now(), 0, &stats)],
        });
        model
    }

    fn type_in(model: &mut Model, text: &str) {
        for c in text.chars() {
            assert_eq!(press(model, Press::Char(c)), Act::Draw, "{c}");
        }
    }

    #[test]
    fn q_and_ctrl_c_quit_and_ctrl_z_stops() {
        for (key, act) in [
            (Press::Char('q'), Act::Quit),
            (Press::CtrlC, Act::Quit),
            (Press::CtrlZ, Act::Stop),
            (Press::Escape, Act::Draw),
        ] {
            assert_eq!(press(&mut model(), key), act, "{key:?}");
        }
    }

    #[test]
    fn any_key_closes_help_and_ctrl_c_quits_from_help() {
        let mut model = model();
        type_in(&mut model, "?");
        assert_eq!(model.view, View::Help);
        assert_eq!(press(&mut model, Press::CtrlC), Act::Quit);
        assert_eq!(press(&mut model, Press::Resize), Act::Draw);
        assert_eq!(model.view, View::Help);
        for key in [Press::Char('q'), Press::Down, Press::Other] {
            model.view = View::Help;
            assert_eq!(press(&mut model, key), Act::Draw);
            assert_eq!(model.view, View::Keys, "{key:?}");
        }
    }

    #[test]
    fn a_filter_is_entered_kept_changed_and_removed() {
        let mut model = model();
        type_in(&mut model, "/k/qx");
        press(&mut model, Press::Backspace);
        press(&mut model, Press::Backspace);
        type_in(&mut model, "5");
        assert_eq!(model.rows.len(), 9, "not yet");
        press(&mut model, Press::Enter);
        assert_eq!((model.rows.len(), &model.view), (1, &View::Keys));
        type_in(&mut model, "/0");
        press(&mut model, Press::Escape);
        assert_eq!(model.filter.as_ref().map(ToString::to_string).as_deref(), Some("k/5"));
        type_in(&mut model, "/");
        for _ in 0..3 {
            press(&mut model, Press::Backspace);
        }
        press(&mut model, Press::Enter);
        assert_eq!((model.rows.len(), model.filter.is_none()), (9, true));
    }

    #[test]
    fn an_invalid_filter_is_refused_with_its_reason() {
        let mut model = model();
        type_in(&mut model, r"/k\");
        press(&mut model, Press::Enter);
        let View::Filter { text, refused } = &model.view else {
            panic!("{:?}", model.view);
        };
        assert!(text == r"k\" && refused.as_ref().is_some_and(|why| why.contains(r"write \\")));
        type_in(&mut model, r"\");
        assert!(matches!(&model.view, View::Filter { refused: None, .. }));
    }

    #[test]
    fn s_goes_through_all_fields_and_back() {
        let mut model = model();
        let mut seen = Vec::new();
        for _ in Field::ALL {
            seen.push(model.sort);
            type_in(&mut model, "s");
        }
        assert_eq!((seen.as_slice(), model.sort), (&Field::ALL[..], Field::Waiters));
        type_in(&mut model, "S");
        assert_eq!(model.sort, Field::Shard);
    }

    #[test]
    fn keys_scroll_by_lines_and_pages() {
        let mut model = model();
        for (key, first) in [
            (Press::Down, 1),
            (Press::PageDown, 5),
            (Press::Down, 5),
            (Press::Up, 4),
            (Press::PageUp, 0),
            (Press::End, 5),
            (Press::Home, 0),
            (Press::Up, 0),
        ] {
            press(&mut model, key);
            assert_eq!(model.scrolled, first, "{key:?}");
        }
        type_in(&mut model, "p");
        assert!(model.is_paused);
    }
}
