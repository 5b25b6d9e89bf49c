//! A small web service with one lock per account, a database that refuses stale writers, metrics, and a shutdown that releases all locks.
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
//! | `DFLOCKD_URL`, or `DFLOCKD_SERVERS` and others | an embedded server | lock servers, and how to talk to them: `docs/guide/src/configuration.md` |
//! | `RUST_LOG` | `info` | what is logged |
//!
//! The lock servers must issue fences: release 2.1 or later. With an earlier one the service does not start, and says
//! why: such a server issues none, so the database could not refuse stale writers. If such a server replaces a newer
//! one later, it is not used: deposits are refused with 503, and `/health` says why.
//!
//! A deposit is a read, some work and a write; only the lock keeps other requests from doing the same in between. A layer around the
//! handler acquires the lock, and stops the handler if the lease is lost; the handler gets the fence, and knows nothing of locks. SIGTERM
//! or Ctrl-C: no new requests; requests under way may finish for ten seconds; then all leases are released.

use std::convert::Infallible;
use std::error::Error;
use std::future::{IntoFuture, ready};
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::error_handling::HandleErrorLayer;
use axum::extract::{Extension, Path, Request, State};
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use dflockd_client::server::Server;
use dflockd_client::{Client, ClientBuilder, ErrorKind, Fence, Fencing, KeyedError, LockLayer, prometheus};
use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;

/// How long requests may take to finish after the signal.
const GRACE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .with_writer(std::io::stderr)
        .init();
    // Before the client is built: metrics that are registered without a recorder are lost.
    let metrics = prometheus::install()?;
    let mut options = ClientBuilder::from_env()?;
    let mut embedded = None;
    let names = ["DFLOCKD_URL", "DFLOCKD_SERVERS"];
    if names.iter().all(|name| std::env::var_os(name).is_none()) {
        let server = embedded.insert(Server::builder().port(0).start().await?);
        options = options.servers([server.local_addr().to_string()]);
    }
    let client = options
        .lease_ttl(Duration::from_secs(10))
        // The database compares fences, so a lock without a fence would be useless.
        .fencing(Fencing::Required)
        // The first part of a key is its class, and has few values.
        .key_class(|key| key.split('/').next().unwrap_or("other"))
        .on_lost(|lost| tracing::warn!(key = %lost.key, reason = %lost.reason, "a lease was lost under its request"))
        .connect()
        .await?;
    let database = match std::env::var("SERVICE_DATABASE") {
        Ok(path) => Connection::open(path)?,
        Err(_) => Connection::open_in_memory()?,
    };
    let locks = LockLayer::new(&client, key).on_acquired(|request, guard| {
        if let Some(fence) = guard.fence() {
            request.extensions_mut().insert(fence);
        }
    });
    let watched = client.clone();
    let app = Router::new()
        .route("/accounts/{id}/deposits", post(deposit))
        .layer(ServiceBuilder::new().layer(HandleErrorLayer::new(refuse)).layer(locks))
        .route("/accounts/{id}", get(balance))
        .route("/accounts/{id}/balance", put(overwrite))
        .route("/metrics", get(move || ready(metrics.render())))
        .route("/health", get(move || ready(health(&watched))))
        .with_state(Arc::new(Accounts::new(database)?));

    let listen = std::env::var("SERVICE_LISTEN").unwrap_or_else(|_| "127.0.0.1:8080".to_owned());
    let listener = tokio::net::TcpListener::bind(&listen)
        .await
        .map_err(|error| format!("cannot listen on {listen} (SERVICE_LISTEN): {error}"))?;
    let (address, end_is_wanted) = (listener.local_addr()?, end_is_wanted()?);
    // The reader may have closed the pipe meanwhile, which is no reason to end.
    drop(writeln!(std::io::stdout(), "listening on http://{address}"));
    let end = CancellationToken::new();
    let served = axum::serve(listener, app).with_graceful_shutdown(end.clone().cancelled_owned());
    let served = tokio::spawn(served.into_future());
    end_is_wanted.await;
    end.cancel();
    if tokio::time::timeout(GRACE, served).await.is_err() {
        tracing::warn!("requests are still under way after {GRACE:?}: their leases are taken from them");
    }
    // Handlers that are left are stopped, as their leases are lost.
    let report = client.shutdown(Duration::from_secs(5)).await;
    for key in &report.unreleased {
        tracing::warn!(%key, "not given back: it ends with its TTL");
    }
    tracing::info!(
        "ended: {} leases given back, {} not",
        report.released,
        report.unreleased.len()
    );
    Ok(())
}

