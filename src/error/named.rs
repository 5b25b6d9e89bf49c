//! Values that are known by their names.

use super::{Error, Result};
use crate::escape::Shortened;

/// Finds the value that has this name, among all of its type.
pub(crate) fn named<T: Copy>(what: &str, text: &str, all: &[T], name: impl Fn(T) -> &'static str) -> Result<T> {
    let found = all.iter().copied().find(|one| name(*one) == text);
    found.ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|one| name(*one)).collect();
        Error::invalid(what, Shortened(text), &format!("give one of {}", names.join(", ")))
    })
}

#[cfg(test)]
mod tests;
