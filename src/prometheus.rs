//! The Prometheus exporter, with buckets for this crate's histograms (feature `prometheus`).
//!
//! Install it once, before you build the first client, because it does not record metrics that were registered earlier:
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
//! // The answer of your own HTTP server to `GET /metrics`:
//! let text = metrics.render();
//! assert!(text.contains("dflockd_client_requests_total"));
//! # Ok(())
//! # }
//! ```
//!
//! A process without an HTTP server uses [`install_with_listener`]; a process with its own exporter uses
//! [`with_buckets`].

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusRecorder};
pub use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::error::{Error, ErrorKind, Result};
use crate::io_words::io_failed;
use crate::telemetry::catalog::{ALL, Shape};

/// The interval at which recorded values are put into buckets while there are no scrapes.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Installs the exporter as the process's recorder. [`PrometheusHandle::render`] returns the metrics, for the
/// process's own HTTP server.
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`] if the process has a recorder already, [`ErrorKind::Unavailable`] if no thread can be
/// started. After an error, the call has changed nothing.
pub fn install() -> Result<PrometheusHandle> {
    let recorder = with_buckets(PrometheusBuilder::new())?.build_recorder();
    let handle = recorder.handle();
    let kept_up = handle.clone();
    // This thread keeps the histograms from growing while there are no scrapes. Like the recorder, it ends with the
    // process.
    let upkeep = Attendant::start(move |go| {
        if go.recv().is_ok() {
            loop {
                std::thread::sleep(UPKEEP_EVERY);
                kept_up.run_upkeep();
            }
        }
    })?;
    upkeep.install(recorder)?;
    Ok(handle)
}

/// Installs the exporter as the process's recorder, and serves `http://<address>/metrics` on a separate thread.
///
/// # Errors
///
/// [`ErrorKind::Connect`] if the exporter cannot listen on the address, [`ErrorKind::InvalidInput`] if the process has
/// a recorder already, [`ErrorKind::Unavailable`] if no thread can be started. After an error, the address is free
/// again.
///
/// ```no_run
/// # fn main() -> Result<(), dflockd_client::Error> {
/// dflockd_client::prometheus::install_with_listener(([0, 0, 0, 0], 9187).into())
/// # }
/// ```
pub fn install_with_listener(address: SocketAddr) -> Result<()> {
    let builder = with_buckets(PrometheusBuilder::new())?.with_http_listener(address);
    let (tell, built) = mpsc::channel();
    // The thread owns the listener and the upkeep, so both end with it. It also drops their runtime: this function may
    // be called inside a runtime, where dropping another runtime panics.
    let attendant = Attendant::start(move |go| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return drop(tell.send(Err(BuildError::FailedToCreateRuntime(error.to_string())))),
        };
        let exporter = {
            let _inside = runtime.enter();
            match builder.build() {
                Ok((recorder, exporter)) => {
                    drop(tell.send(Ok(recorder)));
                    exporter
                }
                Err(error) => return drop(tell.send(Err(error))),
            }
        };
        if go.recv().is_ok() {
            drop(runtime.block_on(exporter));
        }
    })?;
    match built.recv() {
        Ok(Ok(recorder)) => attendant.install(recorder),
        Ok(Err(BuildError::FailedToCreateHTTPListener(why))) => Err(Error::new(
            ErrorKind::Connect,
            format!("cannot serve metrics on {address}: {why}"),
        )),
        Ok(Err(other)) => Err(not_installed(other)),
        Err(error) => Err(Error::new(
            ErrorKind::Unavailable,
            "the thread that serves the metrics ended before it started to serve",
        )
        .caused_by(error)),
    }
}

/// A thread that serves a recorder after its installation. If this value is dropped before the installation, the thread
/// is ended and joined.
struct Attendant {
    go: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Attendant {
    /// Starts the thread. `work` must do nothing permanent before it receives the message of the installation.
    fn start(work: impl FnOnce(mpsc::Receiver<()>) + Send + 'static) -> Result<Self> {
        let (go, wait) = mpsc::channel();
        let thread = std::thread::Builder::new().name("dflockd-metrics".to_owned());
        let thread = thread.spawn(move || work(wait)).map_err(|error| {
            io_failed(
                ErrorKind::Unavailable,
                "no thread for the metrics could be started",
                error,
            )
        })?;
        Ok(Self {
            go: Some(go),
            thread: Some(thread),
        })
    }

    /// Installs the recorder for the process, and sends the message to the thread.
    fn install(mut self, recorder: PrometheusRecorder) -> Result<()> {
        metrics::set_global_recorder(recorder).map_err(|error| not_installed(error.into()))?;
        if let Some(go) = self.go.take() {
            go.send(()).ok();
        }
        // The thread ends with the process.
        drop(self.thread.take());
        Ok(())
    }
}

impl Drop for Attendant {
    fn drop(&mut self) {
        drop(self.go.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread is not reported here: `install_with_listener` returns an error if the thread sends
            // it no recorder.
            drop(thread.join());
        }
    }
}

/// Adds the buckets for this crate's histograms to your own exporter. Without buckets, the exporter shows histograms as
/// summaries, which cannot be aggregated across processes.
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`] if the exporter rejects the buckets.
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
