//! Measures single parts of the client, and the embedded server. The parts are a connection over a pipe in memory, a
//! shard without connections, and the registry of its leases.
#![allow(clippy::unwrap_used, missing_docs)]

mod server;

use bytes::BytesMut;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dflockd_client::measure::{HeldLeases, LoneShard, PipelinedLane};
use dflockd_client::protocol::{Request, RequestDecoder, Response};
use dflockd_client::{Key, Kind, Target, Token, Ttl, WaitSecs};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::runtime::Builder;

use self::server::server;

/// A busy client has this many concurrent callers. Each of them sends one request.
const CROWD: usize = 100;

/// Returns [`CROWD`] requests: an acquire and a release for each key.
fn requests() -> Vec<Request> {
    let token = Token::new("00000000000000070123456789abcdef").unwrap();
    let acquire = |key| Request::Acquire {
        target: Target::Lock,
        key,
        wait: WaitSecs::TRY,
        ttl: Ttl::from_secs(30),
    };
    let release = |key| Request::Release {
        kind: Kind::Lock,
        key,
        token,
    };
    let keys = (0..CROWD / 2).map(|number| Key::new(format!("orders/{number}")).unwrap());
    keys.flat_map(|key| [acquire(key.clone()), release(key)]).collect()
}

/// Acts as the server: reads requests and answers each of them.
async fn answer(mut stream: DuplexStream) {
    let (mut decoder, mut out) = (RequestDecoder::default(), BytesMut::new());
    while stream.read_buf(decoder.read_space()).await.is_ok_and(|count| count > 0) {
        while let Some(request) = decoder.next_request().unwrap() {
            let response = match request {
                Request::Acquire { .. } => grant(),
                _ => Response::Done,
            };
            response.encode(&mut out);
        }
        stream.write_all(&out).await.unwrap();
        out.clear();
    }
}

fn grant() -> Response {
    let token = Token::new("00000000000000070123456789abcdef").unwrap();
    Response::Granted(dflockd_client::Grant::new(token, Ttl::DEFAULT))
}

fn lane(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let mut group = criterion.benchmark_group("connection over a pipe in memory");
    group.throughput(Throughput::Elements(CROWD as u64));
    let requests = requests();
    let mut lane = runtime.block_on(async {
        let (near, far) = duplex(64 * 1024);
        tokio::spawn(answer(far));
        PipelinedLane::new(near)
    });
    group.bench_function("100 requests and their answers", |bencher| {
        bencher.iter(|| {
            let answered = runtime.block_on(lane.ask_all(requests.iter().cloned()));
            assert_eq!(answered, CROWD);
        });
    });
    group.finish();
}

fn shard(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("shard without connections");
    for callers in [1, CROWD] {
        let mut shard = LoneShard::new(callers);
        group.throughput(Throughput::Elements(shard.pairs() as u64));
        group.bench_function(BenchmarkId::new("inputs of pairs, callers", callers), |bencher| {
            bencher.iter(|| shard.pairs());
        });
    }
    group.finish();
}

fn registry(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("registry of leases");
    for leases in [100, 100_000] {
        let mut held = HeldLeases::new(leases);
        group.bench_function(BenchmarkId::new("insert and remove, beside", leases), |bencher| {
            bencher.iter(|| held.insert_and_remove());
        });
        group.bench_function(BenchmarkId::new("renew the next, of", leases), |bencher| {
            bencher.iter(|| assert!(held.renew_next() > 0));
        });
    }
    group.finish();
}

criterion_group!(benches, lane, server, shard, registry);
criterion_main!(benches);
