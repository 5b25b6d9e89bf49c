//! Values that are identified by names.

use super::{Error, Result};
use crate::escape::Shortened;

/// Returns the value with this name.
pub(crate) fn named<T: Copy>(what: &str, text: &str, all: &[T], name: impl Fn(T) -> &'static str) -> Result<T> {
    let found = all.iter().copied().find(|one| name(*one) == text);
    found.ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|one| name(*one)).collect();
        Error::invalid(what, Shortened(text), &format!("give one of {}", names.join(", ")))
    })
}

#[cfg(test)]
mod tests;
