//! The options of a client, unchecked.

use std::time::Duration;

use super::OnUnavailable;
use crate::error::Result;
use crate::lease::policy::RenewPolicy;
use crate::net::auth::{AuthSource, Credentials};
use crate::net::backoff::ReconnectPolicy;
use crate::net::fencing::Fencing;
use crate::protocol::AuthToken;
use crate::sharding::{CheckedStrategy, DEFAULT_SERVERS, ShardingStrategy};
use crate::shards::Shard;
use crate::tls::Tls;

/// The options of a client from outside the program: from a URL, environment variables, or a configuration file.
///
/// All three sources have the same settings: those of [`ClientBuilder`](crate::ClientBuilder), most of them with the
/// names of its methods.
/// [`guide::configuration`](https://docs.rs/dflockd-client/latest/dflockd_client/guide/configuration/index.html) lists
/// them and contains the grammar of the URL. Only code can supply layers, connectors and the like: create a
/// [builder](crate::ClientBuilder::from) from the options and call its methods, which override the options.
///
/// ```
/// use std::time::Duration;
///
/// use dflockd_client::{ClientBuilder, ClientOptions};
///
/// let url = "dflockd://se%40same@a.example:6388+b.example:6388,c.example/?acquire_timeout=3s&tls=true";
/// let options: ClientOptions = url.parse()?;
/// // A cluster of two members, and a server on the default port. The secret is not shown.
/// let shown = "dflockd://…@a.example:6388+b.example:6388,c.example:6388/?tls=true&acquire_timeout=3s";
/// assert_eq!(options.to_string(), shown);
///
/// let from_json: ClientOptions = serde_json::from_str(
///     r#"{
///         "servers": ["a.example:6388+b.example:6388", "c.example"],
///         "auth_token": "se@same",
///         "acquire_timeout": "3s",
///         "tls": true
///     }"#,
/// )?;
/// assert_eq!(from_json.expose_url(), options.expose_url());
///
/// let builder = ClientBuilder::from(options).lease_ttl(Duration::from_secs(10));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// **Secrets.** `Debug` and `Display` show `…` in place of secrets, and serialized options do not contain them. A URL
/// that contains `…` is an error.
///
/// **Checks.** Unknown settings, repeated settings and texts that cannot be parsed are errors at once.
/// [`validate`](Self::validate) and building a client make further checks, for example for a number that is too large
/// or a missing file.
#[derive(Clone)]
pub struct ClientOptions {
    pub(crate) shards: Vec<Shard>,
    pub(crate) name: Option<String>,
    pub(crate) max_redirects: u32,
    pub(crate) auth: Option<AuthSource>,
    pub(crate) auth_retry_interval: Duration,
    pub(crate) tls: Option<Tls>,
    pub(crate) strategy: CheckedStrategy,
    /// The previous shards, if keys move.
    pub(crate) previous_shards: Option<Vec<Shard>>,
    pub(crate) previous_strategy: Option<CheckedStrategy>,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) acquire_timeout: Duration,
    pub(crate) lease_ttl: Option<Duration>,
    pub(crate) renew_policy: RenewPolicy,
    pub(crate) loss_margin: Option<Duration>,
    pub(crate) keepalive: Duration,
    pub(crate) reply_timeout: Duration,
    pub(crate) server_read_timeout: Duration,
    pub(crate) reconnect: ReconnectPolicy,
    pub(crate) on_unavailable: OnUnavailable,
    pub(crate) survives_disconnect: bool,
    pub(crate) fencing: Fencing,
    pub(crate) pipelined_connections: usize,
    pub(crate) max_in_flight: usize,
    pub(crate) max_waiters: usize,
    pub(crate) exclusive_connections: usize,
    pub(crate) exclusive_connections_per_key: Option<usize>,
    pub(crate) idle_connection_timeout: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            shards: DEFAULT_SERVERS.iter().map(|server| Shard::single(*server)).collect(),
            name: None,
            max_redirects: 16,
            auth: None,
            auth_retry_interval: Duration::from_secs(30),
            tls: None,
            strategy: CheckedStrategy::default(),
            previous_shards: None,
            previous_strategy: None,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(5),
            acquire_timeout: Duration::from_secs(10),
            lease_ttl: None,
            renew_policy: RenewPolicy::default(),
            loss_margin: None,
            keepalive: Duration::from_secs(10),
            reply_timeout: Duration::from_secs(10),
            server_read_timeout: Duration::from_secs(23),
            reconnect: ReconnectPolicy::default(),
            on_unavailable: OnUnavailable::default(),
            survives_disconnect: false,
            fencing: Fencing::default(),
            pipelined_connections: 1,
            max_in_flight: 4096,
            max_waiters: 65_536,
            exclusive_connections: 1024,
            exclusive_connections_per_key: None,
            idle_connection_timeout: Duration::from_secs(30),
        }
    }
}

/// Access to single options, for a program that talks to the servers itself with the
/// [functions](crate::protocol::functions) of the protocol, for example to diagnose them. Programs that use a client do
/// not need these methods.
impl ClientOptions {
    /// Returns the shards, in their order.
    ///
    /// ```
    /// use dflockd_client::ClientOptions;
    ///
    /// let options: ClientOptions = "dflockd://a.example:6388+b.example:6388,c.example:6388/".parse()?;
    /// let [cluster, single] = options.shards() else { unreachable!("there are two") };
    /// assert!(cluster.is_cluster() && !single.is_cluster());
    /// assert_eq!(cluster.endpoints()?[1].host(), Some("b.example"));
    /// # Ok::<(), dflockd_client::Error>(())
    /// ```
    #[must_use]
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Returns the TLS settings, or `None` if the options do not ask for TLS.
    ///
    /// ```
    /// use dflockd_client::ClientOptions;
    ///
    /// let options: ClientOptions = "dflockd://a.example:6388/?tls=true".parse()?;
    /// assert!(options.tls().is_some());
    /// # Ok::<(), dflockd_client::Error>(())
    /// ```
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// Reads the authentication token from its source, as clients do before each attempt to connect. Returns `None` if
    /// none is configured.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> dflockd_client::Result<()> {
    /// use dflockd_client::ClientOptions;
    ///
    /// let options: ClientOptions = "dflockd://sesame@a.example:6388/".parse()?;
    /// let token = options.read_auth_token().await?.expect("the URL has one");
    /// assert_eq!(token.expose(), "sesame");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Auth`](crate::ErrorKind::Auth) if the token cannot be read,
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if it is not a valid token.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future changes nothing.
    pub async fn read_auth_token(&self) -> Result<Option<AuthToken>> {
        let credentials = Credentials::new(self.auth.clone(), self.auth_retry_interval)?;
        credentials.read().await
    }
}

impl ClientOptions {
    pub(crate) fn shard_by(&mut self, strategy: impl ShardingStrategy + 'static) {
        self.strategy = CheckedStrategy::new(strategy);
    }
}
