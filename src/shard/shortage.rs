//! Tracks why waits have no connection, and which reasons were logged.

use super::metrics::Exhausted;

/// Whether a shard lacks connections for waits.
#[derive(Default)]
pub(super) struct Shortage {
    /// The reason, while there is a shortage.
    why: Option<Exhausted>,
    /// The reasons that were logged.
    logged: Vec<Exhausted>,
}

impl Shortage {
    /// Returns the reason for the shortage, if there is one.
    pub(super) fn why(&self) -> Option<Exhausted> {
        self.why
    }

    /// Notes a shortage with this reason. Returns whether the reason is new or has changed.
    pub(super) fn begin(&mut self, why: Exhausted) -> bool {
        self.why.replace(why) != Some(why)
    }

    /// Notes the end of the shortage.
    pub(super) fn end(&mut self) {
        self.why = None;
    }

    /// Notes that a reason is logged. Returns whether this is the first time.
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
    fn a_reason_is_new_when_it_changes_and_is_logged_once() {
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
