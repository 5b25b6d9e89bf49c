//! Descriptions of errors of the operating system.
//!
//! A message must not repeat its source. If an error has a description here, the description becomes the message and
//! the system's error becomes the source. For any other error, the system's text is a part of the message, and there is
//! no source.

use std::io::{self, ErrorKind as Io};

use crate::error::{Error, ErrorKind};

/// Returns the error for a failed call of the operating system.
pub(crate) fn io_failed(kind: ErrorKind, what: &str, error: io::Error) -> Error {
    match words(&error) {
        Some(words) => Error::new(kind, format!("{what}: {words}")).caused_by(error),
        None => Error::new(kind, format!("{what}: {error}")),
    }
}

fn words(error: &io::Error) -> Option<&'static str> {
    // An error that a library created has its own text.
    error.raw_os_error()?;
    Some(match error.kind() {
        Io::ConnectionRefused => "the connection was refused",
        Io::ConnectionReset => "the connection was reset",
        Io::ConnectionAborted => "the connection was aborted",
        Io::BrokenPipe => "the peer has closed the connection",
        Io::TimedOut => "no answer came in time",
        Io::NotFound => "there is no such file",
        Io::PermissionDenied => "permission denied",
        Io::AddrInUse => "the address is in use",
        Io::AddrNotAvailable => "this machine has no such address",
        Io::HostUnreachable => "there is no route to the host",
        Io::NetworkUnreachable => "there is no route to the network",
        Io::NetworkDown => "the network is down",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn messages_of_system_errors_do_not_repeat_their_source() {
        // All error numbers of Linux and macOS, and some unused ones.
        for number in 1..200 {
            let error = io_failed(
                ErrorKind::Connect,
                "cannot connect",
                io::Error::from_raw_os_error(number),
            );
            let system = io::Error::from_raw_os_error(number).to_string();
            let text = error.to_string();
            match error.source() {
                Some(source) => assert!(source.to_string() == system && !text.contains(&system), "{text}"),
                None => assert_eq!(text, format!("cannot connect: {system}")),
            }
        }
        let own = io_failed(
            ErrorKind::Connect,
            "cannot resolve",
            io::Error::new(Io::NotFound, "no such name"),
        );
        assert!(own.to_string() == "cannot resolve: no such name" && own.source().is_none());
    }
}
