//! Measures how long 1, 10 and 100 concurrent tasks take until each task has acquired and released a lock of its own.
//! The embedded server runs in this process.
#![allow(clippy::unwrap_used, missing_docs)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dflockd_client::server::Server;
use dflockd_client::{Client, Lock};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

async fn pair(lock: &Lock) {
    lock.acquire().await.unwrap().release().await.unwrap();
}

fn pairs(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let (_server, client) = runtime.block_on(async {
        let server = Server::builder().port(0).max_locks(1_000_000).start().await.unwrap();
        let servers = [server.local_addr().to_string()];
        let client = Client::builder().servers(servers).connect().await.unwrap();
        (server, client)
    });
    let mut group = criterion.benchmark_group("acquire and release");
    group.sample_size(30);
    for tasks in [1_usize, 10, 100] {
        let locks: Vec<Lock> = (0..tasks)
            .map(|task| client.lock(format!("bench/{task}")).unwrap())
            .collect();
        group.throughput(Throughput::Elements(tasks as u64));
        group.bench_function(BenchmarkId::new("tasks", tasks), |bencher| {
            bencher.to_async(&runtime).iter(|| {
                let locks = locks.clone();
                async move {
                    let mut running: JoinSet<()> =
                        locks.into_iter().map(|lock| async move { pair(&lock).await }).collect();
                    while let Some(finished) = running.join_next().await {
                        finished.unwrap();
                    }
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, pairs);
criterion_main!(benches);
