//! Moving a value out of a reference.

/// A value that releases something when it is dropped, and that can be moved out of a reference.
pub(crate) trait Take {
    /// Moves the value out. The remaining value can still be queried, but dropping it releases nothing.
    #[must_use]
    fn take(&mut self) -> Self;
}
