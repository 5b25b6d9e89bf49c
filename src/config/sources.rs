//! The sources of options, and their text forms.

use std::ffi::OsString;
use std::fmt;
use std::str::FromStr;

use super::settings::{TABLE, full_name};
use super::url::{Secrets, read, write};
use super::{ClientOptions, IgnoredVariable, environment};
use crate::error::{Error, Result};
use crate::escape::Escaped;

impl ClientOptions {
    /// Reads a URL, such as `dflockd://secret@a:6388,b:6388/?connect_timeout=3s`. Missing settings have their
    /// defaults.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput). The message names the invalid part and says what is valid. It
    /// does not contain the secret.
    ///
    /// ```
    /// use dflockd_client::ClientOptions;
    ///
    /// let refused = ClientOptions::from_url("dflockd://a:6388/?lease_ttl=10").unwrap_err();
    /// assert!(refused.to_string().starts_with("URL parameter lease_ttl \"10\" is not acceptable: write a duration with its unit"));
    /// ```
    pub fn from_url(url: &str) -> Result<Self> {
        read(url)?.into_options(Self::default())
    }

    /// Reads the environment variables `DFLOCKD_URL`, `DFLOCKD_SERVERS`, `DFLOCKD_AUTH_TOKEN`,
    /// `DFLOCKD_AUTH_TOKEN_FILE`, and, for every other setting, `DFLOCKD_CLIENT_` with its name in capitals, such as
    /// `DFLOCKD_CLIENT_LEASE_TTL`.
    ///
    /// The variable of a setting overrides the same setting in the URL. Empty variables count as absent. Missing
    /// settings have their defaults: without any variable, the client uses [`DEFAULT_SERVERS`](crate::DEFAULT_SERVERS).
    /// The variables for the authentication token have the same meaning for clients as for servers. All other variables
    /// of servers are ignored.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for an invalid value; the message names the variable and says
    /// which values are valid. The same kind if both `DFLOCKD_URL` and `DFLOCKD_SERVERS` are set, and for an unknown
    /// name that begins with `DFLOCKD_CLIENT_`, except names that Kubernetes or Docker sets for a service whose name
    /// begins with `dflockd-client`.
    pub fn from_env() -> Result<Self> {
        Self::from_vars(std::env::vars_os())
    }

    /// Reads the given variables, as [`from_env`](Self::from_env) does.
    ///
    /// # Errors
    ///
    /// As [`from_env`](Self::from_env), and for a variable that is given twice.
    ///
    /// ```
    /// use dflockd_client::ClientOptions;
    ///
    /// let options = ClientOptions::from_vars([
    ///     ("DFLOCKD_URL", "dflockd://a.example:6388/?acquire_timeout=3s"),
    ///     ("DFLOCKD_AUTH_TOKEN_FILE", "/run/secrets/dflockd"),
    ///     ("DFLOCKD_CLIENT_ACQUIRE_TIMEOUT", "1m"),
    /// ])?;
    /// let shown = "dflockd://a.example:6388/?auth_token_file=/run/secrets/dflockd&acquire_timeout=60s";
    /// assert_eq!(options.to_string(), shown);
    /// # Ok::<(), dflockd_client::Error>(())
    /// ```
    pub fn from_vars<N, V>(variables: impl IntoIterator<Item = (N, V)>) -> Result<Self>
    where
        N: Into<OsString>,
        V: Into<OsString>,
    {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        environment::read(variables)?.into_options(Self::default())
    }

    /// Returns the variables that begin with `DFLOCKD_` and that neither clients nor servers read, sorted by name. A
    /// program that reads its environment can warn of them. The result contains neither empty variables nor variables
    /// that Kubernetes and Docker set for services and linked containers. An unknown name that begins with
    /// `DFLOCKD_CLIENT_` is an error of [`from_vars`](Self::from_vars), so the result does not contain it either.
    ///
    /// ```
    /// use dflockd_client::ClientOptions;
    ///
    /// let ignored = ClientOptions::ignored_vars([("DFLOCKD_LEASE_TTL", "3s"), ("DFLOCKD_MAX_LOCKS", "10")]);
    /// assert_eq!(ignored.len(), 1);
    /// assert_eq!(ignored[0].nearest, ["DFLOCKD_CLIENT_LEASE_TTL"]);
    /// ```
    #[must_use]
    pub fn ignored_vars<N, V>(variables: impl IntoIterator<Item = (N, V)>) -> Vec<IgnoredVariable>
    where
        N: Into<OsString>,
        V: Into<OsString>,
    {
        environment::ignored(variables.into_iter().map(|(name, value)| (name.into(), value.into())))
    }

    /// Returns the equivalent URL, including the secrets. Keep it out of logs.
    #[must_use]
    pub fn expose_url(&self) -> String {
        write(self, Secrets::Exposed).to_string()
    }

    /// Writes all settings to a `Debug` output, without the secrets.
    pub(crate) fn show(&self, to: &mut fmt::DebugStruct<'_, '_>) {
        for setting in TABLE {
            for (shard, text) in setting.write(self) {
                let shown = if setting.is_secret() { "…" } else { text.as_str() };
                to.field(&full_name(*setting, shard), &format_args!("{}", Escaped(shown)));
            }
        }
    }
}

/// Parses a [URL](Self::from_url).
impl FromStr for ClientOptions {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self> {
        Self::from_url(url)
    }
}

/// Shows the equivalent URL, with `…` in place of secrets.
impl fmt::Display for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&write(self, Secrets::Hidden))
    }
}

/// Shows all settings, including those with default values, with `…` in place of secrets.
impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ClientOptions");
        self.show(&mut shown);
        shown.finish()
    }
}
