//! Tests of clients in a runtime that has timers but no I/O. The clock of the runtime is paused.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dflockd_client::{Endpoint, ErrorKind, SignalConn, SignalOptions};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, duplex};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;
use tower::service_fn;

use super::builder;

/// A server that grants every acquire.
async fn serve(stream: DuplexStream, renewals: Arc<AtomicU64>) {
    let (reading, mut writing) = tokio::io::split(stream);
    let mut lines = BufReader::new(reading).lines();
    while let Ok(Some(command)) = lines.next_line().await {
        let (Ok(Some(_key)), Ok(Some(_argument))) = (lines.next_line().await, lines.next_line().await) else {
            return;
        };
        let answer = match command.as_str() {
            "l" => "ok 11112222333344445555666677778888 33\n",
            "n" => {
                renewals.fetch_add(1, Ordering::SeqCst);
                "ok 33\n"
            }
            _ => "ok\n",
        };
        if writing.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn timers_only() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap()
}

#[test]
fn timers_are_enough() {
    timers_only().block_on(async {
        let renewals = Arc::new(AtomicU64::new(0));
        let connector = service_fn({
            let renewals = Arc::clone(&renewals);
            move |_: Endpoint| {
                let (near, far) = duplex(64);
                tokio::spawn(serve(far, Arc::clone(&renewals)));
                async { Ok::<_, io::Error>(near) }
            }
        });
        let began = Instant::now();
        let client = builder().connector(connector.clone()).connect().await.unwrap();
        let guard = client.lock("k").unwrap().acquire().await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
        let lost = tokio::time::timeout(Duration::from_secs(3600), guard.lost()).await;
        assert!(lost.is_err(), "{lost:?}");
        // The TTL is 33 s. The time before each renewal is half of the TTL, or up to a tenth less.
        let renewals = renewals.load(Ordering::SeqCst);
        assert!((3600 / 17..=3600 / 14).contains(&renewals), "{renewals}");
        guard.release().await.unwrap();
        SignalConn::open(builder().connector(connector), SignalOptions::default())
            .await
            .unwrap();
    });
}

/// The number of the machine that runs now. A stream leads to the machine that ran when the stream was opened.
#[derive(Clone, Default)]
struct CurrentMachine(Arc<AtomicU64>);

impl CurrentMachine {
    /// At the first machine, another caller holds the key. Later machines grant every acquire. A machine that no longer
    /// runs sends nothing, not even the end of the stream.
    async fn serve(self, stream: DuplexStream) {
        let number = self.0.load(Ordering::SeqCst);
        let (reading, mut writing) = tokio::io::split(stream);
        let mut lines = BufReader::new(reading).lines();
        while let Ok(Some(command)) = lines.next_line().await {
            let (Ok(Some(_key)), Ok(Some(argument))) = (lines.next_line().await, lines.next_line().await) else {
                return;
            };
            let answer = match command.as_str() {
                _ if number != self.0.load(Ordering::SeqCst) => continue,
                "l" if number > 0 => "ok 11112222333344445555666677778888 33\n",
                "l" if argument.starts_with("0") => "timeout\n",
                "l" => continue,
                "n" => "ok 33\n",
                _ => "ok\n",
            };
            if writing.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// When a machine stops, no kernel reports this to a stream of a connector. Also, a connection that waits for a lock
/// may get no answer for a long time. So only keepalives can show that the machine has stopped.
#[test]
fn a_wait_does_not_stay_at_a_machine_that_is_gone() {
    timers_only().block_on(async {
        let machine = CurrentMachine::default();
        let connector = service_fn({
            let machine = machine.clone();
            move |_: Endpoint| {
                let (near, far) = duplex(4096);
                tokio::spawn(machine.clone().serve(far));
                async { Ok::<_, io::Error>(near) }
            }
        });
        let hour = Duration::from_secs(3600);
        let client = builder()
            .connector(connector)
            .acquire_timeout(hour)
            .connect()
            .await
            .unwrap();
        let lock = client.lock("k").unwrap();
        let waiting = tokio::spawn(async move { lock.acquire().await });
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(!waiting.is_finished());
        machine.0.fetch_add(1, Ordering::SeqCst);
        let gone = Instant::now();
        waiting.await.unwrap().unwrap().release().await.unwrap();
        // 30 s is enough for the keepalive interval, the reply timeout, and the pauses before the next connections.
        assert!(gone.elapsed() < Duration::from_secs(30), "{:?}", gone.elapsed());
    });
}

/// A client needs timers, whatever its connector does.
#[test]
fn timers_are_needed() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let connector = service_fn(|_: Endpoint| async { Err::<DuplexStream, _>(io::Error::other("nowhere")) });
    let build = || builder().connector(connector).build();
    let error = runtime.block_on(async { build().unwrap_err() });
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().ends_with("`enable_time`, or `enable_all`"), "{error}");
}
