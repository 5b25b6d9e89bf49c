//! Connectors that fail, panic, hang, and are not ready.

use std::error::Error as _;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use dflockd_client::{Client, Endpoint, Error, ErrorKind};
use tokio::io::DuplexStream;
use tokio::time::timeout;
use tower::{Service, service_fn};

use super::{NAME, Network, builder, served};
use crate::support::until;

const SOON: Duration = Duration::from_secs(30);

#[derive(Debug, PartialEq)]
struct TunnelError(u32);

impl std::fmt::Display for TunnelError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the tunnel answered {}", self.0)
    }
}

impl std::error::Error for TunnelError {}

/// Asserts that the source of this error is the connector's own error, and that the text of this error does not repeat
/// the source.
fn was_refused_by_the_tunnel(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(error.is_retryable() && !error.is_fatal());
    assert_eq!(error.endpoint(), Some(NAME));
    let source = error.source().expect("the error has a source");
    assert_eq!(source.downcast_ref(), Some(&TunnelError(403)));
    assert_eq!(
        error.to_string(),
        format!("the connector of this client opened no connection (server {NAME})")
    );
}

#[tokio::test]
async fn a_connectors_error_is_the_source_of_the_clients_error() {
    let refuse = service_fn(|_: Endpoint| async { Err::<DuplexStream, _>(TunnelError(403)) });
    was_refused_by_the_tunnel(&builder().connector(refuse).connect().await.unwrap_err());
    // Many services have a boxed error type.
    let refuse = service_fn(|_: Endpoint| async {
        Err::<DuplexStream, Box<dyn std::error::Error + Send + Sync>>(TunnelError(403).into())
    });
    was_refused_by_the_tunnel(&builder().connector(refuse).connect().await.unwrap_err());
}

/// A caller whose timeout ends while the connector fails also gets the connector's error as the source.
#[tokio::test]
async fn callers_get_a_connectors_error_as_the_source() {
    let refuse = service_fn(|_: Endpoint| async { Err::<DuplexStream, _>(TunnelError(403)) });
    let client = builder().connector(refuse).build().unwrap();
    let lock = client.lock("k").unwrap().acquire_timeout(Duration::from_millis(100));
    let error = lock.acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let source = error.source().expect("the error has a source");
    assert_eq!(source.downcast_ref(), Some(&TunnelError(403)), "{error}");
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    RefusesInPollReady,
    PanicsInClone,
    PanicsInPollReady,
    PanicsInCall,
    PanicsLater,
    /// The future never completes, and panics when it is dropped.
    HangsAndPanicsWhenItIsDropped,
}

/// A connector that has this fault while `is_on` is true. It also checks that it is called only when it is ready.
struct Faulty {
    network: Network,
    fault: Fault,
    is_on: Arc<AtomicBool>,
    /// Whether `poll_ready` was called. The first call returns pending, and the next call returns ready.
    was_polled: bool,
    is_ready: bool,
}

impl Faulty {
    fn does(&self, fault: Fault) -> bool {
        self.fault == fault && self.is_on.load(Ordering::SeqCst)
    }
}

/// A clone is not ready, even if the original is.
impl Clone for Faulty {
    fn clone(&self) -> Self {
        assert!(!self.does(Fault::PanicsInClone), "the connector has a bug");
        Self {
            network: self.network.clone(),
            fault: self.fault,
            is_on: Arc::clone(&self.is_on),
            was_polled: false,
            is_ready: false,
        }
    }
}

impl Service<Endpoint> for Faulty {
    type Response = DuplexStream;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<DuplexStream, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        assert!(!self.does(Fault::PanicsInPollReady), "the connector has a bug");
        if self.does(Fault::RefusesInPollReady) {
            return Poll::Ready(Err(TunnelError(403).into()));
        }
        if !self.was_polled {
            self.was_polled = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, endpoint: Endpoint) -> Self::Future {
        assert!(self.is_ready, "it was called before it was ready");
        assert!(!self.does(Fault::PanicsInCall), "the connector has a bug");
        let panics_later = self.does(Fault::PanicsLater);
        let hangs = self.does(Fault::HangsAndPanicsWhenItIsDropped);
        let network = self.network.clone();
        Box::pin(async move {
            tokio::task::yield_now().await;
            assert!(!panics_later, "the connector has a bug");
            if hangs {
                let _bug = Bug;
                pending::<()>().await;
            }
            Ok(network.pipe(&endpoint).await?)
        })
    }
}

struct Bug;

impl Drop for Bug {
    fn drop(&mut self) {
        panic!("the connector has a bug");
    }
}

