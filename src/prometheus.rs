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
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusRecorder};
pub use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::error::{Error, ErrorKind, Result};
use crate::io_words::io_failed;
use crate::telemetry::catalog::{ALL, Shape};

/// How often what was recorded is put into buckets while nothing scrapes.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Installs the exporter as the process's recorder. [`PrometheusHandle::render`] returns what it has recorded, for an HTTP
/// server that the process has already.
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`] if the process has a recorder already, [`ErrorKind::Unavailable`] if no thread can be started. Nothing is
/// left behind then.
pub fn install() -> Result<PrometheusHandle> {
    let recorder = with_buckets(PrometheusBuilder::new())?.build_recorder();
    let handle = recorder.handle();
    let kept_up = handle.clone();
    // Keeps what histograms hold from growing while nothing scrapes. Ends with the process, as the recorder does.
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

/// Installs the exporter as the process's recorder, and serves `http://<address>/metrics` from a thread of its own.
///
/// # Errors
///
/// [`ErrorKind::Connect`] if the address cannot be listened on, [`ErrorKind::InvalidInput`] if the process has a recorder
/// already, [`ErrorKind::Unavailable`] if no thread can be started. Nothing is left behind then: the address is free.
///
/// ```no_run
/// # fn main() -> Result<(), dflockd_client::Error> {
/// dflockd_client::prometheus::install_with_listener(([0, 0, 0, 0], 9187).into())
/// # }
/// ```
pub fn install_with_listener(address: SocketAddr) -> Result<()> {
    let builder = with_buckets(PrometheusBuilder::new())?.with_http_listener(address);
    let (tell, built) = mpsc::channel();
    // The thread owns the listener and the upkeep, so both end with it. A runtime must not be dropped where this may be called.
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
            "the thread that serves the metrics ended before it began to",
        )
        .caused_by(error)),
    }
}

/// A thread that attends to a recorder once that is installed. Otherwise it ends, and is waited for.
struct Attendant {
    go: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Attendant {
    /// Starts it. `work` is to do nothing that lasts before it has received the word to go on.
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

    /// Makes it the process's recorder, and lets the thread go on.
    fn install(mut self, recorder: PrometheusRecorder) -> Result<()> {
        metrics::set_global_recorder(recorder).map_err(|error| not_installed(error.into()))?;
        if let Some(go) = self.go.take() {
            go.send(()).ok();
        }
        // It ends with the process.
        drop(self.thread.take());
        Ok(())
    }
}

impl Drop for Attendant {
    fn drop(&mut self) {
        drop(self.go.take());
        if let Some(thread) = self.thread.take() {
            // That it panicked has been told by its silence.
            drop(thread.join());
        }
    }
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
