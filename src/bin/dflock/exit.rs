//! The exit codes that are the command's own. `docs/command.md` has the table.

use std::process::ExitCode;

/// How a process of this command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit(u8);

impl Exit {
    /// Done.
    pub(crate) const SUCCESS: Self = Self(0);
    /// The command line is wrong (`EX_USAGE`).
    pub(crate) const USAGE: Self = Self(64);
    /// No server answered, or the connection was lost (`EX_UNAVAILABLE`).
    pub(crate) const SERVER_AWAY: Self = Self(69);
    /// A fault of this program, or something that the library did not foresee (`EX_SOFTWARE`).
    pub(crate) const SOFTWARE: Self = Self(70);
    /// The system refused something: to start a process, say (`EX_OSERR`).
    pub(crate) const SYSTEM: Self = Self(71);
    /// The output could not be written, or the input read (`EX_IOERR`).
    pub(crate) const IO: Self = Self(74);
    /// The key was not granted in time; the same may succeed later (`EX_TEMPFAIL`).
    pub(crate) const NOT_IN_TIME: Self = Self(75);
    /// The server refused the request, or answers as a dflockd server does not (`EX_PROTOCOL`).
    pub(crate) const REFUSED: Self = Self(76);
    /// The secret is missing or wrong (`EX_NOPERM`).
    pub(crate) const NOT_ALLOWED: Self = Self(77);
    /// A setting of the environment or of a file is wrong (`EX_CONFIG`).
    pub(crate) const SETTINGS: Self = Self(78);
    /// The lease was lost.
    pub(crate) const LOST: Self = Self(79);
    /// The program was found and cannot be executed, as shells say it.
    #[cfg(unix)]
    pub(crate) const NOT_EXECUTABLE: Self = Self(126);
    /// There is no such program, as shells say it.
    #[cfg(unix)]
    pub(crate) const NOT_FOUND: Self = Self(127);

    /// Ended by Ctrl-C, as Unix shells say it.
    #[cfg(not(unix))]
    pub(crate) const INTERRUPTED: Self = Self(130);

    /// The code that a program ended with.
    #[cfg(unix)]
    pub(crate) fn of_program(code: i32) -> Self {
        Self(u8::try_from(code & 0xff).unwrap_or(u8::MAX))
    }

    /// The end by a signal, as shells say it.
    #[cfg(unix)]
    pub(crate) fn by_signal(number: i32) -> Self {
        Self::of_program(128 + number)
    }

    /// The code itself.
    pub(crate) fn code(self) -> u8 {
        self.0
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.0)
    }
}
