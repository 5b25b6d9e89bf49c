//! The error type of the whole crate: what happened, where, and what to do next.

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

/// An error: what failed, on which server, and why.
///
/// Cloning is cheap: when a connection is lost, every caller that waits on it gets the same cause. Match on
/// [`kind`](Error::kind); the text is for people. For the meaning of each kind, and of timeouts in particular, see
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

/// Whether a retry can succeed because the cause of the error goes away by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outlook {
    /// The default of the error's kind.
    OfItsKind,
    /// The cause goes away, although the kind is usually not retryable.
    Passes,
    /// The cause stays, although the kind is usually retryable.
    Stays,
}

/// The error type of tower services.
pub(crate) type BoxError = Box<dyn StdError + Send + Sync>;

impl Error {
    /// Returns an error of this kind with this message.
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

    /// Returns the error for an invalid value. The message names the setting or argument, the value, and the remedy.
    pub(crate) fn invalid(what: &str, value: impl fmt::Debug, remedy: &str) -> Self {
        Self::new(
            ErrorKind::InvalidInput,
            format!("{what} {value:?} is not acceptable: {remedy}"),
        )
    }

    /// Converts the error of a service. Returns an [`Error`] unchanged; any other error becomes the source of an error
    /// of kind [`ErrorKind::Layer`].
    pub(crate) fn of_layer(error: BoxError) -> Self {
        match error.downcast::<Self>() {
            Ok(ours) => *ours,
            Err(other) => {
                let message = "a layer of this client refused the request or failed";
                Self::new(ErrorKind::Layer, message).caused_by_other(other)
            }
        }
    }

    /// Sets the source, unless the message already contains its text: an error that is printed with its sources should
    /// not repeat itself.
    #[must_use]
    pub(crate) fn caused_by(self, source: impl StdError + Send + Sync + 'static) -> Self {
        if self.0.message.contains(&source.to_string()) {
            return self;
        }
        self.with(|repr| repr.source = Some(Arc::new(source)))
    }

    /// Sets the source to an error from user code, even if the message contains its text.
    #[must_use]
    pub(crate) fn caused_by_other(self, source: BoxError) -> Self {
        self.with(|repr| repr.source = Some(source.into()))
    }

    /// Sets the source to the source of another error, whose message is a part of this error's message.
    #[must_use]
    pub(crate) fn with_source_of(self, other: &Self) -> Self {
        self.with(|repr| repr.source.clone_from(&other.0.source))
    }

    /// Replaces the message.
    #[must_use]
    pub(crate) fn saying(self, message: String) -> Self {
        self.with(|repr| repr.message = message.into())
    }

    /// Sets the server that the error comes from.
    #[must_use]
    pub(crate) fn at(self, endpoint: &Arc<str>) -> Self {
        self.with(|repr| repr.endpoint = Some(Arc::clone(endpoint)))
    }

    /// Sets the leader that the server named.
    #[must_use]
    pub(crate) fn led_by(self, leader: &str) -> Self {
        self.with(|repr| repr.leader = Some(leader.into()))
    }

    /// Sets the time limit that was exceeded.
    #[must_use]
    pub(crate) fn out_of(self, budget: Budget) -> Self {
        self.with(|repr| repr.budget = Some(budget))
    }

    /// Marks the error as fatal, regardless of its kind: a person must change something.
    #[must_use]
    pub(crate) fn fatal(self) -> Self {
        self.with(|repr| repr.outlook = Outlook::Stays)
    }

    /// Marks the error as retryable, regardless of its kind: the same call may succeed later.
    #[must_use]
    pub(crate) fn retryable(self) -> Self {
        self.with(|repr| repr.outlook = Outlook::Passes)
    }

    fn with(mut self, change: impl FnOnce(&mut Repr)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Returns a view that shows the error with its sources, for a log.
    pub(crate) fn chain(&self) -> impl fmt::Display + '_ {
        Chain(self)
    }

    /// Returns the message, without the server.
    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// Returns the kind.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the server, as `host:port`, if the error concerns a known server.
    #[must_use]
    pub fn endpoint(&self) -> Option<&str> {
        self.0.endpoint.as_deref()
    }

    /// Returns the address of the leader, for errors of kind [`NotLeader`](ErrorKind::NotLeader), if the member named
    /// one. Check that it is a member of the cluster before you connect to it. The client itself connects only to
    /// [configured members](crate::Shard::cluster) and to [allowed hosts](crate::Shard::allowed_hosts).
    #[must_use]
    pub fn leader(&self) -> Option<&str> {
        self.0.leader.as_deref()
    }

