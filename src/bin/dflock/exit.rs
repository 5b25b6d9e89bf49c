//! The command's own exit codes. `docs/guide/src/command-reference.md` has the table.

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
    /// A fault of this program, or an error that the library did not expect (`EX_SOFTWARE`).
    pub(crate) const SOFTWARE: Self = Self(70);
    /// The operating system refused an operation, such as starting a process (`EX_OSERR`).
    pub(crate) const SYSTEM: Self = Self(71);
    /// The output could not be written, or the input could not be read (`EX_IOERR`).
    pub(crate) const IO: Self = Self(74);
    /// The key was not granted in time; another attempt may succeed later (`EX_TEMPFAIL`).
    pub(crate) const NOT_IN_TIME: Self = Self(75);
    /// The server rejected the request, or violated the protocol (`EX_PROTOCOL`).
    pub(crate) const REFUSED: Self = Self(76);
    /// The authentication token is missing or wrong (`EX_NOPERM`).
    pub(crate) const NOT_ALLOWED: Self = Self(77);
    /// A setting of the environment or of a file is wrong (`EX_CONFIG`).
    pub(crate) const SETTINGS: Self = Self(78);
    /// The lease was lost.
    pub(crate) const LOST: Self = Self(79);
    /// The program was found but cannot be executed, as in shells.
    #[cfg(unix)]
    pub(crate) const NOT_EXECUTABLE: Self = Self(126);
    /// There is no such program, as in shells.
    #[cfg(unix)]
    pub(crate) const NOT_FOUND: Self = Self(127);

    /// Ended by Ctrl-C, as in shells.
    pub(crate) const INTERRUPTED: Self = Self(130);

    /// Returns the exit code of a program.
    #[cfg(unix)]
    pub(crate) fn of_program(code: i32) -> Self {
        Self(u8::try_from(code & 0xff).unwrap_or(u8::MAX))
    }

    /// Returns the code for the end by a signal, as in shells.
    #[cfg(unix)]
    pub(crate) fn by_signal(number: i32) -> Self {
        Self::of_program(128 + number)
    }

    /// Returns success in place of the code for Ctrl-C, for commands that Ctrl-C ends normally.
    pub(crate) fn unless_interrupted(self) -> Self {
        match self {
            Self::INTERRUPTED => Self::SUCCESS,
            exit => exit,
        }
    }

    /// Returns the code.
    pub(crate) fn code(self) -> u8 {
        self.0
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.0)
    }
}
