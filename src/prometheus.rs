//! The Prometheus exporter, with the buckets that fit this crate's metrics (feature `prometheus`).
//!
//! One call, before the first client is built (what is registered before is recorded nowhere):
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), dflockd_client::Error> {
//! use dflockd_client::{Client, prometheus};
//!
//! let metrics = prometheus::install()?;
//! # let server = dflockd_client::server::Server::builder().port(0).start().await?;
//! # let address = server.local_addr().to_string();
//! let client = Client::builder().servers([address]).connect().await?;
//! client.lock("orders/42")?.acquire().await?.release().await?;
//! // What your own HTTP server answers to `GET /metrics`:
//! let text = metrics.render();
//! assert!(text.contains("dflockd_client_requests_total"));
//! # Ok(())
//! # }
//! ```
//!
//! A process that has no HTTP server uses [`install_with_listener`], and one that has an exporter of its own
//! [`with_buckets`].

use std::net::SocketAddr;
use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher};
pub use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::error::{Error, ErrorKind, Result};
use crate::io_words::io_failed;
use crate::telemetry::catalog::{ALL, Shape};

/// How often what was recorded is put into buckets while nobody scrapes.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Installs the exporter as the process's recorder. What it has recorded is got by [`PrometheusHandle::render`], for an HTTP
/// server that the process has already.
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`] if the process has a recorder already.
pub fn install() -> Result<PrometheusHandle> {
    let handle = with_buckets(PrometheusBuilder::new())?
        .install_recorder()
        .map_err(not_installed)?;
    let kept_up = handle.clone();
    // Ends with the process, as the recorder does. It keeps what histograms hold from growing while nobody scrapes.
    let upkeep = std::thread::Builder::new().name("dflockd-metrics".to_owned());
    upkeep
        .spawn(move || {
            loop {
                std::thread::sleep(UPKEEP_EVERY);
                kept_up.run_upkeep();
            }
        })
        .map_err(|error| {
            io_failed(
                ErrorKind::InvalidInput,
                "no thread for the metrics could be started",
                error,
            )
        })?;
    Ok(handle)
}

/// Installs the exporter as the process's recorder, and serves `http://<address>/metrics` in the background.
///
/// # Errors
///
/// [`ErrorKind::Connect`] if the address cannot be listened on, [`ErrorKind::InvalidInput`] if the process has a recorder
/// already.
///
/// ```no_run
/// # fn main() -> Result<(), dflockd_client::Error> {
/// dflockd_client::prometheus::install_with_listener(([0, 0, 0, 0], 9187).into())
/// # }
/// ```
pub fn install_with_listener(address: SocketAddr) -> Result<()> {
    with_buckets(PrometheusBuilder::new())?
        .with_http_listener(address)
        .install()
        .map_err(|error| match error {
            BuildError::FailedToCreateHTTPListener(why) => {
                Error::new(ErrorKind::Connect, format!("cannot serve metrics on {address}: {why}"))
            }
            other => not_installed(other),
        })
}

/// Gives an exporter that you set up yourself the buckets that fit this crate's histograms. Without them they are summaries,
/// which cannot be added up over processes.
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`] if the exporter takes no buckets.
pub fn with_buckets(builder: PrometheusBuilder) -> Result<PrometheusBuilder> {
    ALL.iter().try_fold(builder, |builder, family| match family.shape {
        Shape::Histogram(buckets) => builder
            .set_buckets_for_metric(Matcher::Full(family.name.to_owned()), buckets)
            .map_err(not_installed),
        Shape::Counter | Shape::Gauge => Ok(builder),
    })
}

fn not_installed(error: BuildError) -> Error {
    Error::new(
        ErrorKind::InvalidInput,
        format!("the Prometheus exporter was not installed: {error}"),
    )
}
