//! One error type for the whole crate: what happened, where, and what to do next.

mod budget;
mod kind;
mod named;

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

pub use self::budget::Budget;
pub use self::kind::ErrorKind;
pub(crate) use self::named::named;
use crate::escape::Escaped;

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, where, and why.
///
/// Cloning is cheap: when a connection dies, every caller that was waiting on it gets the same cause.
/// Match on [`kind`](Error::kind); the text is for people. What each kind means, and what is known when a time is over, is in
/// [`guide::errors`](https://docs.rs/dflockd-client/latest/dflockd_client/guide/errors/index.html).
#[derive(Clone)]
pub struct Error(Arc<Repr>);

#[derive(Clone)]
struct Repr {
    kind: ErrorKind,
    message: Cow<'static, str>,
    endpoint: Option<Arc<str>>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
    budget: Option<Budget>,
    leader: Option<Arc<str>>,
    outlook: Outlook,
}

/// Whether what went wrong passes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outlook {
    /// As the kind does.
    OfItsKind,
    /// It passes, though its kind does not as a rule.
    Passes,
    /// It stays, though its kind passes as a rule.
    Stays,
}

/// What services of tower call an error.
pub(crate) type BoxError = Box<dyn StdError + Send + Sync>;

impl Error {
    /// An error of this kind that says `message`.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Repr {
            kind,
            message: message.into(),
            endpoint: None,
            source: None,
            budget: None,
            leader: None,
            outlook: Outlook::OfItsKind,
        }))
    }

    /// A value that is refused before anything is sent: what it is, the value itself, and what would be right.
    pub(crate) fn invalid(what: &str, value: impl fmt::Debug, remedy: &str) -> Self {
        Self::new(
            ErrorKind::InvalidInput,
            format!("{what} {value:?} is not acceptable: {remedy}"),
        )
    }

    /// What a service gave as its error: one of these, passed on as it is, or a layer's own.
    pub(crate) fn of_layer(error: BoxError) -> Self {
        match error.downcast::<Self>() {
            Ok(ours) => *ours,
            Err(other) => {
                let message = "a layer of this client refused the request or failed";
                Self::new(ErrorKind::Layer, message).caused_by_other(other)
            }
        }
    }

    /// The same error with its cause. A cause whose text is a part of the message already is left out: printing an error with its
    /// sources tells each fact once.
    #[must_use]
    pub(crate) fn caused_by(self, source: impl StdError + Send + Sync + 'static) -> Self {
        if self.0.message.contains(&source.to_string()) {
            return self;
        }
        self.with(|repr| repr.source = Some(Arc::new(source)))
    }

    /// The same error with its cause, which code of the user's gave: it is kept whatever it says.
    #[must_use]
    pub(crate) fn caused_by_other(self, source: BoxError) -> Self {
        self.with(|repr| repr.source = Some(source.into()))
    }

    /// The same error, for the same cause as another, whose message is a part of this one's.
    #[must_use]
    pub(crate) fn for_the_cause_of(self, other: &Self) -> Self {
        self.with(|repr| repr.source.clone_from(&other.0.source))
    }

    /// The same error, saying something else.
    #[must_use]
    pub(crate) fn saying(self, message: String) -> Self {
        self.with(|repr| repr.message = message.into())
    }

    /// The same error, saying which server it comes from.
    #[must_use]
    pub(crate) fn at(self, endpoint: &Arc<str>) -> Self {
        self.with(|repr| repr.endpoint = Some(Arc::clone(endpoint)))
    }

    /// The same error, saying who leads.
    #[must_use]
    pub(crate) fn led_by(self, leader: &str) -> Self {
        self.with(|repr| repr.leader = Some(leader.into()))
    }

    /// The same error, saying which time ran out.
    #[must_use]
    pub(crate) fn out_of(self, budget: Budget) -> Self {
        self.with(|repr| repr.budget = Some(budget))
    }

    /// The same error, which a person must do something about: whatever its kind is as a rule, this one does not pass.
    #[must_use]
    pub(crate) fn fatal(self) -> Self {
        self.with(|repr| repr.outlook = Outlook::Stays)
    }

    /// The same error, which passes by itself: whatever its kind is as a rule, the same call may succeed later.
    #[must_use]
    pub(crate) fn passing(self) -> Self {
        self.with(|repr| repr.outlook = Outlook::Passes)
    }

    fn with(mut self, change: impl FnOnce(&mut Repr)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Shows the error and its sources, for a log.
    pub(crate) fn chain(&self) -> impl fmt::Display + '_ {
        Chain(self)
    }

    /// What happened, without where.
    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// The category.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The server that it concerns, as `host:port`, where one is known.
    #[must_use]
    pub fn endpoint(&self) -> Option<&str> {
        self.0.endpoint.as_deref()
    }

    /// Who leads the cluster, in the words of the member that refused: for errors of kind
    /// [`NotLeader`](ErrorKind::NotLeader), where it knew. It is not to be believed without checking that it is a member: the
    /// client itself goes nowhere but to [those that it was given](crate::Shard::cluster).
    #[must_use]
    pub fn leader(&self) -> Option<&str> {
        self.0.leader.as_deref()
    }

    /// Which of the times that the caller allowed ran out, where that is what happened: for errors of kind
    /// [`Timeout`](ErrorKind::Timeout), and for [`Unavailable`](ErrorKind::Unavailable) where the time ran out before a server
    /// answered.
    #[must_use]
    pub fn budget(&self) -> Option<Budget> {
        self.0.budget
    }

    /// Whether the time ran out while the key was held, as a server said; or, which [`budget`](Self::budget) tells, in a layer that
    /// was added to the client or for want of a connection. Not where no server answered: that is
    /// [`Unavailable`](ErrorKind::Unavailable).
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.0.kind == ErrorKind::Timeout
    }

    /// Whether a server accepted a connection and closed it without a word, as one does that takes no more of them.
    pub(crate) fn is_turned_away(&self) -> bool {
        let cause = self
            .0
            .source
            .as_deref()
            .and_then(|source| source.downcast_ref::<Self>());
        self.0.kind == ErrorKind::Connect && cause.is_some_and(|cause| cause.0.kind == ErrorKind::Disconnected)
    }

    /// Whether a key was not granted in time because it is held, as a server says.
    pub(crate) fn says_that_it_is_held(&self) -> bool {
        self.is_timeout() && matches!(self.0.budget, Some(Budget::Wait(_)))
    }

    /// Whether the same call may succeed if it is simply made again, later.
    ///
    /// True for what passes by itself: a held key, a lost or missing connection, a draining server, a full server. Not for a connection
    /// that failed for its certificates: see [`is_fatal`](Self::is_fatal). Its caller holds nothing after any error of an acquire. Where the
    /// answer was lost with its connection, the server may keep a grant until it notices that, or until the TTL is over: a lock is waited for then,
    /// and a semaphore has one slot less meanwhile. A signal that was [emitted](crate::Client::emit) may be delivered twice then.
    /// Some errors are neither retryable nor fatal: what was asked for cannot be had any more, as with a lease that was lost, or only
    /// its caller knows. The table is in
    /// [`guide::errors`](https://docs.rs/dflockd-client/latest/dflockd_client/guide/errors/index.html).
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        use ErrorKind::{
            Connect, Disconnected, Draining, LeaseExpired, MaxLocks, MaxWaiters, NotLeader, ShardGone, Timeout,
            Unavailable,
        };
        match self.0.outlook {
            Outlook::Passes => true,
            Outlook::Stays => false,
            Outlook::OfItsKind => matches!(
                self.0.kind,
                Timeout
                    | Unavailable
                    | Connect
                    | Disconnected
                    | Draining
                    | LeaseExpired
                    | MaxLocks
                    | MaxWaiters
                    | NotLeader
                    | ShardGone
            ),
        }
    }

    /// Whether trying again is useless until a person changes something (an argument, a token, an address, a certificate).
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        use ErrorKind::{Auth, InvalidInput, LimitMismatch, Misuse, Protocol, Shutdown, Unsupported};
        match self.0.outlook {
            Outlook::Passes => false,
            Outlook::Stays => true,
            Outlook::OfItsKind => matches!(
                self.0.kind,
                InvalidInput | Misuse | Auth | Protocol | LimitMismatch | Unsupported | Shutdown
            ),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Escaped(&self.0.message))?;
        if let Some(endpoint) = &self.0.endpoint {
            write!(f, " (server {})", Escaped(endpoint))?;
        }
        Ok(())
    }
}

