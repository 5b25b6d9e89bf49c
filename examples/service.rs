//! A small web service that does it right: one lock per account, a database that refuses stale writers, metrics, and an end
//! that gives everything back.
//!
//!     cargo run --example service
//!     curl -X POST 'http://127.0.0.1:8080/accounts/7/deposits' -H 'content-type: application/json' -d '{"amount": 5}'
//!     curl 'http://127.0.0.1:8080/accounts/7'
//!     curl 'http://127.0.0.1:8080/metrics'
//!
//! | environment | default | |
//! | --- | --- | --- |
//! | `SERVICE_LISTEN` | `127.0.0.1:8080` | where it serves |
//! | `SERVICE_DATABASE` | in memory | the SQLite file |
//! | `DFLOCKD_URL`, or `DFLOCKD_SERVERS` and others | an embedded server | lock servers, and how to talk to them: `docs/configuration.md` |
//! | `RUST_LOG` | `info` | what is logged |
//!
//! The lock servers must make fences: release 2.1 or later. With an earlier one the service does not start, and says so: on such a server
//! the numbers are random, and every second deposit would be refused. One that is put in the place of a good one later is not used:
//! deposits are refused with 503, and `/health` says why.
//!
//! A deposit is a read, some work and a write, with nothing but the lock to keep others from doing the same in between.
//! SIGTERM or Ctrl-C: no new requests, those under way may finish for ten seconds, and then all leases are given back.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use dflockd_client::prometheus::PrometheusHandle;
use dflockd_client::server::Server;
use dflockd_client::{Client, ClientBuilder, ErrorKind, Fence, Fencing, LockGuard, prometheus};
use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

