//! Keys and channels that no other user of the servers uses.

/// The keys and channels of one run.
#[derive(Clone, Debug)]
pub(super) struct Keys(String);

impl Keys {
    /// Chooses names that are unique to this run.
    pub(super) fn of_this_run() -> Self {
        Self(format!("{}-{:08x}", std::process::id(), fastrand::u32(..)))
    }

    pub(super) fn key(&self, number: usize) -> String {
        format!("dflock-bench/{}/{number}", self.0)
    }

    /// Returns a key that differs from all numbered keys.
    pub(super) fn other(&self) -> String {
        format!("dflock-bench/{}/other", self.0)
    }

    pub(super) fn channel(&self, name: impl std::fmt::Display) -> String {
        format!("dflock-bench.{}.{name}", self.0)
    }
}
