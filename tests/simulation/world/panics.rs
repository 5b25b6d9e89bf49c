//! Panics of the tasks of a world: tokio and the client catch them, so that they have to be looked for.

use std::cell::RefCell;
use std::panic;
use std::sync::Once;

thread_local! {
    /// Those of the world that runs on this thread, if one does.
    static SEEN: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// From here on panics of this thread are taken down, and not printed.
pub fn watch() {
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let is_watched =
                SEEN.with_borrow_mut(|seen| seen.as_mut().map(|seen| seen.push(info.to_string())).is_some());
            if !is_watched {
                usual(info);
            }
        }));
    });
    SEEN.set(Some(Vec::new()));
}

/// What there were since then. The watch ends.
pub fn seen() -> Vec<String> {
    SEEN.take().unwrap_or_default()
}
