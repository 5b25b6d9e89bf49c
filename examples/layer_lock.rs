//! An axum service that runs in several processes. At any time, all processes together handle at most one deposit to
//! each account (`LockLayer`), and at most two reports (`SemaphoreLayer`).
//!
//!     cargo run --example layer_lock
//!
//! The handlers have no code for locks. The handler of deposits gets the fence in the extensions of the request, and
//! passes it to the database. If the lease is lost, the layer stops the handler.
//!
//! In this example, two clients in one process take the place of two processes. The requests do not use sockets.

mod common;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::error_handling::HandleErrorLayer;
use axum::extract::{Extension, Path, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{BoxError, Router};
use common::Story;
use dflockd_client::{Client, ErrorKind, Fence, Fencing, KeyedError, LockLayer, SemaphoreLayer};
use tower::{ServiceBuilder, ServiceExt};

/// The database that both processes write to.
#[derive(Default)]
struct Database {
    balance: AtomicU64,
    /// The largest fence of all writes so far. A write with a smaller fence is late.
    fence: AtomicU64,
    reports: AtomicUsize,
    reports_at_once: AtomicUsize,
}

fn app(client: &Client, database: &Arc<Database>) -> Result<Router, dflockd_client::Error> {
    let locks = LockLayer::new(client, |request: &Request| account(request))
        .acquire_timeout(Duration::from_secs(10))
        .on_acquired(|request, guard| {
            // The guard always has a fence, because the client requires fences.
            if let Some(fence) = guard.fence() {
                request.extensions_mut().insert(fence);
            }
        });
    // If no slot is free, the request is refused at once.
    let slots = SemaphoreLayer::new(client, |_: &Request| "reports", 2)?.acquire_timeout(Duration::ZERO);
    let deposits = Router::new()
        .route("/accounts/{id}/deposits", post(deposit))
        .layer(ServiceBuilder::new().layer(HandleErrorLayer::new(refuse)).layer(locks))
        .layer(from_fn(read_account));
    let reports = Router::new()
        .route("/reports", get(report))
        .layer(ServiceBuilder::new().layer(HandleErrorLayer::new(refuse)).layer(slots));
    Ok(deposits.merge(reports).with_state(Arc::clone(database)))
}

/// The account number of a request.
#[derive(Clone, Copy)]
struct Account(u64);

/// Reads the account number from the path before the lock layer needs it. Refuses a path without a number.
async fn read_account(Path(number): Path<u64>, mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(Account(number));
    next.run(request).await
}

/// Returns the key of the lock, for example `accounts/7` for `/accounts/7/deposits`. The key has the number instead of
/// the text of the path, because `/accounts/%37/deposits` and `/accounts/007/deposits` are the same account. So these
/// requests exclude each other.
fn account(request: &Request) -> Option<String> {
    let Account(number) = request.extensions().get()?;
    Some(format!("accounts/{number}"))
}

/// Converts an error of a layer to a response. The handlers of a router cannot fail, so the error is always about the
/// lease.
async fn refuse(error: KeyedError<Infallible>) -> Response {
    let error = match error {
        KeyedError::Lease(error) => error,
        other => return (StatusCode::INTERNAL_SERVER_ERROR, format!("{other}\n")).into_response(),
    };
    let status = match error.kind() {
        ErrorKind::InvalidInput => StatusCode::BAD_REQUEST,
        // Other requests held the lock, or all slots, for longer than this request may wait.
        ErrorKind::Timeout => StatusCode::TOO_MANY_REQUESTS,
        // The handler was stopped before its end. The sender of the request must check what the handler has done.
        ErrorKind::LeaseLost => StatusCode::CONFLICT,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, format!("{error}\n")).into_response()
}

/// Reads the balance, works, and writes the new balance. Only the lock prevents another deposit in the meantime.
async fn deposit(State(database): State<Arc<Database>>, Extension(fence): Extension<Fence>) -> Response {
    if database.fence.fetch_max(fence.0, Ordering::SeqCst) > fence.0 {
        return (StatusCode::CONFLICT, "a later request has written\n").into_response();
    }
    let before = database.balance.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(2)).await;
    database.balance.store(before + 1, Ordering::SeqCst);
    format!("{}\n", before + 1).into_response()
}

async fn report(State(database): State<Arc<Database>>) -> &'static str {
    let now = database.reports.fetch_add(1, Ordering::SeqCst) + 1;
    database.reports_at_once.fetch_max(now, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(20)).await;
    database.reports.fetch_sub(1, Ordering::SeqCst);
    "the report\n"
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let story = Story::begin();
    let (first, servers) = common::connect(Fencing::Required, 1).await?;
    let second = match servers.first() {
        Some(server) => {
            let builder = Client::builder().servers([server.local_addr().to_string()]);
            builder.fencing(Fencing::Required).connect().await?
        }
        None => common::connect(Fencing::Required, 1).await?.0,
    };
    let database = Arc::new(Database::default());
    let fleet = [app(&first, &database)?, app(&second, &database)?];

    let mut deposits = tokio::task::JoinSet::new();
    for number in 0..40 {
        let app = fleet[number % 2].clone();
        // Three ways to write the path of the same account.
        let path = [
            "/accounts/7/deposits",
            "/accounts/%37/deposits",
            "/accounts/007/deposits",
        ][number % 3];
        deposits.spawn(async move { ask(app, "POST", path).await });
    }
    for status in deposits.join_all().await {
        assert_eq!(status?, StatusCode::OK);
    }
    let balance = database.balance.load(Ordering::SeqCst);
    story.tell(format!(
        "40 deposits to one account, by two processes: the balance is {balance}"
    ));
    assert_eq!(balance, 40);

    let mut reports = tokio::task::JoinSet::new();
    for number in 0..8 {
        let app = fleet[number % 2].clone();
        reports.spawn(async move { ask(app, "GET", "/reports").await });
    }
    let mut refused = 0;
    for status in reports.join_all().await {
        match status? {
            StatusCode::OK => {}
            StatusCode::TOO_MANY_REQUESTS => refused += 1,
            other => return Err(format!("a report was answered with {other}").into()),
        }
    }
    let at_once = database.reports_at_once.load(Ordering::SeqCst);
    story.tell(format!("8 reports: {at_once} at once at most, {refused} refused"));
    assert!(at_once <= 2);

    let status = ask(fleet[0].clone(), "POST", "/accounts/seven/deposits").await?;
    story.tell(format!("an account that is not a number: {status}"));
    assert_eq!(status, StatusCode::BAD_REQUEST);
    Ok(())
}

async fn ask(app: Router, method: &str, path: &str) -> Result<StatusCode, BoxError> {
    let request = Request::builder().method(method).uri(path).body(Body::empty())?;
    Ok(app.oneshot(request).await?.status())
}