/// While the connector has a fault, attempts fail. The first attempt after the fault succeeds, and the client works.
#[tokio::test]
async fn a_faulty_connector_costs_one_attempt_only() {
    for fault in [
        Fault::RefusesInPollReady,
        Fault::PanicsInClone,
        Fault::PanicsInPollReady,
        Fault::PanicsInCall,
        Fault::PanicsLater,
        Fault::HangsAndPanicsWhenItIsDropped,
    ] {
        let (_server, network) = served().await;
        let is_on = Arc::new(AtomicBool::new(false));
        let connector = Faulty {
            network,
            fault,
            is_on: Arc::clone(&is_on),
            was_polled: false,
            is_ready: false,
        };
        let builder = builder()
            .connect_timeout(Duration::from_millis(200))
            .connector(connector);
        is_on.store(true, Ordering::SeqCst);
        let client = builder.build().unwrap();
        let mut health = client.watch_health(0).unwrap();
        let failed = health.wait_for(|health| health.last_error().is_some());
        let error = timeout(SOON, failed)
            .await
            .unwrap()
            .unwrap()
            .last_error()
            .unwrap()
            .clone();
        match fault {
            Fault::RefusesInPollReady => was_refused_by_the_tunnel(&error),
            _ => {
                assert_eq!(error.kind(), ErrorKind::Connect, "{fault:?}: {error}");
                let said = format!("the attempt to connect panicked: the connector has a bug (server {NAME})");
                assert_eq!(error.to_string(), said, "{fault:?}");
            }
        }
        is_on.store(false, Ordering::SeqCst);
        let guard = client.lock("k").unwrap().acquire_timeout(SOON).acquire().await.unwrap();
        // While the connection for stats is opened, the same fault affects only the caller of `stats`.
        is_on.store(true, Ordering::SeqCst);
        let mut stats = Box::pin(client.stats());
        let meanwhile = timeout(Duration::from_millis(300), &mut stats).await;
        assert!(!matches!(meanwhile, Ok(Ok(_))), "{fault:?}: {meanwhile:?}");
        assert!(guard.is_held());
        is_on.store(false, Ordering::SeqCst);
        drop(stats);
        client.stats().await.unwrap();
        guard.release().await.unwrap();
    }
}

/// Counts the instances of this type that exist.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn one_more(of: &Arc<AtomicUsize>) -> Self {
        of.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(of))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn hanging(
    alive: &Arc<AtomicUsize>,
) -> impl Service<Endpoint, Response = DuplexStream, Error = io::Error, Future: Send + 'static>
+ Clone
+ Send
+ Sync
+ 'static
+ use<> {
    let alive = Arc::clone(alive);
    service_fn(move |_| {
        let alive = Alive::one_more(&alive);
        async move {
            let _alive = alive;
            pending().await
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_connector_that_hangs_is_given_up_after_the_connect_timeout() {
    let alive = Arc::default();
    let builder = builder()
        .connector(hanging(&alive))
        .connect_timeout(Duration::from_secs(7));
    let began = tokio::time::Instant::now();
    let error = builder.connect().await.unwrap_err();
    assert_eq!(began.elapsed().as_secs(), 7);
    assert_eq!(error.kind(), ErrorKind::Connect);
    for part in ["the connect timeout of 7s", "the address and the connector", NAME] {
        assert!(error.to_string().contains(part), "{error}");
    }
    until("its future is dropped", || alive.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_connector_that_is_never_ready_is_given_up_after_the_connect_timeout() {
    #[derive(Clone)]
    struct Never;

    impl Service<Endpoint> for Never {
        type Response = DuplexStream;
        type Error = io::Error;
        type Future = std::future::Ready<io::Result<DuplexStream>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn call(&mut self, _: Endpoint) -> Self::Future {
            panic!("it is called before it is ready")
        }
    }

    let error = builder().connector(Never).connect().await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Connect && error.to_string().contains("timeout of 10s"),
        "{error}"
    );
}

#[tokio::test]
async fn a_connectors_future_is_dropped_with_the_client() {
    let alive = Arc::default();
    let client: Client = builder().connector(hanging(&alive)).build().unwrap();
    until("the connector is called", || alive.load(Ordering::SeqCst) > 0).await;
    drop(client);
    until("its future is dropped", || alive.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_slow_attempt_does_not_delay_other_connections() {
    let (_server, network) = served().await;
    let calls = Arc::new(AtomicUsize::new(0));
    let opened = Arc::new(tokio::sync::Notify::new());
    let connector = service_fn({
        let (calls, opened) = (Arc::clone(&calls), Arc::clone(&opened));
        move |endpoint: Endpoint| {
            let (network, opened) = (network.clone(), Arc::clone(&opened));
            let is_second = calls.fetch_add(1, Ordering::SeqCst) == 1;
            async move {
                if is_second {
                    opened.notified().await;
                }
                network.pipe(&endpoint).await
            }
        }
    });
    let client = builder().connector(connector).connect().await.unwrap();
    // The client opens three connections, in this order: the pipelined connection, a connection for stats, and a
    // connection for the wait.
    let (guard, other) = (
        client.lock("k").unwrap().acquire().await.unwrap(),
        client.lock("k").unwrap(),
    );
    let mut stats = Box::pin(client.stats());
    let waits = poll_fn(|cx| match stats.as_mut().poll(cx) {
        Poll::Ready(stats) => panic!("{stats:?}"),
        Poll::Pending if calls.load(Ordering::SeqCst) == 2 => Poll::Ready(()),
        Poll::Pending => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    });
    timeout(SOON, waits).await.unwrap();
    let waiting = tokio::spawn(async move { other.acquire().await });
    until("the wait has a connection", || calls.load(Ordering::SeqCst) == 3).await;
    guard.release().await.unwrap();
    let guard = waiting.await.unwrap().unwrap();
    opened.notify_one();
    stats.await.unwrap();
    guard.release().await.unwrap();
}
