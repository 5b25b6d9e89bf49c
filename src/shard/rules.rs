//! The one table of what becomes of each kind of request.
//!
//! [`RequestKind::rules`] is the table. `docs/design.md` shows it as text, and a test holds the two together.

/// What kind of request it is.
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

/// Which connection carries a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// A pipelined connection.
    Pipelined,
    /// A connection of its own, while it waits.
    Own,
    /// The connection that has the place in the queue, and no other.
    ThatOfThePlace,
    /// A connection under the name of the session that has the place.
    OfTheSession,
    /// A connection that may be lost: nothing depends on it.
    Disposable,
}

/// What becomes of a request that was not answered, or refused because the member does not lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is sent over the next connection.
    Retry,
    /// As `Retry`, but only as often as redirects are followed; then the caller gets the error.
    RetryBounded,
    /// It goes back to its position among the waits.
    PutBack,
    /// If its connection stood for a session, it is asked again under the session's name, as often as redirects are followed.
    /// Otherwise it fails.
    RetryInSession,
    /// The caller gets the error.
    Fail,
    /// It is sent over the next connection; "not held" then counts as released.
    Repeat,
    /// The lease stays due.
    StaysDue,
    /// Nothing is left to do.
    Forget,
}

/// What becomes of a request whose caller is gone before it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Abandoned {
    /// It is not sent.
    Skip,
    /// As `Skip`, unless it may have a place in a session: that must be given up.
    SkipUnlessInSession,
    /// It is sent: it keeps, or gives back, what is held.
    GoesOn,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// What is sent.
    pub(crate) sends: &'static str,
    pub(crate) carrier: Carrier,
    /// Its connection ended before a byte of it was written.
    pub(crate) unwritten: Fate,
    /// Its connection ended after it was written.
    pub(crate) unknown: Fate,
    /// It was refused because the member does not lead its cluster.
    pub(crate) not_led: Fate,
    /// What another refusal means.
    pub(crate) refused: &'static str,
    pub(crate) abandoned: Abandoned,
}

impl RequestKind {
    /// All of them.
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

    /// Its row of the table.
    pub(crate) const fn rules(self) -> Rules {
        use Abandoned::{GoesOn, Skip, SkipUnlessInSession};
        use Carrier::{Disposable, OfTheSession, Own, Pipelined, ThatOfThePlace};
        use Fate::{Fail, Forget, PutBack, Repeat, Retry, RetryBounded, RetryInSession, StaysDue};
        match self {
            Self::Try => Rules {
                sends: "`l` with timeout 0",
                carrier: Pipelined,
                unwritten: Retry,
                // Sent again under another name it could take two grants.
                unknown: RetryInSession,
                not_led: RetryInSession,
                refused: "the caller is told",
                abandoned: Skip,
            },
            Self::Probe => Rules {
                sends: "`l` with timeout 0",
                carrier: Pipelined,
                // Its callers wait on.
                unwritten: Forget,
                // Sent again under another name it could take two grants.
                unknown: RetryInSession,
                not_led: RetryInSession,
                refused: "the first caller is told",
                abandoned: GoesOn,
            },
            Self::Repeat => Rules {
                sends: "`l` with timeout 0 under its connection's name",
                carrier: Own,
                unwritten: RetryInSession,
                unknown: RetryInSession,
                not_led: RetryInSession,
                refused: "the caller is told",
                abandoned: GoesOn,
            },
            Self::Wait => Rules {
                sends: "`l` with the time that is left",
                carrier: Own,
                unwritten: PutBack,
                unknown: RetryInSession,
                not_led: RetryInSession,
                refused: "a caller is told",
                abandoned: GoesOn,
            },
            Self::Enqueue => Rules {
                sends: "`e`",
                refused: "the caller is told",
                abandoned: SkipUnlessInSession,
                ..Self::Wait.rules()
            },
            Self::Collect => Rules {
                sends: "`w` with the time that is left",
                carrier: ThatOfThePlace,
                // The place went with its connection, and what becomes of it was decided with that.
                unwritten: Forget,
                unknown: Forget,
                not_led: RetryInSession,
                refused: "the caller is told",
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
                sends: "`w` with timeout 0, until the answer is no `timeout`",
                carrier: OfTheSession,
                unwritten: RetryInSession,
                unknown: RetryInSession,
                not_led: RetryInSession,
                refused: "there is no place any more",
                abandoned: GoesOn,
            },
            Self::Settle => Rules {
                sends: "`w` with timeout 0",
                carrier: ThatOfThePlace,
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
                refused: "there is no grant: asked for again, or `LeaseExpired`",
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
                refused: "`NotHeld`; released, if it was sent before",
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
                sends: "what is asked",
                carrier: Disposable,
                unwritten: Retry,
                unknown: Fail,
                not_led: RetryBounded,
                refused: "the caller is told",
                abandoned: Skip,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The row of a kind, as `docs/design.md` shows it.
    fn row(kind: RequestKind) -> String {
        let rules = kind.rules();
        let carrier = match rules.carrier {
            Carrier::Pipelined => "pipelined",
            Carrier::Own => "its own",
            Carrier::ThatOfThePlace => "that of the place",
            Carrier::OfTheSession => "one of its session",
            Carrier::Disposable => "disposable",
        };
        let fate = |fate| match fate {
            Fate::Retry => "sent again",
            Fate::RetryBounded => "sent again, so often",
            Fate::PutBack => "waits again",
            Fate::RetryInSession => "asked again in its session, or fails",
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
