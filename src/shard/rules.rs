//! The table that says how each kind of request is retried.
//!
//! [`RequestKind::rules`] is the table. `docs/design.md` shows it as text, and a test keeps the two equal.

/// The kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RequestKind {
    Try,
    Probe,
    Repeat,
    Wait,
    Enqueue,
    Collect,
    Rejoin,
    GiveUp,
    Settle,
    Confirm,
    Renew,
    Release,
    Look,
    Ask,
}

/// The connection that carries a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// A pipelined connection.
    Pipelined,
    /// An exclusive connection, for as long as the request waits.
    Own,
    /// Only the connection that owns the queue position.
    PositionOwner,
    /// The connection that owns the queue position, or one that presents the name of the session which owns it.
    SessionHolder,
    /// A connection that may be lost, because nothing depends on it.
    Disposable,
}

/// What happens to a request that was not answered, or that a member refused because it does not lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is sent over the next connection.
    Retry,
    /// It is sent over the next connection, at most `max_redirects` times; then the caller gets the error.
    RetryBounded,
    /// It returns to its position among the waits.
    PutBack,
    /// If its connection presented a session's name, it is sent again under that name, at most `max_redirects` times,
    /// or without a limit if it gives up a queue position. Otherwise it fails; but a wait or an `e` that a member
    /// refused because it does not lead is started again without a session, at most `max_redirects` times.
    RetryInSession,
    /// The caller gets the error.
    Fail,
    /// It is sent over the next connection. "Not held" then means released.
    Repeat,
    /// The renewal stays due.
    StaysDue,
    /// It is dropped.
    Forget,
}

/// What happens to a request whose caller goes away before the request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Abandoned {
    /// It is not sent.
    Skip,
    /// It is not sent, unless it may have a queue position in a session, which must then be given up.
    SkipUnlessInSession,
    /// It is sent, because it keeps or releases something that is held.
    GoesOn,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// The command.
    pub(crate) sends: &'static str,
    pub(crate) carrier: Carrier,
    /// The fate if the connection ended before any byte of the request was written.
    pub(crate) unwritten: Fate,
    /// The fate if the connection ended after the request was written, at least in part.
    pub(crate) unknown: Fate,
    /// The fate if the member refused the request because it does not lead its cluster.
    pub(crate) not_led: Fate,
    /// The effect of any other refusal.
    pub(crate) refused: &'static str,
    pub(crate) abandoned: Abandoned,
}