/// An error and its sources.
struct Chain<'a>(&'a Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.0, f)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {}", Escaped(&error.to_string()))?;
            source = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("kind", &self.0.kind).field("message", &self.0.message);
        if let Some(endpoint) = &self.0.endpoint {
            out.field("endpoint", endpoint);
        }
        if let Some(source) = &self.0.source {
            out.field("source", source);
        }
        out.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_where_and_why() {
        let endpoint: Arc<str> = "127.0.0.1:6388".into();
        let error = Error::new(ErrorKind::Connect, "cannot connect")
            .caused_by(std::io::Error::other("refused"))
            .at(&endpoint);
        assert_eq!(error.to_string(), "cannot connect (server 127.0.0.1:6388)");
        assert_eq!(error.endpoint(), Some("127.0.0.1:6388"));
        assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("refused"));
        assert!(error.is_retryable() && !error.is_fatal());
    }

    #[test]
    fn a_cause_that_the_message_tells_is_left_out() {
        let cause = std::io::Error::other("refused");
        let error = Error::new(ErrorKind::Connect, format!("cannot connect: {cause}")).caused_by(cause);
        assert!(error.source().is_none(), "{}", error.chain());
    }

    #[test]
    fn what_others_chose_is_shown_escaped() {
        let error = Error::new(ErrorKind::Protocol, "\u{1b}[31mred\nline").at(&"unix:/\u{7}".into());
        assert_eq!(error.to_string(), "\\u{1b}[31mred\\nline (server unix:/\\u{7})");
    }

    #[test]
    fn what_does_not_pass_by_itself_is_fatal_whatever_its_kind() {
        let error = Error::new(ErrorKind::Connect, "the certificate has expired").fatal();
        assert!(error.is_fatal() && !error.is_retryable());
        assert_eq!(error.kind(), ErrorKind::Connect);
    }

    #[test]
    fn every_kind_has_an_outlook_unless_only_its_caller_knows() {
        use ErrorKind::{AlreadyEnqueued, Layer, LeaseLost, NotEnqueued, NotHeld, Refused};
        for kind in ErrorKind::ALL {
            let error = Error::new(kind, "");
            let callers_own = [AlreadyEnqueued, Layer, LeaseLost, NotEnqueued, NotHeld, Refused].contains(&kind);
            assert!(!(error.is_retryable() && error.is_fatal()), "{kind:?}");
            assert_eq!(!error.is_retryable() && !error.is_fatal(), callers_own, "{kind:?}");
            let (passes, stays) = (error.clone().passing(), error.fatal());
            assert!(passes.is_retryable() && !passes.is_fatal(), "{kind:?}");
            assert!(stays.is_fatal() && !stays.is_retryable(), "{kind:?}");
        }
    }

    #[test]
    fn an_invalid_value_is_named_with_its_remedy() {
        let error = Error::invalid("limit", 0, "give at least 1");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(error.to_string(), "limit 0 is not acceptable: give at least 1");
        assert!(error.is_fatal());
    }

    #[test]
    fn a_layers_error_is_kept_and_ours_passes_as_it_is() {
        let ours = Error::new(ErrorKind::Draining, "the server is shutting down");
        assert_eq!(Error::of_layer(ours.into()).kind(), ErrorKind::Draining);
        let theirs = Error::of_layer(std::io::Error::other("not today").into());
        assert_eq!(theirs.kind(), ErrorKind::Layer);
        let source = theirs.source().unwrap();
        assert!(source.is::<std::io::Error>() && source.to_string() == "not today");
        assert!(!theirs.to_string().contains("not today"), "the source says that");
        assert!(theirs.chain().to_string().ends_with("failed: not today"));
        assert!(
            !theirs.is_retryable() && !theirs.is_fatal(),
            "what a layer means only its author knows"
        );
    }
}