/// How long requests may take to finish once the service is to end.
const GRACE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> ExitCode {
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("service: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .with_writer(std::io::stderr)
        .init();
    // Before the client is built: what is registered without a recorder is recorded nowhere.
    let metrics = prometheus::install()?;
    let (_embedded, options) = lock_servers().await?;
    let client = options
        .lease_ttl(Duration::from_secs(10))
        // The database compares fences, so a lock without one is of no use.
        .fencing(Fencing::Required)
        // The first part of a key says what it is about, and has few values.
        .key_class(|key| key.split('/').next().unwrap_or("other"))
        .on_lost(|lost| tracing::warn!(key = %lost.key, reason = %lost.reason, "a lease was lost under its request"))
        .connect()
        .await?;
    let database = match std::env::var("SERVICE_DATABASE") {
        Ok(path) => Connection::open(path)?,
        Err(_) => Connection::open_in_memory()?,
    };
    let service = Service {
        client: client.clone(),
        accounts: Arc::new(Accounts::new(database)?),
        metrics,
    };
    let app = Router::new()
        .route("/accounts/{id}", get(balance))
        .route("/accounts/{id}/deposits", post(deposit))
        .route("/accounts/{id}/balance", put(overwrite))
        .route(
            "/metrics",
            get(|State(service): State<Service>| async move { service.metrics.render() }),
        )
        .route("/health", get(health))
        .with_state(service);

    let listen = std::env::var("SERVICE_LISTEN").unwrap_or_else(|_| "127.0.0.1:8080".to_owned());
    let listener = tokio::net::TcpListener::bind(&listen)
        .await
        .map_err(|error| format!("cannot listen on {listen} (SERVICE_LISTEN): {error}"))?;
    let end = end_is_wanted()?;
    say(&format!("listening on http://{}", listener.local_addr()?));
    let served = axum::serve(listener, app).with_graceful_shutdown(end.clone().cancelled_owned());
    tokio::select! {
        served = served => served?,
        () = async { end.cancelled().await; tokio::time::sleep(GRACE).await } => {
            tracing::warn!("requests are still under way after {GRACE:?}: their leases are taken from them");
        }
    }
    // Holders that are left are told that their lease is lost, and stop.
    let report = client.shutdown(Duration::from_secs(5)).await;
    for key in &report.unreleased {
        tracing::warn!(%key, "not given back: it ends with its TTL");
    }
    say(&format!(
        "ended: {} leases given back, {} not",
        report.released,
        report.unreleased.len()
    ));
    Ok(())
}

/// What the handlers share.
#[derive(Clone)]
struct Service {
    client: Client,
    accounts: Arc<Accounts>,
    metrics: PrometheusHandle,
}

#[derive(Deserialize)]
struct Deposit {
    amount: i64,
    /// How long the work between reading and writing takes, in milliseconds.
    #[serde(default)]
    work_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct Balance {
    balance: i64,
    /// The fence of the last write.
    fence: u64,
}

/// Reads, works, writes: under the lock of the account, and only for as long as that is held.
async fn deposit(
    State(service): State<Service>,
    Path(id): Path<u32>,
    Json(deposit): Json<Deposit>,
) -> Result<Json<Balance>, Refusal> {
    let guard = service.client.lock(format!("accounts/{id}"))?.acquire().await?;
    let written = match guard.run(work(&service, &guard, id, deposit)).await {
        Ok(written) => written,
        // The lease was lost half-way, and the work was stopped.
        Err(lost) => Err(lost.into()),
    };
    // Whatever came of it, others need not wait for the end of the TTL. If only the answer is late, the release is on its way.
    if let Err(error) = guard.release().await {
        tracing::warn!(%error, account = id, "the release was not confirmed");
    }
    written
}

async fn work(service: &Service, guard: &LockGuard, id: u32, deposit: Deposit) -> Result<Json<Balance>, Refusal> {
    let before = service.accounts.read(id)?;
    // Here somebody else could have written, were it not for the lock.
    tokio::time::sleep(Duration::from_millis(deposit.work_ms)).await;
    let balance = before.balance + deposit.amount;
    service.accounts.write(id, balance, guard.require_fence()?).map(Json)
}

async fn balance(State(service): State<Service>, Path(id): Path<u32>) -> Result<Json<Balance>, Refusal> {
    service.accounts.read(id).map(Json)
}

/// For holders of the lock that are not in this process: they say under which fence they write.
async fn overwrite(
    State(service): State<Service>,
    Path(id): Path<u32>,
    Json(new): Json<Balance>,
) -> Result<Json<Balance>, Refusal> {
    service.accounts.write(id, new.balance, Fence(new.fence)).map(Json)
}

/// Whether every shard is connected, and why not.
async fn health(State(service): State<Service>) -> (StatusCode, String) {
    let away: Vec<String> = service
        .client
        .health()
        .iter()
        .filter_map(|shard| {
            shard
                .last_error()
                .map(|error| format!("shard {}: {error}\n", shard.shard))
        })
        .collect();
    match away.is_empty() {
        true => (StatusCode::OK, "ok\n".to_owned()),
        false => (StatusCode::SERVICE_UNAVAILABLE, away.concat()),
    }
}

/// The table. Each row keeps the fence of its last write, and takes no write under an older one: a holder that was stalled
/// for longer than its lease, and does not know it yet, changes nothing.
struct Accounts(Mutex<Connection>);

impl Accounts {
    fn new(database: Connection) -> Result<Self, rusqlite::Error> {
        database.execute_batch(
            "CREATE TABLE IF NOT EXISTS accounts (
                 id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, fence INTEGER NOT NULL)",
        )?;
        Ok(Self(Mutex::new(database)))
    }

    fn read(&self, id: u32) -> Result<Balance, Refusal> {
        let database = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = database
            .query_row("SELECT balance, fence FROM accounts WHERE id = ?1", [id], |row| {
                let (balance, fence) = (row.get(0)?, row.get::<_, i64>(1)?);
                Ok(Balance {
                    balance,
                    fence: fence as u64,
                })
            })
            .optional()?;
        Ok(found.unwrap_or(Balance { balance: 0, fence: 0 }))
    }

    /// One statement: the comparison of the fences and the write cannot come apart.
    fn write(&self, id: u32, balance: i64, fence: Fence) -> Result<Balance, Refusal> {
        // SQLite compares signed numbers. No server counts that far.
        let signed =
            i64::try_from(fence.0).map_err(|_| Refusal(StatusCode::BAD_REQUEST, format!("{fence} is no fence")))?;
        let database = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = database.execute(
            "INSERT INTO accounts (id, balance, fence) VALUES (?1, ?2, ?3)
             ON CONFLICT (id) DO UPDATE SET balance = ?2, fence = ?3 WHERE fence <= ?3",
            (id, balance, signed),
        )?;
        match changed {
            0 => Err(Refusal(
                StatusCode::CONFLICT,
                format!("fence {fence} is older than the account's last write"),
            )),
            _ => Ok(Balance {
                balance,
                fence: fence.0,
            }),
        }
    }
}

/// What the caller is told instead.
struct Refusal(StatusCode, String);

impl From<dflockd_client::Error> for Refusal {
    fn from(error: dflockd_client::Error) -> Self {
        let status = match error.kind() {
            ErrorKind::InvalidInput => StatusCode::BAD_REQUEST,
            // Somebody else held the account for too long, or the lease was lost half-way: nothing was written.
            ErrorKind::Timeout | ErrorKind::LeaseLost => StatusCode::CONFLICT,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(status, error.to_string())
    }
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, self.1 + "\n").into_response()
    }
}

/// What the environment says of the lock servers, or an embedded one, which must be kept.
async fn lock_servers() -> Result<(Option<Server>, ClientBuilder), dflockd_client::Error> {
    let options = ClientBuilder::from_env()?;
    if ["DFLOCKD_URL", "DFLOCKD_SERVERS"]
        .iter()
        .any(|name| std::env::var_os(name).is_some())
    {
        return Ok((None, options));
    }
    let server = Server::builder().port(0).start().await?;
    let address = server.local_addr().to_string();
    Ok((Some(server), options.servers([address])))
}

/// Cancelled by Ctrl-C and, where there is one, SIGTERM.
fn end_is_wanted() -> std::io::Result<CancellationToken> {
    let end = CancellationToken::new();
    let wanted = end.clone();
    #[cfg(unix)]
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::spawn(async move {
        #[cfg(unix)]
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        #[cfg(not(unix))]
        drop(tokio::signal::ctrl_c().await);
        wanted.cancel();
    });
    Ok(end)
}

/// Prints a line. Whoever read the address may have closed the pipe since: no reason to end.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}