impl RequestKind {
    /// All kinds.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 14] = [
        Self::Try,
        Self::Probe,
        Self::Repeat,
        Self::Wait,
        Self::Enqueue,
        Self::Collect,
        Self::Rejoin,
        Self::GiveUp,
        Self::Settle,
        Self::Confirm,
        Self::Renew,
        Self::Release,
        Self::Look,
        Self::Ask,
    ];

    /// Returns the kind's row of the table.
    pub(crate) const fn rules(self) -> Rules {
        use Abandoned::{GoesOn, Skip, SkipUnlessInSession};
        use Carrier::{Disposable, Own, Pipelined, PositionOwner, SessionHolder};
        use Fate::{Fail, Forget, PutBack, Repeat, Retry, RetryBounded, RetryInSession, StaysDue};
        match self {
            Self::Try => Rules {
                sends: "`l` with timeout 0",
                carrier: Pipelined,
                unwritten: Retry,
                // Under another name, the second request could take a second grant.
                unknown: RetryInSession,
                not_led: RetryInSession,
                refused: "the caller gets the error",
                abandoned: Skip,
            },
            Self::Probe => Rules {
                sends: "`l` with timeout 0",
                carrier: Pipelined,
                // Its callers still wait, and the key is tried again.
                unwritten: Forget,
                // Under another name, the second request could take a second grant.
                unknown: RetryInSession,
                not_led: RetryInSession,
                refused: "the first caller gets the error",
                abandoned: GoesOn,
            },
            Self::Repeat => Rules {
                sends: "`l` with timeout 0 under its connection's name",
                carrier: Own,
                unwritten: RetryInSession,
                unknown: RetryInSession,
                not_led: RetryInSession,
                refused: "the caller gets the error",
                abandoned: GoesOn,
            },
            Self::Wait => Rules {
                sends: "`l` with the remaining time",
                carrier: Own,
                unwritten: PutBack,
                unknown: RetryInSession,
                not_led: RetryInSession,
                refused: "a caller gets the error",
                abandoned: GoesOn,
            },
            Self::Enqueue => Rules {
                sends: "`e`",
                refused: "the caller gets the error",
                abandoned: SkipUnlessInSession,
                ..Self::Wait.rules()
            },
            Self::Collect => Rules {
                sends: "`w` with the remaining time",
                carrier: PositionOwner,
                // The queue position was lost with its connection. `ticket_lost` handles that loss.
                unwritten: Forget,
                unknown: Forget,
                not_led: RetryInSession,
                refused: "the caller gets the error",
                abandoned: GoesOn,
            },
            Self::Rejoin => Rules {
                sends: "`e` under the session's name",
                carrier: Own,
                unwritten: PutBack,
                unknown: RetryInSession,
                not_led: RetryInSession,
                refused: "the ticket is lost",
                abandoned: GoesOn,
            },
            Self::GiveUp => Rules {
                sends: "`w` with timeout 0, until the answer is not `timeout`",
                carrier: SessionHolder,
                unwritten: RetryInSession,
                unknown: RetryInSession,
                not_led: RetryInSession,
                refused: "the queue position has ended",
                abandoned: GoesOn,
            },
            Self::Settle => Rules {
                sends: "`w` with timeout 0",
                carrier: PositionOwner,
                unwritten: Forget,
                unknown: Forget,
                not_led: Forget,
                refused: "nothing",
                abandoned: GoesOn,
            },
            Self::Confirm => Rules {
                sends: "`n` with the TTL asked for",
                carrier: Pipelined,
                unwritten: Retry,
                unknown: Retry,
                not_led: Retry,
                refused: "the grant has ended: the acquire is repeated, or fails with `LeaseExpired`",
                abandoned: GoesOn,
            },
            Self::Renew => Rules {
                sends: "`n` with the TTL asked for",
                carrier: Pipelined,
                unwritten: StaysDue,
                unknown: StaysDue,
                not_led: StaysDue,
                refused: "the lease is lost: `Rejected`",
                abandoned: GoesOn,
            },
            Self::Release => Rules {
                sends: "`r`",
                carrier: Pipelined,
                unwritten: Retry,
                unknown: Repeat,
                not_led: Repeat,
                refused: "`NotHeld`, or released if it was sent before",
                abandoned: GoesOn,
            },
            Self::Look => Rules {
                sends: "`stats`",
                carrier: Disposable,
                unwritten: Forget,
                unknown: Forget,
                not_led: Forget,
                refused: "nothing",
                abandoned: GoesOn,
            },
            Self::Ask => Rules {
                sends: "the question's command",
                carrier: Disposable,
                unwritten: Retry,
                unknown: Fail,
                not_led: RetryBounded,
                refused: "the caller gets the error",
                abandoned: Skip,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Formats the row of a kind as `docs/design.md` shows it.
    fn row(kind: RequestKind) -> String {
        let rules = kind.rules();
        let carrier = match rules.carrier {
            Carrier::Pipelined => "pipelined",
            Carrier::Own => "its own",
            Carrier::PositionOwner => "that of the queue position",
            Carrier::SessionHolder => "that of the queue position, or one that presents its session's name",
            Carrier::Disposable => "disposable",
        };
        let fate = |fate| match fate {
            Fate::Retry => "sent again",
            Fate::RetryBounded => "sent again, at most `max_redirects` times",
            Fate::PutBack => "waits again",
            Fate::RetryInSession => "sent again in its session, or fails",
            Fate::Fail => "fails",
            Fate::Repeat => "repeated",
            Fate::StaysDue => "stays due",
            Fate::Forget => "forgotten",
        };
        let abandoned = match rules.abandoned {
            Abandoned::Skip => "not sent",
            Abandoned::SkipUnlessInSession => "not sent, unless in a session",
            Abandoned::GoesOn => "sent",
        };
        format!(
            "| `{kind:?}` | {} | {carrier} | {} | {} | {} | {} | {abandoned} |",
            rules.sends,
            fate(rules.unwritten),
            fate(rules.unknown),
            fate(rules.not_led),
            rules.refused
        )
    }

    #[test]
    fn the_design_document_shows_this_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/design.md");
        let document = std::fs::read_to_string(path).unwrap();
        for kind in RequestKind::ALL {
            assert!(
                document.contains(&row(kind)),
                "docs/design.md lacks the row\n{}",
                row(kind)
            );
        }
    }
}
