//! Measures the protocol code without a network: how fast it encodes requests, decodes responses, and decodes requests.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use dflockd_client::protocol::{Expect, LineBuffer, MAX_RESPONSE_LINE, Request, RequestDecoder, Response};
use dflockd_client::{Fence, Grant, Key, Kind, Target, Token, Ttl, WaitSecs};

/// The number of requests or responses that one iteration encodes or decodes. A busy connection writes about this many
/// requests at once.
const BATCH: usize = 100;

fn requests() -> Vec<Request> {
    let token = Token::new("00000000000000070123456789abcdef").unwrap();
    (0..BATCH)
        .map(|number| {
            let key = Key::new(format!("orders/{number}")).unwrap();
            if number % 2 == 0 {
                Request::Acquire {
                    target: Target::Lock,
                    key,
                    wait: WaitSecs::TRY,
                    ttl: Ttl::from_secs(30),
                }
            } else {
                Request::Release {
                    kind: Kind::Lock,
                    key,
                    token,
                }
            }
        })
        .collect()
}

fn responses() -> BytesMut {
    let mut bytes = BytesMut::new();
    for number in 0..BATCH as u64 {
        let response = if number % 2 == 0 {
            let token = Token::new(format!("{number:016x}0123456789abcdef")).unwrap();
            let mut grant = Grant::new(token, Ttl::DEFAULT);
            grant.fence = Some(Fence(number));
            Response::Granted(grant)
        } else {
            Response::Done
        };
        response.encode(&mut bytes);
    }
    bytes
}

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Elements(BATCH as u64));

    let requests = requests();
    let mut out = BytesMut::with_capacity(64 * 1024);
    group.bench_function("encode 100 requests", |bencher| {
        bencher.iter(|| {
            out.clear();
            for request in &requests {
                black_box(request).encode(&mut out);
            }
            out.len()
        });
    });

    let bytes = responses();
    group.bench_function("decode 100 responses", |bencher| {
        bencher.iter_batched_ref(
            || {
                let mut lines = LineBuffer::new();
                lines.extend(&bytes);
                lines
            },
            |lines| {
                let mut expect = [Expect::Grant, Expect::Done].into_iter().cycle();
                while let Some(line) = lines.next_line(MAX_RESPONSE_LINE).unwrap() {
                    black_box(Response::decode(expect.next().unwrap(), line).unwrap());
                }
            },
            BatchSize::SmallInput,
        );
    });

    let mut sent = BytesMut::new();
    requests.iter().for_each(|request| request.encode(&mut sent));
    group.bench_function("decode 100 requests (server)", |bencher| {
        bencher.iter_batched_ref(
            || {
                let mut decoder = RequestDecoder::default();
                decoder.read_space().extend_from_slice(&sent);
                decoder
            },
            |decoder| {
                while let Some(request) = decoder.next_request().unwrap() {
                    black_box(request);
                }
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
