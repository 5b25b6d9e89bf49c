//! Why waits have no connection, and whether that was said already.

use super::metrics::Exhausted;

/// The state of a shard's want of connections for waits.
#[derive(Default)]
pub(super) struct Shortage {
    /// Why there are none, while there are none.
    why: Option<Exhausted>,
    /// The reasons that were logged.
    logged: Vec<Exhausted>,
}

impl Shortage {
    /// Why there are no connections for waits, if there are none.
    pub(super) fn why(&self) -> Option<Exhausted> {
        self.why
    }

    /// There are none, for this reason. Returns whether the reason is another than before.
    pub(super) fn begin(&mut self, why: Exhausted) -> bool {
        self.why.replace(why) != Some(why)
    }

    /// There are some again.
    pub(super) fn end(&mut self) {
        self.why = None;
    }

    /// Notes that a reason is logged. Returns whether it was not before.
    pub(super) fn note_logged(&mut self, why: Exhausted) -> bool {
        let is_new = !self.logged.contains(&why);
        if is_new {
            self.logged.push(why);
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_news_when_it_changes_and_is_logged_once() {
        let mut shortage = Shortage::default();
        assert_eq!(shortage.why(), None);
        assert!(shortage.begin(Exhausted::Limit) && !shortage.begin(Exhausted::Limit));
        assert!(shortage.note_logged(Exhausted::Limit));
        assert!(shortage.begin(Exhausted::ServerFull));
        assert_eq!(shortage.why(), Some(Exhausted::ServerFull));
        shortage.end();
        assert_eq!(shortage.why(), None);
        assert!(shortage.begin(Exhausted::Limit) && !shortage.note_logged(Exhausted::Limit));
    }
}
