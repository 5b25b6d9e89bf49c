//! The auth token that servers require: where it comes from, and what servers answered to it.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{AuthToken, MAX_LONG_LINE};
use crate::small_file::read_small_file;

/// The configured source of the token.
#[derive(Clone)]
pub(crate) enum AuthSource {
    /// The token itself.
    Value(Zeroizing<String>),
    /// The name of an environment variable.
    Environment(String),
    File(PathBuf),
}

/// A checked source.
#[derive(Clone)]
enum TokenSource {
    Nothing,
    Value(AuthToken),
    Environment(Arc<str>),
    File(Arc<Path>),
}

/// The token of a client, and what its servers answered to it. One value serves all shards.
pub(crate) struct Credentials {
    source: TokenSource,
    /// How long the client waits before it presents a refused token to the same server again.
    retry_after: Duration,
    /// The last refusal of each endpoint.
    refusals: Mutex<HashMap<Arc<str>, Rejection>>,
    /// Whether the warning about an exposed token was logged.
    warned: AtomicBool,
}

/// A server's refusal of a token, or of a connection without one.
struct Rejection {
    presented: Option<AuthToken>,
    at: Instant,
    error: Error,
}

/// The longest file. The token may be as long as the longest line; white space around it in the file is ignored.
const LONGEST_FILE: usize = MAX_LONG_LINE + 1024;

impl Credentials {
    /// Checks the source of the token.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a value that no server can accept, and for a variable or a file without a name.
    pub(crate) fn new(source: Option<AuthSource>, retry_after: Duration) -> Result<Self> {
        let source = match source {
            None => TokenSource::Nothing,
            Some(AuthSource::Value(value)) => TokenSource::Value(AuthToken::new(value.as_str())?),
            Some(AuthSource::Environment(name)) if name.is_empty() || name.contains(['=', '\0']) => {
                return Err(Error::invalid(
                    "name of an environment variable for the auth token",
                    name,
                    "give a name without = and NUL",
                ));
            }
            Some(AuthSource::Environment(name)) => TokenSource::Environment(name.into()),
            Some(AuthSource::File(path)) if path.as_os_str().is_empty() => {
                return Err(Error::invalid("auth token file", path, "give its path"));
            }
            Some(AuthSource::File(path)) => TokenSource::File(path.into()),
        };
        Ok(Self {
            source,
            retry_after,
            refusals: Mutex::default(),
            warned: AtomicBool::new(false),
        })
    }

    /// Reads the token to present to a server.
    ///
    /// # Errors
    ///
    /// `Auth` if the token cannot be read, or if the server refused this same token recently. In the latter case the
    /// error is the server's, and nothing is sent.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub(crate) async fn to_present(&self, endpoint: &Arc<str>) -> Result<Option<AuthToken>> {
        let token = self.source.read().await?;
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        match refusals.get(endpoint) {
            Some(refusal) if refusal.presented == token && refusal.at.elapsed() < self.retry_after => {
                Err(refusal.error.clone())
            }
            _ => Ok(token),
        }
    }

    /// Reads the token, even if a server has refused it.
    ///
    /// # Errors
    ///
    /// `Auth` if the token cannot be read.
    pub(crate) async fn read(&self) -> Result<Option<AuthToken>> {
        self.source.read().await
    }

    /// Notes a server's answer to a token.
    pub(crate) fn presented<T>(&self, endpoint: &Arc<str>, token: Option<AuthToken>, outcome: &Result<T>) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(_) => {
                refusals.remove(endpoint);
            }
            Err(error) if error.kind() == ErrorKind::Auth => {
                let refusal = Rejection {
                    presented: token,
                    at: Instant::now(),
                    error: error.clone(),
                };
                refusals.insert(Arc::clone(endpoint), refusal);
            }
            // The error says nothing about the token.
            Err(_) => {}
        }
    }

    /// Warns, once, that the token is about to be sent where others can read it.
    pub(crate) fn warn_of_exposure(&self, endpoint: &Arc<str>) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(%endpoint, "the auth token goes over the network without TLS: every machine on the way can read it");
        }
    }
}

impl TokenSource {
    async fn read(&self) -> Result<Option<AuthToken>> {
        match self {
            Self::Nothing => Ok(None),
            Self::Value(token) => Ok(Some(token.clone())),
            Self::Environment(name) => {
                let read = from_environment(name);
                read.map(Some)
                    .map_err(|problem| unreadable(&format!("the environment variable {name} {problem}")))
            }
            Self::File(path) => {
                let path = Arc::clone(path);
                let name = path.display().to_string();
                let read = tokio::task::spawn_blocking(move || from_file(&path)).await;
                read.unwrap_or_else(|error| Err(error.to_string()))
                    .map(Some)
                    .map_err(|problem| unreadable(&format!("the file {name}: {problem}")))
            }
        }
    }
}

fn from_environment(name: &str) -> Result<AuthToken, String> {
    let value = std::env::var_os(name).ok_or("is not set")?;
    let value = value.into_string().map_err(|_| "is not UTF-8")?;
    parse(&Zeroizing::new(value)).map_err(|problem| format!("holds an invalid one: {problem}"))
}

fn from_file(path: &Path) -> Result<AuthToken, String> {
    let bytes = read_small_file(path, LONGEST_FILE)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| "it is not UTF-8")?;
    parse(text)
}

