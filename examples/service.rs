//! A small web service with a lock for each account. Its database refuses stale writes. It also has metrics, and a
//! shutdown that releases all locks.
//!
//!     cargo run --example service
//!     curl -X POST 'http://127.0.0.1:8080/accounts/7/deposits' -H 'content-type: application/json' -d '{"amount": 5}'
//!     curl 'http://127.0.0.1:8080/accounts/7'
//!     curl 'http://127.0.0.1:8080/metrics'
//!
//! | environment | default | |
//! | --- | --- | --- |
//! | `SERVICE_LISTEN` | `127.0.0.1:8080` | the address at which it serves |
//! | `SERVICE_DATABASE` | in memory | the SQLite file |
//! | `DFLOCKD_URL`, or `DFLOCKD_SERVERS` and others | an embedded server | lock servers, client settings |
//! | `RUST_LOG` | `info` | what is logged |
//!
//! `docs/guide/src/configuration.md` lists all variables of the client.
//!
//! The lock servers must be of release 2.1 or later, because the database needs fences to refuse stale writes. With a
//! server of an earlier release, the service prints why it cannot start, and ends. If such a server replaces the lock
//! server while the service runs, the service refuses deposits with status 503, and `/health` says why.
//!
//! A deposit reads the balance, works, and writes the new balance. Only the lock prevents another deposit to the
//! account in the meantime. A layer around the handler acquires the lock, and stops the handler if the lease is lost.
//! The handler gets only the fence, and has no code for locks.
//!
//! After SIGTERM or Ctrl-C, the service accepts no new requests. It waits up to ten seconds for running requests, and
//! then releases all leases.

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

/// After SIGTERM or Ctrl-C, requests may continue for this time.
const GRACE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .with_writer(std::io::stderr)
        .init();
    // This must happen before the client is built. Metrics that are registered without a recorder are lost.
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
        // The database compares fences, so each lock must have one.
        .fencing(Fencing::Required)
        // The class of a key is a label of metrics. It must have few values, so it is the first part of the key.
        .key_class(|key| key.split('/').next().unwrap_or("other"))
        .on_lost(
            |lost| tracing::warn!(key = %lost.key, reason = %lost.reason, "a lease was lost while its request ran"),
        )
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
    // The service continues even if this line cannot be written, for example because a pipe is closed.
    drop(writeln!(std::io::stdout(), "listening on http://{address}"));
    let end = CancellationToken::new();
    let served = axum::serve(listener, app).with_graceful_shutdown(end.clone().cancelled_owned());
    let served = tokio::spawn(served.into_future());
    end_is_wanted.await;
    end.cancel();
    if tokio::time::timeout(GRACE, served).await.is_err() {
        tracing::warn!("requests still run after {GRACE:?}: the shutdown ends their leases");
    }
    // The shutdown ends all leases. So the layer stops the handlers that still run.
    let report = client.shutdown(Duration::from_secs(5)).await;
    for key in &report.unreleased {
        tracing::warn!(%key, "a lease was not released: it ends with its TTL");
    }
    tracing::info!(
        "ended: {} leases released, {} not released",
        report.released,
        report.unreleased.len()
    );
    Ok(())
}

/// Returns the key of the account's lock. It is the same for `/accounts/7/deposits` and `/accounts/007/deposits`. If
/// the path has no valid number, the key is empty. The client refuses an empty key, and the handler does not run.
fn key(request: &Request) -> String {
    let id = request.uri().path().split('/').nth(2).map(str::parse::<u32>);
    id.and_then(Result::ok)
        .map_or_else(String::new, |id| format!("accounts/{id}"))
}

#[derive(Deserialize)]
struct Deposit {
    amount: i64,
    /// How long the work between the read and the write takes, in milliseconds.
    #[serde(default)]
    work_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct Balance {
    balance: i64,
    /// The fence of the last write.
    fence: Fence,
}

/// Reads the balance, works, and writes the new balance. The layer holds the lock of the account meanwhile.
async fn deposit(
    State(accounts): State<Arc<Accounts>>,
    Path(id): Path<u32>,
    Extension(fence): Extension<Fence>,
    Json(deposit): Json<Deposit>,
) -> Result<Json<Balance>, Refusal> {
    let before = accounts.read(id)?;
    // Without the lock, another deposit could write to the account during this work.
    tokio::time::sleep(Duration::from_millis(deposit.work_ms)).await;
    accounts.write(id, before.balance + deposit.amount, fence).map(Json)
}

async fn balance(State(accounts): State<Arc<Accounts>>, Path(id): Path<u32>) -> Result<Json<Balance>, Refusal> {
    accounts.read(id).map(Json)
}

/// Sets a balance. Holders of the lock in other processes use this request, and send their fence with it.
async fn overwrite(
    State(accounts): State<Arc<Accounts>>,
    Path(id): Path<u32>,
    Json(new): Json<Balance>,
) -> Result<Json<Balance>, Refusal> {
    accounts.write(id, new.balance, new.fence).map(Json)
}

/// Returns status 200 if every shard is connected. Otherwise returns status 503 and the states of all unconnected
/// shards.
fn health(client: &Client) -> (StatusCode, String) {
    let shards = client.health();
    let away = shards.iter().filter(|shard| !shard.is_connected());
    match away.map(|shard| format!("{shard}\n")).collect::<String>() {
        away if away.is_empty() => (StatusCode::OK, "ok\n".to_owned()),
        away => (StatusCode::SERVICE_UNAVAILABLE, away),
    }
}

/// The table of accounts. Each row has the fence of its last write, and refuses a write with an older fence. So a
/// holder that stalled until its lease was over cannot overwrite the data of a later holder.
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

    /// Compares the fences and writes in one statement, so that no other write can happen in between.
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

/// The status and the text of an error response.
type Refusal = (StatusCode, String);

/// Converts an error of the lock layer to a response. The handlers of a router cannot fail. So the error means that the
/// lease was not granted, or was lost.
async fn refuse(error: KeyedError<Infallible>) -> Refusal {
    let status = match &error {
        KeyedError::Lease(error) => match error.kind() {
            ErrorKind::InvalidInput => StatusCode::BAD_REQUEST,
            // `Timeout`: other requests held the lock for too long, and nothing was written. `LeaseLost`: the lease
            // ended while the handler ran. The handler may have written before the lease ended.
            ErrorKind::Timeout | ErrorKind::LeaseLost => StatusCode::CONFLICT,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        },
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, format!("{error}\n"))
}

fn unusable(error: rusqlite::Error) -> Refusal {
    let status = match error {
        // SQLite's integers are signed, so they cannot store the largest fences. No server issues fences that large.
        rusqlite::Error::ToSqlConversionFailure(_) => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, format!("{error}\n"))
}

/// Returns a future that resolves when the process gets Ctrl-C or, on Unix, SIGTERM.
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
