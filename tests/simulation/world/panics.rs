//! Panics of the tasks of a world. Tokio and the client catch them, so a hook records them.

use std::cell::RefCell;
use std::panic;
use std::sync::Once;

thread_local! {
    /// The panics of the world that runs on this thread, if there is one.
    static SEEN: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// Records the panics of this thread from here on, and does not print them.
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

/// Returns the panics since then, and ends the watch.
pub fn seen() -> Vec<String> {
    SEEN.take().unwrap_or_default()
}
