//! The servers that are measured.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dflockd_client::{Client, ClientBuilder, Lock, ShardHealth, ShutdownReport};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::args::{BenchTarget, SourceFlags};
use crate::failure::Failure;
use crate::sources::Sources;

/// How long the shutdown at the end waits for the releases.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long that shutdown waits if the measuring was stopped (the server may be silent then), or if no server is
/// connected.
const SHORT_PATIENCE: Duration = Duration::from_secs(1);

/// Shuts a client down, which releases its leases. Waits only a second for that if the measuring was stopped or if no
/// server is connected.
pub(super) async fn leave(client: &Client, stop: &CancellationToken) -> ShutdownReport {
    let is_connected = client.health().iter().any(ShardHealth::is_connected);
    let patience = match is_connected && !stop.is_cancelled() {
        true => PATIENCE,
        false => SHORT_PATIENCE,
    };
    client.shutdown(patience).await
}

/// Acquires and releases a lock. Returns false, without waiting for the server, if the measuring was stopped.
pub(super) async fn pair(lock: &Lock, stop: &CancellationToken) -> Result<bool, Failure> {
    let pair = async { lock.acquire().await?.release().await };
    Ok(stop.run_until_cancelled(pair).await.transpose()?.is_some())
}

/// The settings for a target: everything that is read before the benchmark begins.
pub(super) struct Settings {
    builder: ClientBuilder,
    #[cfg(feature = "server")]
    is_embedded: bool,
}

impl Settings {
    /// Reads the settings. `own` are those from the subcommand's flags. Reading a file may block for long, and
    /// meanwhile this process would handle no signal, so call this before signals are handled.
    pub(super) fn read(flags: &SourceFlags, of: &BenchTarget, own: &[(&str, String)]) -> Result<Self, Failure> {
        #[cfg(feature = "server")]
        if of.embedded {
            return Ok(Self {
                builder: embedded::builder(flags, own)?,
                is_embedded: true,
            });
        }
        #[cfg(not(feature = "server"))]
        let BenchTarget {} = of;
        Ok(Self {
            builder: Sources::read(flags, own, &[])?.builder()?,
            #[cfg(feature = "server")]
            is_embedded: false,
        })
    }
}

/// The servers of the settings, or an embedded one, and the clients that measure them.
pub(super) struct Target {
    builder: ClientBuilder,
    clients: Mutex<Vec<Client>>,
    #[cfg(feature = "server")]
    _embedded: Option<embedded::Embedded>,
}

impl Target {
    /// Creates the target, and starts an embedded server if the settings ask for one.
    #[cfg(feature = "server")]
    pub(super) async fn of(settings: Settings) -> Result<Self, Failure> {
        let Settings { builder, is_embedded } = settings;
        let (builder, embedded) = match is_embedded {
            true => {
                let embedded = embedded::Embedded::start().await?;
                (builder.servers([&embedded.address]), Some(embedded))
            }
            false => (builder, None),
        };
        Ok(Self {
            builder,
            clients: Mutex::default(),
            _embedded: embedded,
        })
    }

    /// Creates the target.
    #[cfg(not(feature = "server"))]
    pub(super) async fn of(settings: Settings) -> Result<Self, Failure> {
        Ok(Self {
            builder: settings.builder,
            clients: Mutex::default(),
        })
    }

    /// Returns a builder for clients of this target.
    pub(super) fn builder(&self) -> ClientBuilder {
        self.builder.clone()
    }

    /// Creates a client, which [`run_and_release`](Self::run_and_release) shuts down.
    pub(super) fn client(&self, builder: ClientBuilder) -> Result<Client, Failure> {
        let client = builder.build()?;
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.push(client.clone());
        Ok(client)
    }

    /// Runs a benchmark and then shuts down its clients, which releases their leases. It does so after a failure, too.
    pub(super) async fn run_and_release<T>(&self, benchmark: impl Future<Output = T>, stop: &CancellationToken) -> T {
        let done = benchmark.await;
        let clients = std::mem::take(&mut *self.clients.lock().unwrap_or_else(PoisonError::into_inner));
        let leaving: JoinSet<ShutdownReport> = clients
            .into_iter()
            .map(|client| {
                let stop = stop.clone();
                async move { leave(&client, &stop).await }
            })
            .collect();
        leaving.join_all().await;
        done
    }
}

#[cfg(feature = "server")]
mod embedded {
    //! Runs `dflock serve` as a separate process, so that its memory and processor time are not counted.

    use std::io::{BufRead, BufReader};

    use dflockd_client::{ClientBuilder, ClientOptions, DEFAULT_SERVERS, LayeredOptions, SettingSource, SettingValue};

    use crate::args::SourceFlags;
    use crate::exit::Exit;
    use crate::failure::Failure;
    use crate::process::Attached;
    use crate::sources::Sources;

    /// Reads the settings for clients of the embedded server, whose address is not known yet. Settings that concern
    /// other servers do not apply: their addresses, their auth token and TLS.
    pub(super) fn builder(flags: &SourceFlags, own: &[(&str, String)]) -> Result<ClientBuilder, Failure> {
        if flags.servers.is_some() || flags.url.is_some() {
            return Err(Failure::new(
                Exit::USAGE,
                "--embedded starts a server, so --servers and --url cannot name others",
            ));
        }
        // These servers stand for the embedded one. They replace the servers of other sources, and the settings that
        // those sources have for single shards.
        let mut own = own.to_vec();
        own.push(("servers", DEFAULT_SERVERS.join(",")));
        let sources = Sources::read(flags, &own, &[])?;
        // The settings are checked while each still has its source, so that an error can name it. The pairs below have
        // no sources.
        sources.checked()?;
        let set = sources.values()?.into_iter().filter(applies);
        let pairs = set.filter_map(|setting| Some((setting.name, setting.value?)));
        let options: ClientOptions = LayeredOptions::from_pairs(pairs)?.read()?;
        Ok(options.into())
    }

    /// Returns whether a setting was made, and applies to the embedded server, too.
    fn applies(setting: &SettingValue) -> bool {
        let is_of_others = ["auth_token", "tls", "previous_"]
            .iter()
            .any(|start| setting.name.starts_with(start));
        setting.source != SettingSource::Default && !setting.is_secret && !is_of_others
    }

    /// The embedded server. It is killed when this is dropped or when this process is killed.
    pub(super) struct Embedded {
        pub(super) address: String,
        _server: Attached,
    }

    impl Embedded {
        /// Flags with room for any number of keys and for bursts of signals, so that the benchmark does not measure
        /// refusals.
        const FLAGS: [&str; 9] = [
            "serve",
            "--port",
            "0",
            "--max-locks",
            "10000000",
            "--release",
            "1.16",
            "--signal-buffer",
            "1000000",
        ];

        pub(super) async fn start() -> Result<Self, Failure> {
            // Ctrl-C reaches only this process, which releases its leases before the server ends. `Attached::start`
            // needs the main thread: the benchmark is the future of `block_on`, which runs there.
            let mut server = Attached::start(&Self::FLAGS)?;
            let out = server.take_output();
            let line = tokio::task::spawn_blocking(move || {
                let mut line = String::new();
                out.map(|out| BufReader::new(out).read_line(&mut line))
                    .transpose()
                    .map(|_| line)
            });
            let line = line.await.map_err(std::io::Error::other)??;
            let address = line.trim_end().strip_prefix("listening on ");
            let silent = || Failure::new(Exit::SOFTWARE, "the embedded server ended before it listened");
            Ok(Self {
                address: address.ok_or_else(silent)?.to_owned(),
                _server: server,
            })
        }
    }
}