    /// Returns the time limit that was exceeded, for errors of kind [`Timeout`](ErrorKind::Timeout), and for errors of
    /// kind [`Unavailable`](ErrorKind::Unavailable) after a timeout without an answer.
    #[must_use]
    pub fn budget(&self) -> Option<Budget> {
        self.0.budget
    }

    /// Returns whether the kind is [`Timeout`](ErrorKind::Timeout). If the time ran out while another holder had the
    /// key, the [`budget`](Self::budget) is [`Budget::Wait`]. If it ran out in an added layer or while no connection
    /// was free, the budget is [`Budget::Total`]. If no server answered, the kind is
    /// [`Unavailable`](ErrorKind::Unavailable).
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.0.kind == ErrorKind::Timeout
    }

    /// Returns whether a server accepted a connection and closed it at once, as a server does at its connection limit.
    pub(crate) fn is_turned_away(&self) -> bool {
        let cause = self
            .0
            .source
            .as_deref()
            .and_then(|source| source.downcast_ref::<Self>());
        self.0.kind == ErrorKind::Connect && cause.is_some_and(|cause| cause.0.kind == ErrorKind::Disconnected)
    }

    /// Returns whether a server reported the key as held and did not grant it in time.
    pub(crate) fn says_that_it_is_held(&self) -> bool {
        self.is_timeout() && matches!(self.0.budget, Some(Budget::Wait(_)))
    }

    /// Returns whether the same call may succeed later.
    ///
    /// This is true if the cause goes away by itself: a held key, a lost or missing connection, a server that shuts
    /// down or is full. It is false for a connection that failed because of a certificate: see
    /// [`is_fatal`](Self::is_fatal). After any error of an acquire, its caller holds nothing. If the answer was lost
    /// with its connection, the server may keep a grant until it notices the loss or the TTL is over: until then, a
    /// repeated acquire of a lock waits, and a semaphore has one free slot less. A repeated
    /// [`emit`](crate::Client::emit) may deliver its signal twice. Some errors are neither retryable nor fatal, such as
    /// a lost lease: only the caller knows whether a repetition helps.
    /// [`guide::errors`](https://docs.rs/dflockd-client/latest/dflockd_client/guide/errors/index.html) has a table of
    /// all kinds.
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

    /// Returns whether every retry fails until a person changes something, such as an argument, a token, an address or
    /// a certificate.
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
    fn an_error_has_its_message_endpoint_and_cause() {
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
    fn a_cause_that_the_message_contains_is_left_out() {
        let cause = std::io::Error::other("refused");
        let error = Error::new(ErrorKind::Connect, format!("cannot connect: {cause}")).caused_by(cause);
        assert!(error.source().is_none(), "{}", error.chain());
    }

    #[test]
    fn text_from_outside_is_shown_escaped() {
        let error = Error::new(ErrorKind::Protocol, "\u{1b}[31mred\nline").at(&"unix:/\u{7}".into());
        assert_eq!(error.to_string(), "\\u{1b}[31mred\\nline (server unix:/\\u{7})");
    }

    #[test]
    fn an_error_that_is_marked_fatal_is_fatal_whatever_its_kind() {
        let error = Error::new(ErrorKind::Connect, "the certificate has expired").fatal();
        assert!(error.is_fatal() && !error.is_retryable());
        assert_eq!(error.kind(), ErrorKind::Connect);
    }

    #[test]
    fn every_kind_is_retryable_or_fatal_unless_only_the_caller_can_decide() {
        use ErrorKind::{AlreadyEnqueued, Layer, LeaseLost, NotEnqueued, NotHeld, Refused};
        for kind in ErrorKind::ALL {
            let error = Error::new(kind, "");
            let callers_own = [AlreadyEnqueued, Layer, LeaseLost, NotEnqueued, NotHeld, Refused].contains(&kind);
            assert!(!(error.is_retryable() && error.is_fatal()), "{kind:?}");
            assert_eq!(!error.is_retryable() && !error.is_fatal(), callers_own, "{kind:?}");
            let (retryable, fatal) = (error.clone().retryable(), error.fatal());
            assert!(retryable.is_retryable() && !retryable.is_fatal(), "{kind:?}");
            assert!(fatal.is_fatal() && !fatal.is_retryable(), "{kind:?}");
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
    fn of_layer_keeps_a_foreign_error_as_the_source_and_returns_ours_unchanged() {
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
            "only the author of a layer knows whether its error is retryable"
        );
    }
}
