//! Moving out what a reference only points to.

/// Something that gives back what it stands for when it is dropped, and can be told not to.
pub(crate) trait Take {
    /// Moves it out. What stays behind can still be asked, but gives nothing back.
    #[must_use]
    fn take(&mut self) -> Self;
}
