//! The name of a client, for processes that have several.

use std::sync::Arc;

use metrics::SharedString;
use tracing::Span;

use crate::error::{Error, Result};
use crate::escape::is_hidden;

/// The longest name, in characters.
const LONGEST: usize = 64;

/// The optional name of a client in logs, metrics and spans.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientName(Option<Arc<str>>);

impl ClientName {
    /// Checks a name.
    pub(crate) fn new(name: Option<&str>) -> Result<Self> {
        let Some(name) = name else { return Ok(Self(None)) };
        let length = name.chars().count();
        if length == 0 || length > LONGEST {
            let remedy = format!("give 1 to {LONGEST} characters");
            return Err(Error::invalid("client name of length", length, &remedy));
        }
        match name.contains(is_hidden) {
            true => Err(Error::invalid("client name", name, "give visible characters")),
            false => Ok(Self(Some(name.into()))),
        }
    }

    pub(crate) fn as_deref(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// Returns the value of the metrics' label.
    pub(crate) fn label(&self) -> Option<SharedString> {
        self.0.as_ref().map(|name| Arc::clone(name).into())
    }

    /// Returns a span for the work of one of the client's actors. The span has the highest level, so that every log
    /// line shows it. It lasts as long as the actor. Exporters of traces are not made for such long spans: they can
    /// leave this span out by its target.
    pub(crate) fn span(&self) -> Option<Span> {
        let client = self.as_deref()?;
        Some(tracing::error_span!(target: "dflockd_client::tasks", parent: None, "dflockd_client", client))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_visible_and_not_too_long() {
        for good in ["billing", "größe 鍵", &"n".repeat(64)] {
            assert_eq!(ClientName::new(Some(good)).unwrap().as_deref(), Some(good));
        }
        for bad in ["", "a\nb", "a\u{202e}b", &"n".repeat(65)] {
            assert!(ClientName::new(Some(bad)).is_err(), "{bad:?}");
        }
    }
}