/// Parses a token. White space around it is ignored.
fn parse(text: &str) -> Result<AuthToken, String> {
    AuthToken::new(text.trim()).map_err(|error| error.to_string())
}

fn unreadable(problem: &str) -> Error {
    Error::new(
        ErrorKind::Auth,
        format!("there is no auth token to present: {problem} (the client reads it again at each attempt to connect)"),
    )
}

/// Does not show the token.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            TokenSource::Nothing => f.write_str("Credentials(none)"),
            TokenSource::Value(_) => f.write_str("Credentials(…)"),
            TokenSource::Environment(name) => write!(f, "Credentials(environment variable {name})"),
            TokenSource::File(path) => write!(f, "Credentials(file {:?})", path.display().to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Result<()> {
        Err(Error::new(ErrorKind::Auth, "no"))
    }

    fn with(source: AuthSource) -> Credentials {
        Credentials::new(Some(source), Duration::from_secs(30)).unwrap()
    }

    fn value(text: &str) -> AuthSource {
        AuthSource::Value(Zeroizing::new(text.to_owned()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_token_is_not_presented_to_the_same_server_for_a_while() {
        let (here, there): (Arc<str>, Arc<str>) = ("a:1".into(), "b:1".into());
        let credentials = with(value("secret"));
        let token = credentials.to_present(&here).await.unwrap();
        credentials.presented(&here, token, &refused());
        tokio::time::advance(Duration::from_millis(29_999)).await;
        assert_eq!(credentials.to_present(&here).await.unwrap_err().to_string(), "no");
        assert!(credentials.to_present(&there).await.is_ok());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(credentials.to_present(&here).await.is_ok(), "the pause is over");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_was_accepted_or_never_answered_is_presented_again_at_once() {
        let here: Arc<str> = "a:1".into();
        let credentials = with(value("secret"));
        let token = credentials.to_present(&here).await.unwrap();
        let lost: Result<()> = Err(Error::new(ErrorKind::Connect, "lost"));
        credentials.presented(&here, token.clone(), &lost);
        assert!(credentials.to_present(&here).await.is_ok());
        credentials.presented(&here, token.clone(), &refused());
        credentials.presented(&here, token, &Ok(()));
        assert!(credentials.to_present(&here).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_of_a_client_without_a_token_is_remembered_too() {
        let here: Arc<str> = "a:1".into();
        let credentials = Credentials::new(None, Duration::from_secs(30)).unwrap();
        assert_eq!(credentials.to_present(&here).await.unwrap(), None);
        credentials.presented(&here, None, &refused());
        assert!(credentials.to_present(&here).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_token_in_the_file_is_presented_at_once() {
        let path = std::env::temp_dir().join(format!("dflockd-auth-unit-{}", std::process::id()));
        std::fs::write(&path, " first\n").unwrap();
        let here: Arc<str> = "a:1".into();
        let credentials = with(AuthSource::File(path.clone()));
        let token = credentials.to_present(&here).await.unwrap();
        assert_eq!(token.as_ref().map(AuthToken::expose), Some("first"));
        credentials.presented(&here, token, &refused());
        assert!(credentials.to_present(&here).await.is_err());
        std::fs::write(&path, "second\n").unwrap();
        let token = credentials.to_present(&here).await.unwrap();
        assert_eq!(token.as_ref().map(AuthToken::expose), Some("second"));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn white_space_around_the_token_in_a_variable_is_ignored() {
        // Cargo sets this one, to a number: tests do not change the environment.
        assert_eq!(from_environment("CARGO_PKG_VERSION_MAJOR").unwrap().expose(), "0");
        assert_eq!(parse(" sesame \n").unwrap().expose(), "sesame");
        assert!(parse(" \n").is_err());
    }

    #[test]
    fn the_warning_about_an_exposed_token_is_logged_once() {
        #[derive(Clone, Default)]
        struct Lines(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Lines {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let lines = Lines::default();
        let subscriber = tracing_subscriber::fmt().with_writer({
            let lines = lines.clone();
            move || lines.clone()
        });
        // With only one subscriber in the process, tracing may decide in the thread of another test whether the line is
        // wanted, and that thread has no subscriber.
        let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
        tracing::subscriber::with_default(subscriber.finish(), || {
            let credentials = with(value("sesame"));
            for endpoint in ["a:1", "b:1", "a:1"] {
                credentials.warn_of_exposure(&endpoint.into());
            }
        });
        let told = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(told.matches("without TLS").count(), 1, "{told}");
        assert!(
            told.contains("WARN") && told.contains("a:1") && !told.contains("sesame"),
            "{told}"
        );
    }

    #[test]
    fn invalid_sources_are_refused() {
        for source in [
            AuthSource::Environment(String::new()),
            AuthSource::Environment("A=B".into()),
            AuthSource::File(PathBuf::new()),
            value("a\nb"),
        ] {
            let error = Credentials::new(Some(source), Duration::ZERO).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn debug_shows_the_source_of_the_token_and_not_the_token() {
        assert_eq!(format!("{:?}", with(value("sesame"))), "Credentials(…)");
        assert_eq!(
            format!("{:?}", with(AuthSource::Environment("NAME".into()))),
            "Credentials(environment variable NAME)"
        );
    }
}
