//! The servers that are measured.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dflockd_client::{Client, ClientBuilder, Lock, ShardHealth, ShutdownReport};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::args::{BenchTarget, SourceFlags};
use crate::failure::Failure;
use crate::sources::Sources;

/// How long the shutdown at the end waits for the releases.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long that shutdown waits while no server is connected.
const PATIENCE_UNCONNECTED: Duration = Duration::from_secs(1);

/// Shuts a client down, which releases its leases. Stops waiting early if no server is connected.
pub(super) async fn leave(client: &Client) -> ShutdownReport {
    let unconnected = async {
        let mut since = Instant::now();
        while since.elapsed() < PATIENCE_UNCONNECTED {
            if client.health().iter().any(ShardHealth::is_connected) {
                since = Instant::now();
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        biased;
        report = client.shutdown(PATIENCE) => report,
        () = unconnected => client.shutdown(Duration::ZERO).await,
    }
}

/// Acquires and releases a lock. Returns false, without waiting for the server, if the measuring was stopped.
pub(super) async fn pair(lock: &Lock, stop: &CancellationToken) -> Result<bool, Failure> {
    let pair = async { lock.acquire().await?.release().await };
    Ok(stop.run_until_cancelled(pair).await.transpose()?.is_some())
}

/// The servers of the settings, or an embedded one, and the clients that measure them.
pub(super) struct Target {
    builder: ClientBuilder,
    clients: Mutex<Vec<Client>>,
    #[cfg(feature = "server")]
    _embedded: Option<embedded::Embedded>,
}

impl Target {
    /// Creates the target, and starts an embedded server if the flags ask for one. `own` are the settings from the
    /// subcommand's flags.
    pub(super) async fn of(flags: &SourceFlags, of: &BenchTarget, own: &[(&str, String)]) -> Result<Self, Failure> {
        #[cfg(feature = "server")]
        if of.embedded {
            let embedded = embedded::Embedded::start(flags).await?;
            let own: Vec<_> = own
                .iter()
                .cloned()
                .chain([("servers", embedded.address.clone())])
                .collect();
            return Ok(Self {
                builder: Sources::read(flags, &own, &[])?.builder()?,
                clients: Mutex::default(),
                _embedded: Some(embedded),
            });
        }
        #[cfg(not(feature = "server"))]
        let BenchTarget {} = of;
        Ok(Self {
            builder: Sources::read(flags, own, &[])?.builder()?,
            clients: Mutex::default(),
            #[cfg(feature = "server")]
            _embedded: None,
        })
    }

    /// Returns a builder for clients of this target.
    pub(super) fn builder(&self) -> ClientBuilder {
        self.builder.clone()
    }

    /// Creates a client, which [`released`](Self::released) shuts down.
    pub(super) fn client(&self, builder: ClientBuilder) -> Result<Client, Failure> {
        let client = builder.build()?;
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.push(client.clone());
        Ok(client)
    }

    /// Runs a benchmark and then shuts down its clients, which releases their leases. It does so after a failure, too.
    pub(super) async fn released<T>(&self, benchmark: impl Future<Output = T>) -> T {
        let done = benchmark.await;
        let clients = std::mem::take(&mut *self.clients.lock().unwrap_or_else(PoisonError::into_inner));
        let leaving: JoinSet<ShutdownReport> = clients
            .into_iter()
            .map(|client| async move { leave(&client).await })
            .collect();
        leaving.join_all().await;
        done
    }
}

#[cfg(feature = "server")]
mod embedded {
    //! Runs `dflock serve` as a separate process, so that its memory and processor time are not counted.

    use std::io::{BufRead, BufReader};

    use crate::args::SourceFlags;
    use crate::exit::Exit;
    use crate::failure::Failure;
    use crate::process::Attached;

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

        pub(super) async fn start(flags: &SourceFlags) -> Result<Self, Failure> {
            if flags.servers.is_some() || flags.url.is_some() {
                return Err(Failure::new(
                    Exit::USAGE,
                    "--embedded starts a server, so --servers and --url cannot name others",
                ));
            }
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
