//! A failure: its message, a remedy, and the exit code for scripts.

use std::error::Error as _;

use dflockd_client::{Error, ErrorKind};

use crate::exit::Exit;
use crate::tell;
use crate::words::for_shells;

/// An error that ends the command, with a message for its user.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    what: String,
    remedy: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self {
            exit,
            what: for_shells(&what.into()),
            remedy: None,
        }
    }

    /// Adds a remedy.
    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Creates the failure for invalid settings, which have their own exit code.
    pub(crate) fn of_settings(error: &Error) -> Self {
        let failure = Self::from(error.clone());
        match failure.exit {
            Exit::USAGE => Self {
                exit: Exit::SETTINGS,
                ..failure
            },
            _ => failure,
        }
    }

    /// Replaces the exit code.
    #[cfg(feature = "tls")]
    pub(crate) fn exit_with(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    /// Returns the exit code, the message and the remedy.
    pub(crate) fn into_parts(self) -> (Exit, String, Option<String>) {
        (self.exit, self.what, self.remedy)
    }

    /// Creates the failure for output whose reader has gone. It has no message: `dflock stats | head -1` is no
    /// mistake.
    pub(crate) fn unread() -> Self {
        Self::new(Exit::IO, "")
    }

    /// Prints the failure on standard error. Returns its exit code.
    pub(crate) fn tell(&self) -> Exit {
        if self.what.is_empty() {
            return self.exit;
        }
        tell::complain(&self.what);
        if let Some(remedy) = &self.remedy {
            tell::advise(remedy);
        }
        self.exit
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let mut what = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let said = error.to_string();
            if !what.contains(&said) {
                what.push_str(": ");
                what.push_str(&said);
            }
            cause = error.source();
        }
        let (exit, remedy) = judge(&error);
        let failure = Self::new(exit, what);
        match remedy {
            Some(remedy) => failure.remedy(remedy),
            None => failure,
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::SYSTEM, format!("the system refused: {error}"))
    }
}

/// Returns the exit code of an error, and a remedy if the error's message has none.
fn judge(error: &Error) -> (Exit, Option<&'static str>) {
    match error.kind() {
        ErrorKind::InvalidInput | ErrorKind::Misuse => (Exit::USAGE, None),
        ErrorKind::Timeout => (
            Exit::NOT_IN_TIME,
            Some("try again later, or wait longer with --timeout; `dflock stats` shows what is held"),
        ),
        ErrorKind::MaxLocks | ErrorKind::MaxWaiters | ErrorKind::LeaseExpired | ErrorKind::AlreadyEnqueued => {
            (Exit::NOT_IN_TIME, None)
        }
        ErrorKind::Disconnected => (
            Exit::SERVER_AWAY,
            Some(
                "see that the server runs; `dflock config` shows where it is looked for. Releases before 1.0 know \
                 locks alone, and close the connection at any other request",
            ),
        ),
        // The client reached the server, but a person must act: TLS fails, or the server is no member of a cluster.
        // The message says what to do.
        ErrorKind::Connect if error.is_fatal() => (Exit::REFUSED, None),
        ErrorKind::Unavailable | ErrorKind::Connect | ErrorKind::Draining | ErrorKind::NotLeader => (
            Exit::SERVER_AWAY,
            Some("see that the server runs and can be reached; `dflock config` shows where it is looked for"),
        ),
        ErrorKind::Auth => (
            Exit::NOT_ALLOWED,
            Some(
                "give the servers' auth token in a file: DFLOCKD_AUTH_TOKEN_FILE=/path, or auth_token_file in the settings",
            ),
        ),
        ErrorKind::LeaseLost | ErrorKind::NotHeld => (Exit::LOST, None),
        ErrorKind::Protocol => (
            Exit::REFUSED,
            Some("see that the address and the port are those of a dflockd server; `dflock config` shows them"),
        ),
        ErrorKind::Refused | ErrorKind::Unsupported | ErrorKind::LimitMismatch | ErrorKind::NotEnqueued => {
            (Exit::REFUSED, None)
        }
        _ => (Exit::SOFTWARE, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_value_has_one_exit_code_for_usage_and_another_for_settings() {
        let refused = dflockd_client::parse_duration("1").unwrap_err();
        let failure = Failure::from(refused.clone());
        assert_eq!(failure.exit, Exit::USAGE);
        assert!(failure.what.contains("duration \"1\""), "{}", failure.what);
        assert_eq!(Failure::of_settings(&refused).exit, Exit::SETTINGS);
    }
}
