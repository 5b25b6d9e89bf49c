//! What an error of the operating system means, in words of this crate.
//!
//! A message must not repeat what its source says. So a failure that has words of its own says those and keeps the system's error as its
//! source; of any other the system's text becomes a part of the message, and there is no source.

use std::io::{self, ErrorKind as Io};

use crate::error::{Error, ErrorKind};

/// Returns the error of something that the operating system refused.
pub(crate) fn io_failed(kind: ErrorKind, what: &str, error: io::Error) -> Error {
    match words(&error) {
        Some(words) => Error::new(kind, format!("{what}: {words}")).caused_by(error),
        None => Error::new(kind, format!("{what}: {error}")),
    }
}

fn words(error: &io::Error) -> Option<&'static str> {
    // An error that a library made has a text of its own.
    error.raw_os_error()?;
    Some(match error.kind() {
        Io::ConnectionRefused => "the connection was refused",
        Io::ConnectionReset => "the connection was reset",
        Io::ConnectionAborted => "the connection was aborted",
        Io::BrokenPipe => "the peer has closed the connection",
        Io::TimedOut => "no answer came in time",
        Io::NotFound => "No such file",
        Io::PermissionDenied => "this process may not do that",
        Io::AddrInUse => "the address is in use",
        Io::AddrNotAvailable => "this machine has no such address",
        Io::HostUnreachable => "there is no way to the host",
        Io::NetworkUnreachable => "there is no way to the network",
        Io::NetworkDown => "the network is down",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn nothing_is_said_twice_whatever_the_system_says() {
        // All numbers that systems give, and some that they do not.
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
