//! Records the panics of a world's tasks. A panic hook does this, because tokio and the client catch panics.

use std::cell::RefCell;
use std::panic;
use std::sync::Once;

thread_local! {
    /// The panics of the world that runs on this thread. `None` if no world runs on it.
    static SEEN: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// From now on, records panics of this thread and does not print them.
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

/// Returns the panics since [`watch`], and stops recording.
pub fn seen() -> Vec<String> {
    SEEN.take().unwrap_or_default()
}
