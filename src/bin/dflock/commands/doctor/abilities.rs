//! `release`: finds out which commands the server knows, and so which releases it may be.
//!
//! A server does not report its release. At each unknown command it writes a line to its log, and the Python server
//! 0.5.0 closes the connection. Nothing has been acquired over that connection.

use dflockd_client::protocol::{Call, Pattern};
use dflockd_client::{Error, ErrorKind, Stats};

use super::greet::has_ended;
use super::report::{Check, Finding};
use super::way::{Connection, Way};
use crate::failure::Failure;

/// A pattern to which no client listens.
const NO_PATTERN: &str = "dflock-doctor.nothing";

/// The commands that a server knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Abilities {
    /// `ping`: from 1.14 on.
    pub(super) ping: bool,
    /// `listen` and the other commands for signals: from 1.11 to 1.16.
    pub(super) signals: bool,
    /// `barrier`: builds that can form clusters.
    pub(super) barrier: bool,
    /// Whether the server closes the connection at an unknown command.
    pub(super) hangs_up: bool,
}

/// Asks for the state of the server; `None` if the server does not know `stats`. The returned connection awaits no
/// answer.
///
/// A server that knows `ping` answers every command, so a connection that it closes is a failure. An older server may
/// close the connection because it does not know `stats`.
pub(super) async fn state(mut connection: Connection, way: &Way) -> Result<(Option<Stats>, Connection), Failure> {
    match connection.run(Call::stats()).await {
        Ok(stats) => return Ok((Some(stats), connection)),
        Err(error) if error.kind() == ErrorKind::Disconnected => {
            connection = way.open().await?;
            match connection.run(Call::ping()).await {
                Ok(()) => return Err(error.into()),
                Err(unknown) if is_unknown(&unknown) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(error) if is_unknown(&error) => {}
        Err(error) => return Err(error.into()),
    }
    match has_ended(&mut connection, false).await? {
        true => Ok((None, way.open().await?)),
        false => Ok((None, connection)),
    }
}

/// Tries each command, and judges the release. The returned connection awaits no answer. A member of a cluster gets no
/// `barrier`: a leader that reaches no majority would not answer.
pub(super) async fn probe(
    mut connection: Connection,
    way: &Way,
    is_member: bool,
) -> Result<(Finding, (Abilities, Connection)), Failure> {
    let mut abilities = Abilities {
        barrier: is_member,
        ..Abilities::default()
    };
    let unlisten = Call::unlisten(Pattern::new(NO_PATTERN)?, None);
    for (call, ability) in [
        (Call::ping(), Ability::Ping),
        (unlisten, Ability::Signals),
        (Call::barrier(), Ability::Barrier),
    ] {
        if is_member && matches!(ability, Ability::Barrier) {
            continue;
        }
        let knows = match connection.run(call).await {
            Ok(()) => true,
            // Only a server that knows clusters answers so.
            Err(error) if error.kind() == ErrorKind::NotLeader => true,
            Err(error) if is_unknown(&error) => {
                if has_ended(&mut connection, abilities.ping).await? {
                    abilities.hangs_up = true;
                    connection = way.open().await?;
                }
                false
            }
            Err(error) => return Err(error.into()),
        };
        match ability {
            Ability::Ping => abilities.ping = knows,
            Ability::Signals => abilities.signals = knows,
            Ability::Barrier => abilities.barrier = knows,
        }
    }
    Ok((abilities.judge(), (abilities, connection)))
}

#[derive(Clone, Copy)]
enum Ability {
    Ping,
    Signals,
    Barrier,
}

/// Returns whether the error means an unknown command: the server says so, or closes the connection without an answer.
fn is_unknown(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unsupported | ErrorKind::Refused | ErrorKind::Disconnected
    )
}

impl Abilities {
    fn releases(self) -> &'static str {
        match self {
            Self { barrier: true, .. } => "a build that can form clusters, later than 2.1",
            Self {
                ping: true,
                signals: true,
                ..
            } => "1.14 to 1.16",
            Self { ping: true, .. } => "2.0 or 2.1",
            Self { signals: true, .. } => "1.11 to 1.13",
            Self { hangs_up: true, .. } => "0.5 (the Python server), or another that hangs up on unknown commands",
            _ => "1.10 or older",
        }
    }

    fn judge(self) -> Finding {
        let releases = self.releases();
        let finding = match self.ping {
            true => Finding::ok(Check::Release, releases),
            false => Finding::warn(
                Check::Release,
                format!("{releases}: locks and semaphores of one name exclude each other, and there are no fences"),
                "update the server to 2.1",
            ),
        };
        finding
            .fact("releases", releases)
            .fact("ping", self.ping)
            .fact("signals", self.signals)
            .fact("barrier", self.barrier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::report::Verdict;

    #[test]
    fn releases_are_recognized_by_their_commands() {
        for ([ping, signals, barrier, hangs_up], releases, verdict) in [
            ([true, false, true, false], "a build that can form", Verdict::Ok),
            ([true, true, false, false], "1.14 to 1.16", Verdict::Ok),
            ([true, false, false, false], "2.0 or 2.1", Verdict::Ok),
            ([false, true, false, false], "1.11 to 1.13", Verdict::Warn),
            ([false, false, false, false], "1.10 or older", Verdict::Warn),
            ([false, false, false, true], "0.5", Verdict::Warn),
        ] {
            let abilities = Abilities {
                ping,
                signals,
                barrier,
                hangs_up,
            };
            assert!(abilities.releases().starts_with(releases), "{abilities:?}");
            assert_eq!(abilities.judge().verdict, verdict, "{abilities:?}");
        }
    }
}
