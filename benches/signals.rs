//! Measures how long the embedded server takes for 100 signals if another connection subscribes to many other channels.
//!
//! The signals go to channels without listeners. So the server looks for listeners, and delivers nothing. The publisher
//! writes 100 signals at once, so that the network round trip hardly counts.
#![allow(clippy::unwrap_used, missing_docs)]

use bytes::BytesMut;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dflockd_client::protocol::{Channel, Pattern, Payload, Request};
use dflockd_client::server::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Builder;

/// The number of signals in one write.
const BATCH: usize = 100;

/// Sends the requests, and reads answers until there are `answers` lines.
async fn exchange(stream: &mut TcpStream, requests: &[u8], answers: usize) {
    let (mut reader, mut writer) = stream.split();
    let mut buffer = vec![0; 64 * 1024];
    let mut lines = 0;
    let write = writer.write_all(requests);
    let read = async {
        while lines < answers {
            let count = reader.read(&mut buffer).await.unwrap();
            assert!(count > 0, "the server closed");
            lines += buffer[..count].iter().filter(|byte| **byte == b'\n').count();
        }
    };
    let (written, ()) = tokio::join!(write, read);
    written.unwrap();
}

/// Returns a connection that listens to `count` patterns. No pattern matches a channel of [`signals`].
async fn other_subscriber(address: &str, count: usize, pattern: impl Fn(usize) -> String) -> TcpStream {
    let mut requests = BytesMut::new();
    for number in 0..count {
        let pattern = Pattern::new(pattern(number)).unwrap();
        Request::Listen { pattern, group: None }.encode(&mut requests);
    }
    let mut stream = TcpStream::connect(address).await.unwrap();
    exchange(&mut stream, &requests, count).await;
    stream
}

fn signals() -> BytesMut {
    let mut requests = BytesMut::new();
    for number in 0..BATCH {
        let channel = Channel::new(format!("orders.{number}.new")).unwrap();
        let payload = Payload::new(&channel, "x").unwrap();
        Request::Signal { channel, payload }.encode(&mut requests);
    }
    requests
}

fn matching(criterion: &mut Criterion) {
    // One thread, because the scheduling between several threads would dominate the measurement.
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let signals = signals();
    let mut group = criterion.benchmark_group("100 signals");
    group.sample_size(30);
    group.throughput(Throughput::Elements(BATCH as u64));
    for others in [10_usize, 1_000, 100_000] {
        for (kind, pattern) in [
            ("exact subscriptions to other channels", "orders.{}.paid"),
            ("wildcard subscriptions to other channels", "orders.{}.paid.*"),
        ] {
            let (server, _listens, mut publisher) = runtime.block_on(async {
                let server = Server::builder().release("1.16").port(0).start().await.unwrap();
                let address = server.local_addr().to_string();
                let listens = other_subscriber(&address, others, |n| pattern.replace("{}", &n.to_string())).await;
                (server, listens, TcpStream::connect(address).await.unwrap())
            });
            group.bench_function(BenchmarkId::new(kind, others), |bencher| {
                bencher.iter(|| runtime.block_on(exchange(&mut publisher, &signals, BATCH)));
            });
            drop(server);
        }
    }
    group.finish();
}

criterion_group!(benches, matching);
criterion_main!(benches);