/// Returns the lock's key of an account, however its number is written. An empty key is refused as invalid, and no handler runs.
fn key(request: &Request) -> String {
    let id = request.uri().path().split('/').nth(2).map(str::parse::<u32>);
    id.and_then(Result::ok)
        .map_or_else(String::new, |id| format!("accounts/{id}"))
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
    fence: Fence,
}

/// Reads, works and writes under the lock of the account, and only as long as it is held.
async fn deposit(
    State(accounts): State<Arc<Accounts>>,
    Path(id): Path<u32>,
    Extension(fence): Extension<Fence>,
    Json(deposit): Json<Deposit>,
) -> Result<Json<Balance>, Refusal> {
    let before = accounts.read(id)?;
    // Without the lock, another request could write here.
    tokio::time::sleep(Duration::from_millis(deposit.work_ms)).await;
    accounts.write(id, before.balance + deposit.amount, fence).map(Json)
}

async fn balance(State(accounts): State<Arc<Accounts>>, Path(id): Path<u32>) -> Result<Json<Balance>, Refusal> {
    accounts.read(id).map(Json)
}

/// Sets a balance, for holders of the lock outside of this process, which send their fence.
async fn overwrite(
    State(accounts): State<Arc<Accounts>>,
    Path(id): Path<u32>,
    Json(new): Json<Balance>,
) -> Result<Json<Balance>, Refusal> {
    accounts.write(id, new.balance, new.fence).map(Json)
}

/// Returns whether every shard is connected, and the reasons if not.
fn health(client: &Client) -> (StatusCode, String) {
    let shards = client.health();
    let away = shards.iter().filter(|shard| shard.last_error().is_some());
    match away.map(|shard| format!("{shard}\n")).collect::<String>() {
        away if away.is_empty() => (StatusCode::OK, "ok\n".to_owned()),
        away => (StatusCode::SERVICE_UNAVAILABLE, away),
    }
}

/// The table. Each row has the fence of its last write, and refuses a write with an older one: a holder that was stalled for longer than
/// its lease changes nothing.
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
        let sql = "SELECT balance, fence FROM accounts WHERE id = ?1";
        let found = database.query_row(sql, [id], |row| Ok((row.get(0)?, row.get(1)?)));
        let (balance, fence) = found.optional().map_err(unusable)?.unwrap_or_default();
        Ok(Balance {
            balance,
            fence: Fence(fence),
        })
    }

    /// Writes with one statement that also compares the fences, so that no other write can come in between.
    fn write(&self, id: u32, balance: i64, fence: Fence) -> Result<Balance, Refusal> {
        let sql = "INSERT INTO accounts (id, balance, fence) VALUES (?1, ?2, ?3)
                   ON CONFLICT (id) DO UPDATE SET balance = ?2, fence = ?3 WHERE fence <= ?3";
        let database = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match database.execute(sql, (id, balance, fence.0)).map_err(unusable)? {
            0 => Err((
                StatusCode::CONFLICT,
                format!("fence {fence} is older than the account's last write\n"),
            )),
            _ => Ok(Balance { balance, fence }),
        }
    }
}

/// The error that a caller gets.
type Refusal = (StatusCode, String);

/// The handlers of a router cannot fail, so the error is about the lease: it was not granted, or was lost.
async fn refuse(error: KeyedError<Infallible>) -> Refusal {
    let status = match &error {
        KeyedError::Lease(error) => match error.kind() {
            ErrorKind::InvalidInput => StatusCode::BAD_REQUEST,
            // Another request held the account for too long, or the lease was lost half-way: nothing was written.
            ErrorKind::Timeout | ErrorKind::LeaseLost => StatusCode::CONFLICT,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        },
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, format!("{error}\n"))
}

fn unusable(error: rusqlite::Error) -> Refusal {
    let status = match error {
        // SQLite's numbers are signed. No server counts that far.
        rusqlite::Error::ToSqlConversionFailure(_) => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, format!("{error}\n"))
}

/// Listens for Ctrl-C and, on Unix, SIGTERM; the future is ready when one comes.
fn end_is_wanted() -> std::io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    Ok(async move {
        #[cfg(unix)]
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        #[cfg(not(unix))]
        drop(tokio::signal::ctrl_c().await);
    })
}
