//! Whether a client has come to its end, and why.

use std::sync::{Arc, OnceLock};

use crate::error::{Error, ErrorKind};

/// The end of a client, known to all its parts: nothing is started or restarted once it has begun. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ending(Arc<OnceLock<Error>>);

impl Ending {
    /// It begins now. A cause that was given before stays.
    pub(crate) fn begin(&self, cause: Error) {
        let _ = self.0.set(cause);
    }

    /// Why it has begun, if it has.
    pub(crate) fn cause(&self) -> Option<&Error> {
        self.0.get()
    }
}

/// It was asked for.
pub(crate) fn shut_down() -> Error {
    Error::new(ErrorKind::Shutdown, "the client is shut down")
}

/// The tasks of a client, or of another thing, were dropped by their runtime.
pub(crate) fn runtime_ended(what: &str) -> Error {
    Error::new(
        ErrorKind::Shutdown,
        format!("the runtime on which this {what} was made has ended, and its connections with it: make another"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cause_stays_and_is_final() {
        let ending = Ending::default();
        assert!(ending.cause().is_none());
        let shared = ending.clone();
        shared.begin(runtime_ended("client"));
        ending.begin(shut_down());
        let cause = ending.cause().unwrap();
        assert!(cause.to_string().contains("runtime"), "{cause}");
        assert!(cause.is_fatal() && !cause.is_retryable());
    }
}
