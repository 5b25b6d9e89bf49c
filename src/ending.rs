//! The end of a client, and its cause.

use std::sync::{Arc, OnceLock};

use crate::error::{Error, ErrorKind};

/// The end of a client. All parts of the client share it: after it has begun, they start and restart nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ending(Arc<OnceLock<Error>>);

impl Ending {
    /// Begins the end with this cause. If the end has begun already, its first cause stays.
    pub(crate) fn begin(&self, cause: Error) {
        let _ = self.0.set(cause);
    }

    /// Returns the cause, if the end has begun.
    pub(crate) fn cause(&self) -> Option<&Error> {
        self.0.get()
    }
}

/// Returns the cause for a shutdown.
pub(crate) fn shut_down() -> Error {
    Error::new(ErrorKind::Shutdown, "the client is shut down")
}

/// Returns the cause for tasks that their runtime has dropped; `what` names their owner.
pub(crate) fn runtime_ended(what: &str) -> Error {
    Error::new(
        ErrorKind::Shutdown,
        format!(
            "the runtime on which this {what} was created has ended, and the tasks of the {what} with it: create another {what}"
        ),
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
